"""Fixtures `root_sandbox` and `user_sandbox`: a systemd and a network of its own for a test, as root and without.

def test_units(root_sandbox):
    assert "running" in root_sandbox.run(["systemctl", "is-system-running"]).stdout

When pytest runs as root, the user is one that exists for the test only: account, ID ranges and a usable /dev/net/tun
are bind mounts in a mount namespace that the sandbox's commands start from. Nothing of the machine changes.
"""

import itertools
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from placemat_cli.sandbox import NotReady, Sandbox, cgroup

REPOSITORY = Path(__file__).resolve().parent.parent
TEST_USER, TEST_UID, FIRST_SUBID = "placemat-tester", 64123, 2_000_000_000
_numbers = itertools.count(1)


class Box:
    """A running sandbox; `run` captures text, and fails the test with what was printed when the command fails."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.name = sandbox.spec.name

    @property
    def leader_pid(self) -> int:
        return self.sandbox.leader_pid

    def run(
        self, argv: Sequence[str | Path], *, check: bool = True, timeout: float = 900, **options: Any
    ) -> "subprocess.CompletedProcess[str]":
        if "stdout" not in options:
            options.setdefault("capture_output", True)
        done = self.sandbox.run(argv, timeout=timeout, **options)
        if check and done.returncode != 0:
            line = shlex.join(map(str, argv))
            raise AssertionError(f"exit status {done.returncode} of: {line}\n{done.stdout or ''}{done.stderr or ''}")
        return done

    def sh(self, script: str, **options: Any) -> str:
        """Output of a shell script that must succeed."""
        return self.run(["bash", "-euc", script], **options).stdout

    def popen(self, argv: Sequence[str | Path], **options: Any) -> "subprocess.Popen[Any]":
        return self.sandbox.popen(argv, **options)


def unique_name() -> str:
    """A name that no other sandbox of this user has."""
    return f"test-{os.getpid()}-{next(_numbers)}"


@contextmanager
def as_root(**options: Any) -> Iterator[Box]:
    """A sandbox of root's; skips where we are not root."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with Sandbox(unique_name(), **options) as sandbox:
        yield Box(sandbox)


@contextmanager
def as_user(**options: Any) -> Iterator[Box]:
    """A sandbox of an ordinary user's: ours, or that of the test user when we are root."""
    if os.geteuid() != 0:
        try:
            with Sandbox(unique_name(), **options) as sandbox:
                yield Box(sandbox)
        except NotReady as error:
            pytest.skip(str(error))
        return
    with ExitStack() as stack:
        launcher, env = stack.enter_context(ordinary_user())
        yield Box(stack.enter_context(Sandbox(unique_name(), launcher=launcher, env=env, **options)))


@contextmanager
def ordinary_user(*, without: Sequence[str] = ()) -> Iterator[tuple[list[str], dict[str, str]]]:
    """What to put before a command to run it as the test user, and its environment; needs root.

    `without` takes provisions away: "subuid" (ID ranges), "tun" (usable /dev/net/tun), "cgroup" (a delegated one).
    """
    parent = cgroup.own()
    assert parent is not None, "no cgroup2 here"
    delegated = parent / f"placemat-test-{os.getpid()}-{next(_numbers)}"
    folder = Path(tempfile.mkdtemp(prefix="placemat-tester-"))
    folder.chmod(0o755)
    home = folder / "home"
    home.mkdir()
    delegated.mkdir()
    try:
        for path in (home, *(() if "cgroup" in without else (delegated, *_delegated_files(delegated)))):
            os.chown(path, TEST_UID, TEST_UID)
        script = "; ".join(["set -e", *_provisions(folder, delegated, without), 'exec "$@"'])
        user = ["setpriv", f"--reuid={TEST_UID}", f"--regid={TEST_UID}", "--clear-groups", "--inh-caps=-all"]
        launcher = ["unshare", "--mount", "sh", "-c", script, "sh", *user]
        yield launcher, {**os.environ, "HOME": str(home), "USER": TEST_USER, "LOGNAME": TEST_USER}
    finally:
        cgroup.remove(delegated)
        shutil.rmtree(folder)


def _delegated_files(directory: Path) -> list[Path]:
    return [directory / name for name in ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")]


def _provisions(folder: Path, delegated: Path, without: Sequence[str]) -> list[str]:
    """Shell commands that make a home for the test user in a mount namespace."""
    tables = {
        "passwd": f"{TEST_USER}:x:{TEST_UID}:{TEST_UID}::{folder / 'home'}:/bin/bash",
        "group": f"{TEST_USER}:x:{TEST_UID}:",
        "subuid": f"{TEST_USER}:{FIRST_SUBID}:65536",
        "subgid": f"{TEST_USER}:{FIRST_SUBID}:65536",
    }
    commands = []  # mount -n: else it leaves /run/mount on the machine
    for name, line in tables.items():
        machine = Path("/etc", name)
        before = machine.read_text() if machine.is_file() else ""
        (folder / name).write_text(before + ("" if name.startswith("sub") and "subuid" in without else line + "\n"))
        if not machine.exists():
            continue
        commands.append(f"mount -n --bind {folder / name} {machine}")
    commands += [f"mkdir -p {folder}/dev", f"mount -n -t tmpfs tmpfs {folder}/dev"]
    mode = "0600" if "tun" in without else "0666"
    commands.append(f"mknod -m {mode} {folder}/dev/tun c 10 200")
    commands.append(f"mount -n --bind {folder}/dev/tun /dev/net/tun")
    return [*commands, *_reachable(REPOSITORY), f"echo 0 > {delegated / 'cgroup.procs'}"]


def _reachable(directory: Path) -> list[str]:
    """Let everybody reach `directory` where a parent, such as /root, is closed: one in its place has only this."""
    closed = [parent for parent in directory.parents if not parent.stat().st_mode & 0o001]
    if not closed:
        return []
    outermost = shlex.quote(str(closed[-1]))
    clone = shlex.quote(str(directory))
    return [
        f"exec 9<{clone}",
        f"mount -n -t tmpfs -o mode=0755 tmpfs {outermost}",
        f"mkdir -p {clone}",
        f"mount -n -c --rbind /proc/self/fd/9 {clone}",
        "exec 9<&-",
    ]


@pytest.fixture
def root_sandbox() -> Iterator[Box]:
    with as_root() as box:
        yield box


@pytest.fixture
def user_sandbox() -> Iterator[Box]:
    with as_user() as box:
        yield box


def main() -> None:
    """Run a command as the test user: `python tests/sandboxes.py [--without-PROVISION]... COMMAND...`."""
    without = [word.removeprefix("--without-") for word in sys.argv[1:] if word.startswith("--without-")]
    with ordinary_user(without=without) as (launcher, env):
        sys.exit(subprocess.run([*launcher, *sys.argv[1 + len(without) :]], env=env, check=False).returncode)


if __name__ == "__main__":
    main()
