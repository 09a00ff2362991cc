"""The files behind a node: images in the cache, and the volumes that start from them.

Volumes lie in DIRECTORY/CLUSTER/volumes/NODE, where DIRECTORY is the data directory or the path of a device class.
placemat v2 had no CLUSTER in it, so two clusters on a host wrote to each other's disks.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import PlacematError
from ..facts import QEMU_USER, Host, Ovmf, Settings
from ..models import Cluster, HostPathVolume, Image, ImageVolume, LocaldsVolume, Node, RawVolume, Volume
from ..resources import CachedImage, VolumeFile

# -- images -----------------------------------------------------------------------------------------------------------


def cached_images(cluster: Cluster, host: Host, settings: Settings) -> Iterator[CachedImage]:
    """The images that volumes use and that cannot be used where they are; an unused image is never fetched."""
    used = {volume.image for node in cluster.nodes for volume in node.volumes if isinstance(volume, ImageVolume)}
    for image in cluster.images:
        if image.name in used and _is_cached(image, host):
            yield CachedImage(
                name=image.name,
                owner=f"Image {image.name}",
                path=_cache_path(image, settings),
                url=image.url,
                file=image.file,
                compression=image.compression,
                sha256=image.sha256.lower(),
            )


def image_path(image: Image, host: Host, settings: Settings) -> Path:
    """The file that volumes of this image start from."""
    if image.file and not _is_cached(image, host):
        return image.file
    return _cache_path(image, settings)


def _is_cached(image: Image, host: Host) -> bool:
    """A download, what must be unpacked or verified, and what QEMU's user may not read, get a copy in the cache."""
    return bool(image.url or image.compression or image.sha256 or image.file in host.private_files)


def _cache_path(image: Image, settings: Settings) -> Path:
    """By source and compression: clusters share downloads, and two ways to unpack one download do not meet."""
    source = image.url or str(image.file)
    digest = hashlib.sha256("\0".join([source, image.compression]).encode()).hexdigest()
    return settings.cache_dir / "images" / digest[:32]


# -- volumes ----------------------------------------------------------------------------------------------------------


def node_volumes(cluster: Cluster, node: Node, host: Host, settings: Settings) -> tuple[VolumeFile, ...]:
    """All that a node keeps: volumes in their order, then UEFI variables and TPM state."""
    return (
        *(volume_file(cluster, node, volume, host, settings) for volume in node.volumes),
        *((efivars(cluster, node, host, settings),) if node.uefi else ()),
        *((tpm_state(cluster, node, settings),) if node.tpm else ()),
    )


def volume_file(cluster: Cluster, node: Node, volume: Volume, host: Host, settings: Settings) -> VolumeFile:
    """One volume of a node."""
    name, owner = f"{node.name}/{volume.name}", _owner(node)
    path = _directory(cluster, node, settings, volume.device_class) / f"{volume.name}.img"
    match volume:
        case ImageVolume():
            image = next(image for image in cluster.images if image.name == volume.image)
            return VolumeFile(
                name=name,
                owner=owner,
                form="cow" if volume.copy_on_write else "copy",
                path=path,
                user=QEMU_USER,
                base=image_path(image, host, settings),
                size=volume.size,
                format="qcow2",
            )
        case LocaldsVolume():
            return VolumeFile(
                name=name,
                owner=owner,
                form="seed",
                path=path,
                user=QEMU_USER,
                format="qcow2",
                user_data=volume.user_data,
                network_config=volume.network_config,
            )
        case RawVolume():
            return VolumeFile(
                name=name,
                owner=owner,
                form="raw",
                path=path,
                user=QEMU_USER,
                size=volume.size,
                format=volume.format,
            )
        case HostPathVolume():
            return VolumeFile(
                name=name,
                owner=owner,
                form="directory",
                path=volume.path,
                user=QEMU_USER,
                writable=volume.writable,
            )


def efivars(cluster: Cluster, node: Node, host: Host, settings: Settings) -> VolumeFile:
    """The UEFI variables of a node, which outlive its power cycles.

    With Secure Boot they are a store of their own, whose template has the keys: to switch it on and off leaves either
    store with its boot entries as they were.
    """
    name = "efivars-secure" if node.secure_boot else "efivars"
    return VolumeFile(
        name=f"{node.name}/@{name}",
        owner=_owner(node),
        form="vars",
        path=_directory(cluster, node, settings) / f"{name}.fd",
        user=QEMU_USER,
        base=_secure_vars(host, node) if node.secure_boot else firmware(host, node).vars,
        format="raw",
    )


def tpm_state(cluster: Cluster, node: Node, settings: Settings) -> VolumeFile:
    """The directory in which a node's swtpm keeps its state."""
    path = _directory(cluster, node, settings) / "tpm"
    return VolumeFile(name=f"{node.name}/@tpm", owner=_owner(node), form="state", path=path, user=QEMU_USER)


def firmware(host: Host, node: Node) -> Ovmf:
    """The host's UEFI firmware; raises PlacematError where there is none."""
    if not host.ovmf:
        raise PlacematError(f"{_owner(node)}: uefi needs OVMF firmware, and this host has none (apt-get install ovmf)")
    return host.ovmf


def _secure_vars(host: Host, node: Node) -> Path:
    ovmf = firmware(host, node)
    if not ovmf.secure_vars:
        what = f"secure-boot needs a template of UEFI variables with keys beside {ovmf.vars}, and this host has none"
        raise PlacematError(f"{_owner(node)}: {what} (OVMF_VARS_4M.ms.fd of Debian's and Ubuntu's package ovmf)")
    return ovmf.secure_vars


def _directory(cluster: Cluster, node: Node, settings: Settings, device_class: str = "") -> Path:
    classes = {item.name: item.path for item in cluster.device_classes}
    root = classes[device_class] if device_class else settings.data_dir
    return root / cluster.name / "volumes" / node.name


def _owner(node: Node) -> str:
    return f"Node {node.name}"
