"""Virtual media: what may be inserted, what is fetched, and how it comes into QEMU's drive and out again."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from baseboard_node import IDENTITY, FakeNode, new_node, settled

from placematd.baseboard import override
from placematd.bmc.machine import BootOverride, Media, Progress
from placematd.errors import NotFound, PlacematError, StepError, WrongState

CONTENT = bytes(range(256)) * 4096
EMPTY = Media(slot="Cd")


@pytest.fixture(autouse=True)
def quick_guests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Firmware here never resets the machine."""
    monkeypatch.setattr(override, "FIRMWARE_SECONDS", 0.0)


class Server:
    """Serves CONTENT at /x.iso, one chunk and then silence at /slow.iso, and nothing else."""

    def __init__(self) -> None:
        self.gone_on = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path not in ("/x.iso", "/slow.iso", "/empty.iso"):
                    self.send_error(404)
                    return
                content = b"" if self.path == "/empty.iso" else CONTENT
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.path == "/slow.iso":
                    self.wfile.write(content[: 1 << 18])
                    outer.gone_on.wait(20)
                else:
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def url(self, name: str, user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.server.server_port}/{name}"

    def close(self) -> None:
        self.gone_on.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def run(directory: Path, scenario: Callable[[FakeNode], Awaitable[None]], folder: Path | None = None) -> None:
    async def live() -> None:
        node = await new_node(directory, replace(IDENTITY, media_folder=folder))
        try:
            await scenario(node)
            await settled(node)
        finally:
            await node.baseboard.close()

    asyncio.run(asyncio.wait_for(live(), 30))


async def insert(node: FakeNode, image: str) -> list[Progress]:
    return [progress async for progress in node.baseboard.insert_media("Cd", image)]


async def medium(node: FakeNode) -> Media:
    (found,) = await node.baseboard.media()
    return found


def downloads(directory: Path) -> list[str]:
    folder = directory / "bmc" / "media"
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def test_a_download_is_inserted_and_removed_with_the_medium(tmp_path: Path, server: Server) -> None:
    async def scenario(node: FakeNode) -> None:
        await node.baseboard.power("on")
        steps = await insert(node, server.url("x.iso", "user:secret@"))
        assert steps[-1] == Progress(done=len(CONTENT), total=len(CONTENT))
        assert node.monitor.content == CONTENT
        assert await medium(node) == Media(slot="Cd", image=server.url("x.iso"), inserted=True)
        assert "secret" not in node.path.read_text()
        with pytest.raises(WrongState, match="eject it first"):
            await insert(node, server.url("x.iso"))

        await node.baseboard.power("cycle")
        assert node.monitor.content == CONTENT

        await node.baseboard.eject_media("Cd")
        await node.baseboard.eject_media("Cd")
        assert node.monitor.medium is None
        assert await medium(node) == EMPTY
        assert downloads(tmp_path) == []

    run(tmp_path, scenario)


def test_a_medium_inserted_while_off_is_there_at_the_start_under_the_next_placematd(
    tmp_path: Path, server: Server
) -> None:
    async def scenario(node: FakeNode) -> None:
        await insert(node, server.url("x.iso"))
        after = await new_node(tmp_path)
        assert (await medium(after)).inserted
        await after.baseboard.power("on")
        assert after.monitor.content == CONTENT
        await after.baseboard.close()

        again = await new_node(tmp_path)
        again.power, again.monitor = "On", after.monitor
        after.monitor.medium = None  # the guest's QEMU lost it somehow
        await again.baseboard.adopted(again.monitor)
        assert again.monitor.content == CONTENT
        assert again.monitor.medium
        await again.baseboard.close()

    run(tmp_path, scenario)


def test_a_medium_whose_file_is_gone_does_not_stop_the_start(tmp_path: Path, server: Server) -> None:
    async def scenario(node: FakeNode) -> None:
        await insert(node, server.url("x.iso"))
        (tmp_path / "bmc" / "media" / "worker-1-cd.img").unlink()
        await node.baseboard.power("on")
        assert node.power == "On"
        assert await medium(node) == EMPTY

    run(tmp_path, scenario)


def test_what_a_killed_placematd_fetched_is_removed(tmp_path: Path) -> None:
    async def scenario(node: FakeNode) -> None:
        left = tmp_path / "bmc" / "media" / "worker-1-cd.img"
        left.parent.mkdir(parents=True)
        left.write_bytes(CONTENT)
        await node.baseboard.power("on")
        assert downloads(tmp_path) == []

    run(tmp_path, scenario)


@pytest.mark.parametrize("name", ["missing.iso", "empty.iso"])
def test_a_download_that_fails_leaves_nothing(tmp_path: Path, server: Server, name: str) -> None:
    async def scenario(node: FakeNode) -> None:
        with pytest.raises(StepError, match=r"404|empty"):
            await insert(node, server.url(name))
        assert await medium(node) == EMPTY
        assert downloads(tmp_path) == []
        await insert(node, server.url("x.iso"))

    run(tmp_path, scenario)


