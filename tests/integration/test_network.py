"""Bridges, network namespaces and taps, as ip(8) and ping(8) see them."""

import asyncio
import contextlib
import errno
import fcntl
import os
import pwd
import struct
import subprocess
import threading
import time
from ipaddress import ip_interface
from pathlib import Path

import pytest

from placematd.errors import NotOurs, StepError
from placematd.facts import Settings
from placematd.host import observe_host
from placematd.models import Cluster
from placematd.names import OwnerMark, mac_address
from placematd.network import Bridges, Namespaces, Taps
from placematd.resources import Bridge, Netns, Tap, Veth

pytestmark = pytest.mark.integration


def bridge(name="net0", *addresses, mtu=None):
    return Bridge(name=name, addresses=tuple(map(ip_interface, addresses)), mtu=mtu)


def veth(index, network, *addresses, ns="r1", mtu=None):
    return Veth(
        inside=f"eth{index}",
        outside=f"pmv-{ns}-{index}",
        bridge=network,
        mac=mac_address("c", f"netns {ns}", index),
        addresses=tuple(map(ip_interface, addresses)),
        mtu=mtu,
    )


def netns(*interfaces, name="r1", **options):
    return Netns(name=name, interfaces=interfaces, **options)


def uid_is_mapped(uid):
    lines = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return any(int(first) <= uid < int(first) + int(count) for first, _, count in lines)


USER = "nobody" if uid_is_mapped(pwd.getpwnam("nobody").pw_uid) else "root"
"""Owner of the taps: in a user namespace of `unshare --map-root-user` there is root alone."""


@pytest.fixture
def taps():
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        pytest.skip(f"/dev/net/tun: {error.strerror}")
    return Taps()


def tap(name="pmt-a", network="net0", *, mtu=None, queues=1):
    return Tap(name=name, bridge=network, user=USER, mtu=mtu, queues=queues)


# -- the contract of every adapter ------------------------------------------------------------------------------------


@pytest.fixture(params=["bridge", "netns", "tap"])
def case(request, private_net):
    """An adapter, a resource for it, another digest of the same resource, and the link or namespace it makes."""
    if request.param == "bridge":
        return Bridges(), bridge("net0", "10.0.0.1/24"), bridge("net0", "10.0.0.2/24")
    Bridges().create(bridge("sw0"), "c")
    if request.param == "tap":
        return request.getfixturevalue("taps"), tap(network="sw0"), tap(network="sw0", mtu=1400)
    one = netns(veth(0, "sw0", "10.0.0.1/24"))
    return Namespaces(), one, netns(veth(0, "sw0", "10.0.0.2/24"))


def exists(net, resource):
    return resource.name in (net.namespaces() if resource.kind == "netns" else net.links())


def test_what_is_created_is_observed_with_its_mark_and_removed(case, private_net):
    adapter, resource, _ = case
    before = private_net.links()
    adapter.create(resource, "c")
    assert exists(private_net, resource)
    assert list(adapter.observe("c")) == [resource.mark("c")]
    assert list(adapter.observe("other")) == []
    adapter.remove(resource.mark("c"))
    assert not exists(private_net, resource)
    assert private_net.links() == before
    assert list(adapter.observe("c")) == []


def test_removing_what_is_gone_is_fine(case):
    adapter, resource, _ = case
    adapter.remove(resource.mark("c"))
    adapter.create(resource, "c")
    adapter.remove(resource.mark("c"))
    adapter.remove(resource.mark("c"))


def test_creating_again_changes_nothing_or_takes_the_new_digest(case, private_net):
    adapter, resource, other = case
    adapter.create(resource, "c")
    before = private_net.links()
    adapter.create(resource, "c")
    assert list(adapter.observe("c")) == [resource.mark("c")]
    adapter.create(other, "c")
    assert list(adapter.observe("c")) == [other.mark("c")]
    assert private_net.links() == before


def test_another_clusters_thing_is_left_alone(case, private_net):
    adapter, resource, _ = case
    adapter.create(resource, "theirs")
    before = private_net.everything()
    with pytest.raises(NotOurs, match=r"cluster theirs"):
        adapter.create(resource, "c")
    adapter.remove(resource.mark("c"))
    assert private_net.everything() == before
    assert list(adapter.observe("theirs")) == [resource.mark("theirs")]


