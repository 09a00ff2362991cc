"""What the resources of the machine say about it, state by state."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from fakes.machine import GIB, INVENTORY, LIMITS, FakeMachine

from placematd.bmc.machine import BootOverride, Disk, FirmwareOffer, Health, Inventory, Limits, Nic, SelEntry, Watchdog
from placematd.bmc.redfish.messages import RedfishError
from placematd.bmc.redfish.resources import (
    boot,
    chassis,
    ethernet,
    logs,
    managers,
    processors,
    reset,
    routes,
    sensors,
    storage,
    systems,
    update,
)
from placematd.bmc.redfish.resources.paths import CHASSIS, MANAGER, SYSTEM

SEEN = systems.View(
    inventory=INVENTORY,
    power="On",
    override=BootOverride(),
    offer=FirmwareOffer(boot_modes=("Legacy", "UEFI"), secure_boot=True),
    watchdog=Watchdog(),
    limits=LIMITS,
    identifying=False,
    cause="chassis-control",
)
NOON = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)


def test_urls_are_those_of_placemat_v2():
    uris = [resource.uri for resource in routes()]
    assert SYSTEM == "/redfish/v1/Systems/System.Embedded.1" and SYSTEM in uris
    assert CHASSIS == "/redfish/v1/Chassis/System.Embedded.1" and CHASSIS in uris
    assert len(uris) == len(set(uris))


def test_system_says_what_the_guest_reads_in_its_smbios_tables():
    system = systems.system(SEEN)
    assert (system["Manufacturer"], system["Model"], system["SerialNumber"]) == ("cybozu", "mk2", "1234abcd")
    assert UUID(system["UUID"]) == INVENTORY.uuid
    assert system["BiosVersion"] == INVENTORY.bios_version
    assert "HostName" not in system
    assert system["Links"]["Chassis"] == [{"@odata.id": CHASSIS}]
    assert system["Links"]["ManagedBy"] == [{"@odata.id": MANAGER}]


def test_no_payload_holds_what_the_core_adds():
    for payload in (systems.system(SEEN), chassis.chassis(INVENTORY, "On", False), managers.interface(LIMITS)):
        assert not payload.keys() & {"@odata.id", "@odata.type", "@odata.etag", "Actions"}


@pytest.mark.parametrize(
    ("power", "state"),
    [("On", "Enabled"), ("PoweringOff", "Enabled"), ("PoweringOn", "Starting"), ("Off", "StandbyOffline")],
)
def test_status_follows_power_and_health_does_not(power, state):
    for payload in (systems.system(replace(SEEN, power=power)), chassis.chassis(INVENTORY, power, False)):
        assert payload["PowerState"] == power
        assert payload["Status"] == {"State": state, "Health": "OK", "HealthRollup": "OK"}


@pytest.mark.parametrize(
    ("sockets", "cores", "threads", "count", "all_cores", "logical"), [(1, 2, 1, 1, 2, 2), (2, 4, 2, 2, 8, 16)]
)
def test_processors_are_counted_as_the_guest_counts_them(sockets, cores, threads, count, all_cores, logical):
    inventory = replace(INVENTORY, cpu_sockets=sockets, cpu_cores=cores, cpu_threads=threads)
    summary = systems.system(replace(SEEN, inventory=inventory))["ProcessorSummary"]
    assert (summary["Count"], summary["CoreCount"], summary["LogicalProcessorCount"]) == (count, all_cores, logical)
    one = processors.processor(1, inventory)
    assert (one["TotalCores"] * sockets, one["TotalThreads"] * sockets) == (all_cores, logical)


@pytest.mark.parametrize(
    ("mebibytes", "gibibytes", "dimms"),
    [(2048, 2, [2048]), (512, 0.5, [512]), (1536, 1.5, [1536]), (40960, 40, [16384, 16384, 8192])],
)
def test_memory_adds_up(mebibytes, gibibytes, dimms):
    system = systems.system(replace(SEEN, inventory=replace(INVENTORY, memory_mib=mebibytes)))
    assert system["MemorySummary"] == {"TotalSystemMemoryGiB": gibibytes}
    assert isinstance(system["MemorySummary"]["TotalSystemMemoryGiB"], type(gibibytes))
    assert list(processors.dimms(mebibytes)) == dimms


def test_tpm_is_shown_only_where_there_is_one():
    assert systems.system(SEEN)["TrustedModules"][0]["InterfaceType"] == "TPM2_0"
    without = systems.system(replace(SEEN, inventory=replace(INVENTORY, tpm=False)))
    assert without["TrustedModules"] == without["Links"]["TrustedComponents"] == []


@pytest.mark.parametrize("ipmi", [True, False])
def test_serial_console_and_network_protocol_know_whether_ipmi_is_spoken(ipmi):
    limits = replace(LIMITS, ipmi=ipmi)
    system = systems.system(replace(SEEN, limits=limits))
    assert system["SerialConsole"]["IPMI"]["ServiceEnabled"] is ipmi
    assert system["IPMIHostInterface"] == {"ServiceEnabled": ipmi}
    protocols = managers.network_protocol(limits)
    assert protocols["IPMI"] == {"ProtocolEnabled": ipmi, "Port": 623}
    assert protocols["HTTPS"] == {"ProtocolEnabled": True, "Port": 443}
    assert protocols["SSDP"] == {"ProtocolEnabled": False}


@pytest.mark.parametrize(
    ("watchdog", "enabled", "timeout", "warning"),
    [
        (Watchdog(), False, "None", "None"),
        (Watchdog(running=True, action="reset"), True, "ResetSystem", "None"),
        (Watchdog(running=True, action="off", pre_timeout_action="nmi"), True, "PowerDown", "DiagnosticInterrupt"),
        (Watchdog(action="cycle"), False, "PowerCycle", "None"),
    ],
)
def test_watchdog_is_that_of_ipmi(watchdog, enabled, timeout, warning):
    shown = systems.host_watchdog(watchdog)
    assert (shown["FunctionEnabled"], shown["TimeoutAction"], shown["WarningAction"]) == (enabled, timeout, warning)


# reset


@pytest.mark.parametrize(
    ("kind", "while_on", "while_off"),
    [
        ("On", "on", "on"),
        ("ForceOn", "on", "on"),
        ("ForceOff", "off", None),
        ("GracefulShutdown", "soft-off", None),
        ("GracefulRestart", "soft-reset", "on"),
        ("ForceRestart", "reset", "on"),
        ("PowerCycle", "cycle", "on"),
        ("PushPowerButton", "soft-off", "on"),
    ],
)
def test_reset_table(kind, while_on, while_off):
    assert reset.power_action(kind, "On") == while_on
    assert reset.power_action(kind, "PoweringOff") == while_on
    assert reset.power_action(kind, "Off") == while_off


def test_an_interrupt_takes_power():
    assert reset.power_action("Nmi", "On") == "nmi"
    with pytest.raises(RedfishError) as refused:
        reset.power_action("Nmi", "Off")
    assert refused.value.status == 409
    assert refused.value.messages[0].name == "ResourceInStandby"


def test_every_reset_type_has_its_row():
    assert len(reset.RESET_TYPES) == 9
    assert [reset.power_action(kind, "On") for kind in reset.RESET_TYPES].count(None) == 0


async def _reset(machine: FakeMachine, kind: str) -> list[tuple[object, ...]]:
    await reset.reset(machine, kind)
    return machine.actions


def test_the_power_button_is_told_as_such(run):
    assert run(_reset(FakeMachine("Off"), "PushPowerButton")) == [("power", "on", "power-button")]
    assert run(_reset(FakeMachine("On"), "ForceRestart")) == [("power", "reset", "chassis-control")]
    assert run(_reset(FakeMachine("Off"), "ForceOff")) == []


@pytest.fixture
def run():
    import asyncio

    return asyncio.run


# boot


def test_boot_reads_back_what_is_set():
    override = BootOverride(enabled="Once", target="Pxe", mode="UEFI")
    shown = boot.boot(override, INVENTORY, ("Legacy", "UEFI"))
    assert shown["BootSourceOverrideEnabled"] == "Once"
    assert shown["BootSourceOverrideTarget"] == "Pxe"
    assert shown["BootSourceOverrideMode"] == "UEFI"
    assert shown["BootSourceOverrideTarget@Redfish.AllowableValues"] == ["None", "Pxe", "Hdd", "Cd"]
    assert shown["BootSourceOverrideEnabled@Redfish.AllowableValues"] == ["Disabled", "Once", "Continuous"]


def test_boot_mode_is_that_of_the_machine_where_nobody_chose_one():
    assert boot.boot(BootOverride(), INVENTORY, ("Legacy",))["BootSourceOverrideMode"] == "Legacy"
    uefi = replace(INVENTORY, boot_mode="UEFI")
    assert boot.boot(BootOverride(), uefi, ("Legacy", "UEFI"))["BootSourceOverrideMode"] == "UEFI"


def test_every_boot_option_is_in_the_order_and_names_a_device():
    options = boot.options(INVENTORY)
    assert boot.boot(BootOverride(), INVENTORY, ())["BootOrder"] == list(options)
    assert [option["Alias"] for option in options.values()] == ["Hdd", "Hdd", "Cd", "Pxe", "Pxe"]
    assert all(option["BootOptionReference"] == name for name, option in options.items())


ONCE_PXE = BootOverride(enabled="Once", target="Pxe", mode="UEFI")


@pytest.mark.parametrize(
    ("before", "wishes", "after"),
    [
        (
            BootOverride(),
            {"BootSourceOverrideTarget": "Pxe", "BootSourceOverrideEnabled": "Once"},
            BootOverride(enabled="Once", target="Pxe"),
        ),
        (ONCE_PXE, {"BootSourceOverrideTarget": "Cd"}, replace(ONCE_PXE, target="Cd")),
        (ONCE_PXE, {"BootSourceOverrideEnabled": "Continuous"}, replace(ONCE_PXE, enabled="Continuous")),
        (ONCE_PXE, {"BootSourceOverrideMode": "Legacy"}, replace(ONCE_PXE, mode="Legacy")),
        (ONCE_PXE, {"BootSourceOverrideEnabled": "Disabled"}, BootOverride()),
        (
            ONCE_PXE,
            {"BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "Hdd"},
            BootOverride(enabled="Disabled", target="Hdd", mode="UEFI"),
        ),
    ],
)
def test_a_patch_of_boot_changes_what_it_names(before, wishes, after):
    assert boot.changed(before, wishes, ("Legacy", "UEFI")) == after


def test_a_boot_mode_without_firmware_is_refused():
    with pytest.raises(RedfishError) as refused:
        boot.changed(BootOverride(), {"BootSourceOverrideMode": "UEFI"}, ("Legacy",))
    assert refused.value.status == 400
    assert refused.value.messages[0].at == "Boot/BootSourceOverrideMode"


# what is in the box


def test_nics_have_the_real_macs_and_are_healthy_without_power():
    nic = Nic(name="eth0", mac="52:54:00:00:00:01", network="net0", mtu=1460)
    off = ethernet.interface("NIC.1", nic, "Off")
    assert off["MACAddress"] == off["PermanentMACAddress"] == "52:54:00:00:00:01"
    assert off["MTUSize"] == 1460
    assert off["Status"] == {"State": "Enabled", "Health": "OK"}
    assert (off["LinkStatus"], ethernet.interface("NIC.1", nic, "On")["LinkStatus"]) == ("LinkDown", "LinkUp")


def test_a_drive_has_its_one_volume_and_the_volume_its_drive():
    disks = storage.disks(INVENTORY)
    name, disk = next(iter(disks.items()))
    drive, volume = storage.drive(name, disk), storage.volume(name, disk)
    assert drive["CapacityBytes"] == volume["CapacityBytes"] == 10 * GIB
    assert drive["Links"]["Volumes"] == [{"@odata.id": f"{storage.VOLUMES}/{name}"}]
    assert volume["Links"]["Drives"] == [{"@odata.id": storage.drive_uri(name)}]
    unit = storage.unit(INVENTORY)
    assert unit["Drives@odata.count"] == len(unit["Drives"]) == 2


def test_an_unknown_capacity_is_null():
    disk = Disk(name="host", device="virtio-blk", capacity_bytes=0, format="raw")
    assert storage.drive("Disk.1", disk)["CapacityBytes"] is None
    assert storage.volume("Disk.1", disk)["CapacityBytes"] is None


def test_a_machine_without_disks_and_nics_is_one():
    bare: Inventory = replace(INVENTORY, disks=(), nics=())
    assert storage.unit(bare)["Drives"] == [] and storage.simple(bare)["Devices"] == []
    assert list(boot.options(bare)) == ["Cd"]


HEALTH = Health(cpu_load_percent=12.34, memory_used_mib=512, inlet_celsius=23.46, power_watts=61.0)


def test_sensors_read_what_the_machine_reads():
    seen = sensors.readings(HEALTH, INVENTORY, "On")
    assert seen == {"InletTemp": 23.5, "CPULoad": 12.3, "MemoryUsed": 25.0, "Power": 61.0}
    assert sensors.environment(seen)["PowerWatts"] == {"DataSourceUri": f"{CHASSIS}/Sensors/Power", "Reading": 61.0}
    assert sensors.thermal_metrics(seen)["TemperatureSummaryCelsius"]["Intake"]["Reading"] == 23.5


def test_without_power_there_is_a_temperature_and_no_load():
    seen = sensors.readings(HEALTH, INVENTORY, "Off")
    assert seen["CPULoad"] is None and seen["MemoryUsed"] is None and seen["InletTemp"] == 23.5
    assert sensors.sensor("CPULoad", None)["Status"] == {"State": "UnavailableOffline"}


@pytest.mark.parametrize(
    ("celsius", "health"), [(20, "OK"), (42, "Warning"), (47, "Critical"), (3, "Warning"), (-7, "Critical")]
)
def test_thresholds_are_those_of_ipmi(celsius, health):
    sensor = sensors.sensor("InletTemp", celsius)
    assert sensor["Status"]["Health"] == health
    assert sensor["Thresholds"]["UpperCritical"] == {"Reading": 47}
    assert sensor["Thresholds"]["LowerCaution"] == {"Reading": 3}


# the log


def test_a_log_entry_tells_the_sel_record():
    data = bytes((0x02, 0x20, 0x00, 0x04, 0x22, 0x02, 0x6F, 0x06, 0xFF, 0xFF))
    event = SelEntry(record_id=7, time=NOON, data=data, message="The machine was powered off")
    entry = logs.entry(event)
    assert entry["Id"] == "7" and entry["EntryType"] == "SEL" and entry["Created"] == "2026-07-01T12:00:00Z"
    assert (entry["SensorType"], entry["SensorNumber"]) == ("System ACPI PowerState", 2)
    assert (entry["EntryCode"], entry["GeneratorId"]) == ("Assert", "0x0020")
    # LogEntry.MessageId: "0xNNaabbcc", EventDir/EventType and the three bytes of event data
    assert entry["MessageId"] == "0x6F06FFFF"
    assert logs.entry(replace(event, data=data[:6] + b"\xef" + data[7:]))["EntryCode"] == "Deassert"


@pytest.mark.parametrize("data", [b"", b"\x02\x20", bytes((0xC0, *range(9))), bytes((0xE0, *range(13)))])
def test_a_record_of_another_form_is_told_by_its_message_alone(data):
    entry = logs.entry(SelEntry(record_id=1, time=NOON, data=data, message="OEM", severity="Warning"))
    assert entry["Message"] == "OEM" and entry["Severity"] == "Warning"
    assert not entry.keys() & {"SensorType", "SensorNumber", "EntryCode", "MessageId"}


def test_entries_are_whole_in_their_collection():
    event = SelEntry(record_id=3, time=NOON, data=b"", message="hello")
    (member,) = logs.entries(f"{SYSTEM}/LogServices", [event])["Members"]
    assert member["@odata.id"].endswith("/LogServices/SEL/Entries/3") and member["Message"] == "hello"


# the manager


@pytest.mark.parametrize(
    ("network", "fourth", "sixth"),
    [
        ("172.16.1.2/24", [("172.16.1.2", "255.255.255.0")], []),
        ("fd00::2/64", [], [("fd00::2", 64)]),
        ("", [], []),
    ],
)
def test_the_manager_has_the_address_of_the_bmc(network, fourth, sixth):
    shown = managers.interface(Limits(network=network, mac="52:54:00:00:00:fe" if network else ""))
    assert [(entry["Address"], entry["SubnetMask"]) for entry in shown["IPv4Addresses"]] == fourth
    assert [(entry["Address"], entry["PrefixLength"]) for entry in shown["IPv6Addresses"]] == sixth
    assert ("MACAddress" in shown) is bool(network)


def test_the_manager_has_a_uuid_of_its_own_that_stays():
    first, again = managers.manager(INVENTORY, NOON), managers.manager(INVENTORY, NOON)
    assert first["UUID"] == again["UUID"] != str(INVENTORY.uuid)
    assert first["DateTime"] == "2026-07-01T12:00:00Z"
    assert None not in first.values()


def test_firmware_tells_versions_and_offers_no_update():
    from placematd import __version__

    firmware = update.firmware(INVENTORY)
    assert {name: one["Version"] for name, one in firmware.items()} == {
        "BMC": __version__,
        "BIOS": INVENTORY.bios_version,
    }
    assert not any(one["Updateable"] for one in firmware.values())
