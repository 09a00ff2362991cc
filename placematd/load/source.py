"""A cluster file as text, with the line and column of each position in it."""

import re
from bisect import bisect_right
from pathlib import Path

from ..errors import Mark, Mistake

MAX_BYTES = 16 * 1024 * 1024
"""The same limit as placemat v2 has for a document (spec 1.1); a cluster of 10,000 nodes takes about 5 MiB."""

# What YAML 1.1 does not allow in a stream (https://yaml.org/spec/1.1/#id868518).
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_BYTE_ORDER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32"}


class Source:
    """The text of a file; characters that YAML does not allow are replaced, so that the rest can still be checked."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.file = str(path)
        self.text = text
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]

    def mark(self, index: int) -> Mark:
        """The line and column of a character."""
        index = min(index, len(self.text))
        line = bisect_right(self._lines, index)
        return Mark(self.file, line, index - self._lines[line - 1] + 1)


def read_source(path: Path) -> tuple[Source | None, list[Mistake]]:
    """A file's text, None if it cannot be read at all, and what is wrong with it."""
    start = Mark(str(path), 1, 1)
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return None, [Mistake(start, "", f"cannot read the file: {reason}")]
    if len(data) > MAX_BYTES:
        message = f"the file is larger than {MAX_BYTES // 1024 // 1024} MiB"
        return None, [Mistake(start, "", message, "split it into several files")]
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return None, [Mistake(start, "", f"the file is {encoding}, expected UTF-8", "save it as UTF-8")]
    return _decode(path, data.removeprefix(b"\xef\xbb\xbf"))


def _decode(path: Path, data: bytes) -> tuple[Source, list[Mistake]]:
    text = data.decode("utf-8", "replace")
    source = Source(path, _UNPRINTABLE.sub("\ufffd", text))
    mistakes = []
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        mark = source.mark(len(data[: error.start].decode("utf-8")))
        mistakes.append(Mistake(mark, "", f"byte 0x{data[error.start]:02x} is not UTF-8", "save the file as UTF-8"))
    if unprintable := _UNPRINTABLE.search(text):
        what = f"character U+{ord(unprintable[0]):04X} is not allowed in YAML"
        hint = r'remove it, or write it as an escape in double quotes, such as "\x1b"'
        mistakes.append(Mistake(source.mark(unprintable.start()), "", what, hint))
    return source, mistakes
