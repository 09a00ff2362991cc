"""What is decided from a cluster and a host: the rules that golden plans alone would not explain."""

import re
import subprocess
from dataclasses import replace
from ipaddress import ip_interface
from pathlib import Path

import pytest
from samples import BOOT, CLUSTER, HOST, NET0, OVMF, SETTINGS, WORKER

from placematd.errors import NotFound, PlacematError
from placematd.facts import QEMU_USER, FirmwareChoice, Host, HostChain, Learned, Settings
from placematd.models import (
    App,
    Cluster,
    DeviceClass,
    HostPathVolume,
    Image,
    ImageVolume,
    NamespaceInterface,
    Network,
    NetworkNamespace,
    Node,
    RawVolume,
    Smbios,
)
from placematd.plan import Plan, plan
from placematd.plan.console import PLAIN_TEXT
from placematd.render import plan_json, render_plan
from placematd.resources import (
    Bridge,
    CachedImage,
    Firewall,
    Key,
    Kind,
    Netns,
    Resource,
    Sysctl,
    Tap,
    UnitResource,
    VolumeFile,
)
from placematd.unit import Unit, exec_argv

PLAN = plan(CLUSTER, HOST, SETTINGS)


def planned(host: Host = HOST, settings: Settings = SETTINGS, **changes: object) -> Plan:
    """The plan of the sample cluster with some of its parts replaced."""
    return plan(replace(CLUSTER, **changes), host, settings)  # type: ignore[arg-type]


def bare(node: Node, **changes: object) -> Plan:
    """The plan of a cluster with one node."""
    return plan(Cluster(name="dc", nodes=(node,), **changes), HOST, SETTINGS)  # type: ignore[arg-type]


def of_kind(a_plan: Plan, kind: Kind) -> list[Resource]:
    return [resource for resource in a_plan.resources if resource.kind == kind]


def volume(a_plan: Plan, name: str) -> VolumeFile:
    found = a_plan.find(Key("volume", name))
    assert isinstance(found, VolumeFile)
    return found


def unit(a_plan: Plan, name: str) -> Unit:
    found = a_plan.find(Key("unit", name))
    assert isinstance(found, UnitResource)
    return found.unit


# -- the whole --------------------------------------------------------------------------------------------------------


def test_resources_come_in_the_order_of_creation() -> None:
    assert [str(resource.key) for resource in PLAN.resources] == [
        "sysctl net.ipv4.ip_forward",
        "bridge net0",
        "firewall placemat-dc",
        "netns boot",
        "unit placemat-dc-init-boot.service",
        "unit placemat-dc-app-boot-ra.service",
        "unit placemat-dc-app-boot-dhcp.service",
        "image debian",
        "volume worker-1/root",
        "volume worker-1/data",
        "volume worker-1/share",
        "volume worker-1/@tpm",
        *(f"tap {tap.name}" for tap in of_kind(PLAN, "tap")),
        "unit placemat-dc-console-worker-1.socket",
        "unit placemat-dc-console-worker-2.socket",
        "unit placemat-dc-tpm-worker-1.socket",
        "unit placemat-dc-node-worker-1.service",
        "unit placemat-dc-node-worker-2.service",
    ]


def test_keys_are_unique_and_needs_come_first() -> None:
    seen: set[Key] = set()
    for resource in PLAN.resources:
        assert resource.key not in seen
        assert set(resource.needs) <= seen
        seen.add(resource.key)


