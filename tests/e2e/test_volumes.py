"""Every field of volumes, images and device classes: what guests read and write, and what QEMU and files say."""

import bz2
import json
import lzma
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from guests import Console, images
from sandboxes import Box, as_root

from tests.e2e.console import CLI, booted, entered
from tests.e2e.host import differences, json_of, snapshot
from tests.e2e.journal import follow

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

HERE = Path(__file__).parent
CLUSTER = "volumes"
MIB = 1 << 20
DISKS = (
    "root",
    "default",
    "writeback",
    "writethrough",
    "directsync",
    "unsafe",
    "seed",
    "plain",
    "bzip2",
    "xz",
    "zstd",
)
"""Of node full, in their order; shared directories are no disks."""
END = 60 * MIB // 512  # a sector in what was added to the image
USER_DATA, NETWORK = "#cloud-config\nhostname: full\n", "version: 2\n"


@dataclass
class Lab:
    """Cluster `volumes`, up, with the consoles of its nodes."""

    box: Box
    full: Console
    cow: Console
    instances: tuple[str, str] = ("", "")
    """The instance-ids of the time before, of full and cow."""

    @property
    def folder(self) -> str:
        return folder_of(self.box)

    def volumes(self) -> dict[str, Any]:
        """Volumes by name, as `volume list` has them."""
        return by_name(self.box)

    def path(self, name: str) -> str:
        return str(self.volumes()[name]["path"])


def folder_of(box: Box) -> str:
    return f"/run/{box.name}"


