"""`volume` and `image`: through the service of a cluster that runs, and on real files of one that is down."""

import hashlib
import json
import os
import pwd
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fakes.api import FakeApi

from placematd.resources import VolumeFile
from placematd.volume import Volumes

Cli = Callable[..., Any]
ME = pwd.getpwuid(os.geteuid()).pw_name
DISK = bytes(range(256)) * 4096


def volume(name: str, form: str = "raw", **fields: object) -> dict[str, object]:
    node, _, short = name.partition("/")
    path = f"/var/lib/placemat/lab/volumes/{node}/{short}.img"
    known = {"node": node, "name": short, "form": form, "path": path, "exists": True, "stored_bytes": 1 << 20}
    return known | {"changes": "", "made": "2026-01-01T00:00:00+00:00"} | fields


def resets(api: FakeApi) -> list[str]:
    return [path for method, path, _ in api.requests if method == "POST"]


def test_volumes_of_a_running_cluster(api: FakeApi, cli: Cli) -> None:
    api.volumes = [volume("n1/root", "cow", changes="size: 1G → 2G"), volume("n1/@tpm", "state", exists=False)]
    lines = cli("volume", "list").out.splitlines()
    assert lines[1].split()[:3] == ["n1", "root", "image"]
    assert "changed" in lines[1] and "missing" in lines[2]
    assert lines[3] == "n1/root changed: size: 1G → 2G"
    assert json.loads(cli("volume", "list", "--json").out) == api.volumes


def test_reset_takes_one_volume_or_all_that_hold_data(api: FakeApi, cli: Cli) -> None:
    api.volumes = [volume("n1/root"), volume("n1/@tpm"), volume("n1/share", "directory"), volume("n2/root")]
    assert cli("volume", "reset", "n1", "root", "--yes").out == "n1/root: reset\n"
    assert resets(api) == ["/v1/volumes/n1/root/reset"]
    assert cli("volume", "reset", "n1", "--yes").status == 0
    assert resets(api)[1:] == ["/v1/volumes/n1/root/reset", "/v1/volumes/n1/@tpm/reset"]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("n1",), 2, "this would delete root of n1: confirm with --yes"),
        (("n3", "--yes"), 4, "no volumes of node n3"),
        (("n1", "other", "--yes"), 4, "no volume other of node n1"),
        (("n1", "share", "--yes"), 2, "nothing is deleted"),
    ],
)
def test_reset_that_is_not_done(api: FakeApi, cli: Cli, words: tuple[str, ...], status: int, message: str) -> None:
    api.volumes = [volume("n1/root"), volume("n1/share", "directory")]
    done = cli("volume", "reset", *words)
    assert (done.status, resets(api)) == (status, [])
    assert message in done.err


def test_reset_of_a_node_that_is_on_says_so(api: FakeApi, cli: Cli) -> None:
    api.volumes = [volume("n1/root")]
    api.fail("/v1/volumes/n1/root/reset", 409, "node n1 is On: stop it first")
    done = cli("volume", "reset", "n1", "--yes")
    assert (done.status, done.err) == (1, "error: node n1 is On: stop it first\n")


def test_volumes_of_a_cluster_that_is_down(places: Any, cli: Cli, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (places.config / "lab.conf").write_text(f"PLACEMAT_DATA_DIR={data}\n")
    disk = data / "lab" / "volumes" / "n1" / "vda.img"
    wanted = VolumeFile(name="n1/vda", form="raw", path=disk, user=ME, size="1M", format="raw", owner="Node n1")
    Volumes(data).create(wanted, "lab")
    (listed,) = json.loads(cli("volume", "list", "--json").out)
    assert (listed["node"], listed["name"], listed["path"], listed["exists"]) == ("n1", "vda", str(disk), True)
    assert cli("volume", "reset", "n1", "vda", "--yes").status == 0
    assert not disk.exists()
    assert json.loads(cli("volume", "list", "--json").out) == []


# -- images -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """The URL of a directory with disk.img, and the lines that the server logs."""
    directory, log = tmp_path / "www", list[str]()
    directory.mkdir()
    (directory / "disk.img").write_bytes(DISK)

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, text: str, *values: object) -> None:
            log.append(text % values)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(directory))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", log
        server.shutdown()
        thread.join()


def test_images_are_pulled_listed_and_pruned(places: Any, cli: Cli, tmp_path: Path, served) -> None:
    url, log = served
    cache = tmp_path / "cache"
    (places.config / "lab.conf").write_text(f"PLACEMAT_CACHE_DIR={cache}\n")
    file = places.config / "lab.yml"
    file.write_text(
        f"kind: Image\nname: disk\nurl: {url}/disk.img\n---\n"
        "kind: Node\nname: n1\ncpu: 1\nvolumes: [{kind: image, name: root, image: disk}]\n"
    )
    pulled = cli("image", "pull", "lab")
    assert (pulled.status, pulled.out) == (0, "disk: 1.0 MiB\n")
    assert "image disk: 1.0 of 1.0 MiB (100%)" in pulled.err
    (image,) = json.loads(cli("--cluster", "lab", "image", "list", "--json").out)
    assert image["source"] == f"{url}/disk.img"
    assert image["sha256"] == hashlib.sha256(DISK).hexdigest()
    assert Path(image["path"]).read_bytes() == DISK
    assert cli("image", "pull", "lab").status == 0
    assert [line.split()[-2] for line in log] == ["200", "304"]

    assert json.loads(cli("--cluster", "lab", "image", "prune", "--json").out) == []
    file.write_text("kind: Node\nname: n1\ncpu: 1\n")
    (removed,) = json.loads(cli("--cluster", "lab", "image", "prune", "--json").out)
    assert removed["path"] == image["path"]
    assert list((cache / "images").iterdir()) == []


def test_prune_of_a_cache_that_was_never_used(places: Any, cli: Cli, tmp_path: Path) -> None:
    (places.config / "lab.conf").write_text(f"PLACEMAT_CACHE_DIR={tmp_path}\n")
    done = cli("--cluster", "lab", "image", "prune")
    assert (done.status, done.out) == (0, "0.0 MiB freed\n")
