"""DMTF's redfish_utilities with the real server on a machine in memory; its judges: e2e/test_bmc_conformance.py."""

import re
import subprocess
from collections.abc import Iterator

import pytest
from bmcs import running_bmc
from redfish_judges import environment, program

pytestmark = pytest.mark.integration

USER, PASSWORD = "admin", "password"


@pytest.fixture
def service() -> Iterator[str]:
    """The URL of a BMC whose machine is off."""
    with running_bmc() as bmc:
        yield bmc.url


def run(*command: str, seconds: float) -> str:
    done = subprocess.run(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    return done.stdout


def test_programs_of_redfish_utilities(service: str) -> None:
    """DMTF's own tools, each with something that it must have seen or done."""

    def tool(name: str, *arguments: str) -> str:
        login = ("-r", service, "-u", USER, "-p", PASSWORD)
        return run(program(name), *login, *arguments, seconds=60)

    inventory = tool("rf_sys_inventory.py", "--details")
    assert "AMD EPYC Processor" in inventory and "QEMU 2048MB DRAM" in inventory and "Disk.2" in inventory
    assert "BMC firmware" in tool("rf_firmware_inventory.py")
    assert re.search(r"Inlet Temp +\| 23\.00 Cel +\| OK .* 42 .* 47 ", tool("rf_sensor_list.py"))
    assert "PushPowerButton, Nmi" in tool("rf_power_reset.py", "--info")

    tool("rf_boot_override.py", "--target", "Pxe")
    assert re.search("Target: Pxe.*\n.*Enabled: Once", tool("rf_boot_override.py"))
    tool("rf_power_reset.py", "--type", "On")
    assert re.search("Target: None.*\n.*Enabled: Disabled", tool("rf_boot_override.py"))
    assert "Current power state: On" in tool("rf_power_reset.py", "--info")

    for log in (tool("rf_sel.py"), tool("rf_logs.py")):
        assert "The machine was powered on" in log
    tool("rf_logs.py", "--system", "System.Embedded.1", "--clear")
    assert "powered on" not in tool("rf_sel.py")

    tool("rf_virtual_media.py", "insert", "--image", "http://172.16.0.1/boot.iso")
    assert "ImageName: boot.iso" in tool("rf_virtual_media.py", "info")
    tool("rf_virtual_media.py", "eject", "--id", "Cd")
    assert "ImageName: None" in tool("rf_virtual_media.py", "info")

    tool("rf_bios_settings.py", "--attribute", "BootMode", "Uefi")
    assert re.search(r"BootMode +\| Legacy +\| Uefi", tool("rf_bios_settings.py"))
    tool("rf_bios_settings.py", "--reset")
    assert re.search(r"BootMode +\| Legacy +\| Legacy", tool("rf_bios_settings.py"))

    assert "127.0.0.1: 255.0.0.0" in tool("rf_manager_config.py", "getnet")
    assert re.search(r"IPMI +\| True +\| 623", tool("rf_manager_config.py", "getprotocol"))