def test_an_unmarked_thing_is_left_alone(case, private_net):
    adapter, resource, _ = case
    if resource.kind == "netns":
        private_net.sh("ip", "netns", "add", resource.name)
    else:
        private_net.sh("ip", "link", "add", resource.name, "type", "bridge")
    before = private_net.everything()
    with pytest.raises(
        NotOurs, match=rf"{resource.name} exists and placemat did not make it \(.*ip (link|netns) delete"
    ):
        adapter.create(resource, "c")
    adapter.remove(resource.mark("c"))
    assert private_net.everything() == before
    assert exists(private_net, resource)
    assert list(adapter.observe("c")) == []


def test_no_thread_is_left_in_another_namespace(case):
    """Spec section 10 A10."""
    adapter, resource, _ = case
    adapter.create(resource, "c")
    adapter.observe("c")
    adapter.remove(resource.mark("c"))
    assert threading.active_count() == 1
    deadline = time.monotonic() + 5
    while len(network_namespaces_of_threads()) > 1:  # a joined thread takes some microseconds to be gone
        assert time.monotonic() < deadline
    assert network_namespaces_of_threads() == {Path("/proc/self/ns/net").stat().st_ino}


def network_namespaces_of_threads():
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.add((task / "ns/net").stat().st_ino)
    return found


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_descriptor_is_left_open(case):
    """Spec section 10 C4: a queue that stays open swallows packets."""
    adapter, resource, _ = case
    adapter.create(resource, "c")
    adapter.remove(resource.mark("c"))
    before = descriptors()
    for _ in range(3):
        adapter.create(resource, "c")
        adapter.observe("c")
        adapter.remove(resource.mark("c"))
    assert descriptors() == before


# -- bridges ----------------------------------------------------------------------------------------------------------


def plug(net, name, network, *options):
    """A port with a carrier: one end of a veth pair."""
    net.sh("ip", "link", "add", name, *options, "type", "veth", "peer", "name", f"{name}-far")
    net.sh("ip", "link", "set", f"{name}-far", "up")
    net.sh("ip", "link", "set", name, "up", "master", network)


def test_bridge_has_addresses_mtu_and_options(private_net):
    Bridges().create(bridge("net0", "10.0.0.1/24", "192.0.2.0/31", "fd00::1/64", "fd01::/127", mtu=1460), "c")
    link = private_net.link("net0")
    assert link["mtu"] == 1460
    assert "UP" in link["flags"]
    assert link["address"] == mac_address("c", "bridge net0", 0)
    data = link["linkinfo"]["info_data"]
    assert (data["stp_state"], data["forward_delay"], data["mcast_snooping"]) == (0, 0, 0)
    assert int(str(data["group_fwd_mask"]), 0) == 0xFFF8
    assert sorted(private_net.addresses("net0")) == ["10.0.0.1/24", "192.0.2.0/31", "fd00::1/64", "fd01::/127"]
    broadcasts = {
        item["local"]: item.get("broadcast")
        for item in private_net.ip("address", "show", "dev", "net0")[0]["addr_info"]
        if item["family"] == "inet"
    }
    assert broadcasts == {"10.0.0.1": "10.0.0.255", "192.0.2.0": None}


def test_bridge_keeps_its_mac_as_ports_come(private_net):
    Bridges().create(bridge(), "c")
    plug(private_net, "p0", "net0", "address", "02:00:00:00:00:01")
    assert private_net.link("net0")["address"] == mac_address("c", "bridge net0", 0)


def test_bridge_is_changed_in_place_and_keeps_its_ports(private_net):
    Bridges().create(bridge("net0", "10.0.0.1/24", "10.1.0.1/24"), "c")
    plug(private_net, "p0", "net0")
    index = private_net.link("net0")["ifindex"]
    Bridges().create(bridge("net0", "10.1.0.1/24", "fd00::1/64", mtu=1400), "c")
    link = private_net.link("net0")
    assert (link["ifindex"], link["mtu"]) == (index, 1400)
    assert private_net.link("p0")["master"] == "net0"
    assert private_net.addresses("net0") == ["10.1.0.1/24", "fd00::1/64"]


