"""Images in the cache: fetched or copied once for all clusters, verified, decompressed, and kept up to date."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import StepError
from ..names import OwnerMark
from ..resources import CachedImage, Kind
from .cache import Entry, ImageInfo, Record, entries, list_images, open_directory, prune
from .fetch import Fetch, Surroundings, file_unchanged
from .http import Limits

__all__ = ["ImageInfo", "Images", "Limits", "Surroundings", "list_images", "prune"]


class Images:
    """The adapter of kind "image".

    An image exists, for `observe`, once this process has made sure that it is the newest: so each start asks the
    server, and a reload does not. A server that tells neither ETag nor Last-Modified is not asked again, and for an
    image with `sha256` there is nothing to ask.
    """

    kind: Kind = "image"

    def __init__(self, cache_dir: Path, surroundings: Surroundings | None = None) -> None:
        self._cache_dir, self._around = cache_dir, surroundings or Surroundings()
        self._current: set[tuple[Path, str]] = set()

    def observe(self, cluster: str) -> Sequence[OwnerMark]:
        """The images that the cluster uses, that are whole, and whose source has not changed as far as we know."""
        marks = []
        for entry in entries(self._cache_dir):
            record = entry.record()
            if record and file_unchanged(record):
                uses = record.used_by.get(cluster, {}).items()
                current = [(name, digest) for name, digest in uses if (entry.path, digest) in self._current]
                marks += [OwnerMark(cluster, self.kind, name, digest) for name, digest in current]
        return marks

    def create(self, resource: CachedImage, cluster: str) -> None:
        """Make it, or bring it up to date; what was in the cache stays there until something better is whole.

        Where a server cannot be reached, or copy-on-write volumes stand on the old version, the old one is used with a
        warning. Raises StepError.
        """
        open_directory(resource.path.parent)
        fetch = Fetch(resource, self._around)
        entry = Entry(resource.path)
        try:
            with entry.lock(fetch.wait):
                record = fetch.run()
                uses = {**record.used_by.get(cluster, {}), resource.name: resource.digest}
                _note_uses(entry, record, cluster, uses)
        except OSError as error:
            raise StepError(fetch.what, f"{error.filename}: {error.strerror}") from error
        self._current.add((resource.path, resource.digest))

    def remove(self, mark: OwnerMark) -> None:
        """Note that the cluster no longer uses it. The file stays in the cache until it is pruned."""
        for entry in entries(self._cache_dir):
            with entry.try_lock() as locked:
                record = entry.record()
                if locked and record and mark.name in record.used_by.get(mark.cluster, {}):
                    uses = {name: digest for name, digest in record.used_by[mark.cluster].items() if name != mark.name}
                    _note_uses(entry, record, mark.cluster, uses)


def _note_uses(entry: Entry, record: Record, cluster: str, uses: Mapping[str, str]) -> None:
    if uses != record.used_by.get(cluster, {}):
        used_by = {**record.used_by, cluster: uses}
        entry.write(replace(record, used_by={name: names for name, names in used_by.items() if names}))
