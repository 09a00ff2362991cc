"""What real clients make of the BMC's answers: ipmitool, freeipmi and pyghmi against a server on loopback.

A story is a list of (command line, what its output must contain). "!" in front: the client must fail.
"""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = ("ipmitool", "bmc-info", "ipmi-config")
CACHES_SENSORS = {"ipmi-sensors", "ipmi-sel", "ipmi-fru", "--category=sensors"}
"""What makes freeipmi write a cache, by default into the home directory in passwd(5)."""
SECONDS = 60
"""No client is waited for any longer."""

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not all(shutil.which(program) for program in PROGRAMS), reason="apt-get install ipmitool freeipmi-tools"
    ),
]


class Server:
    """A BMC's process on a machine in memory; `home` is where clients keep caches."""

    def __init__(self, process: "subprocess.Popen[str]", home: Path) -> None:
        self._process, self._home = process, home
        assert process.stdin and process.stdout
        self._stdin, self._stdout = process.stdin, process.stdout
        ready, _, addresses = self._stdout.readline().partition(" ")
        assert ready == "READY"
        self.port: int = json.loads(addresses)["ipmi"][1]

    def state(self) -> dict[str, Any]:
        """What has happened to the machine."""
        self._stdin.write("state\n")
        self._stdin.flush()
        state: dict[str, Any] = json.loads(self._stdout.readline())
        return state

    def client(self, line: str, suite: int, user: str = "cybozu") -> tuple[int, str]:
        """Exit status and output (white space made single spaces) of a client's command line."""
        program, *arguments = shlex.split(line)
        password = {"cybozu": "cybozu", "operator": "operator", "reader": "reader"}[user]
        if program == "ipmitool":
            where = ["-I", "lanplus", "-H", "127.0.0.1", "-p", str(self.port), "-U", user, "-P", password]
            argv = [program, *where, "-C", str(suite), *arguments]
        else:
            where = ["-D", "LAN_2_0", "-h", f"127.0.0.1:{self.port}", "-u", user, "-p", password]
            cache = [f"--sdr-cache-directory={self._home}"] if CACHES_SENSORS & {program, *arguments} else []
            argv = [program, *arguments, *where, *cache, "-I", str(suite)]
        environment = os.environ | {"TZ": "UTC"}
        done = subprocess.run(
            argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS
        )
        return done.returncode, " ".join(done.stdout.split())

    def tell(self, story: list[tuple[str, ...]], suite: int) -> None:
        """Run the clients of a story and compare."""
        for line, *fragments in story:
            status, output = self.client(line.removeprefix("! "), suite)
            assert (status != 0) == line.startswith("! "), (line, status, output)
            for fragment in fragments:
                assert fragment in output, (line, output)


