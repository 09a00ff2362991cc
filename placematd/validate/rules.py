"""The rules that the model states of single fields, and what names become on the host."""

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import cast

from .. import names
from ..describe import key_of, parts, quote, resources
from ..errors import NOWHERE, Mistake
from ..models import LINK_NAME, NAME, App, Cluster, HostPathVolume, Network, NetworkNamespace, Node, Rule
from .mistakes import At, Marked, inside

SOCKET_PATH_BYTES = 107
"""sun_path has 108 bytes with its final NUL (unix(7))."""

UNIT_NAME_BYTES = 255
"""systemd.unit(5)."""

MOUNT_TAG_BYTES = 31
"""QEMU's hw/9pfs/9p.h: MAX_TAG_LEN less its final NUL."""

RESERVED_LINK_NAMES = {
    "lo": "the loopback interface",
    "all": "what the kernel calls all interfaces in /proc/sys/net",
    "default": "what the kernel calls new interfaces in /proc/sys/net",
}


def check(cluster: Cluster) -> Iterator[Mistake]:
    """The rule of each field of each record."""
    for resource in resources(cluster):
        yield from _check_fields(At(resource), resource)
        for label, part in parts(resource):
            yield from _check_fields(At(resource, cast(Marked, part), label), part)


def _check_fields(at: At, record: object) -> Iterator[Mistake]:
    for field in fields(record):  # type: ignore[arg-type]
        rule, value = field.metadata.get("rule"), getattr(record, field.name)
        written = field.name in at.marks or value != field.default
        if rule and written and (at.readable(field.name) or isinstance(value, tuple)):
            yield from _check_rule(at, field.name, rule, value)


def _check_rule(at: At, name: str, rule: Rule, value: object) -> Iterator[Mistake]:
    key = key_of(name)
    if isinstance(value, int) and not (rule.minimum or 0) <= value <= (value if rule.maximum is None else rule.maximum):
        yield at.error(name, f"{key}: expected {rule.expected}, found {value}")
    if isinstance(value, tuple) and len(value) < rule.min_items and at.readable(name):
        yield at.error(name, f"{key}: expected {rule.expected}, found an empty list")
    for index, text in _texts(value) if rule.pattern else ():
        if not re.fullmatch(rule.pattern, text):
            yield at.error(name + index, f"{key}: expected {rule.expected}, found {quote(text)}", _why_not(rule, text))


def _texts(value: object) -> Iterator[tuple[str, str]]:
    """What a pattern is about: a text, or the keys of a mapping, each with what to add to the field's name."""
    if isinstance(value, str):
        yield "", value
    elif isinstance(value, tuple):
        yield from ((f".{index}", pair[0]) for index, pair in enumerate(value))


def _why_not(rule: Rule, text: str) -> str:
    """A hint for what people get wrong most."""
    if re.fullmatch("[0-9.]+ ?[KMGTPkmgtp]i?[Bb]", text):
        return f'write "{re.sub("[^0-9.KMGTPkmgtp]", "", text)}"'
    if text.startswith("file:"):
        return 'for a local file use the key "file"'
    if rule in (NAME, LINK_NAME) and text:
        odd = re.search("[^A-Za-z0-9_.-]", text)
        return (
            f"{quote(odd[0])} is not allowed" if odd else f"it has {len(text)} characters" if text[0].isalnum() else ""
        )
    return ""


def check_names(cluster: Cluster, run_dir: Path) -> Iterator[Mistake]:
    """Names that the kernel, systemd or QEMU would refuse once they are part of something."""
    if not re.fullmatch(NAME.pattern, cluster.name):
        yield Mistake(NOWHERE, "Cluster", f"name: expected {NAME.expected}, found {quote(cluster.name)}")
    elif len(cluster.name) > names.CLUSTER_NAME_BYTES:
        expected = f"at most {names.CLUSTER_NAME_BYTES} characters (it is part of a comment in nftables)"
        yield Mistake(NOWHERE, "Cluster", f"name: expected {expected}, found {len(cluster.name)}")
    for network in cluster.networks:
        yield from _link_name(network)
    for node in cluster.nodes:
        yield from _node_name(cluster.name, node, run_dir)
    for namespace in cluster.namespaces:
        yield from _unit_names(cluster.name, namespace)


def _link_name(network: Network) -> Iterator[Mistake]:
    if network.name in RESERVED_LINK_NAMES:
        yield At(network).error("name", f'name: "{network.name}" is {RESERVED_LINK_NAMES[network.name]}')


def _node_name(cluster: str, node: Node, run_dir: Path) -> Iterator[Mistake]:
    at = At(node)
    paths = names.node_paths(run_dir, cluster, node.name)
    longest = max((paths.console, paths.qmp, paths.guest, paths.tpm), key=lambda path: len(bytes(path)))
    if len(bytes(longest)) > SOCKET_PATH_BYTES and at.readable("name"):
        message = (
            f"name: its socket {longest} has {len(bytes(longest))} bytes, at most {SOCKET_PATH_BYTES} are possible"
        )
        yield at.error("name", message, "shorten the name of the node, the cluster or the run directory")
    for here, volume in inside(node, HostPathVolume):
        if len(volume.name.encode()) > MOUNT_TAG_BYTES:
            message = f"name: expected at most {MOUNT_TAG_BYTES} bytes, found {len(volume.name.encode())}"
            yield here.error("name", message, "a hostPath volume's name is the 9p mount tag")


def _unit_names(cluster: str, namespace: NetworkNamespace) -> Iterator[Mistake]:
    for at, app in inside(namespace, App):
        unit = names.app_unit(cluster, namespace.name, app.name)
        if len(unit.encode()) > UNIT_NAME_BYTES:
            message = (
                f"name: its unit's name would have {len(unit.encode())} bytes, at most {UNIT_NAME_BYTES} are possible"
            )
            hint = "shorten the name of the app, the namespace or the cluster; a dash counts four"
            yield at.error("name", message, hint)
