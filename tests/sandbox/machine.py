"""A machine to run `placemat-cli sandbox` on, and what must be the same there before and after."""

import subprocess
from typing import IO

from sandboxes import REPOSITORY, Box

CLI = str(REPOSITORY / ".venv/bin/placemat-cli")

WITNESSES = {
    "mounts": "cut -d' ' -f4- /proc/self/mountinfo",
    "processes": "ps -e -o args= | grep -vE '^(ps|grep|bash|cut|find) '",
    "cgroups": "find /sys/fs/cgroup -type d",
    "links": "ip -o link",
    "addresses": "ip -o address",
    "namespaces": "ip netns list",
    "nftables": "nft list ruleset",
    "abstract sockets": "grep -o '@placemat.*' /proc/net/unix || true",
    "files": "find /run /tmp /dev /etc /var /usr/local "
    r"\( -path /run/placemat-sandbox -o -path /run/log -o -path /dev/pts \) -prune -o -print",
    "terminals": "ls /dev/pts",
    "host name": "hostname",
    "sysctls": "sysctl -a 2>/dev/null | grep -E '^net|^kernel.(hostname|domainname)' | grep -v random",
}


class Machine:
    """Runs the command line in it, and says what it is like."""

    def __init__(self, box: Box) -> None:
        self.box = box

    def snapshot(self) -> dict[str, list[str]]:
        return {name: sorted(self.box.sh(line).splitlines()) for name, line in WITNESSES.items()}

    def changes(self, before: dict[str, list[str]]) -> dict[str, set[str]]:
        """What is there now and was not, or the other way round."""
        now = self.snapshot()
        return {name: set(now[name]) ^ set(before[name]) for name in before if now[name] != before[name]}

    def start(self, *arguments: str, stdout: int | IO[bytes] = subprocess.PIPE) -> "subprocess.Popen[str]":
        """`placemat-cli sandbox ARGUMENTS`; standard error ends when all of its processes have."""
        argv = [CLI, "sandbox", *arguments]
        return self.box.popen(argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, text=True)

    def start_and_wait(self, *arguments: str) -> "subprocess.Popen[str]":
        """A sandbox that stays, once its command runs."""
        process = self.start(*arguments, "--", "bash", "-c", "echo running; exec sleep 1000")
        assert process.stdout is not None
        line = process.stdout.readline()
        if line != "running\n":
            _, error = process.communicate(timeout=60)
            raise AssertionError(f"{line!r} {error}")
        return process

    def pids(self, pattern: str) -> list[int]:
        """In the machine's numbering, of processes whose command line matches."""
        done = self.box.run(["pgrep", "-f", pattern], check=False)
        return [int(line) for line in done.stdout.split()]

    def leader(self) -> int:
        """Of the sandbox on the machine: its systemd has a PID there too, besides the machine's own 1."""
        return next(pid for pid in self.pids("^/[a-z/]*/systemd --system --unit=placemat-sandbox.target") if pid != 1)

    def kill(self, signal_name: str, pid: int) -> None:
        self.box.run(["kill", f"-{signal_name}", str(pid)])


def outcome(process: "subprocess.Popen[str]", timeout_seconds: float = 60) -> tuple[int, str]:
    """Exit status and standard error, when that has ended."""
    _, error = process.communicate(timeout=timeout_seconds)
    return process.returncode, error
