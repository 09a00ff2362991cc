"""Plan and host compared: what changes, in which order, and why."""

from dataclasses import replace
from ipaddress import ip_interface
from pathlib import Path

from samples import BOOT, CLUSTER, HOST, NET0, SETTINGS, WORKER

from placematd.models import App, Cluster, HostPathVolume, LocaldsVolume, Network, Node, RawVolume
from placematd.names import OwnerMark
from placematd.plan import Plan, plan
from placematd.reconcile import Change, Changes, compare
from placematd.resources import Key

PLAN = plan(CLUSTER, HOST, SETTINGS)


def marks(a_plan: Plan) -> list[OwnerMark]:
    """What the adapters observe when the plan has been applied; images are looked at when they are used."""
    return [resource.mark(a_plan.cluster) for resource in a_plan.resources]


def without(names: set[str]) -> list[OwnerMark]:
    """Everything of PLAN but these."""
    return [mark for mark in marks(PLAN) if mark.name not in names]


def keys(changes: tuple[Change, ...]) -> list[str]:
    return [f"{change.action} {change.key}" for change in changes]


def changed(cluster: Cluster) -> Changes:
    """PLAN is up, and the file changes to `cluster`."""
    return compare(plan(cluster, HOST, SETTINGS), marks(PLAN))


TAP = PLAN.node("worker-1").interfaces[0].tap
TAP2 = PLAN.node("worker-2").interfaces[0].tap
NODE = "unit placemat-dc-node-worker-1.service"
NODE2 = "unit placemat-dc-node-worker-2.service"
INIT = "unit placemat-dc-init-boot.service"
RA, DHCP = "unit placemat-dc-app-boot-ra.service", "unit placemat-dc-app-boot-dhcp.service"


def test_fresh_host_gets_everything_in_order() -> None:
    changes = compare(PLAN, [])
    assert [change.resource for change in changes.create] == list(PLAN.resources)
    assert {(change.action, change.reason) for change in changes.create} == {("create", "missing")}
    assert changes.remove == changes.keep == ()


def test_nothing_to_do() -> None:
    assert compare(PLAN, marks(PLAN)) == Changes()


def test_stop_removes_all_but_data_and_users_first() -> None:
    changes = compare(Plan("dc"), marks(PLAN))
    assert changes.create == changes.keep == ()
    assert keys(changes.remove) == [
        f"remove {NODE}",
        f"remove {NODE2}",
        f"remove {DHCP}",
        f"remove {RA}",
        f"remove {INIT}",
        "remove unit placemat-dc-tpm-worker-1.socket",
        "remove unit placemat-dc-console-worker-1.socket",
        "remove unit placemat-dc-console-worker-2.socket",
        *sorted((f"remove tap {TAP}", f"remove tap {TAP2}")),
        "remove netns boot",
        "remove firewall placemat-dc",
        "remove bridge net0",
        "remove sysctl net.ipv4.ip_forward",
    ]
    assert {change.reason for change in changes.remove} == {"no longer in the cluster file"}


def test_other_clusters_are_none_of_our_business() -> None:
    others = [replace(mark, cluster="other") for mark in marks(PLAN)]
    assert compare(Plan("dc"), others) == Changes()
    assert len(compare(PLAN, others).create) == len(PLAN.resources)


def test_a_changed_bridge_is_updated_and_leaves_its_ports_alone() -> None:
    changes = changed(replace(CLUSTER, networks=(replace(NET0, addresses=(ip_interface("10.0.1.1/24"),)),)))
    assert changes.remove == ()
    assert keys(changes.create) == ["update bridge net0", "update firewall placemat-dc"]


