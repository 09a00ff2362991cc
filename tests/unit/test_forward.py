import asyncio
import socket
from pathlib import Path

import pytest

from placematd.forward import Forward, forward_json, forward_name, of_description, parse, parse_local, unit_name, units
from placematd.udp_relay import relay
from placematd.unit import exec_argv

V4 = parse("30000", "netns1:10.0.0.22:8000")
V6 = parse("[2001:db8::1]:53", "netns1:[fd00::2]:53", "udp")


@pytest.mark.parametrize(
    ("local", "remote", "protocol"),
    [
        ("30000", "netns1:10.0.0.22:8000", "tcp"),
        ("0.0.0.0:30000", "netns1:web.example:80", "tcp"),
        ("[::]:30000", "rack0-tor1:[fd00::2]:8000", "udp"),
    ],
)
def test_what_is_written_is_what_is_shown(local: str, remote: str, protocol: str) -> None:
    forward = parse(local, remote, protocol)
    assert (forward.local, forward.remote, forward.protocol) == (local, remote, protocol)


@pytest.mark.parametrize(
    ("local", "remote", "protocol", "complaint"),
    [
        ("", "n:h:1", "tcp", "expected PORT or ADDRESS:PORT"),
        ("99999", "n:h:1", "tcp", "a port is 1 to 65535"),
        ("0", "n:h:1", "tcp", "a port is 1 to 65535"),
        ("1.2.3:80", "n:h:1", "tcp", "IPv4"),
        ("80", "h:1", "tcp", "expected NETNS:HOST:PORT"),
        ("80", "../etc:h:1", "tcp", "expected NETNS:HOST:PORT"),
        ("80", "n:fd00::2:80", "tcp", "in brackets"),
        ("80", "n:-v:80", "tcp", "expected NETNS:HOST:PORT"),
        ("80", "n:h:80", "sctp", "expected tcp or udp"),
    ],
)
def test_a_wrong_forward_is_refused_with_what_was_expected(
    local: str, remote: str, protocol: str, complaint: str
) -> None:
    with pytest.raises(ValueError, match="(?i)" + complaint):
        parse(local, remote, protocol)


@pytest.mark.parametrize("forward", [V4, V6])
def test_the_unit_alone_tells_the_forward(forward: Forward) -> None:
    assert of_description(str(units("lab", forward).get("Description"))) == forward


def test_without_an_address_only_loopback_listens() -> None:
    assert units("lab", V4).get("Listen") == (("Stream", "127.0.0.1:30000"), ("Stream", "[::1]:30000"))
    assert units("lab", V6).get("Listen") == (("Datagram", "[2001:db8::1]:53"),)


def test_the_proxy_runs_in_the_namespace_without_privilege() -> None:
    (service,) = units("lab", V4).auxiliaries
    assert service.get("NetworkNamespacePath") == "/run/netns/netns1"
    assert service.get("CapabilityBoundingSet") == 0
    assert service.get("DynamicUser") is True


def test_unit_names_hold_no_character_that_systemd_refuses() -> None:
    assert (
        unit_name("my-lab", V6.name) == r"placemat-my\x2dlab-forward-udp\x2d\x5b2001\x3adb8\x3a\x3a1\x5d\x3a53.socket"
    )


def test_json_has_the_keys_of_placemat_v2_and_netns() -> None:
    assert forward_json(V4) == {
        "protocol": "tcp",
        "local_address": "localhost",
        "local_port": 30000,
        "netns": "netns1",
        "pod": "netns1",
        "remote_host": "10.0.0.22",
        "remote_port": 8000,
    }


def test_udp_answers_go_back_to_the_client_that_asked() -> None:
    async def scenario() -> list[bytes]:
        loop = asyncio.get_running_loop()
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as entrance,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
        ):
            for each in (target, entrance, one, two):
                each.bind(("127.0.0.1", 0))
                each.setblocking(False)
            host, port = target.getsockname()
            running = asyncio.ensure_future(relay([entrance.dup()], host, port))
            await asyncio.sleep(0)
            for client, question in ((one, b"one"), (two, b"two")):
                client.connect(entrance.getsockname())
                await loop.sock_sendall(client, question)
            for _ in range(2):
                data, sender = await asyncio.wait_for(loop.sock_recvfrom(target, 100), 30)
                await loop.sock_sendto(target, b"answer to " + data, sender)
            answers = [await asyncio.wait_for(loop.sock_recv(client, 100), 30) for client in (one, two)]
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await asyncio.sleep(0)
            return answers

    assert asyncio.run(scenario()) == [b"answer to one", b"answer to two"]


def test_the_tcp_proxy_gets_an_ipv6_address_without_brackets() -> None:
    (service,) = units("lab", parse("80", "netns1:[fd00::2]:8000")).auxiliaries
    assert exec_argv(service)[1:] == ("fd00::2:8000",)


def test_the_udp_proxy_needs_no_file_of_ours() -> None:
    (service,) = units("lab", V6).auxiliaries
    assert exec_argv(service)[1:] == ("-I", "-", "fd00::2", "53")
    assert not Path(exec_argv(service)[0]).is_symlink()
    assert "def main(" in str(service.get("StandardInputData"))


@pytest.mark.parametrize("local", ["30000", "0.0.0.0:30000", "[::0]:30000"])
def test_the_local_end_alone_gives_the_name(local: str) -> None:
    assert forward_name("tcp", *parse_local(local)) == parse(local, "n:h:1").name