def test_host_takes_no_route_from_a_simulated_router(private_net):
    """A bridge without IPv6 address has no link-local one either; none accepts router advertisements."""
    Bridges().create(bridge("v4", "10.0.0.1/24"), "c")
    Bridges().create(bridge("v6", "fd00::1/64"), "c")
    plug(private_net, "p0", "v4")
    plug(private_net, "p1", "v6")
    assert private_net.sysctl("net.ipv6.conf.v4.accept_ra") == private_net.sysctl("net.ipv6.conf.v6.accept_ra") == "0"
    families = {
        name: [item["scope"] for item in private_net.ip("-6", "address", "show", "dev", name)[0].get("addr_info", [])]
        if private_net.ip("-6", "address", "show", "dev", name)
        else []
        for name in ("v4", "v6")
    }
    assert families == {"v4": [], "v6": ["global", "link"]}


def test_bridge_that_cannot_have_its_address_is_not_left_behind(private_net):
    before = private_net.links()
    with pytest.raises(StepError, match=r"create bridge net0.*mtu|create bridge net0: .*EINVAL|create bridge net0"):
        Bridges().create(bridge("net0", mtu=7), "c")
    assert private_net.links() == before


def test_name_with_a_dot(private_net):
    Bridges().create(bridge("rack0.tor1"), "c")
    assert "rack0.tor1" in private_net.links()


def test_unfinished_bridge_is_ours_and_never_up_to_date(private_net):
    """What a crash between the first and the last step leaves."""
    mark = OwnerMark("c", "bridge", "net0", "000000000000")
    private_net.sh("ip", "link", "add", "net0", "type", "bridge")
    private_net.sh("ip", "link", "set", "net0", "alias", str(mark))
    assert list(Bridges().observe("c")) == [mark]
    Bridges().create(bridge("net0"), "c")
    assert list(Bridges().observe("c")) == [bridge("net0").mark("c")]


def test_a_full_bridge_says_so(private_net, taps):
    """1023 ports (BR_MAX_PORTS): the kernel answers EXFULL, which nobody understands."""
    Bridges().create(bridge(), "c")
    pairs = [f"link add a{number} type veth peer name b{number}\n" for number in range(512)]
    ports = [f"link set {side}{number} master net0\n" for number in range(512) for side in "ab"]
    private_net.sh("ip", "-batch", "-", input="".join(pairs + ports[:1023]))
    with pytest.raises(StepError, match=r"create tap pmt-a on bridge net0: .*EXFULL.*at most 1023 ports"):
        taps.create(tap(), "c")
    assert "pmt-a" not in private_net.links()
    with pytest.raises(StepError, match=r"interface eth0 of namespace r1 on bridge net0: .*at most 1023 ports"):
        Namespaces().create(netns(veth(0, "net0")), "c")
    assert "pmv-r1-0" not in private_net.links()


# -- namespaces -------------------------------------------------------------------------------------------------------


def test_namespace_has_its_interfaces(private_net):
    for name in ("net0", "net1"):
        Bridges().create(bridge(name, mtu=1460), "c")
    resource = netns(
        veth(0, "net0", "10.0.0.2/24", "fd00::2/64", mtu=1460),
        veth(1, "net1", "192.0.2.0/31", "fd01::/127", mtu=1460),
        sysctls=(
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv4.conf.default.rp_filter", "2"),
            ("net/ipv4/conf/eth1/rp_filter", "0"),
        ),
        routes=(
            ("default", "10.0.0.1"),
            ("10.9.0.0/16", "192.0.2.1"),
            ("default", "fd00::1"),
            ("fd09::/16", "fd01::1"),
        ),
    )
    Namespaces().create(resource, "c")

    inside = {name: private_net.link(name, netns="r1") for name in ("lo", "eth0", "eth1")}
    assert all("UP" in link["flags"] for link in inside.values())
    assert inside["lo"]["ifalias"] == str(resource.mark("c"))
    assert [inside[name]["address"] for name in ("eth0", "eth1")] == [mac_address("c", "netns r1", i) for i in (0, 1)]
    assert [inside[name]["mtu"] for name in ("eth0", "eth1")] == [1460, 1460]
    assert private_net.addresses("eth0", netns="r1") == ["10.0.0.2/24", "fd00::2/64"]
    assert private_net.addresses("eth1", netns="r1") == ["192.0.2.0/31", "fd01::/127"]
    assert [
        private_net.sysctl(name, netns="r1") for name in ("net.ipv4.ip_forward", "net.ipv4.conf.eth0.rp_filter")
    ] == [
        "1",
        "2",
    ]
    assert private_net.sysctl("net.ipv4.conf.eth1.rp_filter", netns="r1") == "0"
    assert private_net.sysctl("net.ipv4.ip_forward") == "0"
    routes = {(route["dst"], route.get("gateway")) for route in private_net.ip("route", netns="r1")}
    assert {("default", "10.0.0.1"), ("10.9.0.0/16", "192.0.2.1")} <= routes
    routes = {(route["dst"], route.get("gateway")) for route in private_net.ip("-6", "route", netns="r1")}
    assert {("default", "fd00::1"), ("fd09::/16", "fd01::1")} <= routes

    outside = private_net.link("pmv-r1-0")
    assert (outside["master"], outside["mtu"], outside["inet6_addr_gen_mode"]) == ("net0", 1460, "none")
    assert outside["ifalias"] == str(resource.mark("c"))
    assert outside["link_netnsid"] == 0
    assert private_net.link("pmv-r1-1")["master"] == "net1"
    assert private_net.ip("-6", "address", "show", "dev", "pmv-r1-0") in ([], [{}])