def test_a_lost_bridge_takes_its_ports_and_their_users_with_it() -> None:
    changes = compare(PLAN, without({"net0"}))
    assert keys(changes.create) == [
        "create bridge net0",
        *("replace netns boot", f"replace {INIT}", f"replace {RA}", f"replace {DHCP}"),
        *(f"replace tap {TAP}", f"replace tap {TAP2}", f"replace {NODE}", f"replace {NODE2}"),
    ]
    reasons = {str(change.key): change.reason for change in changes.create}
    assert reasons["netns boot"] == "bridge net0 is made anew"
    assert reasons[RA] == "netns boot is made anew"
    assert reasons[NODE] == f"tap {TAP} is made anew"
    assert keys(changes.remove) == [
        *(f"replace {NODE2}", f"replace {NODE}", f"replace {DHCP}", f"replace {RA}", f"replace {INIT}"),
        *(f"replace tap {TAP2}", f"replace tap {TAP}", "replace netns boot"),
    ]


def test_a_changed_app_is_replaced_alone() -> None:
    dhcp, ra = BOOT.apps
    apps = (dhcp, replace(ra, command=("radvd", "-d1")))
    changes = changed(replace(CLUSTER, namespaces=(replace(BOOT, apps=apps),)))
    assert keys(changes.remove) == keys(changes.create) == [f"replace {RA}"]
    assert changes.create[0].reason == "changed"


def test_other_init_scripts_need_a_fresh_namespace() -> None:
    changes = changed(
        replace(CLUSTER, namespaces=(replace(BOOT, init_scripts=(*BOOT.init_scripts, *BOOT.init_scripts)),))
    )
    assert keys(changes.create) == ["replace netns boot", f"replace {INIT}", f"replace {RA}", f"replace {DHCP}"]


def test_a_new_app_and_a_removed_one() -> None:
    apps = (BOOT.apps[1], App(name="ntp", command=("chronyd",)))
    changes = changed(replace(CLUSTER, namespaces=(replace(BOOT, apps=apps),)))
    assert keys(changes.remove) == [f"remove {DHCP}"]
    assert keys(changes.create) == ["create unit placemat-dc-app-boot-ntp.service"]


def test_a_changed_node_is_replaced_and_its_neighbour_runs_on() -> None:
    changes = changed(replace(CLUSTER, nodes=(replace(WORKER, memory="2G"), CLUSTER.nodes[1])))
    assert keys(changes.remove) == keys(changes.create) == [f"replace {NODE}"]


def test_a_node_with_another_queue_count_gets_another_tap() -> None:
    changes = changed(replace(CLUSTER, nodes=(replace(WORKER, network_device_queue=4), CLUSTER.nodes[1])))
    assert keys(changes.remove) == [f"replace {NODE}", f"replace tap {TAP}"]
    assert keys(changes.create) == [f"replace tap {TAP}", f"replace {NODE}"]


def test_a_removed_node_keeps_its_volumes() -> None:
    changes = changed(replace(CLUSTER, nodes=CLUSTER.nodes[1:]))
    assert keys(changes.remove) == [
        f"remove {NODE}",
        "remove unit placemat-dc-tpm-worker-1.socket",
        "remove unit placemat-dc-console-worker-1.socket",
        f"remove tap {TAP}",
    ]
    assert changes.create == changes.keep == ()


# -- volumes ----------------------------------------------------------------------------------------------------------


def with_volume(volume: RawVolume | HostPathVolume) -> Cluster:
    volumes = tuple(volume if item.name == volume.name else item for item in WORKER.volumes)
    return replace(CLUSTER, nodes=(replace(WORKER, volumes=volumes), CLUSTER.nodes[1]))


def test_a_changed_volume_is_reported_and_kept() -> None:
    changes = changed(with_volume(RawVolume(name="data", size="2G")))
    assert changes.remove == changes.create == ()
    (kept,) = changes.keep
    assert kept.key == Key("volume", "worker-1/data")
    assert "placemat-cli volume reset worker-1 data" in kept.reason


def test_a_missing_volume_restarts_its_node() -> None:
    changes = compare(PLAN, without({"worker-1/data"}))
    assert keys(changes.create) == ["create volume worker-1/data", f"replace {NODE}"]


def test_a_shared_directory_holds_nothing_of_ours() -> None:
    changes = changed(with_volume(HostPathVolume(name="share", path=Path("/srv/other"))))
    assert keys(changes.create) == ["update volume worker-1/share", f"replace {NODE}"]
    assert changes.keep == ()
    missing = compare(PLAN, without({"worker-1/share"}))
    assert keys(missing.create) == ["create volume worker-1/share"]


