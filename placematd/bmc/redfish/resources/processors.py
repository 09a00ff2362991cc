"""Processors and memory, in the pieces that the guest's SMBIOS tables have (QEMU, hw/smbios/smbios.c)."""

from collections.abc import Sequence
from typing import Final

from ...machine import Inventory
from ..resource import Call, Json, Resource, collection, link
from .parts import HEALTHY, numbered, pick
from .paths import CHASSIS, MEMORY, PROCESSORS

DIMM_MIB: Final = 16 * 1024
"""The size from which on QEMU's SMBIOS tables show one memory device more."""


def processor(number: int, inventory: Inventory) -> Json:
    """One socket with its cores."""
    return {
        "Id": f"CPU.{number}",
        "Name": f"CPU {number - 1}",
        "Socket": f"CPU {number - 1}",
        "ProcessorType": "CPU",
        "ProcessorArchitecture": "x86",
        "InstructionSet": "x86-64",
        "Model": inventory.cpu_model,
        "TotalCores": inventory.cpu_cores,
        "TotalThreads": inventory.cpu_cores * inventory.cpu_threads,
        "Status": HEALTHY,
        "Links": {"Chassis": link(CHASSIS)},
    }


def dimms(memory_mib: int) -> Sequence[int]:
    """The sizes in MiB of the memory devices that the guest sees."""
    full, rest = divmod(memory_mib, DIMM_MIB)
    return [DIMM_MIB] * full + ([rest] if rest else [])


def dimm(number: int, mebibytes: int) -> Json:
    """One memory device."""
    return {
        "Id": f"DIMM.{number}",
        "Name": f"DIMM {number - 1}",
        "MemoryType": "DRAM",
        "CapacityMiB": mebibytes,
        "Manufacturer": "QEMU",
        "ErrorCorrection": "MultiBitECC",
        "Status": HEALTHY,
        "Links": {"Chassis": link(CHASSIS)},
    }


async def _get_processors(call: Call) -> Json:
    sockets = (await call.machine.inventory()).cpu_sockets
    return collection("Processors", [f"{PROCESSORS}/CPU.{number}" for number in range(1, sockets + 1)])


async def _get_processor(call: Call) -> Json:
    inventory = await call.machine.inventory()
    _, number = pick(numbered("CPU", range(1, inventory.cpu_sockets + 1)), call)
    return processor(number, inventory)


async def _get_memory(call: Call) -> Json:
    sizes = dimms((await call.machine.inventory()).memory_mib)
    return collection("Memory", [f"{MEMORY}/{name}" for name in numbered("DIMM", sizes)])


async def _get_dimm(call: Call) -> Json:
    sizes = dimms((await call.machine.inventory()).memory_mib)
    _, (number, size) = pick(numbered("DIMM", list(enumerate(sizes, start=1))), call)
    return dimm(number, size)


def routes() -> Sequence[Resource]:
    """Processors and Memory of the system."""
    return [
        Resource(uri=PROCESSORS, type="ProcessorCollection.ProcessorCollection", get=_get_processors),
        Resource(uri=f"{PROCESSORS}/{{id}}", type="Processor.v1_20_1.Processor", get=_get_processor),
        Resource(uri=MEMORY, type="MemoryCollection.MemoryCollection", get=_get_memory),
        Resource(uri=f"{MEMORY}/{{id}}", type="Memory.v1_20_0.Memory", get=_get_dimm),
    ]
