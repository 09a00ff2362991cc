"""Every command of IPMI that clients know, as stories for ipmitool and freeipmi, and what is true of the machine.

A story is a list of (command line, what its output must contain). "!" in front: the client must fail. Each leaves the
BMC as it was, so that the next cipher suite finds the same.
"""

import os
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from guests import Console
from sandboxes import Box

CACHES_SENSORS = {"ipmi-sensors", "ipmi-sel", "ipmi-fru", "--category=sensors"}
"""What makes freeipmi write a cache, by default into the home directory in passwd(5)."""
SECONDS = 120

Story = list[tuple[str, ...]]


@dataclass(frozen=True)
class Truth:
    """What the guest sees of its machine."""

    uuid: str
    serial: str
    manufacturer: str
    product: str
    memory_mib: int
    cpus: int
    macs: list[str]
    disks: list[int]


def seen(guest: Console) -> Truth:
    """Ask a guest: its SMBIOS tables, its NICs and its disks."""

    def dmi(name: str) -> str:
        return guest.run(f"cat /sys/class/dmi/id/{name}")

    tables = bytes.fromhex(guest.run("xxd -p /sys/firmware/dmi/tables/DMI | tr -d '\\n'"))
    return Truth(
        uuid=dmi("product_uuid"),
        serial=dmi("product_serial"),
        manufacturer=dmi("sys_vendor"),
        product=dmi("product_name"),
        memory_mib=memory_mib(tables),
        cpus=int(guest.run("nproc")),
        macs=guest.run("cat /sys/class/net/ens*/address").split(),
        disks=[512 * int(size) for size in guest.run("cat /sys/block/vd*/size").split()],
    )


def memory_mib(tables: bytes) -> int:
    """The sizes of all memory devices: structures of type 17, the word at 0Ch (SMBIOS 3.4, 6.1.2 and 7.18)."""
    found, position = 0, 0
    while position < len(tables):
        kind, length = tables[position], tables[position + 1]
        if kind == 17:
            found += int.from_bytes(tables[position + 12 : position + 14], "little")
        position = tables.index(b"\0\0", position + length) + 2
    return found