def cli(box: Box, *words: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    return box.run([CLI, "--cluster", CLUSTER, *words], **options)


def by_name(box: Box) -> dict[str, Any]:
    listed = json.loads(cli(box, "volume", "list", "--json").stdout)
    return {f"{volume['node']}/{volume['name']}": volume for volume in listed}


def device(name: str) -> str:
    """A disk of node full as its guest calls it."""
    return f"vd{chr(ord('a') + DISKS.index(name))}"


def mebibytes(guest: Console, disk: str) -> float:
    return int(guest.run(f"cat /sys/block/{disk}/size")) * 512 / MIB


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    with as_root() as box:
        yield box


@pytest.fixture(scope="module")
def served(box: Box) -> Iterator[str]:
    """Images on a web server in the sandbox; the path of its log."""
    folder = folder_of(box)
    box.sh(f"mkdir -p {folder}/www {folder}/readonly; echo from the host > {folder}/readonly/file")
    guest = images("generic").bios
    box.sh(f"cp {guest} {folder}/guest.img; gzip -1 -c {guest} > {folder}/www/guest.img.gz")
    for name, pack in {"plain": bytes, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": zstd}.items():
        suffix = {"bzip2": ".bz2", "xz": ".xz", "zstd": ".zst"}.get(name, "")
        content = f"image {name}\n".encode().ljust(MIB, b"\0")
        box.run(["tee", f"{folder}/www/{name}.img{suffix}"], input=pack(content), text=False, stdout=subprocess.DEVNULL)
    argv = ["python3", "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", f"{folder}/www", "8000"]
    log = f"{folder}/www.log"
    server = box.popen(["sh", "-c", f'exec "$@" 2>{log}', "sh", *argv], stdout=subprocess.PIPE)
    assert b"Serving HTTP" in server.stdout.readline()
    yield log
    server.terminate()
    server.wait(30)
    server.stdout.close()


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-c"], input=data, check=True, capture_output=True).stdout


def write_cluster(box: Box, *edits: tuple[str, str]) -> None:
    """Put the cluster file into the folder, with what `edits` replace."""
    folder = folder_of(box)
    digest = box.sh(f"sha256sum {folder}/www/guest.img.gz").split()[0]
    text = (HERE / "volumes/cluster.yml").read_text()
    for old, new in (("FOLDER", folder), ("SHA256", f'"{digest}"'), *edits):
        assert old in text
        text = text.replace(old, new)
    box.run(["tee", f"{folder}/cluster.yml"], input=text)


def up(box: Box) -> None:
    box.sh(f"mkdir -p /run/placemat; echo PLACEMAT_FILES={folder_of(box)}/cluster.yml > /run/placemat/{CLUSTER}.conf")
    box.run(["systemctl", "start", f"placemat@{CLUSTER}"])


def down(box: Box) -> None:
    box.run(["systemctl", "stop", f"placemat@{CLUSTER}"])


@pytest.fixture(scope="module")
def lab(box: Box, served: str) -> Iterator[Lab]:
    folder = folder_of(box)
    box.run(["tee", f"{folder}/user-data"], input=USER_DATA)
    box.run(["tee", f"{folder}/network-config"], input=NETWORK)
    write_cluster(box)
    up(box)
    with entered(box, CLUSTER, "full") as full, entered(box, CLUSTER, "cow") as cow:
        yield Lab(box, booted(full), booted(cow))


@pytest.fixture(scope="module")
def again(lab: Lab) -> Iterator[Lab]:
    """The same cluster, down and up again, after its guests wrote and its files were edited."""
    box = lab.box
    for guest in (lab.full, lab.cow):
        guest.run(f"echo persists | dd of=/dev/vda seek={END} conv=fsync 2>/dev/null")
    lab.full.run(f"echo persists | dd of=/dev/{device('directsync')} conv=fsync 2>/dev/null")
    box.run(["tee", f"{lab.folder}/network-config"], input=NETWORK + "ethernets: {}\n")
    before = instances(lab)
    down(box)
    write_cluster(box, ("size: 64M", "size: 96M"))
    up(box)
    with ExitStack() as stack:
        consoles = [stack.enter_context(entered(box, CLUSTER, name)) for name in ("full", "cow")]
        yield Lab(box, booted(consoles[0]), booted(consoles[1]), before)
    down(box)


def instances(lab: Lab) -> tuple[str, str]:
    """The instance-ids in the seeds of full and cow."""
    seeds = (seed_of(lab.full, device("seed")), seed_of(lab.cow, "vdb"))
    full, cow = (str(json.loads(seed["meta-data"])["instance-id"]) for seed in seeds)
    return full, cow


# -- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.proves("Image.sha256")
def test_an_image_with_another_checksum_fails_the_start_and_leaves_nothing(box: Box, served: str) -> None:
    folder = folder_of(box)
    before = snapshot(box.run)
    box.run(["tee", f"{folder}/wrong.yml"], input=(HERE / "volumes/wrong.yml").read_text())
    done = box.run([CLI, "up", f"{folder}/wrong.yml"], check=False)
    assert done.returncode == 1
    actual = box.sh(f"sha256sum {folder}/www/plain.img").split()[0]
    assert f"fetch image wrong: sha256 is {actual}, expected {'0' * 64}" in done.stderr
    box.run([CLI, "down", "wrong"])
    assert differences(before, snapshot(box.run)) == {}
    assert box.sh("find /var/cache/placemat /var/lib/placemat -type f -size +0 2>/dev/null || true") == ""


@pytest.mark.proves("Image.name", "Image.url", "Image.compression", "Image.sha256")
def test_downloaded_images_reach_the_guest_unpacked(lab: Lab) -> None:
    for name in ("plain", "bzip2", "xz", "zstd"):
        assert lab.full.run(f"head -n 1 /dev/{device(name)}") == f"image {name}"
        assert mebibytes(lab.full, device(name)) == 1
    assert lab.cow.run("nproc") == "1"  # it booted from the one with gzip


# -- disks ------------------------------------------------------------------------------------------------------------


@pytest.mark.proves(
    "Image.file",
    "Node.volumes[image].name",
    "Node.volumes[image].image",
    "Node.volumes[image].copy-on-write",
    "Node.volumes[image].size",
)
def test_guests_boot_from_a_copy_and_from_a_layer_of_their_image(lab: Lab) -> None:
    assert mebibytes(lab.full, "vda") == 64
    assert mebibytes(lab.cow, "vda") == 128
    original = lab.box.sh(f"stat --format=%s {lab.folder}/guest.img")
    copy, layer = (qemu_info(lab, name) for name in ("full/root", "cow/root"))
    assert copy["format"] == layer["format"] == "qcow2"
    assert "backing-filename" not in copy
    assert layer["backing-filename"].startswith("/var/cache/placemat/images/")
    assert layer["actual-size"] < 4 * MIB < int(original)
    assert lab.box.sh(f"stat --format=%s {layer['backing-filename']}") == original
    assert set(lab.volumes()) == {
        *(f"full/{name}" for name in (*DISKS, "readonly", "writable")),
        "cow/root",
        "cow/seed",
    }


def qemu_info(lab: Lab, name: str) -> dict[str, Any]:
    return dict(json_of(lab.box.run, "qemu-img", "info", "--output=json", "-U", lab.path(name)))


@pytest.mark.proves("Node.volumes[raw].name", "Node.volumes[raw].size", "Node.volumes[raw].format")
def test_empty_disks_have_their_size_and_format(lab: Lab) -> None:
    sizes = {"default": 8, "writeback": 9, "writethrough": 10, "directsync": 11, "unsafe": 12}
    assert {name: mebibytes(lab.full, device(name)) for name in sizes} == sizes
    formats = {name: qemu_info(lab, f"full/{name}")["format"] for name in sizes}
    qcow2, raw = "qcow2", "raw"
    expected = {"default": qcow2, "writeback": raw, "writethrough": qcow2, "directsync": raw, "unsafe": qcow2}
    assert formats == expected
    assert lab.full.run(f"cat /dev/{device('default')} | tr -d '\\0' | wc -c") == "0"


@pytest.mark.proves(
    "DeviceClass.name",
    "DeviceClass.path",
    "Node.volumes[image].device-class",
    "Node.volumes[raw].device-class",
    "Node.volumes[localds].device-class",
    "Node.volumes[hostPath].device-class",
)
def test_volumes_lie_in_the_path_of_their_device_class(lab: Lab) -> None:
    """A shared directory is where it is: as in placemat v2 its device class says nothing."""
    fast = f"{lab.folder}/fast/{CLUSTER}/volumes/full"
    found = lab.box.sh(f"ls {fast}").split()
    assert found == ["directsync.img", "root.img", "seed.img"]
    assert lab.path("full/root") == f"{fast}/root.img"
    assert lab.path("full/default") == f"/var/lib/placemat/{CLUSTER}/volumes/full/default.img"
    assert lab.path("full/readonly") == f"{lab.folder}/readonly"


# -- shared directories -----------------------------------------------------------------------------------------------


@pytest.mark.proves(
    "Node.volumes[hostPath].name",
    "Node.volumes[hostPath].path",
    "Node.volumes[hostPath].writable",
    "Node.volumes[hostPath].cache",
)
def test_shared_directories(lab: Lab) -> None:
    """By name and path; a cache mode is accepted and says nothing, as in placemat v2."""
    guest, box = lab.full, lab.box
    for name in ("readonly", "writable"):
        guest.run(f"mkdir -p /mnt/{name} && mount -t 9p -o trans=virtio,version=9p2000.L {name} /mnt/{name}")
    assert guest.run("cat /mnt/readonly/file") == "from the host"
    refused = guest.run("! touch /mnt/readonly/new 2>&1 && ! rm /mnt/readonly/file 2>&1")
    assert refused.count("Read-only file system") == 2
    box.sh(f"echo later > {lab.folder}/readonly/later")
    assert guest.run("cat /mnt/readonly/later") == "later"
    assert box.sh(f"ls {lab.folder}/readonly").split() == ["file", "later"]

    guest.run("echo from the guest > /mnt/writable/file && mkdir -m 700 /mnt/writable/directory")
    assert box.sh(f"cat {lab.folder}/made/writable/file") == "from the guest\n"
    assert box.sh(f"stat --format='%u %a' {lab.folder}/made/writable/directory") == "0 700\n"


# -- seeds ------------------------------------------------------------------------------------------------------------


def seed_of(guest: Console, disk: str) -> dict[str, str]:
    """The files of a seed, as a guest mounts them."""
    # ECMA-119, 8.4.7: the volume identifier, which is the label
    assert guest.run(f"dd if=/dev/{disk} bs=1 skip={16 * 2048 + 40} count=32 2>/dev/null").strip() == "cidata"
    guest.run(f"mkdir -p /mnt/seed && mount -t iso9660 -o ro /dev/{disk} /mnt/seed")
    files = {name: guest.run(f"cat /mnt/seed/{name}") for name in guest.run("ls /mnt/seed").split()}
    guest.run("umount /mnt/seed")
    return files


@pytest.mark.proves(
    "Node.volumes[localds].name", "Node.volumes[localds].user-data", "Node.volumes[localds].network-config"
)
def test_seeds_hold_the_files(lab: Lab) -> None:
    full, cow = seed_of(lab.full, device("seed")), seed_of(lab.cow, "vdb")
    assert full["user-data"] == cow["user-data"] == USER_DATA.strip()
    assert full["network-config"] == NETWORK.strip()
    assert set(cow) == {"user-data", "meta-data"}
    assert json.loads(cow["meta-data"])["local-hostname"] == "cow"


# -- cache modes ------------------------------------------------------------------------------------------------------

CACHES = {  # mode: writeback, direct, no-flush (qemu-system(1), -drive cache=)
    "none": (True, True, False),
    "writeback": (True, False, False),
    "writethrough": (False, False, False),
    "directsync": (False, True, False),
    "unsafe": (True, False, True),
}
MODES = {
    "root": "writethrough",
    "default": "none",
    "writeback": "writeback",
    "writethrough": "writethrough",
    "directsync": "directsync",
    "unsafe": "unsafe",
    "seed": "writeback",
    "plain": "none",
    "bzip2": "unsafe",
    "xz": "none",
    "zstd": "none",
}


def heard(console: Console) -> None:
    """Wait until the guest hears what is typed: what is typed while placematd is away is lost."""
    for _ in range(60):
        console.send("\n")
        try:
            console.expect(r"# $", 2)
            return
        except AssertionError:
            continue
    raise AssertionError("the guest hears nothing")


@pytest.mark.proves("Node.volumes[image].cache", "Node.volumes[raw].cache", "Node.volumes[localds].cache")
def test_every_cache_mode_is_what_qemu_has(lab: Lab) -> None:
    """QEMU's monitor is free for a moment when placematd is killed; the next placematd adopts the guests."""
    blocks = {
        Path(block["inserted"]["file"]).stem: block["inserted"] for block in query_block(lab) if "inserted" in block
    }
    caches = {name: block["cache"] for name, block in blocks.items()}
    found = {name: (cache["writeback"], cache["direct"], cache["no-flush"]) for name, cache in caches.items()}
    assert found == {name: CACHES[mode] for name, mode in MODES.items()}
    assert blocks["directsync"]["drv"] == "raw" and blocks["default"]["drv"] == "qcow2"
    heard(lab.full)
    write_cache = {name: lab.full.run(f"cat /sys/block/{device(name)}/queue/write_cache") for name in DISKS}
    assert write_cache == {name: "write back" if CACHES[mode][0] else "write through" for name, mode in MODES.items()}


def query_block(lab: Lab) -> list[dict[str, Any]]:
    argv = ["python3", HERE / "monitor.py", f"/run/placemat/{CLUSTER}/node/full/qmp", "query-block"]
    with lab.box.popen(argv, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout.readline() == "waiting\n"
        lab.box.run(["systemctl", "kill", "--kill-whom=main", "--signal=KILL", f"placemat@{CLUSTER}"])
        answer, _ = client.communicate(timeout=60)
    with follow(lab.box.popen, f"_SYSTEMD_UNIT=placemat@{CLUSTER}.service") as journal:
        journal.wait(rf"cluster {CLUSTER} is up: 0 networks, 0 namespaces, 2 of 2 nodes on", 120)
    return list(json.loads(answer))


# -- down and up again ------------------------------------------------------------------------------------------------


@pytest.mark.proves("Image.url")
def test_what_is_in_the_cache_is_not_downloaded_again(again: Lab, served: str) -> None:
    """The web server gives Last-Modified; for an image with a checksum there is nothing to ask."""
    log = again.box.sh(f"cat {served}")
    answers: dict[str, list[str]] = {}
    for path, status in re.findall(r'"GET /(\S+) HTTP/1\.1" (\d+)', log):
        answers.setdefault(path, []).append(status)
    assert answers["guest.img.gz"] == ["200"]
    for path in ("bzip2.img.bz2", "xz.img.xz", "zstd.img.zst"):
        assert answers[path][0] == "200"
        assert set(answers[path][1:]) == {"304"}


def test_what_guests_wrote_is_there_after_down_and_up(again: Lab) -> None:
    for guest, path in ((again.full, f"/dev/vda skip={END}"), (again.cow, f"/dev/vda skip={END}")):
        assert guest.run(f"dd if={path} count=1 2>/dev/null | head -n 1") == "persists"
    assert again.full.run(f"head -n 1 /dev/{device('directsync')}") == "persists"


def test_the_instance_is_a_new_one_when_its_data_changed_and_only_then(again: Lab) -> None:
    full, cow = instances(again)
    assert seed_of(again.full, device("seed"))["network-config"] == f"{NETWORK}ethernets: {{}}"
    assert full != again.instances[0] and cow == again.instances[1] and full != cow


def test_a_disk_that_changed_is_told_and_kept_until_it_is_reset(again: Lab) -> None:
    box, told = again.box, "volume full/root: changed since it was made (size: 64M → 96M)"
    assert mebibytes(again.full, "vda") == 64
    (warning,) = json.loads(cli(box, "status", "--json").stdout)["warnings"]
    assert warning.startswith(told) and "placemat-cli volume reset full root" in warning
    assert told in box.sh(f"journalctl --output=cat --unit=placemat@{CLUSTER}")
    assert by_name(box)["full/root"]["changes"] == "size: 64M → 96M"

    refused = cli(box, "volume", "reset", "full", "root", "--yes", check=False)
    assert refused.returncode == 1
    assert "node full is On: stop it first" in refused.stderr

    cli(box, "node", "stop", "full")
    cli(box, "volume", "reset", "full", "root", "--yes")
    cli(box, "node", "start", "full")
    booted(again.full)
    assert mebibytes(again.full, "vda") == 96
    assert again.full.run(f"dd if=/dev/vda skip={END} count=1 2>/dev/null | tr -d '\\0' | wc -c") == "0"
    assert json.loads(cli(box, "status", "--json").stdout)["warnings"] == []


def test_a_disk_that_could_not_be_used_is_refused_and_nothing_else_changes(again: Lab) -> None:
    box = again.box
    write_cluster(
        box,
        ("size: 64M", "size: 96M"),
        ("cache: directsync, device-class: fast}\n  - {kind: raw", "cache: directsync}\n  - {kind: raw"),
    )
    refused = cli(box, "reload", check=False)
    write_cluster(box, ("size: 64M", "size: 96M"))
    assert refused.returncode == 1
    assert f"it is at {again.folder}/fast/{CLUSTER}/volumes/full/directsync.img" in refused.stderr
    assert again.full.run("nproc") == "1"
    assert "nothing changed" in cli(box, "reload").stdout


# -- the cache and the volumes of a cluster that is down --------------------------------------------------------------


PYTHON = str(Path(CLI).with_name("python"))
AS_A_USER = """
import os, sys
import placematd.image, placematd.volume
from placemat_cli.__main__ import main
os.setgroups([]); os.setgid(1000); os.setuid(1000)
sys.exit(main())
"""
"""placemat-cli, no longer root once it is loaded: the clone may be one that only root may read."""


def test_images_and_volumes_of_a_cluster_that_is_down(again: Lab) -> None:
    box = again.box
    down(box)
    assert by_name(box)["cow/root"]["exists"]
    for words in (["volume", "list"], ["image", "prune"]):
        refused = box.run([PYTHON, "-c", AS_A_USER, "--cluster", CLUSTER, *words], check=False)
        assert refused.returncode == 1 and "ermission denied (be root)" in refused.stderr
    assert json.loads(box.run([CLI, "image", "prune", "--json"]).stdout) == []
    box.sh(f"rm /run/placemat/{CLUSTER}.conf")
    removed = {image["source"] for image in json.loads(box.run([CLI, "image", "prune", "--json"]).stdout)}
    assert removed == {f"http://127.0.0.1:8000/{name}" for name in ("plain.img", "bzip2.img.bz2", "zstd.img.zst")}
    cli(box, "volume", "reset", "cow", "root", "--yes")
    cli(box, "volume", "reset", "full", "--yes")
    assert set(by_name(box)) == {"cow/seed", "full/readonly", "full/writable"}
    assert box.sh(f"cat {again.folder}/readonly/file") == "from the host\n"
    removed = {image["source"] for image in json.loads(box.run([CLI, "image", "prune", "--json"]).stdout)}
    assert removed == {f"http://127.0.0.1:8000/{name}" for name in ("guest.img.gz", "xz.img.xz")}
    assert box.sh("ls -A /var/cache/placemat/images") == ""
