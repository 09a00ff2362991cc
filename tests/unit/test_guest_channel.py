"""What a guest says: cutting, limiting, parsing and checking, and the channel on a real Unix socket."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from pathlib import Path

import pytest

from placematd.errors import PlacematError
from placematd.guest import (
    BURST_LINES,
    LINE_BYTES,
    PAUSE_SECONDS,
    Allowance,
    GuestChannel,
    Lines,
    check_address,
    parse_address,
)
from placematd.models import Cluster, NamespaceInterface, Network, NetworkNamespace, Node, NodeBmc

# -- lines ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([b"10.0.0.1\n"], [b"10.0.0.1"]),
        ([b"10.0", b".0.1\r", b"\n10.0.0.2"], [b"10.0.0.1"]),
        ([b"a\n\nb\n"], [b"a", b"", b"b"]),
        ([b"\x00\xff\x1b\n"], [b"\x00\xff\x1b"]),
        ([b"x" * LINE_BYTES + b"\n"], [b"x" * LINE_BYTES]),
        ([b"x" * (LINE_BYTES + 1)], [None]),
        ([b"x" * (LINE_BYTES + 1), b"y" * 1000, b"\nnext\n"], [None, b"next"]),
        ([b"x" * 200, b"x" * 200, b"\n", b"x" * 300 + b"\nok\n"], [None, None, b"ok"]),
    ],
)
def test_lines(pieces: list[bytes], lines: list[bytes | None]) -> None:
    cutter = Lines()
    assert [line for piece in pieces for line in cutter.feed(piece)] == lines


def test_endless_line_is_not_kept() -> None:
    cutter = Lines()
    for _ in range(1000):
        list(cutter.feed(b"x" * 4096))
    assert cutter.skipping
    assert len(cutter._partial) == 0


def test_allowance() -> None:
    now = 100.0
    allowance = Allowance(3, 0.5, lambda: now)
    assert [allowance.take() for _ in range(5)] == [True, True, True, False, False]
    now += 2
    assert [allowance.take() for _ in range(2)] == [True, False]
    now += 1000
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]


# -- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [b"10.72.16.5", b" 10.72.16.5\t", b"fd00::16", b"FD00:0::16", b"::ffff:10.0.0.1"])
def test_addresses_are_read(line: bytes) -> None:
    assert parse_address(line) == ip_address(line.decode().strip())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "the line is empty"),
        (b" \t", "the line is empty"),
        (b"hello", "'hello' is not an IP address"),
        (b"10.0.0.1/24", "'10.0.0.1/24' is not an IP address"),
        (b"10.0.0.1 10.0.0.2", "is not an IP address"),
        (b"10.0.0.01", "is not an IP address"),
        (b"1", "'1' is not an IP address"),
        (b"fe80::1%eth0", "has a zone"),
        (b"\xff\xfe", "is not ASCII text"),
        ("\N{FULLWIDTH DIGIT ONE}0.0.0.1".encode(), "is not ASCII text"),
        (b"\x1b[2J\x07", r"'\\x1b\[2J\\x07' is not an IP address"),
        (b"10.0.0.1\x00", "is not an IP address"),
        (b"A" * 256, "'" + "A" * 40 + "' is not"),
    ],
)
def test_what_is_no_address_is_refused_in_printable_words(line: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        parse_address(line)
    assert str(caught.value).isprintable()


CLUSTER = Cluster(
    name="c1",
    networks=(
        Network(name="net0", type="external", address=IPv4Interface("10.0.0.1/24")),
        Network(name="bmc", type="bmc", addresses=(IPv4Interface("10.72.16.1/20"), IPv6Interface("fd00:72::1/64"))),
        Network(name="bmc2", type="bmc", address=IPv4Interface("10.80.0.0/31")),
    ),
    namespaces=(
        NetworkNamespace(
            name="router",
            interfaces=(NamespaceInterface(network="bmc", addresses=(IPv4Interface("10.72.16.2/20"),)),),
        ),
    ),
)
TAKEN = {"10.72.17.101": "worker-1", "fd00:72::101": "worker-1"}


@pytest.mark.parametrize("address", ["10.72.16.3", "10.72.31.254", "10.72.17.102", "fd00:72::102", "10.80.0.1"])
def test_addresses_of_the_bmc_network_are_accepted(address: str) -> None:
    check_address(ip_address(address), CLUSTER, TAKEN)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("10.0.0.7", r"not in a network of type bmc \(expected one of 10.72.16.0/20, fd00:72::/64, 10.80.0.0/31\)"),
        ("0.0.0.0", "not in a network of type bmc"),
        ("127.0.0.1", "not in a network of type bmc"),
        ("::", "not in a network of type bmc"),
        ("::ffff:a48:1003", "not in a network of type bmc"),
        ("10.72.16.0", "address of the network 10.72.16.0/20 itself"),
        ("10.72.31.255", "broadcast address of 10.72.16.0/20"),
        ("fd00:72::", "address of the network fd00:72::/64 itself"),
        ("10.72.16.1", "used by the bridge of network bmc already"),
        ("fd00:72::1", "used by the bridge of network bmc already"),
        ("10.80.0.0", "used by the bridge of network bmc2 already"),
        ("10.72.16.2", "used by network namespace router already"),
        ("10.72.17.101", "used by the BMC of node worker-1 already"),
        ("fd00:72::101", "used by the BMC of node worker-1 already"),
    ],
)
def test_addresses_that_a_bmc_cannot_have(address: str, reason: str) -> None:
    with pytest.raises(PlacematError, match=f"^{address}: .*{reason}"):
        check_address(ip_address(address), CLUSTER, TAKEN)


def test_an_address_that_the_cluster_file_gives_is_its_nodes_alone() -> None:
    node = Node(name="worker-9", cpu=1, bmc=NodeBmc(address=ip_address("10.72.17.9")))
    cluster = replace(CLUSTER, nodes=(node,))
    check_address(ip_address("10.72.17.9"), cluster, {}, "worker-9")
    with pytest.raises(PlacematError, match="used by the BMC of node worker-9 already"):
        check_address(ip_address("10.72.17.9"), cluster, {}, "worker-1")


def test_cluster_without_bmc_network() -> None:
    with pytest.raises(PlacematError, match="the cluster has no network of type bmc"):
        check_address(ip_address("10.0.0.1"), Cluster(name="c1"), {})


# -- the channel ------------------------------------------------------------------------------------------------------


class Host:
    """A channel, what it told, and the QEMU on its other side."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()
        self.problems: asyncio.Queue[str] = asyncio.Queue()
        self.channel = GuestChannel(path, self.lines.put_nowait, self.problems.put_nowait, clock)
        self.path = path

    async def __aenter__(self) -> "Host":
        clients: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self.server = await asyncio.start_unix_server(lambda *client: clients.put_nowait(client), self.path)
        self.channel.attach()
        self.reader, self.guest = await clients.get()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.detach()
        self.guest.transport.abort()
        self.server.close()
        await self.server.wait_closed()


