"""The machine of a BMC's process: asks placematd over the socket of the node.

placematd can be restarted meanwhile. A call waits for it a while; a call that was under way when placematd went is
made again where that does no harm, and otherwise fails saying that nobody knows whether it was done.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

from ..errors import PlacematError, StepError, TimedOut
from ..varlink import Client, Gone, Object
from . import wire
from .machine import (
    BootOverride,
    Firmware,
    FirmwareOffer,
    Health,
    Inventory,
    Json,
    Limits,
    Login,
    MachineEvent,
    Media,
    PowerAction,
    PowerState,
    Progress,
    RestartCause,
    SelEntry,
    Watchdog,
)
from .wire import Method

WAIT_SECONDS = 5.0
"""How long a call waits for placematd to come back."""

CALL_SECONDS = 120.0
"""How long placematd may take for a call: a start or stop of QEMU is the longest."""

RETRY_SECONDS = 0.1
CALLS_AT_ONCE = 12

log = logging.getLogger("placemat.bmc")

R = TypeVar("R")


class Away(StepError):
    """placematd does not answer."""

    def __init__(self, answer: str) -> None:
        super().__init__("ask placematd", answer, "is placemat@CLUSTER.service running?")


class RemoteConsole:
    """The console as a stream; it ends when placematd does."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def read(self) -> bytes:
        """The next bytes; b"" at the end."""
        try:
            return await self._client.reader.read(64 << 10)
        except OSError:
            return b""

    async def write(self, data: bytes) -> None:
        """Type; raises Away where the console has ended."""
        try:
            self._client.writer.write(data)
            await self._client.writer.drain()
        except OSError as error:
            raise Away("the console has ended") from error

    async def close(self) -> None:
        """Leave."""
        self._client.close()