def test_addresses_are_usable_at_once(private_net):
    """No tentative address, for which a daemon's bind would fail: neither ours nor the link-local one."""
    Bridges().create(bridge(), "c")
    Namespaces().create(netns(veth(0, "net0", "fd00::2/64")), "c")
    info = private_net.ip("-6", "address", "show", "dev", "eth0", netns="r1")[0]["addr_info"]
    assert {item["scope"] for item in info} == {"global", "link"}
    assert not [item for item in info if item.get("tentative")]


def test_namespaces_reach_each_other(private_net):
    Bridges().create(bridge("net0"), "c")
    Bridges().create(bridge("net1"), "c")
    first = netns(veth(0, "net0", "10.0.0.1/24", "fd00::1/64"), veth(1, "net1", "192.0.2.0/31", "fd01::/127"))
    second = netns(
        veth(0, "net0", "10.0.0.2/24", "fd00::2/64", ns="r2"),
        veth(1, "net1", "192.0.2.1/31", "fd01::1/127", ns="r2"),
        name="r2",
    )
    Namespaces().create(first, "c")
    Namespaces().create(second, "c")
    for address in ("10.0.0.2", "fd00::2", "192.0.2.1", "fd01::1"):
        assert private_net.ping("r1", address), address


def test_routes_and_forwarding_carry_packets_through_a_namespace(private_net):
    for name in ("net0", "net1"):
        Bridges().create(bridge(name), "c")
    router = netns(
        veth(0, "net0", "10.0.0.1/24", "fd00::1/64"),
        veth(1, "net1", "10.1.0.1/24", "fd01::1/64"),
        sysctls=(("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")),
    )
    ends = [
        netns(
            veth(0, f"net{number}", f"10.{number}.0.2/24", f"fd0{number}::2/64", ns=f"h{number}"),
            name=f"h{number}",
            routes=(("default", f"10.{number}.0.1"), ("default", f"fd0{number}::1")),
        )
        for number in (0, 1)
    ]
    for resource in (router, *ends):
        Namespaces().create(resource, "c")
    assert private_net.ping("h0", "10.1.0.2")
    assert private_net.ping("h0", "fd01::2")


def test_run_netns_is_made_as_ip_netns_makes_it(private_net):
    Bridges().create(bridge(), "c")
    assert not Path("/run/netns").exists()
    Namespaces().create(netns(veth(0, "net0")), "c")
    Namespaces().create(netns(veth(0, "net0", ns="r2"), name="r2"), "c")
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    shared = [line for line in lines if line[4] == "/run/netns"]
    assert len(shared) == 1
    assert shared[0][6].startswith("shared:")
    private_net.sh("ip", "netns", "add", "byhand")
    assert Path("/run/netns/r1").stat().st_mode == Path("/run/netns/byhand").stat().st_mode
    private_net.sh("ip", "netns", "delete", "r1")
    assert private_net.namespaces() == {"r2", "byhand"}