def test_channel_tells_lines(tmp_path: Path) -> None:
    async def main() -> None:
        async with asyncio.timeout(20), Host(tmp_path / "guest", lambda: 0.0) as host:
            host.guest.write(b"10.72.16.5\n10.72")
            assert await host.lines.get() == b"10.72.16.5"
            host.guest.write(b".16.6\r\n")
            assert await host.lines.get() == b"10.72.16.6"
            assert host.problems.empty()

    asyncio.run(main())


def test_flood_is_reported_once_read_slowly_and_forgiven(tmp_path: Path) -> None:
    async def main() -> None:
        now = 0.0
        async with asyncio.timeout(60), Host(tmp_path / "guest", lambda: now) as host:
            flood = asyncio.create_task(write(host.guest, b"flood\n" * 1_000_000))
            assert "more than 1 lines a second" in await host.problems.get()
            await asyncio.sleep(PAUSE_SECONDS * 1.5)
            assert not flood.done()
            assert host.lines.qsize() == BURST_LINES
            assert host.problems.empty()
            now = 61.0
            assert "more than 1 lines a second" in await host.problems.get()
            flood.cancel()

    asyncio.run(main())


def test_overlong_line_is_reported_and_the_next_one_read(tmp_path: Path) -> None:
    async def main() -> None:
        async with asyncio.timeout(20), Host(tmp_path / "guest", lambda: 0.0) as host:
            host.guest.write(b"x" * 1000 + b"\n10.72.16.5\n" + b"y" * 2000 + b"\n10.72.16.6\n")
            assert await host.lines.get() == b"10.72.16.5"
            assert await host.lines.get() == b"10.72.16.6"
            assert await host.problems.get() == "the guest sent a line of more than 256 bytes, which is ignored"
            assert host.problems.empty()

    asyncio.run(main())


def test_line_that_was_cut_by_a_restart_is_forgotten(tmp_path: Path) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            host = Host(tmp_path / "guest", lambda: 0.0)
            async with host:
                host.guest.write(b"10.72.16.5\n10.7")
                assert await host.lines.get() == b"10.72.16.5"
            (tmp_path / "guest").unlink(missing_ok=True)
            async with host:
                host.guest.write(b"10.72.16.6\n")
                assert await host.lines.get() == b"10.72.16.6"

    asyncio.run(main())


async def write(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()
