"""A plan as text for people, and as JSON for programs."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass

from .plan import Plan
from .render_unit import unit_file
from .resources import Bridge, CachedImage, Firewall, Netns, Passage, Resource, Sysctl, Tap, UnitResource, VolumeFile
from .unit import Unit

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

SHOWN = frozenset(
    {
        "AmbientCapabilities",
        "After",
        "BindPaths",
        "BindReadOnlyPaths",
        "DeviceAllow",
        "Environment",
        "ExecStart",
        "Listen",
        "LoadCredential",
        "NetworkNamespacePath",
        "RemainAfterExit",
        "Requires",
        "Restart",
        "RuntimeDirectory",
        "StandardInput",
        "SupplementaryGroups",
        "TimeoutStartUSec",
        "Type",
        "User",
        "WorkingDirectory",
    }
)
"""Properties that differ from unit to unit; the rest (journal, limits, confinement) is the same for all of a sort."""


def render_plan(plan: Plan) -> str:
    """Every resource in the order of creation: what it is, the digest of its inputs, for whom, and the inputs."""
    count = len(plan.resources)
    lines = [f"cluster {plan.cluster}: {count} resource{'s' if count != 1 else ''}"]
    for resource in plan.resources:
        lines += ["", f"{resource.key}  {resource.digest}  ({resource.owner})"]
        lines += [f"  {line}" for line in _inputs(resource)]
    return "\n".join(lines) + "\n"


def plan_json(plan: Plan) -> dict[str, Json]:
    """The whole plan; each resource has `kind` and `digest` besides its own fields."""
    return {
        "cluster": plan.cluster,
        "resources": [
            {"kind": resource.kind, "digest": resource.digest, **_fields(resource)} for resource in plan.resources
        ],
        "nodes": [_fields(node) for node in plan.nodes],
    }


# -- text -------------------------------------------------------------------------------------------------------------


def _inputs(resource: Resource) -> Iterator[str]:
    match resource:
        case Sysctl():
            yield f"value {resource.value}"
        case Bridge():
            yield from (f"address {address}" for address in resource.addresses)
            yield _mtu(resource.mtu)
        case Firewall():
            yield from resource.rules.expandtabs(4).splitlines()
        case Passage():
            yield f"accept {', '.join(resource.interfaces)} in {resource.family} {resource.table} {resource.chain}"
        case Netns():
            yield from _netns(resource)
        case CachedImage():
            yield from _pairs(resource, "path", "url", "file", "compression", "sha256")
        case VolumeFile():
            yield from _pairs(resource, "form", "path", "base", "size", "format", "user_data", "network_config", "user")
            if resource.form == "directory":
                yield "writable" if resource.writable else "read-only"
        case Tap():
            yield f"bridge {resource.bridge}, {_mtu(resource.mtu)}, queues {resource.queues}, user {resource.user}"
        case UnitResource():
            yield from _unit(resource)
        case _:
            raise TypeError(f"no text for a {type(resource).__name__}")


def _mtu(mtu: int | None) -> str:
    return f"mtu {mtu or 'default'}"


def _netns(netns: Netns) -> Iterator[str]:
    for interface in netns.interfaces:
        yield f"{interface.inside} {interface.mac}, {_mtu(interface.mtu)}"
        yield f"    outside {interface.outside} on bridge {interface.bridge}"
        yield from (f"    address {address}" for address in interface.addresses)
    yield from (f"sysctl {name} = {value}" for name, value in netns.sysctls)
    yield from (f"route {to} via {via}" for to, via in netns.routes)


def _unit(resource: UnitResource) -> Iterator[str]:
    yield from _part(resource.unit)
    for auxiliary in resource.unit.auxiliaries:
        yield f"with {auxiliary.name}"
        yield from (f"  {line}" for line in _part(auxiliary))
    yield "journal " + " ".join(f"{name}={value}" for name, value in resource.journal_fields)


def _part(unit: Unit) -> Iterator[str]:
    yield from unit_file(unit, SHOWN.__contains__)
    rest = sum(name not in SHOWN for name, _ in unit.properties)
    yield f"# and {rest} more"


def _pairs(record: Resource, *names: str) -> Iterator[str]:
    for name in names:
        if value := getattr(record, name):
            yield f"{name.replace('_', ' ')} {value}"


# -- JSON -------------------------------------------------------------------------------------------------------------


def _fields(record: object) -> dict[str, Json]:
    """The fields of a dataclass, without those that only serve reading (`models.marks`)."""
    shown = [item.name for item in fields(record) if not item.metadata.get("internal")]  # type: ignore[arg-type]
    return {name: _json(getattr(record, name)) for name in shown}


def _json(value: object) -> Json:
    """Records as objects, units with their properties by name, everything that JSON has no type for as text."""
    if isinstance(value, Unit):
        properties: Json = {name: _json(item) for name, item in value.properties}
        return {"name": value.name, "properties": properties, "auxiliaries": _json(value.auxiliaries)}
    if is_dataclass(value):
        return _fields(value)
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
