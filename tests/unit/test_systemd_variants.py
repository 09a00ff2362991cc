"""Unit properties as D-Bus values, and what comes back: bus paths and listed units."""

import pytest

from placematd.bus import variant
from placematd.names import OwnerMark
from placematd.systemd import UnitState, same_owner, transient, unit_of_path, unit_state
from placematd.unit import SIGNATURES, Unit, Value, command, native, split_types

MARK = OwnerMark("c1", "unit", "placemat-c1-app-boot-dns.service", "0123456789ab")


@pytest.mark.parametrize(
    ("name", "value", "printed"),
    [
        ("Description", "a \"quoted\" ünit", "'a \"quoted\" ünit'"),
        ("NoNewPrivileges", True, "true"),
        ("SocketMode", 0o600, "uint32 384"),
        ("CapabilityBoundingSet", 2**64 - 1, "uint64 18446744073709551615"),
        ("LogRateLimitIntervalUSec", 0, "uint64 0"),
        ("After", (), "@as []"),
        ("After", ("a.service", "b.service"), "['a.service', 'b.service']"),
        ("Environment", ("A=1",), "['A=1']"),
        ("ExecStart", (command("/bin/echo", "a b", ""),), "[('/bin/echo', ['/bin/echo', 'a b', ''], false)]"),
        ("ExecStartPre", (command("/bin/a"), command("/bin/b", ignore_failure=True)),
         "[('/bin/a', ['/bin/a'], false), ('/bin/b', ['/bin/b'], true)]"),
        ("RestrictAddressFamilies", (True, ("AF_UNIX", "AF_INET")), "(true, ['AF_UNIX', 'AF_INET'])"),
        ("SystemCallFilter", (False, ("@mount",)), "(false, ['@mount'])"),
        ("BindPaths", (("/a", "/b", True, 16384),), "[('/a', '/b', true, uint64 16384)]"),
        ("BindReadOnlyPaths", (), "@a(ssbt) []"),
        ("Listen", (("FIFO", "/run/x"), ("Datagram", "[::1]:623")), "[('FIFO', '/run/x'), ('Datagram', '[::1]:623')]"),
        ("DeviceAllow", (("/dev/kvm", "rw"),), "[('/dev/kvm', 'rw')]"),
        ("LogExtraFields", ("A=é", "B="), "[[byte 0x41, 0x3d, 0xc3, 0xa9], [0x42, 0x3d]]"),
    ],
)  # fmt: skip
def test_value_on_the_bus(name: str, value: Value, printed: str) -> None:
    converted = variant(name, value)
    assert converted.get_type_string() == SIGNATURES[name]
    assert converted.print_(True).replace("@aay ", "") == printed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Description", 5),
        ("Description", ("a",)),
        ("NoNewPrivileges", 1),
        ("NoNewPrivileges", "yes"),
        ("SocketMode", True),
        ("SocketMode", -1),
        ("SocketMode", 2**32),
        ("SocketMode", "0600"),
        ("CapabilityBoundingSet", 2**64),
        ("TimeoutStopUSec", 1.5),
        ("After", "a.service"),
        ("After", ["a.service"]),
        ("After", (1,)),
        ("Environment", (("A", "1"),)),
        ("ExecStart", command("/bin/true")),
        ("ExecStart", (("/bin/true", "/bin/true", False),)),
        ("ExecStart", (("/bin/true", ("/bin/true",)),)),
        ("ExecStart", (("/bin/true", ("/bin/true",), False, 0),)),
        ("RestrictAddressFamilies", ("AF_UNIX",)),
        ("LogExtraFields", "A=1"),
        ("Listen", (("FIFO",),)),
    ],
)
def test_value_of_another_type_is_refused_when_planned(name: str, value: Value) -> None:
    with pytest.raises(ValueError):
        variant(name, value)
    with pytest.raises(ValueError, match=rf"x\.service: {name}="):
        Unit("x.service", ((name, value),))


