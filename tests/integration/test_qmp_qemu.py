"""The QMP client against a real QEMU, which needs neither root nor KVM nor a guest."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from placematd.errors import StepError, TimedOut
from placematd.qmp import QmpClient, QmpError, QmpEvent

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="apt-get install qemu-system-x86"),
]


@asynccontextmanager
async def qemu(path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A QEMU without devices whose CPUs do not run."""
    options = "-accel tcg -S -nodefaults -display none -m 16"
    process = await asyncio.create_subprocess_exec(
        *("qemu-system-x86_64", *options.split(), "-qmp", f"unix:{path},server=on,wait=off")
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def connect(path: Path, on_event: "asyncio.Queue[QmpEvent] | None" = None) -> QmpClient:
    """Connect as soon as QEMU listens."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await QmpClient.connect(path, on_event=on_event.put_nowait if on_event else None)
            except StepError:
                await asyncio.sleep(0.02)


def test_life_of_a_monitor(tmp_path: Path) -> None:
    path = tmp_path / "qmp"

    async def main() -> None:
        events: asyncio.Queue[QmpEvent] = asyncio.Queue()
        async with qemu(path) as process:
            client = await connect(path, events)
            assert await client.query_status() == "prelaunch"
            await client.cont()
            assert (await events.get()).name == "RESUME"
            assert await client.query_status() == "running"
            await client.execute("stop")
            assert (await events.get()).name == "STOP"
            await client.system_reset()
            reset = await events.get()
            assert (reset.name, reset.data["guest"], reset.data["reason"]) == ("RESET", False, "host-qmp-system-reset")
            await client.inject_nmi()
            await client.system_powerdown()
            assert (await events.get()).name == "POWERDOWN"

            with pytest.raises(QmpError, match="The command self-destruct has not been found") as caught:
                await client.execute("self-destruct")
            assert caught.value.error_class == "CommandNotFound"

            schema, cpus = await asyncio.gather(client.execute("query-qmp-schema"), client.execute("query-cpus-fast"))
            assert isinstance(schema, list)
            assert len(schema) > 100
            assert isinstance(cpus, list)
            assert len(cpus) == 1

            with pytest.raises(TimedOut, match="one client at a time"):
                await QmpClient.connect(path, timeout_seconds=0.3)

            await client.quit()
            assert (await events.get()).name == "SHUTDOWN"
            assert await process.wait() == 0
            with pytest.raises(StepError, match="QEMU closed the connection"):
                await client.query_status()
            await client.close()

    asyncio.run(main())


def test_monitor_can_be_left_and_entered_again(tmp_path: Path) -> None:
    path = tmp_path / "qmp"

    async def main() -> None:
        async with qemu(path):
            for _ in range(3):
                client = await connect(path)
                assert await client.query_status() == "prelaunch"
                await client.close()

    asyncio.run(main())


def test_qemu_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "qmp"

    async def main() -> None:
        async with qemu(path) as process:
            client = await connect(path)
            process.kill()
            with pytest.raises(StepError):
                while True:
                    await client.query_status()
            assert not client.connected
            await client.close()

    asyncio.run(main())
