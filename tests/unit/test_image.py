"""Images against a real HTTP server that does what servers do on a bad day."""

import bz2
import fcntl
import gzip
import hashlib
import json
import lzma
import os
import resource
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from evil_server import Answer, File, Request, Server

from placematd.errors import MissingTool, StepError
from placematd.image import Images, Limits, Surroundings, list_images, prune
from placematd.image.cache import Entry
from placematd.resources import CachedImage

# 3 MiB that do not compress, with a hole in the middle as disk images have.
CONTENT = os.urandom(1 << 20) + bytes(1 << 20) + os.urandom((1 << 20) + 4321)
PLAIN = CONTENT[:400_000]
QUICK = Limits(silence_seconds=5, slowest_bytes=1 << 10, slowest_seconds=5, attempts=3, first_wait_seconds=0.01)


@dataclass
class Cache:
    """A cache of its own and what was told."""

    directory: Path
    limits: Limits = QUICK
    max_bytes: int = 1 << 30
    cancelled: threading.Event = field(default_factory=threading.Event)
    warnings: list[str] = field(default_factory=list)
    progress: list[tuple[str, int, int | None]] = field(default_factory=list)

    def images(self) -> Images:
        """As a new process has them."""
        return Images(
            self.directory,
            Surroundings(
                progress=lambda item, done, total: self.progress.append((item, done, total)),
                warn=self.warnings.append,
                cancelled=self.cancelled,
                limits=self.limits,
                max_bytes=self.max_bytes,
            ),
        )

    def image(self, url: str = "", **fields: object) -> CachedImage:
        image = CachedImage(name="disk", path=self.directory / "images" / "0123abcd", url=url)
        return replace(image, **fields)

    def fetch(self, url: str = "", **fields: object) -> bytes:
        """The image after a start of placematd."""
        image = self.image(url, **fields)
        self.images().create(image, "c1")
        return image.path.read_bytes()

    def refused(self, url: str = "", **fields: object) -> str:
        """The message of a fetch that must fail and leave nothing behind."""
        with pytest.raises(StepError) as caught:
            self.fetch(url, **fields)
        assert self.files() == set()
        return str(caught.value)

    def files(self) -> set[str]:
        """Everything in the cache but locks."""
        return {path.name for path in (self.directory / "images").iterdir() if not path.name.endswith(".lock")}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


# -- fetching ---------------------------------------------------------------------------------------------------------


def test_download_is_whole_readable_and_sparse(cache: Cache, server: Server) -> None:
    server.answers["/image"] = File(CONTENT, etag='"1"')
    assert cache.fetch(server.url()) == CONTENT
    found = (cache.directory / "images" / "0123abcd").stat()
    assert found.st_mode & 0o777 == 0o644
    assert found.st_blocks * 512 < len(CONTENT) - (900 << 10)
    assert (cache.directory / "images").stat().st_mode & 0o777 == 0o755
    assert cache.files() == {"0123abcd", "0123abcd.json"}


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_modes_do_not_depend_on_the_umask(cache: Cache, server: Server, mask: int) -> None:
    server.answers["/image"] = File(CONTENT)
    old = os.umask(mask)
    try:
        cache.fetch(server.url())
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (cache.directory / "images").glob("[!.]*")}
    assert modes == {"0123abcd": 0o644, "0123abcd.json": 0o644}
    assert (cache.directory / "images").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("framing", [{"length": False}, {"chunked": True}], ids=["no length", "chunked"])
def test_server_that_tells_no_length(cache: Cache, server: Server, framing: dict[str, bool]) -> None:
    server.answers["/image"] = File(CONTENT, **framing)
    assert cache.fetch(server.url()) == CONTENT
    assert {total for _, _, total in cache.progress} == {None}


@pytest.mark.parametrize("framing", [{}, {"chunked": True}], ids=["length", "chunked"])
@pytest.mark.parametrize("version", [{"etag": '"1"'}, {"last_modified": "Sat, 01 Jan 2022 00:00:00 GMT"}])
def test_dropped_download_is_resumed(cache: Cache, server: Server, framing: dict, version: dict) -> None:
    server.answers["/image"] = File(CONTENT, drop_at=1_500_000, **framing, **version)
    assert cache.fetch(server.url(), sha256=hashlib.sha256(CONTENT).hexdigest()) == CONTENT
    assert [request.headers.get("Range") for request in server.seen] == [None, "bytes=1500000-"]