def test_sysfs_of_a_namespace_shows_its_links_to_read_and_goes_with_it(private_net):
    Bridges().create(bridge(), "c")
    resource = netns(veth(0, "net0"))
    sysfs = Path("/run/placemat/.sysfs/r1")
    for _ in range(2):  # the second takes the place of the first
        Namespaces().create(resource, "c")
        assert {path.name for path in (sysfs / "class/net").iterdir()} - DEFAULT_LINKS == {"lo", "eth0"}
    with pytest.raises(OSError, match="Read-only file system"):
        (sysfs / "class/net/eth0/mtu").write_text("1400")
    Namespaces().remove(resource.mark("c"))
    assert not sysfs.parent.exists()
    assert ".sysfs" not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interfaces": (veth(0, "net0"), veth(1, "nowhere"))}, "there is no bridge nowhere"),
        ({"interfaces": (veth(0, "net0"), veth(1, "lo"))}, "lo is no bridge"),
        (
            {"routes": (("default", "10.9.9.9"),)},
            r"add route to default via 10\.9\.9\.9 in namespace r1: .*the gateway must be",
        ),
        ({"sysctls": (("net.ipv4.no_such", "1"),)}, r"set sysctl net\.ipv4\.no_such = 1: .*no such parameter"),
        ({"sysctls": (("net.ipv4.ip_forward", "yes"),)}, r"set sysctl net\.ipv4\.ip_forward = yes: .*does not take"),
        ({"interfaces": (veth(0, "net0"), veth(0, "net0", ns="x"))}, r"create interface eth0 of namespace r1 .*EEXIST"),
    ],
)
def test_namespace_that_fails_halfway_leaves_nothing(private_net, change, message):
    Bridges().create(bridge(), "c")
    before = private_net.links()
    resource = Netns(**{"name": "r1", "interfaces": (veth(0, "net0", "10.0.0.1/24"),), **change})
    with pytest.raises(StepError, match=message):
        Namespaces().create(resource, "c")
    assert private_net.links() == before
    assert private_net.namespaces() == set()
    assert not Path("/run/netns/r1").exists()
    assert not Path("/run/placemat/.sysfs").exists()
    assert list(Namespaces().observe("c")) == []


def test_a_link_in_the_way_of_a_veth_is_left_alone(private_net):
    Bridges().create(bridge(), "c")
    private_net.sh("ip", "link", "add", "pmv-r1-0", "type", "bridge")
    with pytest.raises(NotOurs, match="a link named pmv-r1-0 exists and placemat did not make it"):
        Namespaces().create(netns(veth(0, "net0")), "c")
    assert private_net.link("pmv-r1-0")["linkinfo"]["info_kind"] == "bridge"
    assert private_net.namespaces() == set()


def test_namespace_deleted_behind_our_back_while_in_use(private_net):
    """`ip netns delete` with a process inside: the veths live on without a name, and are still ours to remove."""
    Bridges().create(bridge(), "c")
    resource = netns(veth(0, "net0", "10.0.0.1/24"))
    Namespaces().create(resource, "c")
    before = private_net.links()
    inside = os.open("/run/netns/r1", os.O_RDONLY)
    try:
        private_net.sh("ip", "netns", "delete", "r1")
        assert private_net.links() == before
        [mark] = Namespaces().observe("c")
        assert (mark.name, mark.digest) == ("r1", "000000000000")
        Namespaces().create(resource, "c")
        assert list(Namespaces().observe("c")) == [resource.mark("c")]
        Namespaces().remove(resource.mark("c"))
        assert "pmv-r1-0" not in private_net.links()
    finally:
        os.close(inside)


def test_stray_veths_are_removed_by_their_mark(private_net):
    Bridges().create(bridge(), "c")
    Namespaces().create(netns(veth(0, "net0")), "c")
    inside = os.open("/run/netns/r1", os.O_RDONLY)
    try:
        private_net.sh("ip", "netns", "delete", "r1")
        Namespaces().remove(*Namespaces().observe("c"))
        assert "pmv-r1-0" not in private_net.links()
    finally:
        os.close(inside)


def test_namespace_with_a_process_inside_loses_name_and_veths(private_net):
    Bridges().create(bridge(), "c")
    resource = netns(veth(0, "net0"))
    Namespaces().create(resource, "c")
    inside = os.open("/run/netns/r1", os.O_RDONLY)
    try:
        Namespaces().remove(resource.mark("c"))
        assert private_net.links() == {"lo", "net0"} | (private_net.links() & DEFAULT_LINKS)
        assert not Path("/run/netns/r1").exists()
    finally:
        os.close(inside)