def test_who_stops_listening_cancels_the_download(tmp_path: Path, server: Server) -> None:
    async def scenario(node: FakeNode) -> None:
        loading = node.baseboard.insert_media("Cd", server.url("slow.iso"))
        async for progress in loading:
            if progress.done:
                break
        with pytest.raises(WrongState):
            await insert(node, server.url("x.iso"))
        await loading.aclose()  # type: ignore[attr-defined]
        assert downloads(tmp_path) == []
        await insert(node, server.url("x.iso"))

    run(tmp_path, scenario)


def test_a_boot_from_cd_waits_for_its_disc(tmp_path: Path, server: Server) -> None:
    async def scenario(node: FakeNode) -> None:
        await node.baseboard.set_boot(BootOverride(enabled="Once", target="Cd"))
        task = asyncio.create_task(insert(node, server.url("slow.iso")))
        while not downloads(tmp_path):
            await asyncio.sleep(0.01)
        await node.baseboard.power("on")
        assert node.power == "Off"
        task.cancel()
        await settled(node)
        assert node.power == "On"

    run(tmp_path, scenario)


def test_a_cancelled_task_cancels_the_download(tmp_path: Path, server: Server) -> None:
    async def scenario(node: FakeNode) -> None:
        task = asyncio.create_task(insert(node, server.url("slow.iso")))
        while not downloads(tmp_path):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert downloads(tmp_path) == []

    run(tmp_path, scenario)


def test_a_medium_that_qemu_refuses_is_not_inserted(tmp_path: Path, server: Server) -> None:
    async def scenario(node: FakeNode) -> None:
        await node.baseboard.power("on")
        node.monitor.refuses = "blockdev-insert-medium"
        with pytest.raises(StepError, match="refused"):
            await insert(node, server.url("x.iso"))
        assert node.monitor.commands[-1] == "blockdev-del"
        assert await medium(node) == EMPTY
        assert downloads(tmp_path) == []

    run(tmp_path, scenario)


# -- by path ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images that may be inserted, and what looks like one."""
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "sub" / "x.iso").write_bytes(CONTENT)
    (folder / "inside.iso").symlink_to("sub/x.iso")
    (folder / "outside.iso").symlink_to("../secret")
    (folder / "away").symlink_to("/etc")
    (folder / "loop.iso").symlink_to("loop.iso")
    (folder / "empty.iso").touch()
    os.mkfifo(folder / "fifo.iso")
    return folder


@pytest.mark.parametrize("name", ["sub/x.iso", "inside.iso", "sub/../sub/x.iso"])
def test_an_image_of_the_folder(tmp_path: Path, folder: Path, name: str) -> None:
    async def scenario(node: FakeNode) -> None:
        await node.baseboard.power("on")
        assert await insert(node, f"{folder}/{name}") == [Progress(done=len(CONTENT), total=len(CONTENT))]
        assert node.monitor.content == CONTENT
        await node.baseboard.power("cycle")
        assert node.monitor.content == CONTENT
        await node.baseboard.eject_media("Cd")
        assert (folder / "sub" / "x.iso").read_bytes() == CONTENT

    run(tmp_path, scenario, folder)


@pytest.mark.parametrize(
    "name",
    ["../secret", "outside.iso", "away/passwd", "loop.iso", "empty.iso", "fifo.iso", "sub", "none.iso", "x" * 300],
)
def test_nothing_else_comes_in_by_path(tmp_path: Path, folder: Path, name: str) -> None:
    async def scenario(node: FakeNode) -> None:
        with pytest.raises(NotFound, match="no such image below"):
            await insert(node, f"{folder}/{name}")
        assert await medium(node) == EMPTY

    run(tmp_path, scenario, folder)


def test_a_folder_that_is_no_longer_allowed(tmp_path: Path, folder: Path) -> None:
    async def scenario(node: FakeNode) -> None:
        await insert(node, f"{folder}/sub/x.iso")
        node.baseboard.identity = replace(IDENTITY, media_folder=None)
        await node.baseboard.power("on")
        assert node.monitor.medium is None
        assert await medium(node) == EMPTY
        with pytest.raises(PlacematError, match="no images by path"):
            await insert(node, f"{folder}/sub/x.iso")

    run(tmp_path, scenario, folder)


@pytest.mark.parametrize(
    "image",
    [
        "",
        "x.iso",
        "file:///etc/passwd",
        "ftp://x/y",
        "http://",
        "http://[::1",
        "http://x:99999/",
        "/a\nb",
        "/a\0",
        "/" * 3000,
    ],
)
def test_what_is_neither_url_nor_path(tmp_path: Path, folder: Path, image: str) -> None:
    async def scenario(node: FakeNode) -> None:
        with pytest.raises(PlacematError):
            await insert(node, image)

    run(tmp_path, scenario, folder)


def test_slots_and_writing(tmp_path: Path) -> None:
    async def scenario(node: FakeNode) -> None:
        with pytest.raises(NotFound):
            await node.baseboard.eject_media("Floppy")
        with pytest.raises(PlacematError, match="write-protected"):
            await anext(node.baseboard.insert_media("Cd", "http://x/y", write_protected=False))

    run(tmp_path, scenario)
