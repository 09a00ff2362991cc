"""The computer system: what the node is, whether it runs, and what it boots from next."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ...machine import (
    BootOverride,
    FirmwareOffer,
    Inventory,
    Limits,
    Machine,
    PowerState,
    RestartCause,
    Watchdog,
)
from ..resource import Action, Call, Json, Resource, boolean, collection, link
from . import boot, reset, trusted
from .parts import HEALTHY, powered, rolled_up
from .paths import (
    BIOS,
    CHASSIS,
    ETHERNET,
    LOG_SERVICES,
    MANAGER,
    MEMORY,
    PROCESSORS,
    SECURE_BOOT,
    SIMPLE_STORAGE,
    STORAGE,
    SYSTEM,
    SYSTEM_ID,
    SYSTEMS,
    VIRTUAL_MEDIA,
)

IPMI_PORT: Final = 623

_CAUSES: Final[dict[RestartCause, str]] = {
    "unknown": "Unknown",
    "chassis-control": "ManagementCommand",
    "reset-button": "PowerButtonPress",
    "power-button": "PowerButtonPress",
    "watchdog": "WatchdogExpiration",
    "soft-reset": "OSSoftRestart",
}
_TIMEOUT_ACTIONS: Final = {"none": "None", "reset": "ResetSystem", "off": "PowerDown", "cycle": "PowerCycle"}
_WARNING_ACTIONS: Final = {"none": "None", "nmi": "DiagnosticInterrupt"}

_PARTS: Final = {
    "Bios": BIOS,
    "EthernetInterfaces": ETHERNET,
    "LogServices": LOG_SERVICES,
    "Memory": MEMORY,
    "Processors": PROCESSORS,
    "SimpleStorage": SIMPLE_STORAGE,
    "Storage": STORAGE,
    "VirtualMedia": VIRTUAL_MEDIA,
}


@dataclass(frozen=True, kw_only=True)
class View:
    """All that the machine says about itself and that the system resource shows."""

    inventory: Inventory
    power: PowerState
    override: BootOverride
    offer: FirmwareOffer
    watchdog: Watchdog
    limits: Limits
    identifying: bool
    cause: RestartCause


async def view(machine: Machine) -> View:
    """Ask the machine."""
    _, _, offer = await machine.firmware()
    return View(
        inventory=await machine.inventory(),
        power=await machine.power_state(),
        override=await machine.boot(),
        offer=offer,
        watchdog=await machine.watchdog(),
        limits=await machine.limits(),
        identifying=await machine.identifying(),
        cause=await machine.restart_cause(),
    )


def system(seen: View) -> Json:
    """The ComputerSystem; there is no HostName, because nobody but the guest knows it."""
    inventory = seen.inventory
    return {
        "Id": SYSTEM_ID,
        "Name": inventory.node,
        "Description": f"Node {inventory.node} of cluster {inventory.cluster}",
        "SystemType": "Virtual",
        "Manufacturer": inventory.manufacturer,
        "Model": inventory.product,
        "SerialNumber": inventory.serial,
        "UUID": str(inventory.uuid),
        "BiosVersion": inventory.bios_version,
        "PowerState": seen.power,
        "LastResetCause": _CAUSES[seen.cause],
        "LocationIndicatorActive": seen.identifying,
        "Status": rolled_up(powered(seen.power)),
        "Boot": boot.boot(seen.override, inventory, seen.offer.boot_modes),
        **_sizes(inventory),
        **_consoles(seen.limits),
        "HostWatchdogTimer": host_watchdog(seen.watchdog),
        "TrustedModules": [{"InterfaceType": "TPM2_0", "Status": HEALTHY}] if inventory.tpm else [],
        **{name: link(uri) for name, uri in _PARTS.items()},
        **({"SecureBoot": link(SECURE_BOOT)} if seen.offer.secure_boot else {}),
        "Links": {
            "Chassis": [link(CHASSIS)],
            "ManagedBy": [link(MANAGER)],
            "TrustedComponents": [link(trusted.TPM)] if inventory.tpm else [],
        },
    }


def _sizes(inventory: Inventory) -> Json:
    cores = inventory.cpu_sockets * inventory.cpu_cores
    return {
        "ProcessorSummary": {
            "Count": inventory.cpu_sockets,
            "CoreCount": cores,
            "LogicalProcessorCount": cores * inventory.cpu_threads,
            "Model": inventory.cpu_model,
        },
        "MemorySummary": {"TotalSystemMemoryGiB": gibibytes(inventory.memory_mib)},
    }


def gibibytes(mebibytes: int) -> int | float:
    """A whole number where it is one: many clients read an integer."""
    return mebibytes // 1024 if mebibytes % 1024 == 0 else mebibytes / 1024


def _consoles(limits: Limits) -> Json:
    console = {"ServiceEnabled": limits.ipmi, "Port": IPMI_PORT, "SharedWithManagerCLI": False}
    return {
        "SerialConsole": {"IPMI": console},
        "IPMIHostInterface": {"ServiceEnabled": limits.ipmi},
        "VirtualMediaConfig": {"ServiceEnabled": True},
    }


def host_watchdog(watchdog: Watchdog) -> Json:
    """The IPMI watchdog as Redfish sees it; it is set over IPMI, by the guest's watchdog daemon as a rule."""
    return {
        "FunctionEnabled": watchdog.running,
        "TimeoutAction": _TIMEOUT_ACTIONS[watchdog.action],
        "WarningAction": _WARNING_ACTIONS[watchdog.pre_timeout_action],
        "Status": {"State": "Enabled" if watchdog.running else "StandbyOffline"},
    }


async def _get_systems(_: Call) -> Json:
    return collection("Computer Systems", [SYSTEM])


async def _get_system(call: Call) -> Json:
    return system(await view(call.machine)) | reset.offer(SYSTEM, "ComputerSystem.Reset")


async def _patch_system(call: Call) -> None:
    if "Boot" in call.body:
        await boot.change(call)
    if "LocationIndicatorActive" in call.body:
        await call.machine.identify(None if call.body["LocationIndicatorActive"] else 0)


def routes() -> Sequence[Resource]:
    """The system, its collection and what its Reset action takes."""
    return [
        Resource(uri=SYSTEMS, type="ComputerSystemCollection.ComputerSystemCollection", get=_get_systems),
        Resource(
            uri=SYSTEM,
            type="ComputerSystem.v1_25_0.ComputerSystem",
            get=_get_system,
            patch=_patch_system,
            writable={"Boot": boot.WRITABLE, "LocationIndicatorActive": boolean()},
            actions=(
                Action("ComputerSystem.Reset", reset.run, {"ResetType": reset.RESET_RULE}, required=("ResetType",)),
            ),
        ),
        reset.action_info(SYSTEM),
        *boot.routes(),
    ]