def test_same_input_same_plan_in_another_process() -> None:
    program = """
from samples import CLUSTER, HOST, SETTINGS
from placematd.plan import plan
print([resource.digest for resource in plan(CLUSTER, HOST, SETTINGS).resources])
"""
    here = str(Path(__file__).parent)
    answers = {
        subprocess.run(
            [
                "/usr/bin/env",
                f"PYTHONHASHSEED={seed}",
                f"PYTHONPATH={here}:{Path(here).parents[1]}",
                "python3",
                "-c",
                program,
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2)
    }
    assert answers == {f"{[resource.digest for resource in PLAN.resources]}\n"}


def test_nothing_of_one_cluster_has_the_name_of_another() -> None:
    other = plan(replace(CLUSTER, name="dc2", networks=(), namespaces=()), HOST, Settings(cluster="dc2"))
    shared = {"image debian", "volume worker-1/share"}
    names = {str(item.key) for item in other.resources if item.kind not in ("volume", "image")}
    assert names.isdisjoint(str(item.key) for item in PLAN.resources)
    paths = {item.path for item in other.resources if isinstance(item, VolumeFile) and str(item.key) not in shared}
    assert paths.isdisjoint(item.path for item in PLAN.resources if isinstance(item, VolumeFile))


def test_node_not_found() -> None:
    assert PLAN.node("worker-2").unit == "placemat-dc-node-worker-2.service"
    with pytest.raises(NotFound, match=r"no node worker-3 in cluster dc \(nodes: worker-1, worker-2\)"):
        PLAN.node("worker-3")


# -- network ----------------------------------------------------------------------------------------------------------


def external(name: str, *addresses: str, nat: bool = True) -> Network:
    return Network(name=name, type="external", use_nat=nat, addresses=tuple(map(ip_interface, addresses)))


@pytest.mark.parametrize(
    ("networks", "sysctls"),
    [
        ((external("e", "10.0.0.1/24"),), ["net.ipv4.ip_forward"]),
        ((external("e", "fd00::1/64"),), ["net.ipv6.conf.all.forwarding"]),
        ((external("e", "10.0.0.1/24", "fd00::1/64"),), ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"]),
        ((external("e", "10.0.0.1/24", nat=False),), []),
        ((Network(name="i", type="internal"), Network(name="b", type="bmc", address=ip_interface("10.1.0.1/24"))), []),
    ],
)
def test_host_forwards_only_for_nat_networks_and_only_their_families(
    networks: tuple[Network, ...], sysctls: list[str]
) -> None:
    resources = of_kind(plan(Cluster(name="dc", networks=networks), HOST, SETTINGS), "sysctl")
    assert [resource.name for resource in resources] == sysctls
    assert all(isinstance(resource, Sysctl) and resource.value == "1" for resource in resources)


def test_firewall_gives_v2s_reachability() -> None:
    networks = (
        external("ext", "10.0.0.1/24", "fd00::1/64"),
        external("quiet", "10.9.0.1/24", nat=False),
        Network(name="int", type="internal"),
        Network(name="bmc", type="bmc", address=ip_interface("10.1.0.1/24")),
    )
    (table,) = of_kind(plan(Cluster(name="dc", networks=networks), HOST, SETTINGS), "firewall")
    assert isinstance(table, Firewall)
    assert table.rules == (
        "chain forward {\n"
        "\ttype filter hook forward priority filter; policy accept;\n"
        '\tiifname { "ext", "int" } accept\n'
        '\toifname { "ext", "int" } accept\n'
        "}\n"
        "chain postrouting {\n"
        "\ttype nat hook postrouting priority srcnat; policy accept;\n"
        "\tip saddr 10.0.0.0/24 ip daddr != 10.0.0.0/24 masquerade\n"
        "\tip6 saddr fd00::/64 ip6 daddr != fd00::/64 masquerade\n"
        "}\n"
    )


def test_what_is_forwarded_passes_each_chain_of_the_host_that_may_drop_it() -> None:
    chains = (HostChain("ip", "filter", "DOCKER-USER"), HostChain("inet", "firewalld", "filter_FORWARD"))
    networks = (
        external("ext", "10.0.0.1/24"),
        external("quiet", "10.9.0.1/24", nat=False),
        Network(name="int", type="internal"),
        Network(name="bmc", type="bmc", address=ip_interface("10.1.0.1/24")),
    )
    host = replace(HOST, closed_chains=chains)
    passages = of_kind(plan(Cluster(name="dc", networks=networks), host, SETTINGS), "passage")
    assert [(passage.name, passage.family, passage.table, passage.chain, passage.hook) for passage in passages] == [
        ("ip:filter:DOCKER-USER", *chains[0]),
        ("inet:firewalld:filter_FORWARD", *chains[1]),
    ]
    assert {passage.interfaces for passage in passages} == {("ext", "int")}
    assert of_kind(plan(Cluster(name="dc", networks=networks[1:2]), host, SETTINGS), "passage") == []


def test_what_stays_in_a_network_of_several_subnets_is_not_masqueraded() -> None:
    network = external("ext", "10.0.0.1/24", "10.1.0.1/24", "10.1.0.2/25", "fd00::1/64")
    (table,) = of_kind(plan(Cluster(name="dc", networks=(network,)), HOST, SETTINGS), "firewall")
    assert "ip saddr 10.0.0.0/24 ip daddr != { 10.0.0.0/24, 10.1.0.0/24 } masquerade" in table.rules
    assert "ip6 saddr fd00::/64 ip6 daddr != fd00::/64 masquerade" in table.rules


def test_no_firewall_without_need() -> None:
    networks = (
        Network(name="bmc", type="bmc", address=ip_interface("10.1.0.1/24")),
        external("e", "10.0.0.1/24", nat=False),
    )
    assert of_kind(plan(Cluster(name="dc", networks=networks), HOST, SETTINGS), "firewall") == []


def test_mtu_of_the_host_everywhere() -> None:
    a_plan = planned(host=replace(HOST, mtu=1460))
    for resource in a_plan.resources:
        if isinstance(resource, Bridge | Tap):
            assert resource.mtu == 1460
        if isinstance(resource, Netns):
            assert [veth.mtu for veth in resource.interfaces] == [1460]
    argv = " ".join(exec_argv(unit(a_plan, "placemat-dc-node-worker-1.service")))
    assert "host_mtu=1460" in argv
    assert "host_mtu=1500" in " ".join(exec_argv(unit(PLAN, "placemat-dc-node-worker-1.service")))


def test_a_bridge_of_the_host_is_used_and_not_made() -> None:
    a_plan = bare(Node(name="n", cpu=1, interfaces=("docker0",)))
    assert of_kind(a_plan, "bridge") == []
    (tap,) = of_kind(a_plan, "tap")
    assert isinstance(tap, Tap)
    assert (tap.bridge, tap.needs) == ("docker0", ())


def test_user_sysctls_win() -> None:
    namespace = replace(BOOT, sysctls=(("net.ipv4.ip_forward", "0"), ("net.ipv4.tcp_ecn", "1")))
    (netns,) = of_kind(planned(namespaces=(namespace,)), "netns")
    assert isinstance(netns, Netns)
    assert dict(netns.sysctls) == {
        "net.ipv4.ip_forward": "0",
        "net.ipv6.conf.all.forwarding": "1",
        "net.ipv4.conf.default.rp_filter": "0",
        "net.ipv4.conf.all.rp_filter": "0",
        "net.ipv4.tcp_ecn": "1",
    }


def test_mac_addresses_differ_between_a_node_and_a_namespace_of_one_name() -> None:
    a_plan = planned(
        namespaces=(NetworkNamespace(name="x", interfaces=(NamespaceInterface(network="net0"),)),),
        nodes=(Node(name="x", interfaces=("net0", "net0"), cpu=1),),
    )
    (netns,) = of_kind(a_plan, "netns")
    assert isinstance(netns, Netns)
    macs = {netns.interfaces[0].mac, *(interface.mac for interface in a_plan.node("x").interfaces)}
    assert len(macs) == 3


# -- apps -------------------------------------------------------------------------------------------------------------


def app_unit(app: App, directory: Path = Path("/etc/placemat")) -> Unit:
    namespace = NetworkNamespace(name="ns", interfaces=(), apps=(app,), directory=directory)
    return unit(planned(namespaces=(namespace,)), f"placemat-dc-app-ns-{app.name}.service")


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("dnsmasq", "dnsmasq"),
        ("/usr/sbin/bird", "/usr/sbin/bird"),
        ("./run", "/etc/placemat/run"),
        ("bin/run", "/etc/placemat/bin/run"),
    ],
)
def test_program_of_an_app(program: str, expected: str) -> None:
    assert exec_argv(app_unit(App(name="a", command=(program, "./x")))) == (expected, "./x")


