"""How messages about a cluster file name things, and what they suggest; `load` and `validate` speak alike."""

from collections.abc import Collection, Iterator
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from functools import lru_cache

from .models import Cluster, ClusterSettings, DeviceClass, Image, Network, NetworkNamespace, Node

Resource = Network | NetworkNamespace | Node | Image | DeviceClass | ClusterSettings

KINDS: dict[str, type[Resource]] = {
    **{record.__name__: record for record in (Network, NetworkNamespace, Node, Image, DeviceClass)},
    "Cluster": ClusterSettings,
}
"""Resource kinds, as `kind` in the file names them."""

_LONGEST_QUOTE = 60


def resources(cluster: Cluster) -> Iterator[Resource]:
    """All resources of a cluster, kind by kind."""
    yield from cluster.networks
    yield from cluster.namespaces
    yield from cluster.nodes
    yield from cluster.images
    yield from cluster.device_classes
    yield from cluster.settings


def kind_of(resource: Resource) -> str:
    """The `kind` of a resource."""
    return next(kind for kind, record in KINDS.items() if isinstance(resource, record))


def subject(resource: Resource) -> str:
    """ "Kind name", or only the kind where it has no name or that could not be read."""
    return one_line(f"{kind_of(resource)} {resource.name}".rstrip())


def part_label(field_name: str, index: int, name: str) -> str:
    """What messages call one record in a list: "volume root", "interface eth0", "route default", "app 2".

    `index` counts from 0; `name` is the record's own name (or a route's destination), "" if it has none.
    """
    singular = field_name.removesuffix("s")
    if field_name == "interfaces":
        return f"{singular} eth{index}"
    return f"{singular} {name or index + 1}"


def key_of(field_name: str) -> str:
    """The key in the file of a record's field."""
    return field_name.replace("_", "-")


def one_line(text: str) -> str:
    """`text` without what would break a line or drive a terminal: such characters are shown as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def quote(text: str) -> str:
    """`text` in double quotes, on one line and not longer than fits a message."""
    shown = one_line(text[: _LONGEST_QUOTE + 1])
    return f'"{shown[:_LONGEST_QUOTE]}..."' if len(shown) > _LONGEST_QUOTE else f'"{shown}"'


def did_you_mean(text: str, known: Collection[str]) -> str:
    """A hint that names the closest of `known`, "" if none is close."""
    close = closest(text, frozenset(known))
    return f'did you mean "{close}"?' if close else ""


@lru_cache(maxsize=4096)
def closest(text: str, known: frozenset[str]) -> str:
    """The one of `known` that `text` is probably a misspelling of, "" if none is close."""
    if len(text) > _LONGEST_QUOTE:
        return ""
    folded = {name.casefold().replace("_", "-"): name for name in sorted(known)}
    matches = get_close_matches(text.casefold().replace("_", "-"), folded, n=1, cutoff=0.7)
    return folded[matches[0]] if matches else ""


def parts(record: object) -> Iterator[tuple[str, object]]:
    """The records inside a record and inside those, each with its label."""
    for item in fields(record):  # type: ignore[arg-type]
        value = getattr(record, item.name)
        if is_dataclass(value):
            yield item.name, value
            yield from parts(value)
        elif isinstance(value, tuple):
            for index, element in enumerate(value):
                if is_dataclass(element):
                    name = str(getattr(element, "name", getattr(element, "to", "")))
                    yield part_label(item.name, index, name), element
                    yield from parts(element)
