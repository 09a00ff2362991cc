"""Names that occur twice, and names that nothing has."""

from collections.abc import Collection, Iterable, Iterator

from ..describe import KINDS, did_you_mean, key_of, kind_of, quote, resources, subject
from ..errors import Mistake
from ..models import App, BmcUser, Cluster, ImageVolume, NamespaceInterface, NetworkNamespace, Node, VolumeBase
from .mistakes import At, inside, line_of


def check_duplicates(cluster: Cluster) -> Iterator[Mistake]:
    """Each name once per kind; volumes once per node, apps once per namespace, users once per BMC, serial numbers once
    (a warning)."""
    yield from _twice(At(resource) for resource in resources(cluster))
    for resource in resources(cluster):
        yield from _twice(at for at, _ in inside(resource, BmcUser))
    for node in cluster.nodes:
        yield from _twice(at for at, _ in inside(node, VolumeBase))
    for namespace in cluster.namespaces:
        yield from _twice(at for at, _ in inside(namespace, App))
    serials: dict[str, Node] = {}
    for node in cluster.nodes:
        first = serials.setdefault(node.smbios.serial, node)
        if node.smbios.serial and first is not node:
            message = f"serial: {subject(first)} has the same serial number {quote(node.smbios.serial)}"
            yield At(node, node.smbios, "smbios").warning("serial", message)


def _twice(records: Iterable[At]) -> Iterator[Mistake]:
    seen: dict[tuple[object, str], At] = {}
    for at in records:
        record = at.part or at.resource
        name = str(getattr(record, "name", ""))
        first = seen.setdefault((None if at.part else type(record), name), at)
        if first is not at and at.readable("name"):
            mark = at.marks.of("name")
            what = at.label.partition(" ")[0] or kind_of(at.resource)
            called = f" {quote(name)}" if name else ""
            where = line_of(first.marks.of("name"), mark)
            yield at.error("name", f"there are two {_plural(what)}{called}", f"the first is in {where}")


def _plural(what: str) -> str:
    return what + ("es" if what.endswith("s") else "s")


def check_references(cluster: Cluster, bridges: frozenset[str]) -> Iterator[Mistake]:
    """Networks, images, device classes and apps that are named exist."""
    networks = _names(cluster, "Network")
    if networks is not None:
        links = networks | bridges
        for node in cluster.nodes:
            for index, name in enumerate(node.interfaces):
                yield from _dangling(At(node), f"interfaces.{index}", "Network", name, links)
        for namespace in cluster.namespaces:
            for at, interface in inside(namespace, NamespaceInterface):
                yield from _dangling(at, "network", "Network", interface.network, links)
    for node in cluster.nodes:
        yield from _volumes(node, _names(cluster, "Image"), _names(cluster, "DeviceClass"))
    for namespace in cluster.namespaces:
        yield from _after(namespace)


def _names(cluster: Cluster, kind: str) -> frozenset[str] | None:
    """The names of a kind; None where one could not be read, so that nobody knows which names there are."""
    found = [resource for resource in resources(cluster) if isinstance(resource, KINDS[kind])]
    readable = all(At(resource).readable("name") for resource in found)
    return frozenset(resource.name for resource in found) if readable else None


def _volumes(node: Node, images: frozenset[str] | None, classes: frozenset[str] | None) -> Iterator[Mistake]:
    for at, volume in inside(node, VolumeBase):
        if isinstance(volume, ImageVolume) and images is not None:
            yield from _dangling(at, "image", "Image", volume.image, images)
        if volume.device_class and classes is not None:
            yield from _dangling(at, "device_class", "DeviceClass", volume.device_class, classes)


def _dangling(at: At, field_name: str, kind: str, name: str, known: Collection[str]) -> Iterator[Mistake]:
    field, _, _ = field_name.partition(".")
    if name in known or (not at.readable(field) and not name):
        return
    hint = did_you_mean(name, known) or (f"there is no {kind} in these files" if not known else "")
    what = "Network or bridge of the host" if kind == "Network" else kind
    yield at.error(field_name, f"{key_of(field)}: no {what} is called {quote(name)}", hint)


def _after(namespace: NetworkNamespace) -> Iterator[Mistake]:
    known = {app.name: app for app in namespace.apps}
    all_known = all(at.readable("name") for at, _ in inside(namespace, App))
    in_cycle: set[str] = set()
    for at, app in inside(namespace, App):
        for index, name in enumerate(app.after):
            if name not in known and all_known:
                hint = did_you_mean(name, known) or "apps of the same namespace can be named"
                yield at.error(f"after.{index}", f"after: no app is called {quote(name)}", hint)
        cycle = [] if app.name in in_cycle else _cycle(app, known)
        in_cycle.update(cycle)
        if cycle:
            yield at.error("after", f"after: apps wait for each other: {' after '.join(cycle)}")


def _cycle(start: App, known: dict[str, App]) -> list[str]:
    """The shortest way along `after` from an app back to itself, [] if there is none."""
    ways = [[start.name]]
    seen: set[str] = set()
    for way in ways:  # grows: a breadth-first search
        for name in known[way[-1]].after:
            if name == start.name:
                return [*way, name]
            if name in known and name not in seen:
                seen.add(name)
                ways.append([*way, name])
    return []
