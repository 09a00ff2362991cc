"""The guest of the examples, booted for real, without placematd: each way to boot it, and what people rely on."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from tests import guests
from tests.guests import Guest, Images

pytestmark = pytest.mark.integration

OVMF = Path("/usr/share/OVMF")
MACS = ("52:54:00:00:00:01", "52:54:00:00:00:02")
SERIALS = ("1234abcd", "5678efgh")


@pytest.fixture(scope="module")
def images() -> Images:
    return guests.images()


def ready(guest: Guest) -> None:
    guest.console.expect("^placemat-guest: ready$")
    guest.console.expect("^root@.*:~# ")


def disk(image: Path) -> list[str]:
    """A disk as placemat attaches it; snapshot=on leaves the image as it is."""
    return ["-drive", f"if=virtio,file={image},format=raw,snapshot=on"]


def ip(line: str) -> None:
    subprocess.run(["ip", *line.split()], check=True)


def tap(index: int) -> tuple[str, str]:
    """The NIC of a guest, on net0."""
    ip(f"tuntap add tap{index} mode tap")
    ip(f"link set tap{index} master net0 up")
    return f"tap{index}", MACS[index]


def reachable(address: str) -> bool:
    return subprocess.run(["ping", "-n", "-c1", "-W20", address], stdout=subprocess.DEVNULL).returncode == 0


@pytest.fixture
def net0(private_net: object) -> None:
    """The quick start's network with the host's address, in a network of the test's own."""
    ip("link add net0 type bridge")
    ip("address add 172.16.0.1/24 dev net0")
    ip("link set net0 up")


@pytest.fixture
def boot_server(net0: None) -> Iterator[None]:
    """The quick start's namespace "boot" on net0, its dnsmasq running as cluster.yml has it."""
    ip("netns add boot")
    ip("link add veth0 master net0 up type veth peer name eth0 netns boot")
    (namespace,) = (item for item in cluster() if item["kind"] == "NetworkNamespace")
    for address in namespace["interfaces"][0]["addresses"]:
        ip(f"-netns boot address add {address} dev eth0")
    ip("-netns boot link set eth0 up")
    command = ["ip", "netns", "exec", "boot", *namespace["apps"][0]["command"]]
    with subprocess.Popen(command, cwd=guests.QUICKSTART) as dnsmasq:
        yield
        dnsmasq.terminate()


def cluster() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((guests.QUICKSTART / "cluster.yml").read_text()))


def test_second_build_does_nothing(images: Images) -> None:
    before = {path: path.stat().st_mtime_ns for path in images.folder.iterdir() if path.is_file()}
    guests.images.cache_clear()
    guests.images()
    after = {path: path.stat().st_mtime_ns for path in images.folder.iterdir() if path.is_file()}
    changed = {path.name for path in before if before[path] != after[path]}
    assert changed <= {".lock"}


def test_shell_answers_and_bmc_address_arrives(images: Images, tmp_path: Path) -> None:
    with Guest(images.direct("placemat.bmc=172.16.1.2"), tmp_path) as guest:
        ready(guest)
        assert guest.port.expect("^(.*)\n")[1] == "172.16.1.2"
        assert guest.console.run("nproc") == "1"
        assert guest.console.run("cat /sys/class/dmi/id/product_serial") == "1234abcd"
        assert guest.console.run("hostname") == "1234abcd"
        assert guest.console.run("readlink /dev/virtio-ports/placemat").startswith("../vport")
        # Job control: the interrupt character reaches what runs in the foreground, and the shell lives on.
        guest.console.send("sh -c 'echo started; exec sleep 1000'\n")
        guest.console.expect("^started\n")
        guest.console.send("\x03")
        guest.console.expect("^root@.*# ")
        assert guest.console.run("echo alive") == "alive"


def test_bmc_address_waits_for_placemat(images: Images, tmp_path: Path) -> None:
    with Guest(images.direct(), tmp_path) as guest:
        ready(guest)
        guest.console.run("echo 172.16.1.9 > /dev/virtio-ports/placemat")
        assert guest.port.expect("^(.*)\n")[1] == "172.16.1.9"


def test_power_button_powers_off(images: Images, tmp_path: Path) -> None:
    with Guest(images.direct(), tmp_path) as guest:
        ready(guest)
        guest.qmp.execute("system_powerdown")
        guest.console.expect("^placemat-guest: power button$")
        assert guest.process.wait(guests.ANSWER_SECONDS) == 0


def test_poweroff_and_reboot(images: Images, tmp_path: Path) -> None:
    with Guest(images.direct(), tmp_path) as guest:
        ready(guest)
        guest.console.send("reboot\n")
        ready(guest)
        guest.console.send("poweroff\n")
        assert guest.process.wait(guests.ANSWER_SECONDS) == 0


def test_nics_are_named_by_slot_and_static_addresses_set(images: Images, net0: None, tmp_path: Path) -> None:
    nics = [tap(index) for index in range(2)]
    addresses = "placemat.address=172.16.0.7/24,fd00::7/64,ens4=10.1.0.1/30"
    options = [addresses, "placemat.gateway=172.16.0.1", "placemat.hostname=static"]
    with Guest(images.direct(*options), tmp_path, nics=nics) as guest:
        guest.console.expect("^placemat-guest: static address 172.16.0.7/24 on ens3$")
        guest.console.expect("^placemat-guest: static address fd00::7/64 on ens3$")
        guest.console.expect("^placemat-guest: static address 10.1.0.1/30 on ens4$")
        ready(guest)
        assert guest.console.run("cat /sys/class/net/ens4/address") == MACS[1]
        assert "default via 172.16.0.1 dev ens3" in guest.console.run("ip route")
        ip("-6 address add fd00::1/64 dev net0 nodad")
        assert reachable("172.16.0.7")
        assert reachable("fd00::7")