def test_an_app_gets_its_arguments_as_written() -> None:
    words = ("printf", "%s,", "$HOME $$ `id`; é", "%24", "")
    argv = exec_argv(app_unit(App(name="a", command=words)))
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == "$HOME $$ `id`; é,%24,,"


def test_no_command_holds_what_systemd_garbles_on_reload() -> None:
    apps = (App(name="a", command=("sh", "-c", "a; b $c `d`")), App(name="b", command=("sh", "-c", "%n 'x' \"y\"")))
    a_plan = planned(namespaces=(replace(BOOT, apps=apps),))
    for resource in a_plan.resources:
        if isinstance(resource, UnitResource):
            for part in (resource.unit, *resource.unit.auxiliaries):
                assert set("$;`").isdisjoint("".join(exec_argv(part)))
    assert exec_argv(unit(a_plan, "placemat-dc-app-boot-b.service")) == apps[1].command


def test_app_units_wait_for_scripts_and_for_each_other() -> None:
    assert unit(PLAN, "placemat-dc-app-boot-dhcp.service").get("After") == (
        "placemat-dc-init-boot.service",
        "placemat-dc-app-boot-ra.service",
    )


def test_scripts_and_apps_have_the_sysfs_and_the_files_of_their_namespace() -> None:
    namespaces = (replace(BOOT, init_scripts=(Path("/a"),)), replace(BOOT, name="other"))
    files = frozenset(Path("/etc/netns", name) for name in ("boot/resolv.conf", "boot/hosts", "other/hosts"))
    a_plan = plan(Cluster(name="dc", namespaces=namespaces), replace(HOST, netns_files=files), SETTINGS)
    for name in ("placemat-dc-init-boot.service", f"placemat-dc-app-boot-{BOOT.apps[0].name}.service"):
        bound = unit(a_plan, name).get("BindPaths")
        assert isinstance(bound, tuple)
        assert bound[-3:] == (
            ("/run/placemat/.sysfs/boot", "/sys", False, 0),
            ("/etc/netns/boot/hosts", "/etc/hosts", False, 0),
            ("/etc/netns/boot/resolv.conf", "/etc/resolv.conf", False, 0),
        )


