"""The CD-ROM drive of a running QEMU: media come in as open files, since QEMU's sandbox has no path to them.

QMP commands and their order: docs/interop/qemu-qmp-ref of QEMU 7.2 (add-fd, blockdev-insert-medium).
"""

from contextlib import suppress

from ..errors import StepError
from ..qmp import Json
from .boot import Monitor


async def medium_in(monitor: Monitor, device: str) -> str | None:
    """The block node that is in the drive; None where it is empty. Raises StepError."""
    answer = await monitor.execute("query-block")
    drives = answer if isinstance(answer, list) else []
    for drive in drives:
        if isinstance(drive, dict) and str(drive.get("qdev", "")).split("/")[-1] == device:
            inserted = drive.get("inserted")
            return str(inserted.get("node-name", "")) if isinstance(inserted, dict) else None
    return None


async def insert(monitor: Monitor, device: str, fd: int) -> None:
    """Put an open file into the drive, in place of what is there, as a disc that cannot be written.

    `fd` stays the caller's. Raises StepError; the drive is empty then.
    """
    await remove(monitor, device)
    added = await monitor.execute("add-fd", fd=fd)
    if not isinstance(added, dict) or not isinstance(number := added.get("fdset-id"), int):
        raise StepError(f"insert a medium into {device}", f"add-fd answered {added}")
    node = f"media{number}"
    file: dict[str, Json] = {"driver": "file", "filename": f"/dev/fdset/{number}", "read-only": True}
    try:
        await monitor.execute("blockdev-add", {"driver": "raw", "node-name": node, "read-only": True, "file": file})
    finally:
        # The block node has a descriptor of its own; the set goes when that is closed.
        await monitor.execute("remove-fd", {"fdset-id": number})
    try:
        await monitor.execute("blockdev-open-tray", {"id": device, "force": True})
        await monitor.execute("blockdev-insert-medium", {"id": device, "node-name": node})
        await monitor.execute("blockdev-close-tray", {"id": device})
    except StepError:
        with suppress(StepError):
            await remove(monitor, device)
        with suppress(StepError):
            await monitor.execute("blockdev-del", {"node-name": node})
        raise


async def remove(monitor: Monitor, device: str) -> None:
    """Empty the drive, also one that the guest has locked. Raises StepError."""
    node = await medium_in(monitor, device)
    if node is None:
        return
    await monitor.execute("blockdev-open-tray", {"id": device, "force": True})
    await monitor.execute("blockdev-remove-medium", {"id": device})
    await monitor.execute("blockdev-close-tray", {"id": device})
    if node:
        await monitor.execute("blockdev-del", {"node-name": node})