def test_boots_without_an_answer_from_dhcp(images: Images, net0: None, tmp_path: Path) -> None:
    with Guest(images.direct(), tmp_path, nics=[tap(0)]) as guest:
        ready(guest)
        assert "inet " not in guest.console.run("ip -4 address show dev ens3")


def test_both_workers_of_the_quick_start_netboot(images: Images, boot_server: None, tmp_path: Path) -> None:
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Guest([], tmp_path / serial, serial=serial, nics=[tap(index)]))
            for index, serial in enumerate(SERIALS)
        ]
        for number, worker in enumerate(workers, 1):
            worker.console.expect("iPXE")
            line = worker.console.expect(rf"^placemat-guest: worker-{number} address (172\.16\.0\.\d+)/24 on ens3$")
            ready(worker)
            assert worker.port.expect("^(.*)\n")[1] == f"172.16.1.{number + 1}"
            assert reachable(line[1])
        assert "default via 172.16.0.1 dev ens3" in workers[0].console.run("ip route")
        # The workers know each other by name, from dnsmasq's leases.
        assert "1 packets received" in workers[0].console.run("ping -c 1 worker-2")


def test_bios_disk_boots(images: Images, tmp_path: Path) -> None:
    with Guest(disk(images.bios), tmp_path) as guest:
        ready(guest)
        assert guest.console.run("[ -d /sys/firmware/efi ] || echo bios") == "bios"
        assert guest.console.run("mount /dev/vda /mnt && ls /mnt/syslinux.cfg") == "/mnt/syslinux.cfg"


def test_uefi_disk_boots(images: Images, tmp_path: Path) -> None:
    variables = tmp_path / "vars.fd"
    variables.write_bytes((OVMF / "OVMF_VARS_4M.fd").read_bytes())
    firmware = ["-drive", f"if=pflash,file={OVMF}/OVMF_CODE_4M.fd,format=raw,readonly=on"]
    firmware += ["-drive", f"if=pflash,file={variables},format=raw"]
    with Guest(disk(images.uefi), tmp_path, extra=firmware) as guest:
        ready(guest)
        assert guest.console.run("ls -d /sys/firmware/efi/efivars/BootOrder-*")


def test_devices_of_placemat_nodes_work(images: Images, tmp_path: Path) -> None:
    """What the tests of nodes look at in a guest: NUMA, fw_cfg, a seed disk, kernel randomness."""
    seed, config = tmp_path / "seed", tmp_path / "config.ign"
    (tmp_path / "user-data").write_text("#cloud-config\n")
    iso = ["genisoimage", "-quiet", "-volid", "cidata", "-rock", "-output", str(seed), str(tmp_path / "user-data")]
    subprocess.run(iso, check=True)
    config.write_text("{}")
    extra = ["-fw_cfg", f"name=opt/com.coreos/config,file={config}", "-smp", "2", *disk(seed)]
    extra += ["-object", "memory-backend-ram,id=m0,size=256M", "-object", "memory-backend-ram,id=m1,size=256M"]
    extra += ["-numa", "node,cpus=0,memdev=m0", "-numa", "node,cpus=1,memdev=m1"]
    with Guest(images.direct(), tmp_path, extra=extra) as guest:
        ready(guest)
        assert guest.console.run("nproc") == "2"
        assert guest.console.run("ls -d /sys/devices/system/node/node? | wc -l") == "2"
        assert guest.console.run("cat /sys/firmware/qemu_fw_cfg/by_name/opt/com.coreos/config/raw") == "{}"
        assert guest.console.run("mount /dev/vda /mnt && cat /mnt/user-data") == "#cloud-config"
        assert guest.console.run("cat /sys/class/misc/hw_random/rng_current") == "virtio_rng.0"


def test_generic_kernel_mounts_9p(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "hello").write_text("from the host")
    extra = ["-virtfs", f"local,path={tmp_path}/shared,mount_tag=data,security_model=none,readonly=on"]
    with Guest(guests.images("generic").direct(), tmp_path, extra=extra) as guest:
        ready(guest)
        assert guest.console.run("mount -t 9p -o trans=virtio data /mnt && cat /mnt/hello") == "from the host"


def test_build_is_reproducible_for_any_user(images: Images) -> None:
    """The results depend on the inputs alone: not on folder, time or user; an ordinary user can build them."""
    with TemporaryDirectory() as name:
        home = Path(name)
        # A copy, for the repository may be in a folder that only root may enter.
        shutil.copytree(guests.BUILD.parent, home / "guest", ignore=shutil.ignore_patterns("__pycache__"))
        os.chown(home, 65534, 65534)
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        build = ["/usr/bin/python3", "-B", str(home / "guest" / "build.py"), "--bios", "--uefi"]
        subprocess.run([*user, *build, "--output", name + "/out", "--cache", name + "/cache"], check=True)
        for result in ("vmlinuz", "initrd.img", "uefi.efi", "uefi.img", "bios.img"):
            assert (home / "out" / result).read_bytes() == (images.folder / result).read_bytes(), result