def test_app_settings() -> None:
    app = app_unit(
        App(name="a", command=("x",), user="nobody", working_directory=Path("/tmp"), environment=(("A", "b c"),))
    )
    assert app.get("User") == "nobody"
    assert app.get("WorkingDirectory") == "/tmp"
    assert app.get("Environment") == ("PLACEMAT_CLUSTER=dc", "PLACEMAT_NETNS=ns", "A=b c")
    assert app.get("NetworkNamespacePath") == "/run/netns/ns"


def test_apps_see_syslog_and_nothing_else_of_systemd() -> None:
    app = app_unit(App(name="a", command=("x",)))
    assert app.get("TemporaryFileSystem") == (("/run/systemd", "ro"),)
    bound = app.get("BindPaths")
    assert isinstance(bound, tuple)
    assert [item[:3] for item in bound if isinstance(item, tuple)] == [
        ("/dev/null", "/dev/console", True),
        ("/run/systemd/journal/dev-log", "/run/systemd/journal/dev-log", True),
        ("/run/systemd/journal/socket", "/run/systemd/journal/socket", True),
        ("/run/placemat/.sysfs/ns", "/sys", False),
        ("/run/systemd/resolve/resolv.conf", "/run/systemd/resolve/resolv.conf", True),
        ("/run/systemd/resolve/resolv.conf", "/run/systemd/resolve/stub-resolv.conf", True),
    ]
    capabilities = app.get("CapabilityBoundingSet")
    assert isinstance(capabilities, int)
    assert capabilities ^ (1 << 64) - 1 == 1 << 22, "all but CAP_SYS_BOOT"


def test_root_is_no_setting() -> None:
    assert app_unit(App(name="a", command=("x",))).get("User") is None


@pytest.mark.parametrize(("policy", "remains"), [("no", True), ("on-failure", True), ("always", False)])
def test_restart(policy: str, remains: bool) -> None:
    app = app_unit(App(name="a", command=("x",), restart=policy))  # type: ignore[arg-type]
    assert app.get("Restart") == policy
    assert app.get("RemainAfterExit") is remains


# -- storage ----------------------------------------------------------------------------------------------------------

URL = "https://example.org/a.img"


@pytest.mark.parametrize(
    ("image", "cached"),
    [
        (Image(name="i", url=URL), True),
        (Image(name="i", file=Path("/srv/a.img")), False),
        (Image(name="i", file=Path("/srv/a.img"), compression="gzip"), True),
        (Image(name="i", file=Path("/srv/a.img"), sha256="0" * 64), True),
        (Image(name="i", file=Path("/root/a.img")), True),
    ],
)
def test_images_in_the_cache(image: Image, cached: bool) -> None:
    host = replace(HOST, private_files=frozenset({Path("/root/a.img")}))
    node = Node(name="n", cpu=1, volumes=(ImageVolume(name="root", image="i"),))
    a_plan = planned(host=host, nodes=(node,), images=(image,))
    images = [item for item in a_plan.resources if isinstance(item, CachedImage)]
    assert len(images) == cached
    assert volume(a_plan, "n/root").base == (images[0].path if cached else image.file)


