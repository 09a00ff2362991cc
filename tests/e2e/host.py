"""What a (sandboxed) host looks like, in the words of the kernel, systemd and iproute2: to compare before and after."""

import json
import re
import subprocess
from collections.abc import Callable
from typing import Any

Run = Callable[..., "subprocess.CompletedProcess[str]"]

COMMANDS = {
    "links": "ip -o link show | cut -d: -f2",
    "addresses": "ip -o address show | awk '{print $2, $3, $4}'",
    "routes": "ip route show; ip -6 route show",
    "namespaces": "ip netns list; ls -A /run/netns 2>/dev/null",
    "nftables": "nft list ruleset",
    "units": "systemctl list-units --all --plain --no-legend 'placemat*' | awk '{print $1}'",
    "processes": "ps -eo comm | grep -E 'qemu|swtpm|dnsmasq|placematd|sed' | sort",
    "sockets": "ss -Hxl | awk '{print $5}' | grep placemat",
    "listeners": "ss -Htuln | awk '{print $1, $5}' | sort",
    "run": "find /run/placemat -mindepth 1 2>/dev/null",
    "sysctls": "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding",
    "mounts": "findmnt --noheadings --list --output TARGET | sort",
    "slices": "find /sys/fs/cgroup -name '*placemat*'",
}


# What is made once and never taken away: systemd's empty parent slices, ip-netns(8)'s mount of /run/netns, and the
# directory that the placematds of all clusters lock.
LASTING = re.compile(r"^placemat\.slice$|/(system-)?placemat\.slice$|^/run/netns$|^/run/placemat/sysctl$")


def snapshot(run: Run) -> dict[str, list[str]]:
    """Everything that a cluster may change on a host."""
    seen = {name: run(["sh", "-c", line], check=False).stdout.splitlines() for name, line in COMMANDS.items()}
    return {name: [line for line in lines if not LASTING.search(line)] for name, lines in seen.items()}


def differences(before: dict[str, list[str]], after: dict[str, list[str]]) -> dict[str, list[str]]:
    """What is there that was not, and what is gone, marked + and -."""
    found = {
        name: [f"+{x}" for x in after[name] if x not in before[name]]
        + [f"-{x}" for x in before[name] if x not in after[name]]
        for name in before
    }
    return {name: lines for name, lines in found.items() if lines}


def json_of(run: Run, *argv: str) -> Any:
    """The JSON that a command prints."""
    return json.loads(run(list(argv)).stdout)