class RemoteMachine:
    """See `Machine`; `path` is the socket that `placematd.baseboard.serve` listens on."""

    def __init__(self, path: Path, *, wait_seconds: float = WAIT_SECONDS) -> None:
        self._path, self._wait_seconds = path, wait_seconds
        self._places = asyncio.Semaphore(CALLS_AT_ONCE)

    async def inventory(self) -> Inventory:
        """What the machine is."""
        return await self._call(wire.INVENTORY)

    async def health(self) -> Health:
        """Live readings."""
        return await self._call(wire.HEALTH)

    async def power_state(self) -> PowerState:
        """Whether there is power."""
        return await self._call(wire.POWER_STATE)

    async def power(self, action: PowerAction, cause: RestartCause = "chassis-control") -> None:
        """Switch."""
        again = action in ("on", "off", "soft-off")
        await self._call(wire.POWER, again=again, action=action, cause=cause)

    async def restart_cause(self) -> RestartCause:
        """Why the machine started last."""
        return await self._call(wire.RESTART_CAUSE)

    async def power_on_hours(self) -> float:
        """Hours that the machine has had power."""
        return await self._call(wire.POWER_ON_HOURS)

    async def boot(self) -> BootOverride:
        """The boot override."""
        return await self._call(wire.BOOT)

    async def set_boot(self, override: BootOverride) -> None:
        """Change the boot override. Not made again: Once may have been used up by a boot in between."""
        await self._call(wire.SET_BOOT, again=False, override=override)

    async def sel(self) -> Sequence[SelEntry]:
        """The system event log."""
        return await self._call(wire.SEL)

    async def add_sel(self, data: bytes, message: str, severity: str = "OK") -> int:
        """Append to the log."""
        return await self._call(wire.ADD_SEL, again=False, data=data, message=message, severity=severity)

    async def clear_sel(self) -> None:
        """Empty the log."""
        await self._call(wire.CLEAR_SEL, again=False)

    async def watchdog(self) -> Watchdog:
        """The watchdog."""
        return await self._call(wire.WATCHDOG)

    async def set_watchdog(self, watchdog: Watchdog) -> None:
        """Set the watchdog."""
        await self._call(wire.SET_WATCHDOG, watchdog=watchdog)

    async def firmware(self) -> tuple[Firmware, Firmware, FirmwareOffer]:
        """Settings in force, settings from the next start on, boot modes offered."""
        return await self._call(wire.FIRMWARE)

    async def set_firmware(self, firmware: Firmware) -> None:
        """Change the settings from the next start on."""
        await self._call(wire.SET_FIRMWARE, firmware=firmware)

    async def limits(self) -> Limits:
        """What the cluster file says about this BMC."""
        return await self._call(wire.LIMITS)

    async def logged_in(self, login: Login) -> None:
        """Tell that somebody logged in."""
        await self._call(wire.LOGGED_IN, login=login)

    async def identify(self, seconds: float | None) -> None:
        """Light the identify LED."""
        await self._call(wire.IDENTIFY, seconds=seconds)

    async def identifying(self) -> bool:
        """Whether the LED is lit."""
        return await self._call(wire.IDENTIFYING)

    async def media(self) -> Sequence[Media]:
        """The virtual media slots."""
        return await self._call(wire.MEDIA)

    async def eject_media(self, slot: str) -> None:
        """Take the image out."""
        await self._call(wire.EJECT_MEDIA, slot=slot)

    async def load(self, section: str) -> Json:
        """A section of the durable settings."""
        return await self._call(wire.LOAD, section=section)

    async def save(self, section: str, value: Mapping[str, Any]) -> None:
        """Replace a section."""
        await self._call(wire.SAVE, section=section, value=value)

    async def console(self) -> RemoteConsole:
        """Open the serial console."""
        client = await self._connect()
        try:
            async with asyncio.timeout(CALL_SECONDS):
                await client.upgrade(wire.CONSOLE.full_name, {})
        except BaseException as error:
            client.close()
            if isinstance(error, OSError | ValueError):
                raise Away(str(error)) from error
            raise
        return RemoteConsole(client)

    async def insert_media(self, slot: str, image: str, write_protected: bool = True) -> AsyncIterator[Progress]:
        """Load an image and insert it; closing the iterator gives up."""
        parameters: Object = {"slot": slot, "image": image, "write_protected": write_protected}
        client = await self._connect()
        try:
            async with aclosing(client.stream(wire.INSERT_MEDIA.full_name, parameters)) as replies:
                async for reply in replies:
                    yield _decoded(Progress, reply.get("progress"))
        except (OSError, ValueError) as error:
            raise Away(f"it went away while {image} was being loaded") from error
        finally:
            client.close()

    async def events(self) -> AsyncIterator[MachineEvent]:
        """What changes, for ever. After a restart of placematd the power state is told anew if it is another."""
        told: str | None = None
        while True:
            client = await self._connect(wait_seconds=float("inf"))
            try:
                async with aclosing(client.stream(wire.EVENTS.full_name, {})) as replies:
                    async for reply in replies:
                        event = _decoded(MachineEvent, reply["event"]) if reply else await self._power_event()
                        news = bool(reply) or told not in (None, event.value)
                        told = event.value if event.kind == "power" else told
                        if news:
                            yield event
            except (OSError, ValueError, KeyError, PlacematError) as error:
                log.debug("event stream: %s", error)
            finally:
                client.close()
            await asyncio.sleep(RETRY_SECONDS)

    async def _power_event(self) -> MachineEvent:
        return MachineEvent(kind="power", value=await self.power_state())

    async def _call(self, method: Method[R], *, again: bool = True, **arguments: object) -> R:
        """Call; where placematd goes away in the middle, once more if `again`."""
        parameters = {name: wire.encode(value) for name, value in arguments.items()}
        try:
            async with self._places:
                try:
                    return await self._call_once(method, parameters)
                except Gone as error:
                    if not again:
                        raise Away("it went away in the middle; nobody knows whether it was done") from error
                    return await self._call_once(method, parameters)
        except (Gone, ValueError, TypeError, KeyError) as error:
            raise Away(f"no answer to {method.name}: {error}") from error

    async def _call_once(self, method: Method[R], parameters: Object) -> R:
        client = await self._connect()
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return method.decode_result(await client.call(method.full_name, parameters))
        except TimeoutError:
            raise TimedOut(method.name, f"placematd has not answered within {CALL_SECONDS:.0f} s") from None
        finally:
            client.close()

    async def _connect(self, wait_seconds: float | None = None) -> Client:
        """Connect, trying again for a while; raises Away."""
        loop = asyncio.get_running_loop()
        until = loop.time() + (self._wait_seconds if wait_seconds is None else wait_seconds)
        while True:
            try:
                return await Client.connect(self._path)
            except OSError as error:
                if loop.time() >= until:
                    raise Away(f"it is away: {error.strerror}") from error
            await asyncio.sleep(RETRY_SECONDS)


def _decoded(kind: type[R], value: object) -> R:
    """A record; raises ValueError."""
    try:
        record = wire.decode(kind, value)
    except (TypeError, KeyError) as error:
        raise ValueError(str(error)) from error
    if not isinstance(record, kind):
        raise ValueError(f"not a {kind.__name__}")
    return record