def test_cache_key_is_source_and_compression() -> None:
    def path(image: Image) -> Path:
        node = Node(name="n", cpu=1, volumes=(ImageVolume(name="root", image="i"),))
        base = volume(planned(nodes=(node,), images=(image,)), "n/root").base
        assert base is not None
        return base

    plain = path(Image(name="i", url=URL))
    assert plain == path(Image(name="i", url=URL, sha256="0" * 64))
    assert plain != path(Image(name="i", url=URL, compression="gzip"))
    assert plain != path(Image(name="i", url=URL + "2"))
    assert re.fullmatch("/var/cache/placemat/images/[0-9a-f]{32}", str(plain))


def test_an_unused_image_is_not_fetched() -> None:
    assert of_kind(planned(nodes=()), "image") == []


def test_device_class() -> None:
    node = Node(
        name="n",
        cpu=1,
        volumes=(RawVolume(name="fast", size="1G", device_class="ssd"), RawVolume(name="slow", size="1G")),
    )
    a_plan = bare(node, device_classes=(DeviceClass(name="ssd", path=Path("/mnt/ssd")),))
    assert volume(a_plan, "n/fast").path == Path("/mnt/ssd/dc/volumes/n/fast.img")
    assert volume(a_plan, "n/slow").path == Path("/var/lib/placemat/dc/volumes/n/slow.img")


def test_a_volume_may_have_the_name_of_what_placemat_keeps() -> None:
    a_plan = bare(
        Node(
            name="n",
            cpu=1,
            uefi=True,
            tpm=True,
            volumes=tuple(RawVolume(name=name, size="1G") for name in ("efivars", "tpm")),
        )
    )
    volumes = [item for item in a_plan.resources if isinstance(item, VolumeFile)]
    assert len({item.key for item in volumes}) == len({item.path for item in volumes}) == 4


def test_uefi_without_firmware() -> None:
    with pytest.raises(PlacematError, match=r"Node n: uefi needs OVMF firmware.*apt-get install ovmf"):
        planned(host=replace(HOST, ovmf=None), nodes=(Node(name="n", cpu=1, uefi=True),))


def test_secure_boot_without_keys() -> None:
    node, without = Node(name="n", cpu=1, uefi=True, secure_boot=True), OVMF._replace(secure_vars=None)
    with pytest.raises(PlacematError, match=r"Node n: secure-boot needs .* with keys.*package ovmf"):
        planned(host=replace(HOST, ovmf=without), nodes=(node,))
    with pytest.raises(PlacematError, match=r"Node n: uefi needs OVMF firmware"):
        planned(host=replace(HOST, ovmf=None), nodes=(node,))


def test_secure_boot_has_variables_of_its_own() -> None:
    """So that both stores keep what they have, whichever is used."""
    node = Node(name="n", cpu=1, uefi=True)
    plain, secure = bare(node), bare(replace(node, secure_boot=True))
    assert volume(plain, "n/@efivars").base == OVMF.vars
    assert volume(secure, "n/@efivars-secure").base == OVMF.secure_vars
    assert volume(secure, "n/@efivars-secure").path != volume(plain, "n/@efivars").path
    assert secure.find(volume(plain, "n/@efivars").key) is None


def test_firmware_chosen_through_a_bmc() -> None:
    cluster = Cluster(name="dc", nodes=(Node(name="n", cpu=1, uefi=True, secure_boot=True), Node(name="m", cpu=1)))
    choices = {"n": FirmwareChoice(uefi=True, tpm=False), "m": FirmwareChoice(uefi=True, tpm=True, secure_boot=True)}
    n, m = plan(cluster, HOST, SETTINGS, Learned(firmware=choices)).nodes
    assert (n.uefi, n.secure_boot, n.tpm) == (True, False, False)
    assert (m.uefi, m.secure_boot, m.tpm) == (True, True, True)


# -- nodes ------------------------------------------------------------------------------------------------------------


