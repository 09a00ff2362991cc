"""Clients of BMCs in a sandbox: ipmitool, curl, and a packet whose answer is timed."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sandboxes import Box

CLI = str(Path(__file__).parents[2] / ".venv/bin/placemat-cli")
SYSTEM = "/redfish/v1/Systems/System.Embedded.1"
RESET = f"{SYSTEM}/Actions/ComputerSystem.Reset"
ACCOUNTS = "/redfish/v1/AccountService/Accounts"
ANSWER_SECONDS = 60

ASK = """\
import socket, sys, time
host, seconds = sys.argv[1], float(sys.argv[2])
# Get Channel Authentication Capabilities in an RMCP packet without a session (IPMI 2.0, 13.6 and 22.13)
packet = bytes.fromhex("0600ff07 00 00000000 00000000 09 2018c8 8100388e04b5")
with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.settimeout(seconds)
    begin = time.monotonic()
    try:
        client.connect((host, 623))
        client.send(packet)
        client.recv(1000)
        print(time.monotonic() - begin)
    except OSError as error:
        print(type(error).__name__)
"""


@dataclass(frozen=True)
class Bmc:
    """A BMC at an address, and who to be there. The password is in a file, not in an argv."""

    box: Box
    address: str
    user: str = "cybozu"
    password: str = field(default="cybozu", repr=False)
    privilege: str = "ADMINISTRATOR"

    def log_in(self, user: str, password: str, privilege: str = "ADMINISTRATOR") -> "Bmc":
        """The same BMC for somebody else."""
        return replace(self, user=user, password=password, privilege=privilege)

    def ipmi(self, line: str) -> str:
        """What ipmitool prints; asserts that it succeeds."""
        status, out, err = self.try_ipmi(line)
        assert status == 0 and "failed" not in err, f"ipmitool {line}: {out}{err}"
        return out

    def try_ipmi(self, line: str) -> tuple[int, str, str]:
        """Exit status of ipmitool, and what it prints. Lost packets are none here, so it waits long before the next."""
        options = f"-I lanplus -C 17 -N {ANSWER_SECONDS} -R 1 -H {self.address} -U {self.user} -L {self.privilege}"
        script = f"exec ipmitool {options} -f <(cat <&3) {line}"
        argv = ["bash", "-c", f"exec 3<&0; {script} 0</dev/null"]
        done = self.box.run(argv, input=self.password, check=False, timeout=4 * ANSWER_SECONDS)
        return done.returncode, done.stdout, done.stderr

    def power(self) -> str:
        """ "on" or "off", as IPMI tells."""
        return self.ipmi("power status").removeprefix("Chassis Power is ").strip()

    def url(self, path: str) -> str:
        """Of a resource."""
        return f"https://{f'[{self.address}]' if ':' in self.address else self.address}{path}"

    def ask(self, path: str, body: object = None, *, method: str = "", ca: str = "") -> tuple[int, Any]:
        """Status and JSON of a Redfish request; 0 where there is no connection. `ca`: verify with this file."""
        lines = [f'user = "{self.user}:{self.password}"', f'url = "{self.url(path)}"', "silent", "globoff"]
        lines += [f"max-time = {ANSWER_SECONDS}", r'write-out = "\n%{http_code}"']
        lines += [f'cacert = "{ca}"' if ca else "insecure"]
        if body is not None:
            lines += [f"data = {json.dumps(json.dumps(body))}", 'header = "Content-Type: application/json"']
        lines += [f'request = "{method}"'] if method else []
        done = self.box.run(["curl", "--config", "-"], input="\n".join(lines), check=False)
        text, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(text) if text else {}

    def get(self, path: str, ca: str = "") -> Any:
        """A resource; asserts that there is one."""
        status, found = self.ask(path, ca=ca)
        assert status == 200, (path, status, found)
        return found

    def reset(self, kind: str) -> int:
        """Status of ComputerSystem.Reset."""
        return self.ask(RESET, {"ResetType": kind})[0]

    def first_answer(self, seconds: float = ANSWER_SECONDS) -> float:
        """Seconds until a packet is answered; raises AssertionError where it is not."""
        answer = self.box.run(["python3", "-c", ASK, self.address, str(seconds)]).stdout.strip()
        assert answer.replace(".", "").replace("e-", "").isdecimal(), answer
        return float(answer)

    def silent(self, seconds: float = 2.0) -> bool:
        """Whether neither UDP 623 nor TCP 443 is answered."""
        answer = self.box.run(["python3", "-c", ASK, self.address, str(seconds)]).stdout.strip()
        return answer in ("TimeoutError", "ConnectionRefusedError", "OSError") and self.ask("/redfish")[0] == 0


def show(box: Box, unit: str, name: str) -> str:
    """A property of a unit."""
    return box.run(["systemctl", "show", "--value", f"--property={name}", unit]).stdout.strip()


def addresses(box: Box, link: str) -> set[str]:
    """The addresses of a link without those that the kernel makes itself."""
    found = json.loads(box.run(["ip", "-json", "address", "show", "dev", link]).stdout)
    return {f"{item['local']}/{item['prefixlen']}" for item in found[0]["addr_info"] if item["scope"] == "global"}


def write(box: Box, path: str, text: str, mode: str = "600") -> None:
    """A file in the sandbox, which never is more open than `mode`."""
    box.run(
        ["bash", "-euc", f"umask 077; cat > {path}.part; chmod {mode} {path}.part; mv {path}.part {path}"], input=text
    )