def test_an_image_is_looked_at_again_without_touching_nodes() -> None:
    assert keys(compare(PLAN, without({"debian"})).create) == ["create image debian"]


def test_a_seed_whose_files_changed_is_made_anew_and_a_disk_is_kept() -> None:
    seed = LocaldsVolume(name="seed", user_data=Path("/etc/placemat/user-data"))
    disk = RawVolume(name="data", size="1G")
    wanted = plan(Cluster(name="dc", nodes=(Node(name="n", cpu=1, volumes=(seed, disk)),)), HOST, SETTINGS)
    edited = [replace(mark, digest="0" * 12) if mark.kind == "volume" else mark for mark in marks(wanted)]
    for adopt in (False, True):
        changes = compare(wanted, edited, adopt=adopt)
        assert keys(changes.create) == ["update volume n/seed"]
        assert keys(changes.keep) == ["keep volume n/data"]


# -- adoption ---------------------------------------------------------------------------------------------------------


def test_a_node_that_is_missing_is_started() -> None:
    units = {"placemat-dc-console-worker-2.socket", "placemat-dc-node-worker-2.service"}
    assert keys(compare(PLAN, without(units)).create) == [
        "create unit placemat-dc-console-worker-2.socket",
        f"create {NODE2}",
    ]


def test_adoption_leaves_what_runs_and_mends_what_is_missing() -> None:
    faster = plan(CLUSTER, replace(HOST, mtu=1400), SETTINGS)
    changes = compare(faster, [mark for mark in marks(PLAN) if mark.name != "boot"], adopt=True)
    assert keys(changes.create) == ["create netns boot", f"replace {INIT}", f"replace {RA}", f"replace {DHCP}"]
    assert f"keep {NODE}" in keys(changes.keep)
    assert "keep bridge net0" in keys(changes.keep)
    assert changes.keep[0].reason == "changed, and left as it is until the next reload"


def test_a_node_that_is_off_is_not_started_by_what_changes() -> None:
    """Neither by its own fields nor by what it stands on; other nodes are made anew as ever."""
    faster = plan(CLUSTER, replace(HOST, mtu=1400), SETTINGS)
    unit = PLAN.node("worker-1").unit
    changes = compare(faster, marks(PLAN), off={unit})
    assert NODE not in {str(change.key) for change in (*changes.remove, *changes.create)}
    (kept,) = (change for change in changes.keep if str(change.key) == NODE)
    assert (kept.action, kept.reason.endswith("; it is off, and starts with what is new")) == ("keep", True)
    assert f"replace {NODE2}" in keys(changes.create)
    assert f"replace tap {TAP}" in keys(changes.create), "what it will stand on is there when it starts"


def test_a_node_that_is_off_goes_with_the_cluster_file() -> None:
    nodes = tuple(node for node in CLUSTER.nodes if node.name != "worker-1")
    changes = compare(
        plan(replace(CLUSTER, nodes=nodes), HOST, SETTINGS), marks(PLAN), off={PLAN.node("worker-1").unit}
    )
    assert f"remove {NODE}" in keys(changes.remove)


def test_a_part_of_the_changes() -> None:
    faster = compare(plan(CLUSTER, replace(HOST, mtu=1400), SETTINGS), marks(PLAN))
    bridges = faster.of(lambda key: key.kind == "bridge")
    assert bridges.create and {change.key.kind for change in bridges.create} == {"bridge"}
    assert bridges.remove == bridges.keep == ()


def test_a_renamed_network_moves_its_users() -> None:
    network = Network(name="net1", type="internal")
    nodes = (Node(name="worker-2", interfaces=("net1",), cpu=1),)
    changes = changed(replace(CLUSTER, networks=(network,), namespaces=(), nodes=nodes))
    assert "remove bridge net0" in keys(changes.remove)
    assert keys(changes.create) == [
        "create bridge net1",
        "update firewall placemat-dc",
        f"replace tap {TAP2}",
        f"replace {NODE2}",
    ]