def test_summary_of_a_node_is_what_the_guest_sees() -> None:
    node = PLAN.node("worker-1")
    argv = exec_argv(unit(PLAN, node.unit))
    assert (node.cpus, node.memory, node.tpm, node.uefi) == (2, "1G", True, False)
    assert node.smbios.serial == "937f54d5530d05c64bb6db676a6b6ab6249abfeb"
    assert f"type=1,serial={node.smbios.serial}" in argv
    assert argv[argv.index("-uuid") + 1] == node.uuid
    (interface,) = node.interfaces
    assert f"ifname={interface.tap}," in " ".join(argv)
    assert f"mac={interface.mac}" in " ".join(argv)
    assert node.volumes == ("root", "data", "share")
    assert PLAN.node("worker-2").memory == "128M"


def test_nodes_without_a_serial_differ() -> None:
    assert PLAN.node("worker-1").smbios.serial != PLAN.node("worker-2").smbios.serial
    assert bare(Node(name="n", cpu=1, smbios=Smbios(serial="s"))).node("n").smbios.serial == "s"


def test_qemu_sees_its_own_files_only() -> None:
    seen = unit(PLAN, "placemat-dc-node-worker-1.service")

    def paths(name: str) -> set[object]:
        value = seen.get(name)
        assert isinstance(value, tuple)
        return {item[0] for item in value if isinstance(item, tuple)}

    assert paths("TemporaryFileSystem") == {"/run/placemat", "/var/lib/placemat", "/boot", "/etc", "/var"}
    assert paths("BindPaths") == {
        "/run/placemat/dc/log/worker-1",
        "/run/placemat/dc/node/worker-1",
        "/run/placemat/dc/tpm/worker-1",
        "/var/lib/placemat/dc/volumes/worker-1",
    }
    image = next(item for item in PLAN.resources if isinstance(item, CachedImage))
    assert paths("BindReadOnlyPaths") == {str(image.path), "/srv/share"}


def test_a_writable_share_is_bound_writable() -> None:
    a_plan = bare(Node(name="n", cpu=1, volumes=(HostPathVolume(name="s", path=Path("/srv"), writable=True),)))
    bound = unit(a_plan, "placemat-dc-node-n.service")
    assert ("/srv", "/srv", False, 1 << 14) in (bound.get("BindPaths") or ())  # type: ignore[operator]
    assert bound.get("BindReadOnlyPaths") is None


@pytest.mark.parametrize(("writable", "bits"), [((False,), {2}), ((False, True), {0, 1, 2, 3, 4})])
def test_guests_root_is_root_in_what_it_shares_and_sees_no_secrets(writable: tuple[bool, ...], bits: set[int]) -> None:
    volumes = tuple(HostPathVolume(name=f"s{i}", path=Path(f"/srv/{i}"), writable=w) for i, w in enumerate(writable))
    node = unit(bare(Node(name="n", cpu=1, volumes=volumes)), "placemat-dc-node-n.service")
    assert node.get("AmbientCapabilities") == node.get("CapabilityBoundingSet") == sum(1 << bit for bit in bits)
    assert ("/etc", "ro") in (node.get("TemporaryFileSystem") or ())  # type: ignore[operator]


def test_qemu_has_no_privileges() -> None:
    node = unit(PLAN, "placemat-dc-node-worker-2.service")
    assert (node.get("User"), node.get("Group")) == (QEMU_USER, QEMU_USER)
    assert node.get("CapabilityBoundingSet") == 0
    assert node.get("AmbientCapabilities") is None
    assert node.get("NoNewPrivileges") is True
    for socket in ("console-worker-1.socket", "tpm-worker-1.socket"):
        (service,) = unit(PLAN, f"placemat-dc-{socket}").auxiliaries
        assert service.get("User") == QEMU_USER
        assert service.get("PrivateNetwork") is True


@pytest.mark.parametrize(
    ("host", "devices", "groups"),
    [
        (replace(HOST, accelerator="tcg"), ["/dev/net/tun"], None),
        (HOST, ["/dev/net/tun", "/dev/kvm"], ("kvm",)),
        (replace(HOST, vhost_net=True), ["/dev/net/tun", "/dev/kvm", "/dev/vhost-net"], ("kvm",)),
    ],
)
def test_devices(host: Host, devices: list[str], groups: object) -> None:
    node = unit(planned(host=host), "placemat-dc-node-worker-1.service")
    assert node.get("DeviceAllow") == tuple((device, "rw") for device in devices)
    assert node.get("DevicePolicy") == "closed"
    assert node.get("SupplementaryGroups") == groups


