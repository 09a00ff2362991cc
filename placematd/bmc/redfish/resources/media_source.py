"""Where an image of virtual media comes from, as clients write it and as they may read it again."""

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

PROTOCOLS: Final = {"http": "HTTP", "https": "HTTPS"}
"""URL schemes, as VirtualMedia.TransferProtocolType has them."""


class Unfit(ValueError):
    """A property of the request does not fit: its name, and its value as far as it may be shown."""

    def __init__(self, name: str, value: str) -> None:
        self.name, self.value = name, value
        super().__init__(f"{name}: {value}")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """An image that a client wants inserted, with what it takes to fetch it."""

    image: str
    write_protected: bool = True
    user_name: str | None = None
    password: str | None = field(default=None, repr=False)
    protocol: str | None = None


def source(wish: Wish) -> str:
    """The http(s) URL or the absolute path for the machine, credentials in the URL. Raises Unfit."""
    parts = _split(wish.image)
    if parts.scheme in ("", "file") and not parts.netloc and parts.path.startswith("/"):
        return _path(wish, parts)
    if parts.scheme not in PROTOCOLS or not parts.hostname or not _has_port(parts):
        raise Unfit("Image", shown(wish.image))
    if wish.protocol not in (None, PROTOCOLS[parts.scheme]):
        raise Unfit("TransferProtocolType", str(wish.protocol))
    if wish.user_name is None:
        return wish.image
    login = quote(wish.user_name, safe="") + (f":{quote(wish.password, safe='')}" if wish.password else "")
    return urlunsplit(parts._replace(netloc=f"{login}@{_host(parts)}"))


def _path(wish: Wish, parts: SplitResult) -> str:
    if wish.protocol is not None:
        raise Unfit("TransferProtocolType", wish.protocol)
    if wish.user_name is not None:
        raise Unfit("UserName", wish.user_name)
    return unquote(parts.path) if parts.scheme else wish.image


def _split(image: str) -> SplitResult:
    if any(character <= " " or character == "\x7f" for character in image):
        raise Unfit("Image", image)
    try:
        return urlsplit(image)
    except ValueError as error:
        raise Unfit("Image", "") from error


def _has_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        return False


def _host(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def shown(image: str) -> str:
    """An image's URL without what a login would need."""
    try:
        parts = urlsplit(image)
    except ValueError:
        return ""
    return urlunsplit(parts._replace(netloc=_host(parts))) if "@" in parts.netloc else image


def user_name(image: str) -> str | None:
    """The user name in an image's URL."""
    name = urlsplit(image).username if "://" in image else None
    return unquote(name) if name else None


def protocol(image: str) -> str | None:
    """How the image came, None for a local path."""
    return PROTOCOLS.get(urlsplit(image).scheme)


def name(image: str) -> str:
    """The image's file name."""
    return unquote(urlsplit(image).path.rpartition("/")[2])