def test_download_that_drops_more_often_than_the_limit_ends_while_it_grows(cache: Cache, server: Server) -> None:
    big = os.urandom(6 << 20)
    server.answers["/image"] = File(big, etag='"1"', drop_at=1 << 20, drops=99)
    assert cache.fetch(server.url()) == big
    assert len(server.seen) == 6


@pytest.mark.parametrize(
    "file",
    [
        File(CONTENT, etag='"1"', drop_at=1_500_000, ranges=False),
        File(CONTENT, drop_at=1_500_000),
        File(CONTENT, etag='W/"1"', drop_at=1_500_000),
    ],
    ids=["no ranges", "no version", "weak version"],
)
def test_dropped_download_that_cannot_be_resumed_begins_anew(cache: Cache, server: Server, file: File) -> None:
    server.answers["/image"] = replace(file)
    assert cache.fetch(server.url()) == CONTENT
    assert len(server.seen) == 2


def test_file_that_changes_between_attempts_is_not_mixed(cache: Cache, server: Server) -> None:
    new = os.urandom(2 << 20)
    files = [File(CONTENT, etag='"1"', drop_at=1_500_000), File(new, etag='"2"')]
    server.answers["/image"] = lambda request: files[min(len(server.seen), 2) - 1](request)
    assert cache.fetch(server.url()) == new


def test_range_that_was_not_asked_for_is_not_believed(cache: Cache, server: Server) -> None:
    def answer(request: Request) -> None:
        if len(server.seen) == 2:
            request.head(206, Content_Range=f"bytes 7-9/{len(CONTENT)}", Content_Length=3, ETag='"1"')
            request.wfile.write(b"xyz")
        else:
            first(request)

    first = File(CONTENT, etag='"1"', drop_at=1_500_000)
    server.answers["/image"] = answer
    assert cache.fetch(server.url()) == CONTENT
    assert [request.headers.get("Range") for request in server.seen] == [None, "bytes=1500000-", None]


def test_rest_of_another_version_is_not_taken(cache: Cache, server: Server) -> None:
    """A server that does not know If-Range, and a file that has changed."""

    def answer(request: Request) -> None:
        start = request.range_start()
        if len(server.seen) == 1:
            File(CONTENT, etag='"1"', drop_at=1_500_000)(request)
        elif start is None:
            File(new, etag='"2"')(request)
        else:
            request.head(206, ETag='"2"', Content_Range=f"bytes {start}-{len(new) - 1}/{len(new)}")
            request.wfile.write(new[start:])

    new = os.urandom(len(CONTENT))
    server.answers["/image"] = answer
    assert cache.fetch(server.url()) == new


def test_range_refused_begins_anew(cache: Cache, server: Server) -> None:
    def answer(request: Request) -> None:
        if request.range_start() is None:
            first(request)
        else:
            request.head(416, Content_Length=0)

    first = File(CONTENT, etag='"1"', drop_at=1_500_000)
    server.answers["/image"] = answer
    assert cache.fetch(server.url()) == CONTENT


def test_server_that_always_drops_is_given_up(cache: Cache, server: Server) -> None:
    server.answers["/image"] = File(CONTENT, drop_at=500_000, drops=99)
    assert "closed" in (message := cache.refused(server.url())) and "the last" in message
    assert len(server.seen) == 3


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_error_that_may_pass_is_tried_again(cache: Cache, server: Server, status: int) -> None:
    whole = File(CONTENT)
    failing: list[int] = [status, status]

    def answer(request: Request) -> None:
        request.head(failing.pop(), Content_Length=0) if failing else whole(request)

    server.answers["/image"] = answer
    assert cache.fetch(server.url()) == CONTENT
    assert len(server.seen) == 3


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_error_that_stays_is_not_tried_again(cache: Cache, server: Server, status: int) -> None:
    server.answers["/image"] = lambda request: request.head(status, Content_Length=0)
    assert f"HTTP {status}" in cache.refused(server.url())
    assert len(server.seen) == 1


