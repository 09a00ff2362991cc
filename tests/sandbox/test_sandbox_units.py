"""What clusters are made of works inside, as root and as an ordinary user: real units, links, namespaces, a QEMU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sandboxes import REPOSITORY, Box

pytestmark = pytest.mark.integration

WAIT = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect"]


def properties(*pairs: str) -> list[str]:
    return [word for pair in pairs for word in ("--property", pair)]


def test_systemd_is_running(box: Box) -> None:
    assert box.run(["systemctl", "is-system-running"]).stdout == "running\n"
    assert box.run(["systemctl", "--failed", "--plain", "--no-legend"]).stdout == ""
    assert box.run(["cat", "/proc/1/comm"]).stdout == "systemd\n"
    assert "placemat-sandbox.service" in box.run(["cat", "/proc/self/cgroup"]).stdout


def test_only_journal_and_bus_are_started(box: Box) -> None:
    units = box.run(["systemctl", "list-units", "--type=service", "--state=running", "--plain", "--no-legend"]).stdout
    names = {line.split()[0] for line in units.splitlines()}
    assert names == {"dbus.service", "placemat-sandbox.service", "systemd-journald.service"}


def test_the_bus_answers(box: Box) -> None:
    argv = ["busctl", "--json=short", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1"]
    answer = json.loads(box.run([*argv, "org.freedesktop.systemd1.Manager", "ListUnits"]).stdout)
    assert "dbus.service" in [unit[0] for unit in answer["data"][0]]


def test_a_confined_unit_of_another_user(box: Box) -> None:
    confined = properties(
        "User=nobody",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "ProtectKernelTunables=yes",
        "ProtectControlGroups=yes",
        "NoNewPrivileges=yes",
    )
    done = box.run([*WAIT, *confined, "sh", "-c", "id -un; touch /tmp/mine && echo mine; touch /usr/x || echo strict"])
    assert done.stdout == "nobody\nmine\nstrict\n"


def test_dynamic_users(box: Box) -> None:
    done = box.run(
        [*WAIT, *properties("DynamicUser=yes", "StateDirectory=thing"), "sh", "-c", "id -u; touch $STATE_DIRECTORY/x"]
    )
    assert 61184 <= int(done.stdout) <= 65519


def test_bridge_tap_veth_and_firewall(box: Box) -> None:
    script = """
    ip link add br9 type bridge; ip link set br9 up; ip address add 10.9.0.1/24 dev br9
    ip tuntap add tap9 mode tap user placemat-qemu; ip link set tap9 master br9
    ip netns add one; ip link add veth9 type veth peer name eth0 netns one; ip link set veth9 master br9 up
    ip -n one link set eth0 up; ip -n one address add 10.9.0.2/24 dev eth0
    sysctl -q -w net.ipv4.ip_forward=1
    nft add table inet t9; nft 'add chain inet t9 post { type nat hook postrouting priority 100; }'
    nft add rule inet t9 post ip saddr 10.9.0.0/24 masquerade
    ip netns exec one ping -c 1 -W 5 10.9.0.1
    nft list ruleset; ls /sys/class/net
    """
    try:
        said = box.sh(script)
        assert "1 received" in said
        assert "masquerade" in said
        assert {"br9", "tap9", "veth9", "lo"} <= set(said.split())
    finally:
        box.sh("nft delete table inet t9; ip netns del one; ip link del br9; ip link del tap9")


def test_a_unit_in_a_network_namespace(box: Box) -> None:
    box.sh("ip netns add two; ip -n two link add d0 type bridge")
    try:
        inside = properties("NetworkNamespacePath=/run/netns/two", "User=nobody", "ProtectSystem=strict")
        done = box.run([*WAIT, *inside, "ip", "-o", "link"])
        assert "d0" in done.stdout
    finally:
        box.sh("ip netns del two")


def test_the_journal_loses_nothing(box: Box) -> None:
    lines = 20_000
    box.run(["systemd-run", "--wait", "--quiet", "--unit=talker", "seq", str(lines)])
    box.run(["journalctl", "--sync"])
    # Not by unit or _COMM: journald looks these up when it reads, and the process may have ended.
    said = box.run(["journalctl", "--output=cat", "SYSLOG_IDENTIFIER=seq"]).stdout
    assert said.split() == [str(number) for number in range(1, lines + 1)]


def test_accounts_of_the_product(box: Box) -> None:
    assert box.run(["id", "-gn", "placemat-qemu"]).stdout == "placemat-qemu\n"
    assert box.run(["getent", "group", "placemat"]).stdout.startswith("placemat:")
    done = box.run(
        [*WAIT, *properties("User=placemat-qemu"), "sh", "-c", "id -un; exec 3<>/dev/net/tun && echo opened"]
    )
    assert done.stdout == "placemat-qemu\nopened\n"


def test_the_service_is_the_one_beside_the_interpreter(box: Box) -> None:
    shown = box.run(["systemctl", "show", "placemat@some-name.service", "--property=ExecStart,LoadState"]).stdout
    assert "LoadState=loaded" in shown
    assert f"argv[]={Path(sys.executable).parent / 'placematd'} some-name" in shown


def test_the_product_runs_from_the_clone(box: Box) -> None:
    assert box.run(["pwd"], cwd=REPOSITORY).stdout.strip() == str(REPOSITORY)
    assert "Usage" in box.run([REPOSITORY / ".venv/bin/placemat-cli", "--help"]).stdout


def test_a_machine_starts(box: Box) -> None:
    """QEMU without a disk gets as far as its firmware, as the user that it runs as."""
    log = ["-chardev", "stdio,id=log", "-device", "isa-debugcon,iobase=0x402,chardev=log"]
    qemu = ["qemu-system-x86_64", "-accel", "tcg", "-m", "64", "-display", "none", *log]
    confined = properties("User=placemat-qemu", "ProtectSystem=strict")
    argv = [*WAIT, "--unit=machine", *confined, *qemu]
    process = box.popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "SeaBIOS" in process.stdout.readline()
    finally:
        box.run(["systemctl", "stop", "machine"])
        process.communicate(timeout=60)
