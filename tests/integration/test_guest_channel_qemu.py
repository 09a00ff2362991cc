"""The guest channel with a real Linux guest that writes to /dev/virtio-ports/placemat: no root, no KVM."""

import asyncio
import shutil
from pathlib import Path

import guests
import pytest

from placematd.guest import BURST_LINES, GuestChannel

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="apt-get install qemu-system-x86"),
]


def test_what_a_guest_writes(tmp_path: Path) -> None:
    async def main(guest: guests.Guest) -> None:
        async def in_guest(command: str) -> None:
            await asyncio.to_thread(guest.console.run, command)

        lines: asyncio.Queue[bytes] = asyncio.Queue()
        problems: asyncio.Queue[str] = asyncio.Queue()
        channel = GuestChannel(tmp_path / "guest", lines.put_nowait, problems.put_nowait, lambda: 0.0)
        channel.attach()

        await in_guest("echo 172.16.1.9 > /dev/virtio-ports/placemat")
        assert await lines.get() == b"172.16.1.9"

        await in_guest("(head -c 9000 /dev/zero; printf '\\n\\377\\n') > /dev/virtio-ports/placemat")
        assert "more than 256 bytes" in await problems.get()
        assert await lines.get() == b"\xff"

        # What is written while placematd is away waits in the guest.
        await channel.detach()
        await in_guest("{ echo 172.16.1.10 > /dev/virtio-ports/placemat & }")
        channel.attach()
        assert await lines.get() == b"172.16.1.10"

        await in_guest("{ yes flood | head -n 20000 > /dev/virtio-ports/placemat & }")
        assert "lines a second" in await problems.get()
        assert lines.qsize() <= BURST_LINES
        await in_guest("echo alive")
        assert problems.empty()
        await channel.detach()

    with guests.Guest(guests.images().direct(), tmp_path) as guest:
        guest.port.close()  # QEMU serves one client
        guest.console.expect("^placemat-guest: ready$")
        guest.console.send("\n")
        asyncio.run(asyncio.wait_for(main(guest), 120))