def test_nobody_listens(cache: Cache, server: Server) -> None:
    server.stop()
    assert "Connection refused" in cache.refused(server.url())


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Server]:
    """A server with a certificate for 127.0.0.1 that nobody knows; `tmp_path/cert.pem` is it."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")
    request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test"
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    options = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*shlex.split(request), *files, *options], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with Server(context) as running:
        yield running


def test_https_is_resumed_too(cache: Cache, secure: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    secure.answers["/image"] = File(CONTENT, etag='"1"', drop_at=1_500_000)
    assert cache.fetch(secure.url()) == CONTENT
    assert len(secure.seen) == 2


def test_certificate_that_cannot_be_verified_is_not_tried_again(cache: Cache, secure: Server) -> None:
    assert "CERTIFICATE_VERIFY_FAILED" in cache.refused(secure.url())


def test_slow_https_server_is_given_up(
    cache: Cache, secure: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    ended = threading.Event()

    def answer(request: Request) -> None:
        request.head(Content_Length=1000)
        ended.wait(10)

    secure.answers["/image"] = answer
    cache.limits = replace(QUICK, slowest_seconds=0.3, attempts=1)
    try:
        assert "less than 1 KiB" in cache.refused(secure.url())
    finally:
        ended.set()


def test_slow_server_is_given_up(cache: Cache, server: Server) -> None:
    """A byte now and then keeps every socket timeout away."""
    ended = threading.Event()

    def answer(request: Request) -> None:
        request.head(Content_Length=1000)
        while not ended.wait(0.05):
            request.wfile.write(b"x")

    server.answers["/image"] = answer
    cache.limits = replace(QUICK, slowest_seconds=0.3, attempts=2)
    try:
        assert "less than 1 KiB in 0.3 s" in cache.refused(server.url())
    finally:
        ended.set()


def test_silent_server_is_given_up(cache: Cache, server: Server) -> None:
    ended = threading.Event()
    server.answers["/image"] = lambda request: ended.wait(10) and None
    cache.limits = replace(QUICK, silence_seconds=0.2, attempts=2)
    try:
        assert "timed out" in cache.refused(server.url())
    finally:
        ended.set()


def test_cancelled_download_ends_at_once_and_leaves_nothing(cache: Cache, server: Server) -> None:
    ended, begun = threading.Event(), threading.Event()

    def answer(request: Request) -> None:
        request.head(Content_Length=1000)
        request.wfile.write(b"x")
        begun.set()
        ended.wait(10)

    def cancel() -> None:
        begun.wait(10)
        cache.cancelled.set()

    server.answers["/image"] = answer
    threading.Thread(target=cancel).start()
    try:
        assert "cancelled" in cache.refused(server.url())
        assert len(server.seen) == 1
    finally:
        ended.set()


# -- redirects --------------------------------------------------------------------------------------------------------


def redirect(target: str) -> Answer:
    return lambda request: request.head(302, Location=target, Content_Length=0)


def test_redirect_is_followed_without_the_password(cache: Cache, server: Server) -> None:
    server.answers["/image"] = redirect(server.url("/other"))
    server.answers["/other"] = File(CONTENT)
    url = server.url().replace("//", "//me:s%40cret@")
    assert cache.fetch(url) == CONTENT
    sent = [request.headers.get("Authorization") for request in server.seen]
    assert sent == ["Basic bWU6c0BjcmV0", None]
    assert "cret" not in (cache.directory / "images" / "0123abcd.json").read_text()


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/image", "gopher://127.0.0.1/"])
def test_redirect_to_another_scheme_is_refused(cache: Cache, server: Server, target: str) -> None:
    server.answers["/image"] = redirect(target)
    assert target in cache.refused(server.url())


def test_redirect_to_https_is_followed_and_none_back(
    cache: Cache, server: Server, secure: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    server.answers["/image"] = redirect(secure.url())
    secure.answers["/image"] = File(CONTENT)
    assert cache.fetch(server.url()) == CONTENT
    secure.answers["/back"] = redirect(server.url())
    with pytest.raises(StepError, match=r"redirect from https://.*/back to http://.* is not followed"):
        cache.fetch(secure.url("/back"), path=cache.directory / "images" / "ffff")


def test_redirect_loop_ends(cache: Cache, server: Server) -> None:
    server.answers["/image"] = redirect(server.url("/image"))
    assert "302" in cache.refused(server.url())
    server.answers["/long"] = lambda request: request.head(
        302, Location=server.url(f"/long?{len(server.seen)}"), Content_Length=0
    )
    server.seen.clear()
    assert "302" in cache.refused(server.url("/long"))
    assert len(server.seen) == 11


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/etc/passwd"])
def test_only_http_is_fetched(cache: Cache, url: str) -> None:
    (cache.directory / "images").mkdir(parents=True)
    with pytest.raises(StepError):
        cache.fetch(url)
    assert cache.files() == set()


# -- what is served ---------------------------------------------------------------------------------------------------


def test_checksum_is_of_the_bytes_as_served(cache: Cache, server: Server) -> None:
    packed = gzip.compress(CONTENT, 1)
    server.answers["/image"] = File(packed)
    digest = hashlib.sha256(packed).hexdigest().upper()
    assert cache.fetch(server.url(), compression="gzip", sha256=digest) == CONTENT


def test_wrong_checksum(cache: Cache, server: Server) -> None:
    server.answers["/image"] = File(CONTENT)
    message = cache.refused(server.url(), sha256="0" * 64)
    assert hashlib.sha256(CONTENT).hexdigest() in message and "0" * 64 in message


@pytest.mark.parametrize(
    "headers", [{"Content_Type": "text/html; charset=utf-8"}, {"Content_Type": "application/octet-stream"}]
)
def test_web_page_is_no_image(cache: Cache, server: Server, headers: dict[str, str]) -> None:
    server.answers["/image"] = File(b"\n<!DOCTYPE HTML><title>Log in</title>", headers=headers)
    assert "web page" in cache.refused(server.url())


def test_empty_answer_is_no_image(cache: Cache, server: Server) -> None:
    server.answers["/image"] = File(b"")
    assert "empty" in cache.refused(server.url())


PACK = {
    "gzip": lambda data: gzip.compress(data, 1),
    "bzip2": lambda data: bz2.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
    "zstd": lambda data: subprocess.run(["zstd", "-1", "-c"], input=data, capture_output=True, check=True).stdout,
}


@pytest.mark.parametrize("compression", PACK)
def test_compression_from_url_and_from_file(cache: Cache, server: Server, tmp_path: Path, compression: str) -> None:
    packed = PACK[compression](PLAIN)
    server.answers["/image"] = File(packed)
    assert cache.fetch(server.url(), compression=compression) == PLAIN
    (tmp_path / "packed").write_bytes(packed)
    local = Cache(tmp_path / "local")
    assert local.fetch(file=tmp_path / "packed", compression=compression) == PLAIN
    assert local.files() == {"0123abcd", "0123abcd.json"}


@pytest.mark.parametrize("compression", PACK)
def test_several_streams_in_one_file_are_one_image(cache: Cache, tmp_path: Path, compression: str) -> None:
    """As pigz, pbzip2, pixz and `cat` make them."""
    (tmp_path / "packed").write_bytes(PACK[compression](b"first") + PACK[compression](b"second"))
    assert cache.fetch(file=tmp_path / "packed", compression=compression) == b"firstsecond"


def test_zstd_that_begins_with_a_skippable_frame(cache: Cache, tmp_path: Path) -> None:
    """As pzstd writes it."""
    frame = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"size"
    (tmp_path / "packed").write_bytes(frame + PACK["zstd"](PLAIN))
    assert cache.fetch(file=tmp_path / "packed", compression="zstd") == PLAIN


@pytest.mark.parametrize("compression", PACK)
def test_compressed_file_that_is_cut_off(cache: Cache, tmp_path: Path, compression: str) -> None:
    packed = PACK[compression](PLAIN)
    (tmp_path / "packed").write_bytes(packed[: len(packed) // 2])
    assert "damaged" in cache.refused(file=tmp_path / "packed", compression=compression)


@pytest.mark.parametrize("compression", PACK)
def test_file_that_is_not_compressed_so(cache: Cache, tmp_path: Path, compression: str) -> None:
    (tmp_path / "plain").write_bytes(CONTENT)
    assert f"not compressed, not {compression}" in cache.refused(file=tmp_path / "plain", compression=compression)


def test_forgotten_compression_is_named(cache: Cache, server: Server) -> None:
    server.answers["/image"] = File(PACK["xz"](PLAIN))
    assert "compression: xz" in cache.refused(server.url())


def test_zstd_is_named_where_it_is_missing(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "packed").write_bytes(PACK["zstd"](PLAIN))
    monkeypatch.setattr("placematd.run.SBIN", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingTool, match="apt-get install zstd"):
        cache.fetch(file=tmp_path / "packed", compression="zstd")


@pytest.mark.parametrize("compression", PACK)
def test_archive_bomb_stops_at_the_limit(cache: Cache, tmp_path: Path, compression: str) -> None:
    (tmp_path / "bomb").write_bytes(PACK[compression](bytes(40 << 20)))
    cache.max_bytes = 8 << 20
    assert "limit of 8 MiB" in cache.refused(file=tmp_path / "bomb", compression=compression)


def test_endless_download_stops_at_the_limit(cache: Cache, server: Server) -> None:
    def answer(request: Request) -> None:
        request.head()
        while True:
            request.wfile.write(bytes(1 << 20))

    server.answers["/image"] = answer
    cache.max_bytes = 8 << 20
    assert "limit of 8 MiB" in cache.refused(server.url())


def test_length_that_cannot_fit_is_refused_before_the_body(cache: Cache, server: Server) -> None:
    server.answers["/image"] = lambda request: request.head(Content_Length=1 << 60)
    cache.max_bytes = 1 << 62
    message = cache.refused(server.url())
    assert "MiB free in" in message and "image prune" in message


def test_full_disk(cache: Cache, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers["/image"] = File(CONTENT)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, hard))
    try:
        assert "File too large" in cache.refused(server.url())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# -- the next use -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [{"etag": '"1"'}, {"last_modified": "Sat, 01 Jan 2022 00:00:00 GMT"}])
def test_unchanged_image_is_not_fetched_again(cache: Cache, server: Server, version: dict[str, str]) -> None:
    server.answers["/image"] = File(CONTENT, **version)
    cache.fetch(server.url())
    inode = cache.image().path.stat().st_ino
    assert cache.fetch(server.url()) == CONTENT
    assert cache.image().path.stat().st_ino == inode
    assert len(server.seen) == 2
    server.answers["/image"] = File(CONTENT, conditions=False, **version)  # 200, and yet the same version
    cache.fetch(server.url())
    assert cache.image().path.stat().st_ino == inode


def test_changed_image_is_fetched_again(cache: Cache, server: Server) -> None:
    server.answers["/image"] = File(CONTENT, etag='"1"')
    cache.fetch(server.url())
    server.answers["/image"] = File(b"new" * 1000, etag='"2"')
    assert cache.fetch(server.url()) == b"new" * 1000
    assert cache.warnings == []


def test_server_without_version_is_not_asked_again(cache: Cache, server: Server) -> None:
    server.answers["/image"] = File(CONTENT)
    cache.fetch(server.url())
    cache.fetch(server.url())
    assert len(server.seen) == 1


def test_image_with_checksum_needs_no_server(cache: Cache, server: Server) -> None:
    server.answers["/image"] = File(CONTENT, etag='"1"')
    digest = hashlib.sha256(CONTENT).hexdigest()
    cache.fetch(server.url(), sha256=digest)
    server.stop()
    assert cache.fetch(server.url(), sha256=digest) == CONTENT
    assert cache.warnings == []


def test_checksum_that_the_cached_one_lacks_fetches_anew_or_fails(cache: Cache, server: Server) -> None:
    server.answers["/image"] = File(CONTENT, etag='"1"')
    cache.fetch(server.url())
    server.answers["/image"] = File(b"new" * 1000, etag='"2"')
    digest = hashlib.sha256(b"new" * 1000).hexdigest()
    assert cache.fetch(server.url(), sha256=digest) == b"new" * 1000
    with pytest.raises(StepError, match="expected 1111"):
        cache.fetch(server.url(), sha256="1" * 64)
    assert cache.image().path.read_bytes() == b"new" * 1000  # others use it


def test_offline_uses_the_cached_one_and_says_so(cache: Cache, server: Server) -> None:
    server.answers["/image"] = File(CONTENT, etag='"1"')
    cache.fetch(server.url())
    server.answers["/image"] = lambda request: request.head(404, Content_Length=0)
    assert cache.fetch(server.url()) == CONTENT
    server.stop()
    assert cache.fetch(server.url()) == CONTENT
    gone, offline = cache.warnings
    assert "404" in gone and "using the cached version of 20" in gone
    assert "Connection refused" in offline and "using the cached version of 20" in offline


def test_new_version_that_cannot_be_had_leaves_the_old_one(cache: Cache, server: Server) -> None:
    server.answers["/image"] = File(CONTENT, etag='"1"')
    cache.fetch(server.url())
    server.answers["/image"] = File(b"new" * 1000, etag='"2"', drop_at=100, drops=99)
    assert cache.fetch(server.url()) == CONTENT
    assert "using the cached version" in cache.warnings[0]
    assert cache.files() == {"0123abcd", "0123abcd.json"}


def test_image_under_a_copy_on_write_volume_does_not_change(cache: Cache, server: Server, tmp_path: Path) -> None:
    server.answers["/image"] = File(CONTENT, etag='"1"')
    cache.fetch(server.url())
    volume = tmp_path / "root.img"
    volume.write_bytes(b"disk")
    Entry(cache.image().path).hold(volume)
    server.answers["/image"] = File(b"new" * 1000, etag='"2"')
    assert cache.fetch(server.url()) == CONTENT
    assert "another version" in cache.warnings[0] and str(volume) in cache.warnings[0]
    with pytest.raises(StepError, match="volume reset"):
        cache.fetch(server.url(), sha256=hashlib.sha256(b"new" * 1000).hexdigest())
    assert prune(cache.directory) == []
    volume.unlink()
    assert cache.fetch(server.url()) == b"new" * 1000


def test_changed_local_file_is_copied_again(cache: Cache, tmp_path: Path) -> None:
    source = tmp_path / "disk.raw"
    source.write_bytes(CONTENT)
    images = cache.images()
    image = cache.image(file=source)
    images.create(image, "c1")
    assert images.observe("c1") == [image.mark("c1")]
    inode = image.path.stat().st_ino
    assert cache.fetch(file=source) == CONTENT and image.path.stat().st_ino == inode
    source.write_bytes(b"new" * 1000)
    assert images.observe("c1") == []
    images.create(image, "c1")
    assert image.path.read_bytes() == b"new" * 1000
    source.unlink()
    assert cache.fetch(file=source) == b"new" * 1000


def test_local_file_that_is_missing(cache: Cache, tmp_path: Path) -> None:
    assert f"{tmp_path}/none: No such file" in cache.refused(file=tmp_path / "none")


@pytest.mark.parametrize("harm", ["cut", "record"])
def test_damaged_cache_is_fetched_anew(cache: Cache, server: Server, harm: str) -> None:
    server.answers["/image"] = File(CONTENT, etag='"1"')
    cache.fetch(server.url())
    path = cache.image().path
    if harm == "cut":
        os.truncate(path, 1000)
    else:
        path.with_name(path.name + ".json").write_text("{half")
    assert cache.fetch(server.url()) == CONTENT


# -- several at once, and ends that come early ------------------------------------------------------------------------


def test_concurrent_users_download_once(cache: Cache, server: Server) -> None:
    """Two placematds, each with two threads; flock(2) does not care that they are one process here."""
    server.answers["/image"] = File(CONTENT)
    clusters = ["c1", "c2", "c3", "c4"]
    images = [cache.images() for _ in clusters]
    image = cache.image(server.url())
    threads = [threading.Thread(target=images[n].create, args=(image, name)) for n, name in enumerate(clusters)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.seen) == 1
    assert image.path.read_bytes() == CONTENT
    assert [images[n].observe(name) for n, name in enumerate(clusters)] == [[image.mark(name)] for name in clusters]


def test_waiting_for_another_can_be_cancelled(cache: Cache, server: Server) -> None:
    image = cache.image(server.url())
    image.path.parent.mkdir(parents=True)
    cache.cancelled.set()
    with Entry(image.path).lock(lambda: None), pytest.raises(StepError, match="cancelled"):
        cache.images().create(image, "c1")
    assert server.seen == []


def test_killed_process_leaves_nothing_wrong(cache: Cache, server: Server) -> None:
    begun, ended = threading.Event(), threading.Event()

    def answer(request: Request) -> None:
        request.head(Content_Length=len(CONTENT))
        request.wfile.write(CONTENT[:1_500_000])
        begun.set()
        ended.wait(10)

    server.answers["/image"] = answer
    program = (
        "import sys; from pathlib import Path; from placematd.image import Images; "
        "from placematd.resources import CachedImage; "
        "Images(Path(sys.argv[1])).create(CachedImage(name='disk', path=Path(sys.argv[2]), url=sys.argv[3]), 'c1')"
    )
    argv = [sys.executable, "-c", program, str(cache.directory), str(cache.image().path), server.url()]
    with subprocess.Popen(argv) as process:
        begun.wait(10)
        process.send_signal(signal.SIGKILL)
    ended.set()
    assert cache.files() == {".0123abcd.served.part"}
    assert list_images(cache.directory) == []
    server.answers["/image"] = File(CONTENT)
    assert cache.fetch(server.url()) == CONTENT
    assert cache.files() == {"0123abcd", "0123abcd.json"}


def test_link_in_the_way_is_not_written_through(cache: Cache, server: Server, tmp_path: Path) -> None:
    server.answers["/image"] = File(CONTENT)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    directory = cache.directory / "images"
    directory.mkdir(parents=True)
    for name in ("0123abcd", ".0123abcd.part", ".0123abcd.served.part", "0123abcd.json"):
        (directory / name).symlink_to(victim)
    assert cache.fetch(server.url()) == CONTENT
    assert victim.read_text() == "precious"
    assert not any(path.is_symlink() for path in directory.iterdir())


def test_cache_that_others_may_write_to_is_refused(cache: Cache, server: Server) -> None:
    (cache.directory / "images").mkdir(parents=True)
    (cache.directory / "images").chmod(0o777)
    with pytest.raises(StepError, match="others may write to it"):
        cache.fetch(server.url())
    assert server.seen == []


# -- observing, listing, pruning --------------------------------------------------------------------------------------


def test_images_exist_for_those_who_use_them_and_have_made_sure(cache: Cache, server: Server) -> None:
    server.answers["/image"] = File(CONTENT, etag='"1"')
    image, images = cache.image(server.url()), cache.images()
    images.create(image, "c1")
    assert images.observe("c1") == [image.mark("c1")]
    assert images.observe("c2") == []
    assert cache.images().observe("c1") == []  # a new process asks the server first
    images.remove(image.mark("c1"))
    assert images.observe("c1") == []
    assert image.path.read_bytes() == CONTENT  # kept until it is pruned


def test_list_and_prune(cache: Cache, server: Server) -> None:
    server.answers["/image"] = File(CONTENT, etag='"1"')
    kept, gone = cache.image(server.url()), cache.image(server.url(), path=cache.directory / "images" / "ffff")
    for image in (kept, gone):
        cache.images().create(image, "c1")
    listed = {info.path.name: info for info in list_images(cache.directory)}
    assert set(listed) == {"0123abcd", "ffff"}
    info = listed["0123abcd"]
    assert info.record is not None and info.record.source == server.url()
    assert info.size == len(CONTENT) > info.stored_bytes
    assert [info.path for info in prune(cache.directory, keep={kept.path})] == [gone.path]
    assert {path.name for path in kept.path.parent.iterdir()} == {"0123abcd", "0123abcd.json"}
    assert prune(cache.directory / "none") == []


def test_prune_leaves_what_is_being_fetched(cache: Cache, server: Server) -> None:
    server.answers["/image"] = File(CONTENT, etag='"1"')
    cache.fetch(server.url())
    with Entry(cache.image().path).lock(lambda: None):
        assert prune(cache.directory) == []
    assert cache.image().path.exists()


def test_lock_that_was_pruned_away_in_between_is_no_lock(
    cache: Cache, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["/image"] = File(CONTENT, etag='"1"')
    cache.fetch(server.url())
    entry, flock, deleted = Entry(cache.image().path), fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        if not deleted:
            deleted.append(entry.lock_path.unlink())
        flock(descriptor, operation)

    monkeypatch.setattr("placematd.image.cache.fcntl.flock", late)
    with entry.lock(lambda: None), entry.try_lock() as second:
        assert not second


def test_progress_counts_up_to_the_end_and_not_too_often(cache: Cache, server: Server) -> None:
    server.answers["/image"] = File(CONTENT)
    cache.fetch(server.url())
    assert {item for item, _, _ in cache.progress} == {"image disk"}
    assert cache.progress[-1] == ("image disk", len(CONTENT), len(CONTENT))
    assert len(cache.progress) < 20


def test_record_is_json_for_people(cache: Cache, server: Server) -> None:
    server.answers["/image"] = File(CONTENT, etag='"1"')
    cache.fetch(server.url())
    record = json.loads((cache.directory / "images" / "0123abcd.json").read_text())
    assert record["source"] == server.url()
    assert record["etag"] == '"1"'
    assert record["size"] == len(CONTENT)
    assert record["used_by"] == {"c1": {"disk": cache.image(server.url()).digest}}
