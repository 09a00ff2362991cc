"""What the API shows of a cluster, as JSON-able dictionaries; pure functions of plan, unit states and nodes."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from .models import Cluster, NetworkNamespace
from .names import app_unit
from .nodes import NodeControl
from .reconcile import Changes
from .unit import shell_line

Json = dict[str, Any]


def node_json(control: NodeControl, unit_state: str, bmc_address: str | None) -> Json:
    """One node; the keys of placemat v2's NodeStatus are among them, with the true CPU count and serial."""
    plan = control.plan
    return {
        "name": plan.name,
        "power": control.power,
        "unit": plan.unit,
        "unit_state": unit_state,
        "interfaces": [
            {"network": interface.network, "tap": interface.tap, "mac": interface.mac} for interface in plan.interfaces
        ],
        "volumes": list(plan.volumes),
        "cpu": plan.cpus,
        "memory": plan.memory,
        "uefi": plan.uefi,
        "secure_boot": plan.secure_boot,
        "tpm": plan.tpm,
        "smbios": {
            "manufacturer": plan.smbios.manufacturer,
            "product": plan.smbios.product,
            "serial": plan.smbios.serial,
        },
        "uuid": plan.uuid,
        "accelerator": plan.accelerator,
        "console": str(plan.paths.console),
        "bmc_address": bmc_address,
    }


def namespace_json(cluster: str, namespace: NetworkNamespace, unit_states: Mapping[str, str]) -> Json:
    """One network namespace with its apps and the states of their units."""
    return {
        "name": namespace.name,
        "interfaces": [
            {"name": f"eth{index}", "network": interface.network, "addresses": [str(a) for a in interface.addresses]}
            for index, interface in enumerate(namespace.interfaces)
        ],
        "apps": [
            {
                "name": app.name,
                "unit": app_unit(cluster, namespace.name, app.name),
                "state": unit_states.get(app_unit(cluster, namespace.name, app.name), "inactive"),
                "command": shell_line(app.command),
            }
            for app in namespace.apps
        ],
    }


def networks_json(cluster: Cluster) -> list[Json]:
    """All networks."""
    return [
        {
            "name": network.name,
            "type": network.type,
            "use_nat": network.use_nat,
            "addresses": [str(address) for address in network.all_addresses],
        }
        for network in cluster.networks
    ]


def failed_units(unit_states: Mapping[str, str]) -> Iterable[str]:
    """Units that failed or have to be started again and again: with any of them a running cluster is degraded."""
    return (unit for unit, state in unit_states.items() if state in ("failed", "auto-restart"))


def summary(cluster: Cluster, nodes: Collection[NodeControl]) -> str:
    """One line: what is up."""
    on = sum(node.power == "On" for node in nodes)
    parts = [count(len(cluster.networks), "network"), count(len(cluster.namespaces), "namespace")]
    return ", ".join([*parts, f"{on} of {count(len(nodes), 'node')} on"])


def count(number: int, noun: str) -> str:
    """A number of things: 1 network, 2 networks."""
    return f"{number} {noun}" + ("s" if number != 1 else "")


def changes_json(changes: Changes) -> list[dict[str, str]]:
    """Changes for the API; a replacement, which is two steps, is told once."""
    replaced = {change.key for change in changes.create}
    removed = [change for change in changes.remove if change.key not in replaced]
    return [
        {"action": change.action, "resource": str(change.key), "reason": change.reason}
        for change in (*removed, *changes.create, *changes.keep)
    ]
