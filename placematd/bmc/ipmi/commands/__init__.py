"""The IPMI commands of a BMC, whichever way they come in.

commands = Commands(machine, accounts, sessions, on_reset=...)
reply = await commands.execute(request)
"""

import logging
import time
from collections.abc import Mapping

from ....errors import NotFound, PlacematError, WrongState
from ...accounts import Accounts
from ...machine import Machine
from ...remote import Away
from ..request import Code, CommandError, Reply, Request
from ..sessions import SessionTable
from .app import App, OnReset
from .bootflags import BootFlags
from .bootoptions import BootOptions
from .channels import Channels
from .chassis import Chassis
from .fru import Fru
from .lan import LanConfiguration
from .pef import Pef
from .sdr import Sdr
from .sel import Sel
from .sensors import Sensors
from .settings import Clock, Now, Settings
from .systeminfo import SystemInfo
from .table import Area, Row
from .users import Users
from .watchdog import WatchdogTimer

__all__ = ["Commands", "OnReset"]

log = logging.getLogger("placemat.bmc")


class Commands:
    """All commands but those that need the table of sessions; those are the LAN server's.

    `accounts` must have been loaded. `on_reset` does what Cold Reset (True) and Warm Reset (False) ask for, after the
    answer was sent. `now` gives seconds since 1970.
    """

    def __init__(
        self,
        machine: Machine,
        accounts: Accounts,
        sessions: SessionTable,
        on_reset: OnReset | None = None,
        now: Now = time.time,
    ) -> None:
        settings = Settings(machine)
        self._flags = BootFlags(machine, settings, now)
        areas: tuple[Area, ...] = (
            App(machine, settings, on_reset),
            WatchdogTimer(machine),
            SystemInfo(machine, settings),
            Channels(sessions),
            Users(accounts),
            Chassis(machine, settings, self._flags.keep),
            BootOptions(settings, self._flags),
            Sensors(machine),
            Sdr(),
            Sel(machine, settings, Clock(settings, now)),
            Fru(machine),
            LanConfiguration(machine),
            Pef(),
        )
        self.table: Mapping[tuple[int, int], Row] = {
            (row.netfn, row.command): row for area in areas for row in area.rows()
        }
        """Every command by network function and number."""
        self._resumed = False
        self._broken: set[tuple[int, int]] = set()

    @property
    def waiting(self) -> bool:
        """Whether the process must not exit yet: boot flags expire within a minute."""
        return self._flags.waiting

    async def resume(self) -> None:
        """Take up what an earlier process left unfinished; `execute` does it too."""
        await self._flags.resume()
        self._resumed = True

    async def execute(self, request: Request) -> Reply:
        """Answer one request. Never raises; what is not known is an invalid command."""
        try:
            return await self._execute(request)
        except CommandError as refusal:
            return Reply(code=refusal.code)
        except WrongState:
            return Reply(code=Code.NOT_IN_PRESENT_STATE)
        except NotFound:
            return Reply(code=Code.NOT_PRESENT)
        except Away as error:  # placematd is restarted: asking again helps
            self._log_once(request, "%s", error)
            return Reply(code=Code.NODE_BUSY)
        except PlacematError as error:
            self._log_once(request, "%s", error)
        except Exception:  # a client must not be able to end the process, whatever it sends
            self._log_once(request, "failed", exc_info=True)
        return Reply(code=Code.UNSPECIFIED)

    async def _execute(self, request: Request) -> Reply:
        row = self.table.get((request.netfn, request.command))
        if row is None:
            raise CommandError(Code.INVALID_COMMAND)
        row.check(request)
        if request.lun:
            raise CommandError(Code.INVALID_FOR_LUN)
        if not self._resumed:
            await self.resume()
        reply = await row.handler(request)
        self._broken.discard((row.netfn, row.command))
        return reply

    def _log_once(self, request: Request, what: str, *arguments: object, exc_info: bool = False) -> None:
        """Log a failure, once until the command works again: clients repeat themselves."""
        key = (request.netfn, request.command)
        if key not in self._broken:
            self._broken.add(key)
            log.error("IPMI command %02X/%02X: " + what, *key, *arguments, exc_info=exc_info)
