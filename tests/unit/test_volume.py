"""Volumes made with the real qemu-img and cloud-localds, and read by them again."""

import fcntl
import hashlib
import json
import os
import pwd
import shutil
import subprocess
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from placematd.errors import NotFound, StepError, WrongState
from placematd.image.cache import Entry, Record
from placematd.names import OwnerMark
from placematd.resources import VolumeFile
from placematd.volume import Volumes, list_volumes, reset_volume
from placematd.volume.base import header
from placematd.volume.create import alone, bytes_of

ME = pwd.getpwuid(os.geteuid()).pw_name
MIB = 1 << 20


def qemu_img(*words: object) -> str:
    return subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True, text=True).stdout


def info(path: Path, image_format: str = "qcow2") -> dict:
    return json.loads(qemu_img("info", "--output=json", "-f", image_format, path))


@dataclass
class Data:
    """A data directory with volumes of cluster c1."""

    root: Path
    warnings: list[str] = field(default_factory=list)

    @property
    def directory(self) -> Path:
        return self.root / "data"

    def volumes(self) -> Volumes:
        """As a new process has them."""
        return Volumes(self.directory, warn=self.warnings.append)

    def volume(self, form: str, name: str = "n1/vda", **fields: object) -> VolumeFile:
        node, _, volume = name.partition("/")
        path = self.directory / "c1" / "volumes" / node / f"{volume}.img"
        inputs = {"format": "qcow2" if form not in ("vars", "state", "directory") else "", **fields}
        return replace(VolumeFile(name=name, form=form, path=path, user=ME), **inputs)

    def make(self, volume: VolumeFile) -> Path:
        self.volumes().create(volume, "c1")
        return volume.path

    def refused(self, volume: VolumeFile) -> str:
        """The message of a volume that cannot be made, of which nothing may be left."""
        before = self.files()
        with pytest.raises(StepError) as caught:
            self.make(volume)
        assert self.files() == before
        return str(caught.value)

    def changes(self, volume: VolumeFile) -> str:
        """What is told of a volume that differs from what the cluster file says now."""
        (found,) = list_volumes(self.directory, "c1", [volume])
        return found.changes

    def files(self) -> set[str]:
        paths = (path for path in self.directory.rglob("*") if not path.is_dir())
        return {str(path.relative_to(self.directory)) for path in paths}

    def marks(self) -> list[OwnerMark]:
        return list(self.volumes().observe("c1"))


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return Data(tmp_path)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A raw image of 4 MiB."""
    path = tmp_path / "base.raw"
    path.write_bytes(os.urandom(MIB) + bytes(2 * MIB) + os.urandom(MIB))
    return path


@pytest.fixture
def qcow2(raw: Path) -> Path:
    """The same as qcow2."""
    path = raw.with_suffix(".qcow2")
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, path)
    return path


def content(path: Path, image_format: str = "qcow2") -> bytes:
    out = path.with_name("content.raw")
    qemu_img("convert", "-f", image_format, "-O", "raw", path, out)
    return out.read_bytes()


# -- disks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["copy", "cow"])
@pytest.mark.parametrize("source", ["raw", "qcow2", "vdi", "vhdx", "vpc"])
def test_disk_from_image_is_qcow2_with_its_content(data: Data, raw: Path, form: str, source: str) -> None:
    base = raw
    if source != "raw":
        base = raw.with_suffix("." + source)
        qemu_img("convert", "-f", "raw", "-O", source, raw, base)
    path = data.make(data.volume(form, base=base))
    assert header(path).format == "qcow2"
    assert content(path)[: 4 * MIB] == raw.read_bytes()
    assert info(path).get("backing-filename") == (str(base) if form == "cow" else None)
    if form == "cow":
        assert info(path)["backing-filename-format"] == source
    assert path.stat().st_mode & 0o777 == 0o600


def test_node_directory_is_for_its_user_alone(data: Data, raw: Path) -> None:
    path = data.make(data.volume("copy", base=raw))
    assert path.parent.stat().st_mode & 0o777 == 0o750
    assert path.parent.stat().st_gid == pwd.getpwnam(ME).pw_gid
    assert [path.parents[n].stat().st_mode & 0o777 for n in (1, 2)] == [0o711, 0o711]


def test_copy_of_qcow2_keeps_holes(data: Data, raw: Path) -> None:
    big = raw.with_name("big.qcow2")
    qemu_img("create", "-f", "qcow2", "-o", "preallocation=metadata", big, "1G")
    path = data.make(data.volume("copy", base=big))
    assert path.stat().st_blocks * 512 < 10 * MIB


@pytest.mark.parametrize("form", ["copy", "cow"])
@pytest.mark.parametrize("source", ["raw", "qcow2"])
def test_size_grows_the_disk_and_not_the_image(data: Data, raw: Path, qcow2: Path, form: str, source: str) -> None:
    base = raw if source == "raw" else qcow2
    before = base.read_bytes()
    path = data.make(data.volume(form, base=base, size="10M"))
    assert info(path)["virtual-size"] == 10 * MIB
    assert base.read_bytes() == before


@pytest.mark.parametrize("form", ["copy", "cow"])
def test_size_never_shrinks(data: Data, qcow2: Path, form: str) -> None:
    message = data.refused(data.volume(form, base=qcow2, size="3M"))
    assert "size 3M is less than the 4194304 bytes" in message and "never shrunk" in message


@pytest.mark.parametrize(
    ("size", "expected"),
    [("512", 512), ("512b", 512), ("1k", 1024), ("20G", 20 << 30), ("1.5T", 3 << 39), ("2P", 2 << 50)],
)
def test_sizes_are_read_as_qemu_img_does(tmp_path: Path, size: str, expected: int) -> None:
    assert bytes_of(size) == expected
    qemu_img("create", "-f", "qcow2", tmp_path / "disk", size)
    assert info(tmp_path / "disk")["virtual-size"] == max(expected, 512)


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_empty_disk(data: Data, image_format: str) -> None:
    path = data.make(data.volume("raw", size="8M", format=image_format))
    assert info(path, image_format)["virtual-size"] == 8 * MIB
    assert path.stat().st_blocks * 512 < MIB


def test_uefi_variables_are_copied_once(data: Data, tmp_path: Path) -> None:
    template = tmp_path / "OVMF_VARS.fd"
    template.write_bytes(b"variables")
    volume = data.volume("vars", name="n1/@efivars", base=template, format="raw")
    assert data.make(volume).read_bytes() == b"variables"
    assert data.marks() == [volume.mark("c1")]
    volume.path.write_bytes(b"changed by the guest")
    template.write_bytes(b"of a newer package")
    assert data.marks() == [volume.mark("c1")]
    assert data.make(volume).read_bytes() == b"changed by the guest"
    assert data.warnings == []


def test_tpm_state_is_a_private_directory(data: Data) -> None:
    volume = replace(data.volume("state", name="n1/@tpm"), path=data.directory / "c1" / "volumes" / "n1" / "tpm")
    assert data.make(volume).stat().st_mode & 0o7777 == 0o700
    (volume.path / "tpm2-00.permall").write_bytes(b"state")
    data.make(volume)
    assert (volume.path / "tpm2-00.permall").read_bytes() == b"state"
    assert data.marks() == [volume.mark("c1")]


def test_shared_directory_is_made_and_never_changed(data: Data, tmp_path: Path) -> None:
    shared = tmp_path / "a" / "b"
    volume = replace(data.volume("directory", name="n1/share"), path=shared)
    data.make(volume)
    assert shared.is_dir()
    assert data.marks() == [volume.mark("c1")]
    shared.chmod(0o705)
    data.make(volume)
    assert shared.stat().st_mode & 0o777 == 0o705
    reset_volume(data.directory, "c1", "n1", "share")
    assert shared.is_dir()
    assert data.marks() == []


def test_shared_directory_that_is_a_file(data: Data, raw: Path) -> None:
    assert "no directory" in data.refused(replace(data.volume("directory"), path=raw))


def test_volume_on_a_device_class_is_known_from_the_data_directory(data: Data, raw: Path, tmp_path: Path) -> None:
    volume = replace(data.volume("copy", base=raw), path=tmp_path / "ssd" / "c1" / "volumes" / "n1" / "vda.img")
    data.make(volume)
    assert data.marks() == [volume.mark("c1")]
    assert data.files() == {"c1/records/n1/vda.json"}
    assert [path.name for path in volume.path.parents[1].iterdir()] == ["n1"]


# -- images that are not to be trusted --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["copy", "cow"])
def test_image_with_a_backing_file_is_refused(data: Data, raw: Path, form: str) -> None:
    """Its guest would read any file of the host."""
    bad = raw.with_name("bad.qcow2")
    qemu_img("create", "-f", "qcow2", "-F", "raw", "-u", "-b", "/etc/shadow", bad, "1M")
    message = data.refused(data.volume(form, base=bad))
    assert "/etc/shadow" in message and "may not name other files" in message


@pytest.mark.parametrize("form", ["copy", "cow"])
def test_image_with_an_external_data_file_is_refused(data: Data, raw: Path, form: str) -> None:
    bad = raw.with_name("bad.qcow2")
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={raw},data_file_raw=on", bad, "1M")
    assert "another file" in data.refused(data.volume(form, base=bad))


def test_vmdk_is_refused(data: Data, raw: Path) -> None:
    bad = raw.with_suffix(".vmdk")
    qemu_img("convert", "-f", "raw", "-O", "vmdk", raw, bad)
    assert "VMDK" in data.refused(data.volume("copy", base=bad))
    bad.write_text('# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 2048 FLAT "/etc/shadow" 0\n')
    assert "VMDK" in data.refused(data.volume("copy", base=bad))


@pytest.mark.parametrize("head", [b"QFI\xfb", b"QFI\xfb" + b"\xff" * 200, b"QFI\xfb\0\0\0\3" + b"\0" * 100])
def test_damaged_header(data: Data, tmp_path: Path, head: bytes) -> None:
    (tmp_path / "bad").write_bytes(head)
    data.refused(data.volume("copy", base=tmp_path / "bad"))


def test_missing_image(data: Data, tmp_path: Path) -> None:
    assert f"{tmp_path}/none: No such file" in data.refused(data.volume("cow", base=tmp_path / "none"))


# -- whole or not at all, and only once -------------------------------------------------------------------------------


def test_existing_volume_is_left_alone(data: Data, raw: Path) -> None:
    volume = data.volume("copy", base=raw)
    path = data.make(volume)
    path.write_bytes(b"what the guest wrote")
    data.make(volume)
    assert path.read_bytes() == b"what the guest wrote"
    assert data.marks() == [volume.mark("c1")]
    assert data.volumes().observe("c2") == []


def test_changed_inputs_are_told_and_the_disk_stays(data: Data, raw: Path) -> None:
    path = data.make(data.volume("copy", base=raw, size="10M"))
    path.write_bytes(b"what the guest wrote")
    wanted = data.volume("copy", base=raw, size="20M")
    for _ in range(2):  # the disk of today does not pass for the one that is wanted after it was used once
        assert data.make(wanted).read_bytes() == b"what the guest wrote"
        assert data.changes(wanted) == "size: 10M → 20M"
    assert data.marks() != [wanted.mark("c1")]
    assert data.changes(data.volume("copy", base=raw, size="10M")) == ""


@pytest.mark.parametrize("form", ["copy", "cow"])
def test_changed_image_is_told_and_the_disk_stays(data: Data, raw: Path, form: str) -> None:
    volume = data.volume(form, base=raw)
    before = data.make(volume).read_bytes()
    raw.write_bytes(os.urandom(4 * MIB))
    (mark,) = data.marks()
    assert mark.name == "n1/vda" and mark.digest != volume.digest
    assert data.changes(volume).startswith("image content: 4194304 bytes")
    assert data.make(volume).read_bytes() == before


def test_disk_of_another_format_is_not_used(data: Data) -> None:
    data.make(data.volume("raw", size="1M"))
    message = data.refused(data.volume("raw", size="1M", format="raw"))
    assert "it is qcow2 and not raw" in message and "`placemat-cli volume reset n1 vda` deletes it" in message


@pytest.mark.parametrize("form", ["copy", "cow"])
def test_disk_that_stands_on_another_image_is_not_used(data: Data, raw: Path, qcow2: Path, form: str) -> None:
    data.make(data.volume("cow", base=raw))
    assert f"it stands on image {raw}" in data.refused(data.volume(form, base=qcow2))


def test_disk_on_another_device_class_is_not_made_twice_and_can_be_moved(data: Data, raw: Path) -> None:
    volume = data.volume("copy", base=raw)
    path = data.make(volume)
    path.write_bytes(b"what the guest wrote")
    moved = replace(volume, path=data.root / "ssd" / "c1" / "volumes" / "n1" / "vda.img")
    message = data.refused(moved)
    assert not moved.path.exists()
    command = message.partition("keep it: ")[2].rstrip(")")
    subprocess.run(["sh", "-c", command], check=True)
    assert data.make(moved).read_bytes() == b"what the guest wrote"
    assert data.marks() == [moved.mark("c1")]


def test_same_image_fetched_again_is_the_same(data: Data, tmp_path: Path) -> None:
    """A cache may be emptied: its checksum tells that what came back is what a disk stands on."""
    image = cached(tmp_path, b"\1" * MIB)
    volume = data.volume("cow", base=image)
    data.make(volume)
    shutil.rmtree(image.parent)
    assert data.marks() == [volume.mark("c1")]
    cached(tmp_path, b"\1" * MIB)
    assert data.marks() == [volume.mark("c1")]
    shutil.rmtree(image.parent)
    cached(tmp_path, b"\2" * MIB)
    assert data.marks() != [volume.mark("c1")]


def cached(root: Path, data: bytes) -> Path:
    """An image in a cache."""
    path = root / "cache" / "images" / "0123"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    found = path.stat()
    record = Record(
        source="http://example/disk",
        compression="",
        sha256=hashlib.sha256(data).hexdigest(),
        served_bytes=len(data),
        fetched="2022-01-01T00:00:00+00:00",
        size=found.st_size,
        mtime_ns=found.st_mtime_ns,
    )
    Entry(path).write(record)
    return path


def test_cached_image_is_held_by_copy_on_write_alone_until_reset(data: Data, tmp_path: Path) -> None:
    image = cached(tmp_path, b"\1" * MIB)
    path = data.make(data.volume("cow", base=image))
    data.make(data.volume("copy", name="n2/vda", base=image))
    assert Entry(image).users() == (path,)
    reset_volume(data.directory, "c1", "n1", "vda")
    assert Entry(image).users() == ()
    assert not Entry(image).users_path.exists()


def test_failing_qemu_img_leaves_nothing(
    data: Data, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes a half and fails, as on a full disk."""
    fake = tmp_path / "bin" / "qemu-img"
    fake.parent.mkdir()
    fake.write_text(
        '#!/bin/sh\nfor word; do case $word in *.part) echo half >"$word";; esac; done\n'
        'echo "No space left on device" >&2\nexit 1\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    assert "No space left" in data.refused(data.volume("raw", size="1M"))
    assert "No space left" in data.refused(data.volume("copy", base=raw))
    assert [path.name for path in (data.directory / "c1" / "volumes").iterdir()] == ["n1"]


def test_long_copy_tells_how_far_it_is(data: Data, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd ends a start that gives no sign of life."""
    told = threading.Event()
    fifo = tmp_path / "told"
    os.mkfifo(fifo)
    slow = tmp_path / "bin" / "qemu-img"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\n{shutil.which("qemu-img")} "$@"; [ "$1" != convert ] || cat {fifo}\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("placematd.volume.create.REPORT_SECONDS", 0.01)
    seen: list[tuple[str, int, int | None]] = []

    def progress(*report: object) -> None:
        seen.append(report)
        if report[1] > MIB and not told.is_set():
            told.set()
            fifo.write_text("")

    Volumes(data.directory, progress=progress).create(data.volume("copy", base=raw), "c1")
    assert seen[-1][0] == "volume n1/vda" and told.is_set()


def test_killed_while_copying_is_made_again(data: Data, raw: Path) -> None:
    """The record is there, a half file beside it, and no disk."""
    volume = data.volume("copy", base=raw)
    data.make(volume)
    volume.path.unlink()
    half = data.directory / "c1" / "volumes" / ".n1@vda.img.part"
    half.write_bytes(b"half")
    assert data.marks() == []
    assert content(data.make(volume)) == raw.read_bytes()
    assert not half.exists()


def test_link_left_by_a_guest_that_broke_out_is_not_followed(data: Data, raw: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    volume = data.volume("copy", base=raw)
    volume.path.parent.mkdir(parents=True)
    volume.path.symlink_to(victim)
    assert "no regular file" in data.refused(volume)
    volume.path.unlink()
    state = replace(data.volume("state"), path=volume.path.with_name("tpm"))
    (tmp_path / "etc").mkdir(mode=0o755)
    state.path.symlink_to(tmp_path / "etc")
    data.refused(state)
    assert victim.read_text() == "precious"
    assert (tmp_path / "etc").stat().st_mode & 0o777 == 0o755


def test_volumes_of_one_node_can_be_made_at_once(data: Data, raw: Path) -> None:
    volumes = data.volumes()
    wanted = [data.volume("cow", name=f"n1/vd{letter}", base=raw) for letter in "abcd"]
    threads = [threading.Thread(target=volumes.create, args=(volume, "c1")) for volume in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert data.marks() == [volume.mark("c1") for volume in wanted]


def test_user_that_does_not_exist(data: Data, raw: Path) -> None:
    assert "no such user" in data.refused(data.volume("copy", base=raw, user="nobody-here"))


# -- disks without a record -------------------------------------------------------------------------------------------


def test_disk_without_record_is_taken_over_with_a_warning(data: Data, qcow2: Path) -> None:
    volume = data.volume("copy", base=qcow2, size="20M")
    volume.path.parent.mkdir(parents=True)
    qemu_img("create", "-f", "qcow2", volume.path, "5M")
    volume.path.chmod(0o644)
    before = volume.path.read_bytes()
    data.make(volume)
    assert volume.path.read_bytes() == before
    assert volume.path.stat().st_mode & 0o777 == 0o600
    assert "was there already" in data.warnings[0]
    assert data.marks() == [volume.mark("c1")]


def test_disk_without_record_of_another_format_is_refused(data: Data, raw: Path) -> None:
    """QEMU is told qcow2; what placemat v2 copied from a raw image is raw."""
    volume = data.volume("copy", base=raw)
    volume.path.parent.mkdir(parents=True)
    shutil.copyfile(raw, volume.path)
    assert f"qemu-img convert -f raw -O qcow2 {volume.path}" in data.refused(volume)


def test_disk_without_record_may_stand_on_its_image_alone(data: Data, qcow2: Path) -> None:
    volume = data.volume("cow", base=qcow2)
    volume.path.parent.mkdir(parents=True)
    qemu_img("create", "-f", "qcow2", "-F", "qcow2", "-b", qcow2, volume.path)
    data.make(volume)
    volume.path.unlink()
    (data.directory / "c1" / "records" / "n1" / "vda.json").unlink()
    qemu_img("create", "-f", "qcow2", "-F", "raw", "-u", "-b", "/etc/shadow", volume.path, "1M")
    assert "/etc/shadow" in data.refused(volume)


# -- seeds ------------------------------------------------------------------------------------------------------------


@dataclass
class Seed:
    """A seed and what is on it."""

    data: Data
    volume: VolumeFile

    def files(self) -> dict[str, bytes]:
        iso = self.data.root / "seed.iso"
        qemu_img("convert", "-f", "qcow2", "-O", "raw", self.volume.path, iso)
        assert b"cidata" in subprocess.run(["isoinfo", "-d", "-i", iso], capture_output=True, check=True).stdout
        listed = subprocess.run(["isoinfo", "-J", "-f", "-i", iso], capture_output=True, check=True).stdout.decode()
        return {
            name.lstrip("/"): subprocess.run(
                ["isoinfo", "-J", "-x", name, "-i", iso], capture_output=True, check=True
            ).stdout
            for name in listed.split()
        }

    def instance(self) -> str:
        return json.loads(self.files()["meta-data"])["instance-id"]


@pytest.fixture
def seed(data: Data, tmp_path: Path) -> Seed:
    (tmp_path / "user.yml").write_text("#cloud-config\nhostname: ünïcode\n")
    (tmp_path / "network.yml").write_text("version: 1\nconfig: []\n")
    volume = data.volume(
        "seed", name="n1/seed", user_data=tmp_path / "user.yml", network_config=tmp_path / "network.yml"
    )
    return Seed(data, volume)


def test_seed_is_qcow2_with_the_files_as_they_are(seed: Seed, tmp_path: Path) -> None:
    seed.data.make(seed.volume)
    files = seed.files()
    assert files["user-data"] == (tmp_path / "user.yml").read_bytes()
    assert files["network-config"] == (tmp_path / "network.yml").read_bytes()
    assert json.loads(files["meta-data"])["local-hostname"] == "n1"
    assert info(seed.volume.path)["format"] == "qcow2"
    assert seed.volume.path.stat().st_mode & 0o777 == 0o600


def test_seed_without_network_config(seed: Seed) -> None:
    seed.volume = replace(seed.volume, network_config=None)
    seed.data.make(seed.volume)
    assert set(seed.files()) == {"user-data", "meta-data"}
    assert info(seed.volume.path)["format"] == "qcow2"


def test_instance_id_changes_with_the_data_and_only_then(seed: Seed, tmp_path: Path) -> None:
    seed.data.make(seed.volume)
    first, inode = seed.instance(), seed.volume.path.stat().st_ino
    seed.data.make(seed.volume)
    assert (seed.instance(), seed.volume.path.stat().st_ino) == (first, inode)
    assert seed.data.marks() == [seed.volume.mark("c1")]
    for name in ("user.yml", "network.yml"):
        with (tmp_path / name).open("a") as file:
            file.write("# changed\n")
        assert seed.data.marks() != [seed.volume.mark("c1")]
        seed.data.make(seed.volume)
        assert seed.data.marks() == [seed.volume.mark("c1")]
        assert seed.instance() != first
        first = seed.instance()
    other = replace(seed.volume, name="n2/seed", path=seed.volume.path.parents[1] / "n2" / "seed.img")
    seed.data.make(other)
    assert Seed(seed.data, other).instance() != first


def test_seed_with_user_data_that_is_missing(seed: Seed, tmp_path: Path) -> None:
    (tmp_path / "user.yml").unlink()
    assert "user.yml: No such file" in seed.data.refused(seed.volume)


# -- for people -------------------------------------------------------------------------------------------------------


def test_list_and_reset(data: Data, raw: Path) -> None:
    kept, gone = data.volume("copy", base=raw), data.volume("raw", name="n2/vdb", size="1M")
    for volume in (kept, gone):
        data.make(volume)
    listed = {(item.node, item.name): item for item in list_volumes(data.directory, "c1")}
    assert set(listed) == {("n1", "vda"), ("n2", "vdb")}
    assert listed["n1", "vda"].exists and listed["n1", "vda"].stored_bytes > 2 * MIB
    assert listed["n1", "vda"].changes == ""
    raw.write_bytes(b"\1" * MIB)
    assert "image content" in list_volumes(data.directory, "c1")[0].changes
    assert reset_volume(data.directory, "c1", "n2", "vdb").path == gone.path
    assert data.files() == {"c1/volumes/n1/vda.img", "c1/records/n1/vda.json"}
    assert list_volumes(data.directory, "none") == []


def test_reset_of_what_is_not_there(data: Data, raw: Path) -> None:
    data.make(data.volume("copy", base=raw))
    with pytest.raises(NotFound, match=r"no volume n1/vdb .*volumes: n1/vda"):
        reset_volume(data.directory, "c1", "n1", "vdb")
    with pytest.raises(NotFound):
        reset_volume(data.directory, "c1", "..", "../../etc/passwd")


def test_reset_of_a_disk_that_runs_is_refused(data: Data, raw: Path) -> None:
    """qemu-io locks a disk as QEMU does."""
    path = data.make(data.volume("copy", base=raw))
    with subprocess.Popen(
        ["qemu-io", "-f", "qcow2", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout
        process.stdin.write("length\n")
        process.stdin.flush()
        assert "4 MiB" in process.stdout.readline()
        with pytest.raises(WrongState, match="stop node n1 first"):
            reset_volume(data.directory, "c1", "n1", "vda")
        assert path.exists()
        process.stdin.write("quit\n")
    reset_volume(data.directory, "c1", "n1", "vda")
    assert not path.exists()


@pytest.mark.parametrize("step", ["create", "reset"])
def test_volumes_of_a_node_are_made_and_reset_one_after_the_other(data: Data, raw: Path, step: str) -> None:
    path = data.make(data.volume("copy", base=raw))
    steps = {
        "create": lambda: data.make(data.volume("raw", name="n1/vdb", size="1M")),
        "reset": lambda: reset_volume(data.directory, "c1", "n1", "vda"),
    }
    thread = threading.Thread(target=steps[step])
    with alone(path.parent):
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        assert path.exists()
    thread.join(10)
    assert [item.name for item in list_volumes(data.directory, "c1")] == (["vda", "vdb"] if step == "create" else [])


def test_reset_of_tpm_state(data: Data) -> None:
    volume = replace(data.volume("state", name="n1/@tpm"), path=data.directory / "c1" / "volumes" / "n1" / "tpm")
    lock = data.make(volume) / ".lock"
    with lock.open("w") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)  # as swtpm does
        with pytest.raises(WrongState):
            reset_volume(data.directory, "c1", "n1", "@tpm")
    reset_volume(data.directory, "c1", "n1", "@tpm")
    assert not volume.path.exists()


def test_removing_a_cluster_keeps_its_volumes(data: Data, raw: Path) -> None:
    volume = data.volume("copy", base=raw)
    path = data.make(volume)
    data.volumes().remove(volume.mark("c1"))
    assert path.exists()
    assert data.marks() == [volume.mark("c1")]