DEFAULT_LINKS = {
    "ifb0",
    "ifb1",
    "tunl0",
    "sit0",
    "gre0",
    "gretap0",
    "erspan0",
    "ip6tnl0",
    "ip_vti0",
    "ip6_vti0",
    "ip6gre0",
}


def test_empty_file_of_an_interrupted_ip_netns_add_is_no_obstacle(private_net):
    Bridges().create(bridge(), "c")
    Path("/run/netns").mkdir()
    Path("/run/netns/r1").touch()
    Namespaces().create(netns(veth(0, "net0")), "c")
    assert private_net.namespaces() == {"r1"}


def test_a_file_in_the_way_of_a_namespace_is_left_alone(private_net):
    Bridges().create(bridge(), "c")
    Path("/run/netns").mkdir()
    Path("/run/netns/r1").write_text("precious")
    before = private_net.links()
    with pytest.raises(StepError, match="/run/netns/r1 exists"):
        Namespaces().create(netns(veth(0, "net0")), "c")
    assert Path("/run/netns/r1").read_text() == "precious"
    assert private_net.links() == before


# -- taps -------------------------------------------------------------------------------------------------------------

IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, IFF_MULTI_QUEUE, TUNSETIFF = 0x2, 0x1000, 0x4000, 0x100, 0x400454CA


def open_queue(name, flags):
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | flags))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def test_tap_is_persistent_up_and_owned(private_net, taps):
    Bridges().create(bridge(), "c")
    taps.create(tap(mtu=1460), "c")
    link = private_net.link("pmt-a")
    assert (link["master"], link["mtu"], link["inet6_addr_gen_mode"]) == ("net0", 1460, "none")
    assert "UP" in link["flags"]
    assert link["ifalias"] == str(tap(mtu=1460).mark("c"))
    data = link["linkinfo"]["info_data"]
    assert (data["type"], data["persist"], data["vnet_hdr"], data["pi"]) == ("tap", True, True, False)
    assert data["multi_queue"] is False
    assert data["user"] in (USER, str(pwd.getpwnam(USER).pw_uid), pwd.getpwnam(USER).pw_uid)


def test_multiqueue_tap_has_no_dead_queue(private_net, taps):
    """Spec section 10 C4: only the queues that QEMU opens exist."""
    Bridges().create(bridge(), "c")
    taps.create(tap(queues=4), "c")
    data = private_net.link("pmt-a")["linkinfo"]["info_data"]
    assert data["multi_queue"] is True
    assert (data.get("numqueues"), data.get("numdisabled")) in ((0, 0), (None, None))
    with pytest.raises(OSError) as caught:
        open_queue("pmt-a", IFF_VNET_HDR)
    assert caught.value.errno == errno.EINVAL
    queues = [open_queue("pmt-a", IFF_VNET_HDR | IFF_MULTI_QUEUE) for _ in range(4)]
    assert "LOWER_UP" in private_net.link("pmt-a")["flags"]
    for queue in queues:
        os.close(queue)
    assert "pmt-a" in private_net.links()


def test_tap_opens_with_one_queue(private_net, taps):
    Bridges().create(bridge(), "c")
    taps.create(tap(), "c")
    os.close(open_queue("pmt-a", IFF_VNET_HDR))
    with pytest.raises(OSError) as caught:
        open_queue("pmt-a", IFF_VNET_HDR | IFF_MULTI_QUEUE)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("resource", "message"),
    [
        (tap(network="nowhere"), "create tap pmt-a: there is no bridge nowhere"),
        (tap(network="lo"), "create tap pmt-a: lo is no bridge but a hardware link"),
        (Tap(name="pmt-a", bridge="net0", user="no-such-user"), "create tap pmt-a: there is no user no-such-user"),
        (tap(mtu=3), "create tap pmt-a on bridge net0: "),
    ],
)
def test_tap_that_fails_halfway_leaves_nothing(private_net, taps, resource, message):
    Bridges().create(bridge(), "c")
    before = private_net.links()
    with pytest.raises(StepError, match=message):
        taps.create(resource, "c")
    assert private_net.links() == before