@contextlib.contextmanager
def serving(home: Path, power: str) -> Iterator[Server]:
    options = ("--ipmi", "127.0.0.1:0", "--power", power, "--soft-seconds", "0", "--until-eof")
    argv = (sys.executable, "tests/fakes/bmc.py", *options)
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Server(process, home)
        finally:
            process.terminate()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A machine that is on."""
    with serving(tmp_path, "On") as running:
        yield running


@pytest.fixture
def server_of_off(tmp_path: Path) -> Iterator[Server]:
    """A machine that is off."""
    with serving(tmp_path, "Off") as running:
        yield running


UUID = "d1f5a1f0-5b3c-4c1e-9d3a-0123456789ab"
FIRST_SENSOR = "Inlet Temp | 10h | ok | 55.1 | 23 degrees C"

STORIES: dict[str, list[tuple[str, ...]]] = {
    "the BMC": [
        ("ipmitool mc info", "Device ID : 32", "Firmware Revision : 3.00", "IPMI Version : 2.0", "Available : yes"),
        ("ipmitool mc info", "Sensor Device SDR Repository Device SEL Device FRU Inventory Device Chassis Device"),
        ("ipmitool mc guid", f"System GUID : {UUID}"),
        ("ipmitool mc selftest", "Selftest: passed"),
        ("ipmitool mc getenables", "System Event Logging : enabled"),
        ("ipmitool mc getsysinfo system_name", "worker-1"),
        ("ipmitool mc setsysinfo primary_os_name Debian",),
        ("ipmitool mc getsysinfo primary_os_name", "Debian"),
        ("bmc-info", f"Device GUID : {UUID}", f"System GUID : {UUID}", "System Name : worker-1", "Debian", "802.3 LAN"),
        ("bmc-device --get-self-test-results", "No Error"),
        ("bmc-device --get-acpi-power-state", "S0/G0", "D0"),
        ("ipmitool mc reset cold", "Sent cold reset command"),
        ("ipmitool mc reset warm", "Sent warm reset command"),
        ("bmc-device --cold-reset",),
        ("ipmitool mc selftest", "Selftest: passed"),
        ("! ipmitool dcmi discover", "Invalid command"),
        ("! ipmitool raw 0x3c 1", "rsp=0xc1"),
    ],
    "sensors": [
        ("ipmitool sdr elist all", FIRST_SENSOR, "placemat BMC | 00h | ok | 6.1 | Dynamic MC @ 20h"),
        ("ipmitool sdr elist full", "CPU Load | 11h | ok | 3.1 | 12.50 percent", "Power | 13h | ok | 7.1 | 60 Watts"),
        ("ipmitool sensor list", "Inlet Temp | 23.000 | degrees C | ok | na | -7.000 | 3.000 | 42.000 | 47.000 | na"),
        ("ipmitool sdr get 'ACPI State'", "Sensor Type (Discrete): System ACPI Power State", "S0/G0: working"),
        ("ipmitool sdr info", "Record Count : 14"),
        ("ipmi-sensors", "Inlet Temp | Temperature | 23.00 | C | 'OK'", "CPU Load | Processor | 12.50 | % | 'OK'"),
        ("ipmi-sensors -vv", "Upper Critical Threshold: 47.000000 C", "Record Type: Event-Only Record (3h)"),
        ("ipmi-config --category=sensors --checkout", "Upper_Non_Critical_Threshold 42.000000"),
        ("! ipmitool sensor thresh 'Inlet Temp' unc 50",),
        ("ipmitool sensor get 'Inlet Temp'", "Upper Non-Critical : 42.000"),
    ],
    "inventory": [
        ("ipmitool fru print", "Chassis Serial : 1234abcd", "Product Manufacturer : cybozu Product Name : mk2"),
        ("ipmi-fru", "FRU Product Serial Number: 1234abcd", "FRU Board Manufacturer: cybozu"),
    ],
    "event log": [
        ("ipmitool sel list", "SEL has no entries"),
        ("ipmitool event 1", "Upper Critical going high"),
        ("ipmitool sel elist", "Temperature #0x30 | Upper Critical going high | Asserted"),
        ("ipmi-sel", "Temperature", "Upper Critical - going high"),
        ("ipmitool sel info", "Entries : 1", "Free Space : 16368 bytes"),
        ("ipmi-sel --info", "Number of log entries : 1"),
        ("! ipmitool sel delete 1", "Unable to delete entry"),
        ("ipmitool sel clear", "Clearing SEL"),
        ("ipmitool sel list", "SEL has no entries"),
        ("ipmitool event 1", "Upper Critical going high"),
        ("ipmi-sel --clear",),
        ("ipmitool sel time set '01/02/31 03:04:05'", "01/02/31 03:04:"),
        ("ipmitool sel time get", "01/02/31 03:04:"),
        ("bmc-device --get-sel-time", "01/02/2031 - 03:04:"),
    ],
    "users": [
        ("ipmitool user list 1", "2 cybozu true false true ADMINISTRATOR", "4 operator true false true OPERATOR"),
        ("ipmitool user set name 9 bob",),
        ("ipmitool user set password 9 secret 16", "successful"),
        ("ipmitool channel setaccess 1 9 ipmi=on privilege=3", "successful"),
        ("ipmitool user enable 9",),
        ("ipmitool user list 1", "9 bob true false true OPERATOR"),
        ("ipmitool user test 9 16 secret", "Success"),
        ("! ipmitool user test 9 16 Secret", "password incorrect"),
        ("ipmitool user set password 9 12345678901234567890 20", "successful"),
        ("! ipmitool user test 9 16 1234567890123456", "wrong password size"),
        ("ipmitool user summary 1", "Maximum IDs : 15", "Enabled User Count : 5"),
        ("ipmitool user disable 9",),
        ("ipmitool channel getaccess 1 9", "User Name : bob", "Enable Status : disabled"),
        ("! ipmitool user set name 10 bob", "Invalid data field"),
        ("bmc-config --commit --key-pair=User8:Username=carol",),
        ("bmc-config --commit --key-pair=User8:Password=sesame --key-pair=User8:Enable_User=Yes",),
        ("bmc-config --commit --key-pair=User8:Lan_Privilege_Limit=Administrator",),
        ("ipmitool user list 1", "8 carol true false true ADMINISTRATOR"),
        ("ipmitool user test 8 20 sesame", "Success"),
        ("bmc-config --checkout --section=User9", "Username bob", "Enable_User No", "Lan_Privilege_Limit Operator"),
    ],
    "LAN and channels": [
        ("ipmitool lan print 1", "IP Address : 127.0.0.1", "Subnet Mask : 255.0.0.0", "Address : 52:54:00:00:00:fe"),
        ("ipmitool lan print", "RMCP+ Cipher Suites : 3,17 Cipher Suite Priv Max : aaXXXXXXXXXXXXX"),
        ("ipmitool lan6 print 1", "IPv6/IPv4 Addressing Enables: ipv4"),
        ("ipmitool lan set 1 access on", "successful"),
        ("! ipmitool lan set 1 ipaddr 10.0.0.1",),
        ("ipmitool lan print 1", "IP Address : 127.0.0.1"),
        ("ipmitool channel info 1", "802.3 LAN", "multi-session", "always available"),
        ("ipmitool channel getciphers ipmi 1", "3 N/A hmac_sha1", "17 N/A hmac_sha256"),
        ("bmc-config --checkout --section=Lan_Conf", "IP_Address_Source Static", "IP_Address 127.0.0.1"),
        ("bmc-config --checkout --section=Lan_Channel", "Volatile_Access_Mode Always_Available"),
        # It calls it a failure that there are no keys, no lockout and no authentication of IPMI 1.5 to configure.
        ("! bmc-config --checkout", "Section User15", "MAC_Address 52:54:00:00:00:FE", "Section SOL_Conf"),
        ("ipmitool pef info", "0x51 | 0 | 0"),
        ("ipmi-config --category=pef --checkout --section=PEF_Conf", "Enable_PEF No"),
    ],
    "boot flags": [
        ("ipmitool chassis bootdev pxe", "Set Boot Device to pxe"),
        ("ipmitool chassis bootparam get 5", "Boot Flag Valid", "only next boot", "(legacy)", "Force PXE"),
        ("ipmitool chassis bootdev cdrom options=efiboot,persistent", "Set Boot Device to cdrom"),
        ("ipmitool chassis bootparam get 5", "e014000000", "all future boots", "BIOS EFI boot", "CD/DVD"),
        ("ipmi-config --category=chassis --checkout", "Boot_Flags_Persistent Yes", "BIOS_Boot_Type EFI", "CD-DVD"),
        ("ipmitool chassis bootdev floppy", "Invalid data field"),
        ("ipmitool chassis bootdev bios", "Invalid data field"),
        ("ipmitool chassis bootdev disk clear-cmos=yes", "Invalid data field"),
        ("ipmitool chassis bootparam get 5", "e014000000"),
        ("ipmi-chassis-config --commit --key-pair=Chassis_Boot_Flags:Boot_Device=HARD-DRIVE",),
        ("ipmitool chassis bootparam get 5", "Force Boot from default Hard-Drive"),
        ("ipmitool chassis bootdev none", "Set Boot Device to none"),
        ("ipmitool chassis bootparam get 5", "Boot Flag Invalid", "No override"),
        ("ipmitool raw 0 8 3 8",),
        ("ipmitool chassis bootparam get 3", "Boot parameter data: 08"),
    ],
    "chassis": [
        ("ipmitool chassis status", "System Power : on", "Power Restore Policy : always-on"),
        ("ipmitool chassis policy list", "always-off always-on previous"),
        ("ipmitool chassis policy previous", "previous"),
        ("ipmi-chassis --get-status", "System Power : on", "Power restore policy : Restore"),
        ("ipmitool chassis identify force", "indefinite"),
        ("ipmi-chassis --get-status", "Chassis Identify state : Indefinite on"),
        ("ipmitool chassis identify 0", "off"),
        ("ipmi-chassis --get-status", "Chassis Identify state : off"),
        ("ipmi-chassis --get-chassis-capabilities", "Diagnostic Interrupt : provided"),
        ("ipmitool chassis poh", "POH Counter : 0 days, 0 hours"),
        ("ipmitool chassis selftest", "passed"),
    ],
    "watchdog": [
        ("! ipmitool mc watchdog reset", "uninitialized"),
        ("ipmitool raw 6 0x24 4 1 0 0x10 0xe8 3",),
        ("ipmitool mc watchdog get", "SMS/OS (0x04)", "Stopped", "Hard Reset", "Initial Countdown: 100.0 sec"),
        ("ipmitool mc watchdog reset", "countdown restarted"),
        ("ipmitool mc watchdog get", "Started/Running"),
        ("ipmitool mc watchdog off", "timer stopped"),
        ("ipmitool mc watchdog get", "Stopped"),
    ],
}


@pytest.mark.parametrize("suite", [3, 17])
@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_story(server: Server, story: list[tuple[str, ...]], suite: int) -> None:
    server.tell(story, suite)


@pytest.mark.parametrize("suite", [3, 17])
def test_power(server: Server, suite: int) -> None:
    story = [
        ("ipmitool power status", "Chassis Power is on"),
        ("ipmitool power diag", "Diag"),
        ("ipmitool power reset", "Reset"),
        ("ipmitool power cycle", "Cycle"),
        ("ipmitool chassis restart_cause", "chassis power control command"),
        ("ipmitool power off", "Down/Off"),
        ("ipmitool power status", "Chassis Power is off"),
        ("ipmitool sensor reading 'Inlet Temp'", "23"),
        ("ipmitool sdr elist full", "CPU Load | 11h | ns | 3.1 | No Reading", FIRST_SENSOR),
        ("! ipmitool power cycle", "not supported in present state"),
        ("! ipmitool power reset", "not supported in present state"),
        ("! ipmitool power diag", "not supported in present state"),
        ("! ipmitool power soft", "not supported in present state"),
        ("ipmitool power off", "Down/Off"),
        ("ipmipower --on --wait-until-on", "ok"),
        ("ipmipower --stat", "on"),
        ("ipmi-chassis --get-status", "Last Power Event : power on via ipmi command"),
        ("ipmipower --cycle", "ok"),
        ("ipmipower --soft --wait-until-off", "ok"),
        ("ipmipower --stat", "off"),
    ]
    server.tell(story, suite)
    done = [action[1] for action in server.state()["actions"] if action[0] == "power"]
    assert done == ["nmi", "reset", "cycle", "off", "off", "on", "cycle", "soft-off"]


def test_a_machine_that_was_never_on_boots_from_the_network_once(server_of_off: Server) -> None:
    server_of_off.tell([("ipmitool chassis bootdev pxe options=efiboot",), ("ipmitool power on",)], 17)
    server_of_off.tell([("ipmitool power status", "on"), ("ipmitool power reset",)], 17)
    server_of_off.tell([("ipmitool chassis bootparam get 5", "Boot Flag Invalid")], 17)
    assert server_of_off.state()["starts"] == [["Pxe", "UEFI"], ["None", "Legacy"]]


@pytest.mark.parametrize(
    ("user", "level", "allowed", "refused"),
    [
        ("reader", "USER", ["power status", "sdr list", "sel list", "fru print"], ["power off", "sel clear"]),
        (
            "operator",
            "OPERATOR",
            ["power on", "lan print 1", "user list 1"],
            ["mc setsysinfo system_name x", "user disable 3"],
        ),
    ],
)
def test_roles(server: Server, user: str, level: str, allowed: list[str], refused: list[str]) -> None:
    for line in allowed:
        assert server.client(f"ipmitool -L {level} {line}", 17, user)[0] == 0, line
    for line in refused:
        status, output = server.client(f"ipmitool -L {level} {line}", 17, user)
        assert "nsufficient privilege" in output or status != 0, (line, output)
    assert {action[0] for action in server.state()["actions"]} <= {"power", "logged_in"}
    assert server.state()["power"] == "On"


PYGHMI = """
import json, sys
from pyghmi.ipmi.command import Command
client = Command(bmc="127.0.0.1", userid="cybozu", password="cybozu", port=int(sys.argv[1]))
client.set_bootdev("network", uefiboot=True)
said = {
    "power": client.get_power(),
    "boot": client.get_bootdev(),
    "sensors": {reading.name: reading.value for reading in client.get_sensor_data()},
    "users": {user["name"]: user["access"]["privilege_level"] for user in client.get_users().values()},
    "inventory": dict(client.get_inventory())["System"],
    "net": client.get_net_configuration(),
    "reset": client.set_power("reset", wait=False),
    "off": client.set_power("off", wait=True),
    "on": client.set_power("on", wait=True),
    "new user": client.create_user(uid=7, name="alice", password="wonder", privilege_level="operator"),
    "made": client.get_user(7)["access"]["privilege_level"],
    "user gone": client.user_delete(7) and 7 not in client.get_users(),
    "events": [event["component_type"] for event in client.get_event_log()],
}
json.dump(said, sys.stdout, default=str)
"""


def test_pyghmi(server: Server) -> None:
    argv = (sys.executable, "-W", "ignore", "-c", PYGHMI, str(server.port))
    done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["power"] == {"powerstate": "on"}
    assert said["boot"] == {"bootdev": "network", "persistent": False, "uefimode": True}
    assert said["sensors"]["Inlet Temp"] == 23.0 and said["sensors"]["Power"] == 60.0
    assert said["users"]["operator"] == "operator" and said["users"]["reader"] == "user"
    assert said["inventory"]["Serial Number"] == "1234abcd"
    assert said["net"]["ipv4_address"] == "127.0.0.1/8"
    assert (said["off"], said["on"]) == ({"powerstate": "off"}, {"powerstate": "on"})
    assert (said["new user"], said["made"], said["user gone"]) == (True, "operator", True)
    assert "System ACPI Power State" in said["events"]
    assert server.state()["starts"][0] == ["Pxe", "UEFI"]
