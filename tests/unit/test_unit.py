"""Unit records: what D-Bus would refuse is refused when planning."""

import pytest

from placematd.unit import SIGNATURES, Property, Unit, command, exec_argv, native, shell_line, split_types


def unit(*properties: Property) -> Unit:
    return Unit("a.service", properties)


def test_unknown_property() -> None:
    with pytest.raises(ValueError, match=r"a\.service: no D-Bus signature known for Descripton, Tpye"):
        unit(("Descripton", "x"), ("Type", "exec"), ("Tpye", "exec"))


@pytest.mark.parametrize(
    "item",
    [
        ("After", "dbus.service"),
        ("TimeoutStopUSec", "30s"),
        ("TimeoutStopUSec", -1),
        ("TimeoutStopUSec", True),
        ("UMask", 1 << 32),
        ("NoNewPrivileges", 1),
        ("Description", ("x",)),
        ("BindPaths", (("/a", "/b", False),)),
        ("DeviceAllow", (("/dev/kvm", "rw", "x"),)),
        ("RestrictAddressFamilies", ("AF_UNIX",)),
    ],
)
def test_wrong_types(item: Property) -> None:
    with pytest.raises(ValueError, match=rf"a\.service: {item[0]}="):
        unit(item)


@pytest.mark.parametrize(
    ("signature", "value", "expected"),
    [
        ("s", "x", "x"),
        ("as", ("a", "b"), ["a", "b"]),
        ("as", (), []),
        ("t", (1 << 64) - 1, (1 << 64) - 1),
        ("i", -1, -1),
        ("aay", ("A=é",), ["A=é".encode()]),
        ("(bas)", (True, ("AF_UNIX",)), (True, ["AF_UNIX"])),
        ("a(ss)", (("FIFO", "/run/x"),), [("FIFO", "/run/x")]),
        ("a(sasb)", (("/bin/a", ("a", "b"), False),), [("/bin/a", ["a", "b"], False)]),
    ],
)
def test_native(signature: str, value: object, expected: object) -> None:
    assert native(signature, value) == expected  # type: ignore[arg-type]


def test_split_types() -> None:
    assert split_types("sa(ss)basayt") == ["s", "a(ss)", "b", "as", "ay", "t"]


def test_all_signatures_are_complete_types() -> None:
    assert all(split_types(signature) == [signature] for signature in SIGNATURES.values())


def test_get() -> None:
    assert unit(("Type", "exec")).get("Type") == "exec"
    assert unit().get("Type") is None


def test_command() -> None:
    assert command("/bin/a", "b") == ("/bin/a", ("/bin/a", "b"), False)
    assert command("dnsmasq", ignore_failure=True) == ("dnsmasq", ("dnsmasq",), True)
    with pytest.raises(ValueError, match=r"\./a: the program of a unit must be an absolute path or a bare name"):
        command("./a")


@pytest.mark.parametrize("word", ["$HOME", "${HOME}", "$$", "a$", "$$$", "100%"])
def test_dollar_signs_are_kept_from_systemd(word: str) -> None:
    planned = command("sh", word)
    assert planned[1] == ("sh", word.replace("$", "$$"))
    assert exec_argv(unit(("ExecStart", (planned,)))) == ("sh", word)


def test_argv_of_a_unit_that_runs_nothing() -> None:
    assert exec_argv(unit(("Type", "exec"))) == ()
    assert exec_argv(unit(("ExecStart", ()))) == ()


def test_shell_line() -> None:
    assert shell_line(("echo", "a b", "$x")) == "echo 'a b' '$x'"