def test_without_dev_net_tun_the_device_is_named(private_net, tmp_path):
    Bridges().create(bridge(), "c")
    with pytest.raises(StepError, match=r"open .*/tun: No such file or directory \(modprobe tun; in a container"):
        Taps(device=tmp_path / "tun").create(tap(), "c")


# -- what `host` asks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("default", ["10.0.0.1", "fd00::1"])
def test_mtu_of_the_way_out(private_net, default):
    """Spec section 10 E (#135): as on GCP, whose uplinks have 1460; without IPv4 too."""
    assert observe_host(Settings(cluster="c"), Cluster(name="c")).mtu is None
    for name, mtu, address in (("up0", "1460", default), ("other", "1400", "192.0.2.1")):
        private_net.sh("ip", "link", "add", name, "mtu", mtu, "type", "veth", "peer", "name", f"{name}-far")
        private_net.sh("ip", "link", "set", f"{name}-far", "up")
        private_net.sh("ip", "link", "set", name, "up")
        own = address[:-1] + "2/" + ("24" if "." in address else "64")
        private_net.sh("ip", "address", "add", own, "dev", name, *(["nodad"] if ":" in own else []))
    private_net.sh("ip", "route", "add", "default", "via", default)
    assert observe_host(Settings(cluster="c"), Cluster(name="c")).mtu == 1460


def test_bridges_of_the_host_are_known(private_net):
    private_net.sh("ip", "link", "add", "docker0", "type", "bridge")
    Bridges().create(bridge("mine"), "c")
    Bridges().create(bridge("theirs"), "d")
    assert observe_host(Settings(cluster="c"), Cluster(name="c")).bridges == {"docker0", "theirs"}


# -- as they are used -------------------------------------------------------------------------------------------------

OPEN_QUEUE = """
import fcntl, os, struct
descriptor = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(descriptor, 0x400454CA, struct.pack("16sH22x", b"pmt-a", 0x2 | 0x1000 | 0x4000))
"""


@pytest.mark.skipif(not uid_is_mapped(65534), reason="needs a second user")
def test_only_its_user_may_open_a_tap(private_net, taps):
    """So QEMU needs no capability, and no other user can join the network."""
    private_net.sh("mount", "-t", "tmpfs", "none", "/dev/net")
    private_net.sh("mknod", "-m", "0666", "/dev/net/tun", "c", "10", "200")
    Bridges().create(bridge(), "c")
    taps.create(tap(), "c")
    for uid, allowed in ((pwd.getpwnam(USER).pw_uid, True), (1, False)):
        argv = ["setpriv", f"--reuid={uid}", "--clear-groups", "/usr/bin/python3", "-c", OPEN_QUEUE]
        done = subprocess.run(argv, text=True, capture_output=True, timeout=60)
        assert (done.returncode == 0) is allowed, done.stderr
        assert allowed or "Operation not permitted" in done.stderr


def test_host_with_ipv6_switched_off(private_net):
    """Spec section 10 C3: IPv4 works, an IPv6 address is refused with a reason and leaves nothing."""
    private_net.sh("sysctl", "-w", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
    Bridges().create(bridge("net0", "10.0.0.1/24"), "c")
    Namespaces().create(netns(veth(0, "net0", "10.0.0.2/24")), "c")
    assert private_net.ping("r1", "10.0.0.1")
    with pytest.raises(StepError, match=r"add address fd00::1/64: .*is IPv6 switched off"):
        Bridges().create(bridge("net6", "fd00::1/64"), "c")
    assert "net6" not in private_net.links()


def test_adapters_work_beside_a_running_event_loop(private_net):
    """As placematd calls them: from worker threads (pyroute2 0.9 has an event loop of its own)."""

    async def main() -> None:
        await asyncio.to_thread(Bridges().create, bridge(), "c")
        spaces = [netns(veth(0, "net0", ns=f"n{number}"), name=f"n{number}") for number in range(8)]
        await asyncio.gather(*(asyncio.to_thread(Namespaces().create, space, "c") for space in spaces))
        marks = await asyncio.to_thread(Namespaces().observe, "c")
        assert {mark.name for mark in marks} == {f"n{number}" for number in range(8)}
        await asyncio.gather(*(asyncio.to_thread(Namespaces().remove, mark) for mark in marks))

    asyncio.run(main())
    assert private_net.namespaces() == set()
    assert not [name for name in private_net.links() if name.startswith("pmv-")]