def test_ignition_comes_as_a_credential() -> None:
    node = unit(bare(Node(name="n", cpu=1, ignition=Path("/root/a.ign"))), "placemat-dc-node-n.service")
    assert node.get("LoadCredential") == (("ignition", "/root/a.ign"),)
    assert "opt/com.coreos/config,file=/run/credentials/placemat-dc-node-n.service/ignition" in exec_argv(node)


def test_run_directory_must_be_below_run() -> None:
    with pytest.raises(PlacematError, match="must lie below /run"):
        planned(settings=Settings(cluster="dc", run_dir=Path("/var/tmp/x")))


def test_everything_a_unit_says_is_found_by_field() -> None:
    for resource in PLAN.resources:
        if isinstance(resource, UnitResource):
            fields = dict(resource.journal_fields)
            assert fields["PLACEMAT_CLUSTER"] == "dc"
            kind, _, name = resource.owner.partition(" ")
            assert fields["PLACEMAT_NODE" if kind == "Node" else "PLACEMAT_NETNS"] == name


def test_all_units_are_in_the_slice_of_the_cluster() -> None:
    units = [item.unit for item in PLAN.resources if isinstance(item, UnitResource)]
    for each in [*units, *(auxiliary for item in units for auxiliary in item.auxiliaries)]:
        assert each.get("Slice") == "placemat-dc.slice"


# -- console text -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "lines"),
    [
        (b"login: \r\n", ["login:"]),
        (b"\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS (version 1.16.2)\r\n", ["SeaBIOS (version 1.16.2)"]),
        (b"\x1b[0;1miPXE 1.0.0\x1b[0m -- \x1b[0;36mhttp\r\n", ["iPXE 1.0.0 -- http"]),
        (b"Press Ctrl-B...\x08 \x08\x08 \x08net0: open\r\n", ["Press Ctrl-B...", "net0: open"]),
        (b"10%\r20%\r100%\r\n", ["10%", "20%", "100%"]),
        (b"configure iPXE...\r          \r\n", ["configure iPXE..."]),
        (b"one\x1b[02;01Htwo\x1b[Hthree\n", ["one", "two", "three"]),
        (b"\x1b]0;title\x07prompt# \x1b]8;;x\x1b\\link\n", ["prompt# link"]),
        (b"\x1b(B\x1b)0\x1b=text\x1b>\x00\x7f\x01\n", ["text"]),
        (b"\tindented, [brackets] and caf\xc3\xa9\n", ["\tindented, [brackets] and café"]),
        (b"a/b|c#d $HOME `x` \\n\n", ["a/b|c#d $HOME `x` \\n"]),
    ],
)
def test_console_text_for_the_journal(raw: bytes, lines: list[str]) -> None:
    (service,) = unit(PLAN, "placemat-dc-console-worker-1.socket").auxiliaries
    argv = exec_argv(service)
    assert argv[3:] == tuple(f"--expression={expression}" for expression in PLAIN_TEXT)
    done = subprocess.run(argv, input=raw, capture_output=True, env={"LC_ALL": "C"}, check=True)
    assert [line for line in done.stdout.decode().split("\n") if line.strip(" ")] == lines


# -- rendering --------------------------------------------------------------------------------------------------------


def test_text_names_every_resource_with_its_digest() -> None:
    text = render_plan(PLAN)
    for resource in PLAN.resources:
        assert f"\n{resource.key}  {resource.digest}  ({resource.owner})\n" in text
    assert text.startswith(f"cluster dc: {len(PLAN.resources)} resources\n")
    assert render_plan(Plan("dc")) == "cluster dc: 0 resources\n"


def test_json_has_everything() -> None:
    document = plan_json(PLAN)
    resources = document["resources"]
    assert isinstance(resources, list)
    node = resources[-2]
    assert isinstance(node, dict)
    assert (node["kind"], node["name"], node["digest"]) == (
        "unit",
        "placemat-dc-node-worker-1.service",
        PLAN.resources[-2].digest,
    )
    properties = node["unit"]["properties"]  # type: ignore[index,call-overload]
    assert properties["CapabilityBoundingSet"] == 1 << 2  # type: ignore[index,call-overload]
    assert properties["RestrictAddressFamilies"] == [True, ["AF_UNIX"]]  # type: ignore[index,call-overload]
    nodes = document["nodes"]
    assert isinstance(nodes, list)
    assert [item["name"] for item in nodes if isinstance(item, dict)] == ["worker-1", "worker-2"]
    assert WORKER.memory in str(nodes[0])
    assert NET0.name in str(resources)
