"""Images and volumes as another user's QEMU opens them, and on a disk that is full."""

import os
import pwd
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from placematd.resources import VolumeFile
from placematd.volume import Volumes, reset_volume

pytestmark = pytest.mark.integration

USER = "nobody"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files to another user")


def opens(user: str, image_format: str, path: Path) -> bool:
    """Whether QEMU's block layer, run by the user, opens a disk for writing."""
    argv = ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups"]
    argv += ["qemu-io", "-f", image_format, "-c", "write -q 0 512", str(path)]
    return subprocess.run(argv, capture_output=True).returncode == 0


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory that other users can reach, which tmp_path is not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@as_root
@pytest.mark.parametrize("form", ["copy", "cow", "raw", "seed"])
def test_disk_is_its_users_and_nobody_elses(root: Path, form: str) -> None:
    base, user_data = root / "base.raw", root / "user-data"
    base.write_bytes(bytes(1 << 20))
    user_data.write_text("#cloud-config\n")
    volume = VolumeFile(
        name="n1/vda",
        form=form,
        path=root / "data" / "c1" / "volumes" / "n1" / "vda.img",
        user=USER,
        base=base if form in ("copy", "cow") else None,
        size="" if form == "seed" else "2M",
        user_data=user_data if form == "seed" else None,
        format="qcow2",
    )
    old = os.umask(0o077)
    try:
        Volumes(root / "data").create(volume, "c1")
    finally:
        os.umask(old)
    assert opens(USER, "qcow2", volume.path)
    assert not opens("daemon", "qcow2", volume.path)
    listing = ["setpriv", "--reuid=daemon", "--clear-groups", "ls", str(volume.path.parent)]
    assert b"Permission denied" in subprocess.run(listing, capture_output=True).stderr
    reset_volume(root / "data", "c1", "n1", "vda")
    assert not volume.path.exists()


def in_small_disk(directory: Path, size: str, program: str) -> str:
    """What a program prints that runs in a mount namespace with a tmpfs of that size on the directory."""
    script = 'mount -t tmpfs -o size="$1" tmpfs "$2" && exec "$3" -c "$4" "$2"'
    argv = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "sh", "-c", script]
    argv += ["sh", size, str(directory), sys.executable, textwrap.dedent(program)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_image_on_a_full_disk(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(4 << 20))
    (tmp_path / "small").mkdir()
    program = f"""
        import sys
        from pathlib import Path
        from placematd.errors import StepError
        from placematd.image import Images
        from placematd.resources import CachedImage

        path = Path(sys.argv[1]) / "images" / "0123"
        try:
            Images(Path(sys.argv[1])).create(CachedImage(name="disk", path=path, file=Path("{source}")), "c1")
        except StepError as error:
            print(error)
        print(sorted(item.name for item in path.parent.iterdir()))
    """
    message, left = in_small_disk(tmp_path / "small", "2m", program).splitlines()
    assert "No space left on device" in message and "image prune" in message
    assert left == "['.0123.lock']"


def test_volume_on_a_full_disk(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.write_bytes(os.urandom(4 << 20))
    (tmp_path / "small").mkdir()
    program = f"""
        import os, pwd, sys
        from pathlib import Path
        from placematd.errors import StepError
        from placematd.resources import VolumeFile
        from placematd.volume import Volumes

        data = Path(sys.argv[1])
        path = data / "c1" / "volumes" / "n1" / "vda.img"
        user = pwd.getpwuid(os.geteuid()).pw_name
        volume = VolumeFile(name="n1/vda", form="copy", path=path, user=user, base=Path("{base}"), format="qcow2")
        try:
            Volumes(data).create(volume, "c1")
        except StepError as error:
            print(str(error).splitlines()[0])
        print([item.name for item in data.rglob("*") if item.is_file()], list(path.parent.iterdir()))
    """
    message, left = in_small_disk(tmp_path / "small", "2m", program).splitlines()
    assert "No space left on device" in message
    assert left == "[] []"
