"""The console hub on a real QEMU, with a boot sector as its guest: no root, no KVM."""

import asyncio
import shutil
from contextlib import suppress
from pathlib import Path

import boot_sector
import pytest

from placematd.console import ConsoleHub, Viewer
from placematd.errors import StepError
from placematd.qmp import QmpClient

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="apt-get install qemu-system-x86"),
]

LINES = 2000


async def start_qemu(tmp_path: Path) -> asyncio.subprocess.Process:
    disk = boot_sector.write(tmp_path / "disk", LINES)
    serial = f"socket,id=console,path={tmp_path}/console,server=on,wait=off"
    monitor = f"unix:{tmp_path}/qmp,server=on,wait=off"
    argv = ["qemu-system-x86_64", *disk, "-S", "-qmp", monitor, "-chardev", serial, "-serial", "chardev:console"]
    return await asyncio.create_subprocess_exec(*argv)


async def run_when_connected(tmp_path: Path) -> None:
    """Let the guest run as soon as the hub is connected: before that, QEMU throws away what it prints."""
    monitor = None
    while monitor is None:
        with suppress(StepError):
            monitor = await QmpClient.connect(tmp_path / "qmp")
        await asyncio.sleep(0.02)
    while "disconnected:" in str(await monitor.execute("query-chardev")):
        await asyncio.sleep(0.02)
    await monitor.cont()
    await monitor.close()


async def read_until(viewer: Viewer, text: str) -> str:
    seen = ""
    while text not in seen:
        data = await viewer.read()
        assert data
        seen += data.decode()
    return seen


def test_viewers_of_a_guest_see_it_type_to_it_and_see_it_restart(tmp_path: Path) -> None:
    async def main() -> None:
        hub = ConsoleHub(tmp_path / "console")
        viewers = [hub.view(), hub.view()]
        for _ in range(2):
            hub.attach()
            qemu = await start_qemu(tmp_path)
            try:
                await run_when_connected(tmp_path)
                last = boot_sector.line(LINES - 1)
                seen = [await read_until(viewer, last + "\r\n") for viewer in viewers]
                assert seen[0] == seen[1]
                assert seen[0].split()[-LINES:] == [boot_sector.line(number) for number in range(LINES)]
                await viewers[0].write(b"typed by one, ")
                await read_until(viewers[0], "one, ")
                await viewers[1].write(b"then by another")
                assert (await read_until(viewers[1], "another")).endswith("typed by one, then by another")
                await read_until(viewers[0], "another")
                late = hub.view()
                assert (await late.read()).endswith(b"then by another")
                late.close()
            finally:
                qemu.kill()
                await qemu.wait()
            for viewer in viewers:
                assert "console disconnected" in await read_until(viewer, "]\r\n")
        await hub.close()

    asyncio.run(asyncio.wait_for(main(), 120))
