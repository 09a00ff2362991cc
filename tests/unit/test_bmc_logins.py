"""Logins reach placematd without anybody waiting for it."""

import asyncio

from fakes.machine import FakeMachine

from placematd.bmc.logins import AGAIN_SECONDS, Logins
from placematd.bmc.machine import Login
from placematd.errors import StepError

HERE = Login(user="admin", protocol="IPMI", remote="192.0.2.1:40000")
THERE = Login(user="admin", protocol="Redfish", remote="192.0.2.2:40000")


class Machine(FakeMachine):
    """Answers when it may, or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.logins: list[Login] = []
        self.may = asyncio.Event()
        self.broken = False

    async def logged_in(self, login: Login) -> None:
        await self.may.wait()
        if self.broken:
            raise StepError("ask placematd", "it is away")
        self.logins.append(login)


def test_each_login_is_told_and_repeated_ones_once_in_a_while() -> None:
    async def scenario() -> list[Login]:
        machine, now = Machine(), [0.0]
        machine.may.set()
        logins = Logins(machine, clock=lambda: now[0])
        for login in (HERE, HERE, THERE, THERE):
            logins.note(login)
            await asyncio.sleep(0.01)
        now[0] = AGAIN_SECONDS
        logins.note(THERE)
        await asyncio.sleep(0.01)
        return machine.logins

    assert asyncio.run(scenario()) == [HERE, THERE, THERE]


def test_a_slow_machine_is_told_of_the_last_and_one_that_is_away_is_forgiven() -> None:
    async def scenario() -> list[Login]:
        machine = Machine()
        logins = Logins(machine)
        for number in range(100):
            logins.note(Login(user=f"u{number}", protocol="IPMI", remote="192.0.2.1:1"))
            await asyncio.sleep(0)
        machine.may.set()
        await asyncio.sleep(0.01)
        machine.broken = True
        logins.note(HERE)
        await asyncio.sleep(0.01)
        machine.broken = False
        logins.note(THERE)
        await asyncio.sleep(0.01)
        return machine.logins

    assert [login.user for login in asyncio.run(scenario())] == ["u0", "u99", "admin"]
