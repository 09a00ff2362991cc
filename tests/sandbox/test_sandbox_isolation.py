"""What is written inside stays inside; what is the caller's own is the real thing."""

import os
from pathlib import Path

import pytest
import sandboxes
from sandboxes import Box

from .machine import CLI, Machine

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    "folder", ["/etc", "/etc/systemd/system", "/tmp", "/run", "/var/lib", "/var/log", "/var/cache"]
)
def test_can_be_written_without_reaching_the_machine(box: Box, folder: str) -> None:
    name = f"{folder}/placemat-test-{os.getpid()}"
    box.run(["mkdir", name])
    box.run(["rmdir", name])
    box.run(["touch", name])
    assert not Path(name).exists()


def test_root_may_install_programs(root_sandbox: Box) -> None:
    name = f"/usr/bin/placemat-test-{os.getpid()}"
    root_sandbox.sh(f"cp /bin/true {name}; {name}; rm /bin/ls; echo changed > /etc/hostname")
    assert not Path(name).exists()
    assert Path("/bin/ls").exists()
    assert Path("/etc/hostname").read_text() != "changed\n"


def test_system_directories_of_an_ordinary_user_are_read_only(user_sandbox: Box) -> None:
    done = user_sandbox.run(["touch", "/usr/x", "/opt/x", "/home/x"], check=False)
    assert done.stderr.count("Read-only file system") == 3


def test_state_of_the_machine_cannot_be_changed(root_sandbox: Box) -> None:
    before = Path("/proc/sys/vm/swappiness").read_text()
    assert root_sandbox.run(["sysctl", "-w", "vm.swappiness=1"], check=False).returncode != 0
    assert Path("/proc/sys/vm/swappiness").read_text() == before
    assert "Operation not permitted" in root_sandbox.run(["date", "-s", "now"], check=False).stderr
    assert "Read-only" in root_sandbox.run(["mkdir", "/sys/x"], check=False).stderr


def test_its_tun_is_open_to_all_and_the_machines_is_not_touched(root_sandbox: Box) -> None:
    before = Path("/dev/net/tun").stat().st_mode
    assert root_sandbox.run(["stat", "-c", "%a", "/dev/net/tun"]).stdout == "666\n"
    assert Path("/dev/net/tun").stat().st_mode == before


def test_its_network_host_name_and_accounts_are_its_own(box: Box) -> None:
    assert box.run(["ls", "/sys/class/net"]).stdout.split() == ["lo"]
    assert box.run(["hostname"]).stdout == f"placemat-{box.name}\n"
    assert box.run(["getent", "hosts", f"placemat-{box.name}"]).stdout.startswith("127.0.1.1")
    assert box.run(["cat", "/etc/machine-id"]).stdout != Path("/etc/machine-id").read_text()


def test_the_working_directory_is_the_real_one_even_below_tmp(machine: Machine) -> None:
    """systemd-tmpfiles must not take what is in it for old files of /tmp."""
    machine.box.sh(
        "mkdir -p /tmp/clone/.hidden; echo 1 > /tmp/clone/file; touch -d 2001-01-01 /tmp/clone/old /tmp/other"
    )
    script = "pwd; ls -A; ls -A /tmp; echo 2 > file; echo new > made"
    done = machine.box.run([CLI, "sandbox", "--", "bash", "-ec", script], cwd="/tmp/clone")
    assert done.stdout.split() == ["/tmp/clone", ".hidden", "file", "old", "clone"]
    assert machine.box.sh("cd /tmp/clone; ls -A; cat file made").split() == [
        ".hidden",
        "file",
        "made",
        "old",
        "2",
        "new",
    ]


def test_home_and_bound_directories_are_the_real_ones(tmp_path: Path) -> None:
    home, bound = tmp_path / "home", tmp_path / "bound"
    for path in (home, bound):
        path.mkdir()
    with sandboxes.as_root(binds=(bound,), env={**os.environ, "HOME": str(home)}) as box:
        box.sh(f'echo x > "$HOME/x"; echo y > {bound}/y')
    assert (home / "x").read_text() + (bound / "y").read_text() == "x\ny\n"


def test_data_is_kept_when_asked(machine: Machine) -> None:
    write = "echo volume > /var/lib/placemat/v"
    machine.box.run([CLI, "sandbox", "--", "bash", "-ec", write])
    assert machine.box.run(["ls", "/var/lib/placemat"]).stdout == ""
    machine.box.run([CLI, "sandbox", "--keep-data", "--", "bash", "-ec", write])
    assert machine.box.run(["cat", "/var/lib/placemat/v"]).stdout == "volume\n"


def test_a_unit_that_the_machine_enables_is_not_started(machine: Machine) -> None:
    unit = "[Service]\nExecStart=/bin/sleep 1000\n"
    machine.box.run(["tee", "/etc/systemd/system/mine.service", "/usr/lib/systemd/system/theirs.service"], input=unit)
    machine.box.sh("""
        for name in mine theirs; do for target in sysinit multi-user; do
            mkdir -p /etc/systemd/system/$target.target.wants /usr/lib/systemd/system/$target.target.wants
        done; done
        ln -s /etc/systemd/system/mine.service /etc/systemd/system/sysinit.target.wants/
        ln -s ../theirs.service /usr/lib/systemd/system/sysinit.target.wants/
        echo '/dev/nowhere /mnt ext4 defaults 0 0' > /etc/fstab
    """)
    done = machine.box.run([CLI, "sandbox", "--", "systemctl", "is-active", "mine", "theirs", "mnt.mount"], check=False)
    assert done.stdout.split() == ["inactive"] * 3