def test_unknown_property_is_refused_when_planned() -> None:
    with pytest.raises(ValueError, match=r"x\.service: no D-Bus signature known for MemoryMaximum"):
        Unit("x.service", (("MemoryMaximum", 1),))


@pytest.mark.parametrize(
    ("signature", "low", "high"), [("y", 0, 255), ("n", -32768, 32767), ("i", -(2**31), 2**31 - 1)]
)
def test_integers_have_bounds(signature: str, low: int, high: int) -> None:
    assert (native(signature, low), native(signature, high)) == (low, high)
    for value in (low - 1, high + 1):
        with pytest.raises(ValueError, match=f"does not fit D-Bus type {signature}"):
            native(signature, value)


@pytest.mark.parametrize(
    ("signature", "types"),
    [
        ("", []),
        ("s", ["s"]),
        ("aay", ["aay"]),
        ("ssbt", ["s", "s", "b", "t"]),
        ("sasb", ["s", "as", "b"]),
        ("a(sasb)(bas)aayu", ["a(sasb)", "(bas)", "aay", "u"]),
    ],
)
def test_signatures_are_split(signature: str, types: list[str]) -> None:
    assert split_types(signature) == types


def test_arguments_of_start_transient_unit() -> None:
    service = Unit("x.service", (("Type", "exec"), ("Description", "The service")))
    socket = Unit("x.socket", (("Listen", (("FIFO", "/f"),)),), (service,))
    name, mode, properties, auxiliaries = transient(socket, MARK, [("PLACEMAT_NODE", "w1"), ("PLACEMAT_CLUSTER", "c")])
    fields = [b"PLACEMAT_NODE=w1", b"PLACEMAT_CLUSTER=c"]
    assert (name, mode) == ("x.socket", "fail")
    unpacked = {key: value.unpack() for key, value in properties}
    assert unpacked["Description"] == f"x.socket [{MARK}]"
    assert unpacked["Listen"] == [("FIFO", "/f")]
    assert [bytes(field) for field in unpacked["LogExtraFields"]] == fields
    ((auxiliary, of_service),) = auxiliaries
    assert auxiliary == "x.service"
    assert [key for key, _ in of_service] == ["Description", "Type", "LogExtraFields"]
    assert of_service[0][1].unpack() == f"The service [{MARK}]"


def test_no_fields_no_property() -> None:
    _, _, properties, _ = transient(Unit("x.service", ()), MARK)
    assert [key for key, _ in properties] == ["Description"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("dbus_2eservice", "dbus.service"),
        ("placemat_2dc1_2dapp_2dboot_5cx2dserver_2ddns_2eservice", r"placemat-c1-app-boot\x2dserver-dns.service"),
        ("placemat_40quick_5cx2dstart_2eservice", r"placemat@quick\x2dstart.service"),
        ("_31_5f2_2emount", "1_2.mount"),
    ],
)
def test_bus_paths(path: str, name: str) -> None:
    assert unit_of_path("/org/freedesktop/systemd1/unit/" + path) == name


def test_listed_units() -> None:
    rest = ("", "/org/freedesktop/systemd1/unit/x", 0, "", "/")
    ours = unit_state(MARK.name, f"dnsmasq of boot [{MARK}]", "loaded", "active", "running", *rest)
    assert ours == UnitState(MARK.name, "dnsmasq of boot", "loaded", "active", "running", MARK)
    theirs = unit_state("ssh.service", "OpenBSD [placemat] server", "loaded", "active", "running", *rest)
    assert (theirs.description, theirs.mark) == ("OpenBSD [placemat] server", None)


def test_same_owner() -> None:
    assert same_owner(OwnerMark("c1", "unit", MARK.name, "ffff"), MARK)
    assert not same_owner(OwnerMark("c2", "unit", MARK.name, MARK.digest), MARK)
    assert not same_owner(OwnerMark("c1", "unit", "other.service", MARK.digest), MARK)
    assert not same_owner(None, MARK)
