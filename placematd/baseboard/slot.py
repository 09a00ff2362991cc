"""The virtual media slot of a node: a CD-ROM drive whose disc comes from a server or a folder."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from pathlib import Path

from ..bmc.machine import Media, Progress
from ..errors import NotFound, PlacematError, WrongState
from ..image.http import Limits, redacted
from ..qemu import CD
from . import drive
from .boot import Monitor
from .identity import Identity
from .media import fetch, is_url, open_allowed, open_image
from .store import Store, StoredMedia

SLOT = "Cd"


class VirtualMedia:
    """`monitor` gives the monitor of the QEMU that runs, None while there is none; `tell` is called after a change."""

    def __init__(
        self,
        store: Store,
        identity: Callable[[], Identity],
        monitor: Callable[[], Monitor | None],
        tell: Callable[[str], None],
    ) -> None:
        self._store, self._identity, self._monitor, self._tell = store, identity, monitor, tell
        self._loading = False
        self._loaded = asyncio.Event()
        self._loaded.set()
        self._one_at_a_time = asyncio.Lock()

    @property
    def media(self) -> Media:
        """What is in the slot."""
        stored = self._stored
        return Media(slot=SLOT, image=stored.image, inserted=True) if stored else Media(slot=SLOT)

    @property
    def _stored(self) -> StoredMedia | None:
        return self._store.state.media.get(SLOT)

    @property
    def _download(self) -> Path:
        return self._store.path.parent / "media" / f"{self._store.path.stem}-{SLOT.lower()}.img"

    async def insert(self, slot: str, image: str, write_protected: bool) -> AsyncIterator[Progress]:
        """Load and insert; who stops listening before the end cancels it.

        Raises PlacematError, and the slot is empty then.
        """
        self._check(slot)
        if not write_protected:
            raise PlacematError(f"slot {SLOT}: a disc in it can only be write-protected")
        if self._stored or self._loading:
            raise WrongState(f"slot {SLOT} has a medium; eject it first")
        self._loading = True
        self._loaded.clear()
        try:
            if is_url(image):
                medium = StoredMedia(image=redacted(image), path=str(self._download), downloaded=True)
                async with aclosing(fetch(image, self._download, Limits())) as steps:
                    async for progress in steps:
                        yield progress
            else:
                real, descriptor = await asyncio.to_thread(open_allowed, Path(image), self._identity().media_folder)
                size = os.fstat(descriptor).st_size
                os.close(descriptor)
                medium = StoredMedia(image=image, path=str(real))
                yield Progress(done=size, total=size)
            await asyncio.shield(self._put(medium))  # half inserted is no state to be left in
        finally:
            self._loading = False
            self._loaded.set()

    async def loaded(self) -> None:
        """Wait until no image is on its way any more; a download that stalls ends by itself."""
        await self._loaded.wait()

    async def eject(self, slot: str) -> None:
        """Empty the slot, whatever its guest does with it. Raises PlacematError."""
        self._check(slot)
        async with self._one_at_a_time:
            medium = self._stored
            if medium is None:
                return
            if monitor := self._monitor():
                await drive.remove(monitor, CD)
            await self._forget(medium)
        self._tell(SLOT)

    async def attach(self, monitor: Monitor) -> str:
        """A new QEMU: give it what is in the slot. Returns why the medium is gone, "" where it is not.

        Raises StepError where QEMU refuses.
        """
        async with self._one_at_a_time:
            medium = self._stored
            if medium is None:
                if not self._loading:  # whoever was killed between fetching and inserting left it
                    with suppress(OSError):
                        await asyncio.to_thread(self._download.unlink, missing_ok=True)
                return ""
            try:
                descriptor = await self._open(medium)
            except PlacematError as error:
                await self._forget(medium)
                self._tell(SLOT)
                return f"{medium.image} was ejected: {error}"
            try:
                await drive.insert(monitor, CD, descriptor)
            finally:
                os.close(descriptor)
            return ""

    async def adopt(self, monitor: Monitor) -> str:
        """A QEMU that runs already: see that its drive holds what the slot does. As `attach`."""
        inside = await drive.medium_in(monitor, CD)
        if inside is None and self._stored:
            return await self.attach(monitor)
        if inside is not None and not self._stored:
            await drive.remove(monitor, CD)
        return ""

    async def _put(self, medium: StoredMedia) -> None:
        async with self._one_at_a_time:
            try:
                if monitor := self._monitor():
                    descriptor = await self._open(medium)
                    try:
                        await drive.insert(monitor, CD, descriptor)
                    finally:
                        os.close(descriptor)
                self._store.change(media={**self._store.state.media, SLOT: medium})
                await self._store.commit()
            except BaseException:
                await self._forget(medium)
                raise
        self._tell(SLOT)

    async def _open(self, medium: StoredMedia) -> int:
        if medium.downloaded:
            return await asyncio.to_thread(open_image, Path(medium.path))
        folder = self._identity().media_folder
        return (await asyncio.to_thread(open_allowed, Path(medium.path), folder))[1]

    async def _forget(self, medium: StoredMedia) -> None:
        rest = {slot: media for slot, media in self._store.state.media.items() if slot != SLOT}
        self._store.change(media=rest)
        await self._store.commit()
        if medium.downloaded:
            with suppress(OSError):  # root's own directory: it is gone, or the disk is broken, which others tell
                await asyncio.to_thread(Path(medium.path).unlink, missing_ok=True)

    def _check(self, slot: str) -> None:
        if slot != SLOT:
            raise NotFound(f"no virtual media slot {slot[:40]}")
