"""The guest's volumes: each is a drive and the one volume on it, and all hang on virtio."""

from collections.abc import Sequence
from typing import Final

from ...machine import Disk, Inventory
from ..resource import Call, Json, Resource, collection, link
from .parts import HEALTHY, numbered, pick
from .paths import CHASSIS, DRIVES, SIMPLE_STORAGE, STORAGE

STORAGE_ID: Final = "Virtio"
UNIT: Final = f"{STORAGE}/{STORAGE_ID}"
CONTROLLERS: Final = f"{UNIT}/Controllers"
CONTROLLER: Final = f"{CONTROLLERS}/{STORAGE_ID}"
VOLUMES: Final = f"{UNIT}/Volumes"
SIMPLE: Final = f"{SIMPLE_STORAGE}/{STORAGE_ID}"
SECTOR_BYTES: Final = 512


def disks(inventory: Inventory) -> dict[str, Disk]:
    """The disks by the id that drive and volume share."""
    return numbered("Disk", inventory.disks)


def drive_uri(name: str) -> str:
    """Where a drive is; below Storage is a place that the schema of Drive calls deprecated."""
    return f"{DRIVES}/{name}"


def unit(inventory: Inventory) -> Json:
    """The Storage resource with all disks."""
    return {
        "Id": STORAGE_ID,
        "Name": "Virtio disks",
        "Status": HEALTHY,
        "Drives": [link(drive_uri(name)) for name in disks(inventory)],
        "Drives@odata.count": len(inventory.disks),
        "Controllers": link(CONTROLLERS),
        "Volumes": link(VOLUMES),
        "Links": {"Enclosures": [link(CHASSIS)], "SimpleStorage": link(SIMPLE)},
    }


def drive(name: str, disk: Disk) -> Json:
    """A Drive; its capacity is null where it is not known."""
    return {
        "Id": name,
        "Name": disk.name,
        "Description": f"{disk.device}, {disk.format}{', read-only' if disk.read_only else ''}",
        "Manufacturer": "QEMU",
        "Model": disk.device,
        "CapacityBytes": disk.capacity_bytes or None,
        "BlockSizeBytes": SECTOR_BYTES,
        "Status": HEALTHY,
        "Links": {"Chassis": link(CHASSIS), "Storage": link(UNIT), "Volumes": [link(f"{VOLUMES}/{name}")]},
    }


def volume(name: str, disk: Disk) -> Json:
    """The Volume that fills a drive."""
    return {
        "Id": name,
        "Name": disk.name,
        "RAIDType": "None",
        "CapacityBytes": disk.capacity_bytes or None,
        "BlockSizeBytes": SECTOR_BYTES,
        "Status": HEALTHY,
        "Links": {"Drives": [link(drive_uri(name))], "OwningStorageResource": link(UNIT)},
    }


def controller(inventory: Inventory) -> Json:
    """The StorageController: virtio has one function for each disk, which clients need not know."""
    return {
        "Id": STORAGE_ID,
        "Name": "Virtio block",
        "Manufacturer": "QEMU",
        "Model": "virtio-blk",
        "Status": HEALTHY,
        "Links": {"AttachedVolumes": [link(f"{VOLUMES}/{name}") for name in disks(inventory)]},
    }


def simple(inventory: Inventory) -> Json:
    """The same for clients that know SimpleStorage alone."""
    devices = [
        {"Name": disk.name, "CapacityBytes": disk.capacity_bytes or None, "Status": HEALTHY} for disk in inventory.disks
    ]
    return {
        "Id": STORAGE_ID,
        "Name": "Virtio disks",
        "Devices": devices,
        "Status": HEALTHY,
        "Links": {"Chassis": link(CHASSIS), "Storage": link(UNIT)},
    }


async def _get_storage(_: Call) -> Json:
    return collection("Storage", [UNIT])


async def _get_unit(call: Call) -> Json:
    return unit(await call.machine.inventory())


async def _get_drives(call: Call) -> Json:
    return collection("Drives", [drive_uri(name) for name in disks(await call.machine.inventory())])


async def _get_drive(call: Call) -> Json:
    return drive(*pick(disks(await call.machine.inventory()), call))


async def _get_volumes(call: Call) -> Json:
    return collection("Volumes", [f"{VOLUMES}/{name}" for name in disks(await call.machine.inventory())])


async def _get_volume(call: Call) -> Json:
    return volume(*pick(disks(await call.machine.inventory()), call))


async def _get_controllers(_: Call) -> Json:
    return collection("Storage Controllers", [CONTROLLER])


async def _get_controller(call: Call) -> Json:
    return controller(await call.machine.inventory())


async def _get_simple_storage(_: Call) -> Json:
    return collection("Simple Storage", [SIMPLE])


async def _get_simple(call: Call) -> Json:
    return simple(await call.machine.inventory())


def routes() -> Sequence[Resource]:
    """Storage and SimpleStorage of the system."""
    return [
        Resource(uri=STORAGE, type="StorageCollection.StorageCollection", get=_get_storage),
        Resource(uri=UNIT, type="Storage.v1_18_0.Storage", get=_get_unit),
        Resource(uri=DRIVES, type="DriveCollection.DriveCollection", get=_get_drives),
        Resource(uri=drive_uri("{id}"), type="Drive.v1_20_1.Drive", get=_get_drive),
        Resource(uri=VOLUMES, type="VolumeCollection.VolumeCollection", get=_get_volumes),
        Resource(uri=f"{VOLUMES}/{{id}}", type="Volume.v1_10_2.Volume", get=_get_volume),
        Resource(uri=CONTROLLERS, type="StorageControllerCollection.StorageControllerCollection", get=_get_controllers),
        Resource(uri=CONTROLLER, type="StorageController.v1_9_1.StorageController", get=_get_controller),
        Resource(uri=SIMPLE_STORAGE, type="SimpleStorageCollection.SimpleStorageCollection", get=_get_simple_storage),
        Resource(uri=SIMPLE, type="SimpleStorage.v1_3_2.SimpleStorage", get=_get_simple),
    ]
