"""Netlink against a script of ip(8) commands, both in one run on one machine. PLACEMAT_TEST_NUMBER sets the size."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from test_network import USER, bridge, netns, tap, veth

from placematd.network import Bridges, Namespaces, Taps

pytestmark = pytest.mark.integration

NUMBER = int(os.environ.get("PLACEMAT_TEST_NUMBER", "40"))
THREADS = 8  # as many as `apply` has


def seconds(call: Callable[[], object]) -> float:
    start = time.monotonic()
    call()
    return time.monotonic() - start


def script(*, with_taps: bool) -> Iterator[str]:
    """What a person would write for the same result."""
    for index in range(NUMBER):
        yield f"netns add s{index}"
        yield f"-n s{index} link set lo up alias mark"
        yield f"link add v{index} type veth peer name eth0 netns s{index}"
        yield f"link set v{index} alias mark addrgenmode none"
        yield f"link set v{index} master net0 up"
        yield f"-n s{index} link set eth0 up"
        yield f"-n s{index} address add 10.0.{index}.2/24 dev eth0"
        if with_taps:
            yield f"tuntap add t{index} mode tap user {USER} vnet_hdr"
            yield f"link set t{index} alias mark addrgenmode none"
            yield f"link set t{index} master net0 up"
    for index in range(NUMBER):
        yield f"link delete v{index}"
        yield f"netns delete s{index}"
        if with_taps:
            yield f"link delete t{index}"


def test_netlink_is_faster_than_a_script(private_net, capsys):
    with_taps = os.access("/dev/net/tun", os.R_OK | os.W_OK)
    spaces = [netns(veth(0, "net0", f"10.0.{n}.2/24", ns=f"n{n}"), name=f"n{n}") for n in range(NUMBER)]
    ports = [tap(f"pmt-{n}") for n in range(NUMBER)] if with_taps else []
    namespaces, taps = Namespaces(), Taps()

    def remove() -> None:
        """Side by side: each deletion waits some 20 ms for the kernel's readers (RCU), and these waits add up."""
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(lambda port: taps.remove(port.mark("c")), ports))
            list(threads.map(lambda space: namespaces.remove(space.mark("c")), spaces))

    Bridges().create(bridge(), "c")
    figures = {
        "create namespaces": seconds(lambda: [namespaces.create(space, "c") for space in spaces]),
        "create taps": seconds(lambda: [taps.create(port, "c") for port in ports]),
        "observe": seconds(lambda: [namespaces.observe("c"), taps.observe("c")]),
        "remove": seconds(remove),
    }
    ours = sum(figures.values())
    theirs = seconds(lambda: [private_net.sh("ip", *line.split()) for line in script(with_taps=with_taps)])
    with capsys.disabled():
        parts = ", ".join(f"{name} {value:.2f} s" for name, value in figures.items())
        sizes = f"{len(spaces)} namespaces with a veth each and {len(ports)} taps"
        print(f"\n{sizes}: {parts}; script of ip(8): {theirs:.2f} s, {theirs / ours:.1f} times as long")
    assert private_net.links().isdisjoint({port.name for port in ports})
    assert private_net.namespaces() == set()
    assert ours < theirs