@dataclass(frozen=True)
class Client:
    """Clients of one BMC in the network of a sandbox; `home` is where they keep caches."""

    box: Box
    address: str
    home: Path
    user: str = "admin"
    password: str = field(default="admin-password", repr=False)

    def network(self, argv: list[str]) -> list[str]:
        """A command that only has the network from the sandbox: entering the rest costs more than most clients do."""
        return ["nsenter", f"--net=/proc/{self.box.leader_pid}/ns/net", *argv]

    def argv(self, line: str, suite: int) -> list[str]:
        """A client's command line with whom it is to ask, and how."""
        program, *words = shlex.split(line)
        if program == "ipmitool":
            where = ["-I", "lanplus", "-H", self.address, "-U", self.user, "-P", self.password, "-C", str(suite)]
            return self.network([program, *where, *words])
        where = ["-h", self.address, "-u", self.user, "-p", self.password, "-I", str(suite)]
        where += [] if program == "ipmiconsole" else ["-D", "LAN_2_0"]
        where += [f"--sdr-cache-directory={self.home}"] if CACHES_SENSORS & {program, *words} else []
        return self.network([program, *words, *where])

    def run(self, line: str, suite: int) -> tuple[int, str]:
        """Exit status and output, in which white space is made single spaces."""
        done = subprocess.run(
            self.argv(line, suite),
            env=os.environ | {"TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return done.returncode, " ".join(done.stdout.split())

    def tell(self, story: Story, suite: int) -> None:
        """Run the clients of a story and compare."""
        for line, *fragments in story:
            status, output = self.run(line.removeprefix("! "), suite)
            assert (status != 0) == line.startswith("! "), (line, status, output)
            for fragment in fragments:
                assert fragment in output, (line, output)


def the_bmc(truth: Truth, node: str) -> Story:
    """Device id, identifiers, self test, enables, system info, resets of the BMC, and what it does not know."""
    return [
        ("ipmitool mc info", "Device ID : 32", "IPMI Version : 2.0", "Available : yes"),
        ("ipmitool mc info", "Sensor Device SDR Repository Device SEL Device FRU Inventory Device Chassis Device"),
        ("ipmitool mc guid", f"System GUID : {truth.uuid}"),
        ("ipmitool mc selftest", "Selftest: passed"),
        ("ipmitool mc getenables", "System Event Logging : enabled"),
        ("ipmitool mc getsysinfo system_name", node),
        ("bmc-info", f"Device GUID : {truth.uuid}", f"System GUID : {truth.uuid}", f"System Name : {node}"),
        ("bmc-device --get-self-test-results", "No Error"),
        ("bmc-device --get-acpi-power-state", "S0/G0", "D0"),
        ("ipmitool mc reset cold", "Sent cold reset command"),
        ("ipmitool mc reset warm", "Sent warm reset command"),
        ("bmc-device --cold-reset",),
        ("ipmitool mc selftest", "Selftest: passed"),
        ("! ipmitool dcmi discover", "Invalid command"),
        ("! ipmitool raw 0x2c 1", "rsp=0xc1"),
        ("! ipmitool raw 0x3c 1", "rsp=0xc1"),
    ]


def sensors() -> Story:
    """Names, units and states; values are the machine's of this moment."""
    return [
        (
            "ipmitool sdr elist all",
            "Inlet Temp | 10h | ok | 55.1 |",
            "placemat BMC | 00h | ok | 6.1 | Dynamic MC @ 20h",
        ),
        ("ipmitool sdr elist full", "CPU Load | 11h | ok | 3.1 |", "Power | 13h | ok | 7.1 |", "Memory"),
        ("ipmitool sensor list", "Inlet Temp |", "| degrees C | ok |"),
        ("ipmitool sdr get 'ACPI State'", "Sensor Type (Discrete): System ACPI Power State", "S0/G0: working"),
        ("ipmitool sdr info", "Record Count : 14"),
        ("ipmitool sensor get 'Inlet Temp'", "Upper Non-Critical : 42.000"),
        ("ipmi-sensors", "Inlet Temp | Temperature |", "CPU Load | Processor |", "'OK'"),
        ("! ipmitool sensor thresh 'Inlet Temp' unc 50",),
    ]


def inventory(truth: Truth) -> Story:
    """FRU data as the guest's SMBIOS has them."""
    product = f"Product Manufacturer : {truth.manufacturer} Product Name : {truth.product}"
    return [
        ("ipmitool fru print", f"Chassis Serial : {truth.serial}", product, f"Product Serial : {truth.serial}"),
        ("ipmi-fru", f"FRU Product Serial Number: {truth.serial}", f"FRU Board Manufacturer: {truth.manufacturer}"),
    ]


def event_log() -> Story:
    """What happened is in it; it can be added to, read and cleared."""
    return [
        ("ipmitool sel info", "Version : 1.5"),
        ("ipmi-sel --info", "Number of log entries"),
        ("ipmitool event 1", "Upper Critical going high"),
        ("ipmitool sel elist", "Temperature #0x30 | Upper Critical going high | Asserted"),
        ("ipmi-sel", "Temperature", "Upper Critical - going high"),
        ("! ipmitool sel delete 1", "Unable to delete entry"),
        ("ipmitool sel clear", "Clearing SEL"),
        ("ipmitool sel elist", "Log area reset/cleared"),
        ("ipmi-sel --clear",),
        ("ipmitool sel info", "Entries : 1"),
        ("ipmitool sel time get",),
        ("bmc-device --get-sel-time",),
    ]


def users() -> Story:
    """The users of the cluster file, and one that a client makes, changes and switches off."""
    return [
        ("ipmitool user list 1", "admin true false true ADMINISTRATOR", "operator true false true OPERATOR"),
        ("ipmitool user list 1", "reader true false true USER"),
        ("ipmitool user set name 9 bob",),
        ("ipmitool user set password 9 secret 16", "successful"),
        ("ipmitool channel setaccess 1 9 ipmi=on privilege=3", "successful"),
        ("ipmitool user enable 9",),
        ("ipmitool user list 1", "9 bob true false true OPERATOR"),
        ("ipmitool user test 9 16 secret", "Success"),
        ("! ipmitool user test 9 16 Secret", "password incorrect"),
        ("ipmitool user summary 1", "Maximum IDs : 15", "Enabled User Count : 4"),
        ("bmc-config --checkout --section=User9", "Username bob", "Enable_User Yes", "Lan_Privilege_Limit Operator"),
        ("ipmitool user disable 9",),
        ("ipmitool channel getaccess 1 9", "User Name : bob", "Enable Status : disabled"),
    ]


def lan_and_channels(address: str, mac: str) -> Story:
    """The address of the cluster file, the MAC of the bridge that it is on, and what may be spoken."""
    return [
        ("ipmitool lan print 1", f"IP Address : {address}", "Subnet Mask : 255.255.255.0", f"Address : {mac}"),
        ("ipmitool lan print", "RMCP+ Cipher Suites : 3,17 Cipher Suite Priv Max : aaXXXXXXXXXXXXX"),
        ("ipmitool lan6 print 1", "IPv6/IPv4 Addressing Enables: ipv4"),
        ("! ipmitool lan set 1 ipaddr 10.0.0.1",),
        ("ipmitool channel info 1", "802.3 LAN", "multi-session", "always available"),
        ("ipmitool channel authcap 1 4", "IPMI v2.0 : yes"),
        ("ipmitool channel getciphers ipmi 1", "3 N/A hmac_sha1", "17 N/A hmac_sha256"),
        ("ipmitool session info active", "user id : 2", "ADMINISTRATOR", "console ip : 172.16.1.1"),
        ("ipmitool sol info 1", "Force Encryption : true", "Payload Port : 623"),
        ("ipmitool sol payload status 1 2", "enabled"),
        ("bmc-config --checkout --section=Lan_Conf", "IP_Address_Source Static", f"IP_Address {address}"),
        ("bmc-config --checkout --section=Lan_Channel", "Volatile_Access_Mode Always_Available"),
        ("ipmitool pef info", "0x51 | 0 | 0"),
    ]


def boot_flags() -> Story:
    """Set as every client sets them, and read back as they were set."""
    return [
        ("ipmitool chassis bootdev pxe", "Set Boot Device to pxe"),
        ("ipmitool chassis bootparam get 5", "Boot Flag Valid", "only next boot", "(legacy)", "Force PXE"),
        ("ipmitool chassis bootdev cdrom options=efiboot,persistent", "Set Boot Device to cdrom"),
        ("ipmitool chassis bootparam get 5", "e014000000", "all future boots", "BIOS EFI boot", "CD/DVD"),
        ("ipmi-config --category=chassis --checkout", "Boot_Flags_Persistent Yes", "BIOS_Boot_Type EFI", "CD-DVD"),
        ("ipmitool chassis bootdev floppy", "Invalid data field"),
        ("ipmitool chassis bootdev bios", "Invalid data field"),
        ("ipmitool chassis bootparam get 5", "e014000000"),
        ("ipmi-chassis-config --commit --key-pair=Chassis_Boot_Flags:Boot_Device=HARD-DRIVE",),
        ("ipmitool chassis bootparam get 5", "Force Boot from default Hard-Drive"),
        ("ipmitool chassis bootdev none", "Set Boot Device to none"),
        ("ipmitool chassis bootparam get 5", "Boot Flag Invalid", "No override"),
        ("ipmitool raw 0 8 3 8",),
        ("ipmitool chassis bootparam get 3", "Boot parameter data: 08"),
    ]


def chassis() -> Story:
    """Of a machine that is on."""
    return [
        ("ipmitool power status", "Chassis Power is on"),
        ("ipmipower --stat", ": on"),
        ("ipmitool power on", "Up/On"),
        ("ipmitool chassis policy previous", "previous"),
        ("ipmitool chassis status", "System Power : on", "Power Restore Policy : previous"),
        ("ipmi-chassis --get-status", "System Power : on", "Power restore policy : Restore"),
        ("ipmitool chassis policy always-off", "always-off"),
        ("ipmitool chassis policy list", "always-off always-on previous"),
        ("ipmitool chassis identify force", "indefinite"),
        ("ipmi-chassis --get-status", "Chassis Identify state : Indefinite on"),
        ("ipmitool chassis identify 0", "off"),
        ("ipmi-chassis --get-status", "Chassis Identify state : off"),
        ("ipmi-chassis --get-chassis-capabilities", "Diagnostic Interrupt : provided"),
        ("ipmitool chassis restart_cause", "System restart cause:"),
        ("ipmi-chassis --get-system-restart-cause",),
        ("ipmitool chassis poh", "POH Counter : 0 days, 0 hours"),
        ("ipmitool chassis selftest", "passed"),
    ]


def watchdog() -> Story:
    """Set by raw bytes: ipmitool sets no timer before its version 1.8.20. It is switched off before it bites."""
    return [
        ("ipmitool raw 6 0x24 4 1 0 0x10 0xe8 3",),
        ("ipmitool mc watchdog get", "SMS/OS (0x04)", "Stopped", "Hard Reset", "Initial Countdown: 100.0 sec"),
        ("ipmitool mc watchdog reset", "countdown restarted"),
        ("ipmitool mc watchdog get", "Started/Running"),
        ("ipmitool mc watchdog off", "timer stopped"),
        ("ipmitool mc watchdog get", "Stopped"),
    ]
