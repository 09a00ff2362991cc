"""The machine through the Redfish service: what requests do to it, and how they are answered."""

import asyncio
import base64
import json
import signal
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from fakes.machine import INVENTORY, FakeMachine

from placematd.bmc.accounts import Accounts
from placematd.bmc.logins import Logins
from placematd.bmc.machine import BootOverride, Firmware
from placematd.bmc.redfish.requests import Answer, Request
from placematd.bmc.redfish.resources.paths import BIOS, CHASSIS, MANAGER, SECURE_BOOT, SYSTEM
from placematd.bmc.redfish.server import RedfishServer
from placematd.errors import TimedOut

RESET = f"{SYSTEM}/Actions/ComputerSystem.Reset"
CD = f"{SYSTEM}/VirtualMedia/Cd"
INSERT, EJECT = f"{CD}/Actions/VirtualMedia.InsertMedia", f"{CD}/Actions/VirtualMedia.EjectMedia"
URL = "http://172.16.0.1/boot.iso"


class Client:
    """An account at the service of a machine."""

    def __init__(self, server: RedfishServer, name: str) -> None:
        self._server = server
        self._login = "Basic " + base64.b64encode(f"{name}:{name}".encode()).decode()

    async def send(self, method: str, path: str, body: object = None) -> Answer:
        headers = {"Authorization": self._login, "Content-Type": "application/json"}
        content = b"" if body is None else json.dumps(body).encode()
        return await self._server.service.answer(Request(method=method, path=path, headers=headers, body=content))

    async def get(self, path: str) -> dict[str, Any]:
        answer = await self.send("GET", path)
        assert answer.status == 200, answer
        payload: dict[str, Any] = json.loads(answer.body)
        return payload

    async def post(self, path: str, body: object = None) -> Answer:
        return await self.send("POST", path, {} if body is None else body)

    async def patch(self, path: str, body: object) -> Answer:
        return await self.send("PATCH", path, body)

    async def wait(self, answer: Answer) -> Answer:
        """The answer of the task's monitor at its end."""
        assert answer.status == 202, answer
        async with asyncio.timeout(5):
            while (ended := await self.send("GET", answer.headers["Location"])).status == 202:
                await asyncio.sleep(0.01)
        return ended


Story = Callable[[Client], Awaitable[None]]


def tell(machine: FakeMachine, story: Story, name: str = "cybozu") -> None:
    async def run() -> None:
        accounts = Accounts(machine)
        await accounts.load()
        for role in ("Operator", "ReadOnly"):
            await accounts.create(name=role, password=role, role=role)
        if accounts.by_name("cybozu") is None:
            await accounts.create(name="cybozu", password="cybozu", role="Administrator")
        server = RedfishServer(machine, accounts, Logins(machine), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        await server.open()
        try:
            await story(Client(server, name))
        finally:
            await server.finish()

    asyncio.run(run())


def acts(machine: FakeMachine) -> list[tuple[object, ...]]:
    """What was done to the machine, beside logging in."""
    return [action for action in machine.actions if action[0] != "logged_in"]


def error(answer: Answer) -> str:
    """The name of the first message."""
    message: str = json.loads(answer.body)["error"]["@Message.ExtendedInfo"][0]["MessageId"]
    return message.rpartition(".")[2]


@pytest.mark.parametrize("power", ["On", "Off"])
@pytest.mark.parametrize("place", ["system", "chassis"])
def test_every_reset_type_offered_is_taken(power, place):
    uri = {"system": SYSTEM, "chassis": CHASSIS}[place]

    async def story(client: Client) -> None:
        (offer,) = (await client.get(uri))["Actions"].values()
        info = await client.get(offer["@Redfish.ActionInfo"])
        (parameter,) = info["Parameters"]
        assert parameter["AllowableValues"] == offer["ResetType@Redfish.AllowableValues"]
        for kind in parameter["AllowableValues"]:
            machine = FakeMachine(power)

            async def reset(client: Client, kind: str = kind) -> None:
                answers[kind] = (await client.post(offer["target"], {"ResetType": kind})).status

            await asyncio.to_thread(tell, machine, reset)

    answers: dict[str, int] = {}
    tell(FakeMachine(power), story)
    refused = {kind for kind, status in answers.items() if status != 204}
    assert len(answers) == 9
    assert refused == ({"Nmi"} if power == "Off" else set())


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 400, "ActionParameterMissing"),
        ({"ResetType": "Suspend"}, 400, "ActionParameterValueNotInList"),
        ({"ResetType": "on"}, 400, "ActionParameterValueNotInList"),
        ({"ResetType": ""}, 400, "ActionParameterValueNotInList"),
        ({"ResetType": None}, 400, "ActionParameterValueTypeError"),
        ({"ResetType": "On", "Delay": 3}, 400, "ActionParameterUnknown"),
        ({"ResetType": "Nmi"}, 409, "ResourceInStandby"),
    ],
)
def test_a_reset_that_is_refused_does_nothing(body, status, message):
    machine = FakeMachine("Off")

    async def story(client: Client) -> None:
        answer = await client.post(RESET, body)
        assert (answer.status, error(answer)) == (status, message)

    tell(machine, story)
    assert acts(machine) == []


def test_on_while_on_is_no_error():
    machine = FakeMachine("On")

    async def story(client: Client) -> None:
        assert (await client.post(RESET, {"ResetType": "On"})).status == 204
        assert (await client.get(SYSTEM))["PowerState"] == "On"

    tell(machine, story)
    assert machine.starts == []


def test_a_machine_that_does_not_answer_in_time():
    machine = FakeMachine("On")

    async def story(client: Client) -> None:
        machine.failure = TimedOut("stop node worker-1", "no answer")
        answer = await client.post(RESET, {"ResetType": "ForceOff"})
        machine.failure = None
        assert answer.status == 504
        assert "no answer" in answer.body.decode()

    tell(machine, story)


@pytest.mark.parametrize(("name", "status"), [("cybozu", 204), ("Operator", 204), ("ReadOnly", 403)])
def test_who_may_switch(name, status):
    async def story(client: Client) -> None:
        assert (await client.post(RESET, {"ResetType": "On"})).status == status

    tell(FakeMachine(), story, name)


def test_boot_once_is_used_up_by_the_next_start():
    machine = FakeMachine()

    async def story(client: Client) -> None:
        wishes = {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe"}
        answer = await client.patch(SYSTEM, {"Boot": {**wishes, "BootSourceOverrideMode": "UEFI"}})
        assert answer.status == 200
        shown = json.loads(answer.body)["Boot"]
        assert {name: shown[name] for name in wishes} == wishes
        await client.post(RESET, {"ResetType": "On"})
        assert (await client.get(SYSTEM))["Boot"]["BootSourceOverrideEnabled"] == "Disabled"

    tell(machine, story)
    assert machine.starts == [("Pxe", "UEFI")]


@pytest.mark.parametrize(
    "wish",
    [
        {"BootSourceOverrideTarget": "Usb"},
        {"BootSourceOverrideTarget": "BiosSetup"},
        {"BootSourceOverrideEnabled": "Always"},
        {"BootSourceOverrideMode": "Bios"},
        {"BootOrder": ["Pxe.1"]},
        {"HttpBootUri": "http://x/"},
    ],
)
def test_boot_wishes_that_cannot_come_true_are_refused(wish):
    machine = FakeMachine()

    async def story(client: Client) -> None:
        assert (await client.patch(SYSTEM, {"Boot": wish})).status == 400

    tell(machine, story)
    assert acts(machine) == []


def test_a_mode_without_firmware_is_refused_and_not_offered():
    machine = FakeMachine(modes=("Legacy",))

    async def story(client: Client) -> None:
        boot = (await client.get(SYSTEM))["Boot"]
        assert boot["BootSourceOverrideMode@Redfish.AllowableValues"] == ["Legacy"]
        answer = await client.patch(SYSTEM, {"Boot": {"BootSourceOverrideMode": "UEFI"}})
        assert (answer.status, error(answer)) == (400, "PropertyValueNotInList")

    tell(machine, story)
    assert acts(machine) == []


@pytest.mark.parametrize("uri", [SYSTEM, CHASSIS])
def test_the_identify_light(uri):
    machine = FakeMachine()

    async def story(client: Client) -> None:
        for lit in (True, False):
            answer = await client.patch(uri, {"LocationIndicatorActive": lit})
            assert json.loads(answer.body)["LocationIndicatorActive"] is lit

    tell(machine, story)
    assert acts(machine) == [("identify", None), ("identify", 0)]


@pytest.mark.parametrize(
    "path",
    [
        "/redfish/v1/Systems/worker-1",
        "/redfish/v1/Chassis/worker-1",
        f"{SYSTEM}/EthernetInterfaces/NIC.3",
        f"{SYSTEM}/Processors/CPU.0",
        f"{SYSTEM}/Memory/DIMM.2",
        f"{SYSTEM}/LogServices/SEL/Entries/99",
        f"{SYSTEM}/VirtualMedia/Floppy",
        f"{SYSTEM}/BootOptions/Usb",
        f"{SYSTEM}/SecureBoot/SecureBootDatabases",
        f"{CHASSIS}/Sensors/Fan",
        f"{CHASSIS}/Drives/Disk.9",
        "/redfish/v1/UpdateService/FirmwareInventory/NIC",
    ],
)
def test_what_is_not_there_is_404(path):
    async def story(client: Client) -> None:
        answer = await client.send("GET", path)
        assert (answer.status, error(answer)) == (404, "ResourceMissingAtURI")

    tell(FakeMachine(), story)


@pytest.mark.parametrize("there", [True, False])
def test_a_tpm_is_a_trusted_component(there):
    async def story(client: Client) -> None:
        assert (await client.get(f"{CHASSIS}/TrustedComponents"))["Members@odata.count"] == there
        answer = await client.send("GET", f"{CHASSIS}/TrustedComponents/TPM")
        assert answer.status == (200 if there else 404)

    tell(FakeMachine(inventory=replace(INVENTORY, tpm=there)), story)


def test_every_link_of_the_machine_leads_somewhere():
    seen: set[str] = set()

    def links(value: object) -> list[str]:
        if isinstance(value, dict):
            found = [value["@odata.id"]] if "@odata.id" in value else []
            return found + [uri for inner in value.values() for uri in links(inner)]
        return [uri for inner in value for uri in links(inner)] if isinstance(value, list) else []

    async def story(client: Client) -> None:
        await client.post(RESET, {"ResetType": "On"})
        waiting = [SYSTEM, CHASSIS, MANAGER, "/redfish/v1/UpdateService"]
        while waiting:
            uri = waiting.pop()
            if uri not in seen:
                seen.add(uri)
                waiting += links(await client.get(uri))

    tell(FakeMachine(), story)
    assert len(seen) > 50


# virtual media


def test_media_are_inserted_by_a_task_and_ejected():
    machine = FakeMachine(media_seconds=0.01)

    async def story(client: Client) -> None:
        body = {"Image": URL, "UserName": "me", "Password": "secret", "WriteProtected": True}
        begun = await client.post(INSERT, body)
        on_its_way = await client.get(CD)
        assert (on_its_way["Image"], on_its_way["Inserted"]) == (URL, False)
        assert (await client.post(INSERT, {"Image": URL})).status == 409
        assert (await client.wait(begun)).status == 204
        for path in (CD, json.loads(begun.body)["@odata.id"], "/redfish/v1/TaskService/Tasks"):
            assert "secret" not in json.dumps(await client.get(path))
        full = await client.get(CD)
        assert (full["Image"], full["Inserted"], full["ConnectedVia"]) == (URL, True, "URI")
        assert (full["UserName"], full["Password"]) == ("me", None)
        assert (await client.post(INSERT, {"Image": URL})).status == 409
        assert (await client.post(EJECT)).status == 204
        assert (await client.get(CD))["Inserted"] is False
        assert (await client.post(EJECT)).status == 204

    tell(machine, story)
    assert acts(machine)[0] == ("insert_media", "Cd", "http://me:secret@172.16.0.1/boot.iso", True)


def test_an_image_that_cannot_be_loaded_ends_its_task_and_frees_the_slot():
    async def story(client: Client) -> None:
        ended = await client.wait(await client.post(INSERT, {"Image": "http://172.16.0.1/missing.iso"}))
        assert ended.status >= 400
        assert "404 Not Found" in ended.body.decode()
        assert (await client.get(CD))["Image"] is None
        assert (await client.wait(await client.post(INSERT, {"Image": URL}))).status == 204

    tell(FakeMachine(), story)


def test_ejecting_stops_a_transfer():
    machine = FakeMachine(media_seconds=60)

    async def story(client: Client) -> None:
        begun = await client.post(INSERT, {"Image": URL})
        assert (await client.post(EJECT)).status == 204
        await client.wait(begun)
        slot = await client.get(CD)
        assert (slot["Image"], slot["Inserted"]) == (None, False)

    tell(machine, story)


def test_media_by_patch():
    async def inserted(client: Client) -> bool:
        return bool((await client.get(CD))["Inserted"])

    async def story(client: Client) -> None:
        answer = await client.patch(CD, {"Image": URL, "Inserted": True, "WriteProtected": False})
        assert answer.status == 200 and json.loads(answer.body)["Image"] == URL
        async with asyncio.timeout(5):
            while not await inserted(client):
                await asyncio.sleep(0.01)
        answer = await client.patch(CD, {"Image": None, "Inserted": False})
        assert json.loads(answer.body)["Inserted"] is False
        answer = await client.patch(CD, {"Inserted": True})
        assert (answer.status, error(answer)) == (400, "PropertyMissing")

    tell(FakeMachine(), story)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 400, "ActionParameterMissing"),
        ({"Image": ""}, 400, "ActionParameterValueFormatError"),
        ({"Image": "ftp://h/a.iso"}, 400, "ActionParameterValueFormatError"),
        ({"Image": URL, "Inserted": False}, 400, "ActionParameterValueNotInList"),
        ({"Image": URL, "TransferProtocolType": "NFS"}, 400, "ActionParameterValueNotInList"),
        ({"Image": URL, "TransferProtocolType": "HTTPS"}, 409, "ActionParameterValueConflict"),
        ({"Image": URL, "TransferMethod": "Stream"}, 400, "ActionParameterValueNotInList"),
        ({"Image": "x" * 3000}, 400, "ActionParameterValueFormatError"),
    ],
)
def test_an_insertion_that_is_refused_does_nothing(body, status, message):
    machine = FakeMachine()

    async def story(client: Client) -> None:
        answer = await client.post(INSERT, body)
        assert (answer.status, error(answer)) == (status, message)

    tell(machine, story)
    assert acts(machine) == []


# BIOS


def test_bios_settings_count_from_the_next_start_on():
    machine = FakeMachine("On")

    async def story(client: Client) -> None:
        settings = (await client.get(BIOS))["@Redfish.Settings"]["SettingsObject"]["@odata.id"]
        answer = await client.patch(settings, {"Attributes": {"BootMode": "Uefi"}})
        assert answer.status == 200
        assert (await client.get(settings))["Attributes"]["BootMode"] == "Uefi"
        assert (await client.get(BIOS))["Attributes"]["BootMode"] == "Legacy"
        await client.post(RESET, {"ResetType": "PowerCycle"})
        assert (await client.get(BIOS))["Attributes"]["BootMode"] == "Uefi"
        assert (await client.post(f"{BIOS}/Actions/Bios.ResetBios")).status == 204
        assert (await client.get(settings))["Attributes"] == {"BootMode": "Legacy", "Tpm": "Enabled"}
        assert (await client.patch(BIOS, {"Attributes": {"BootMode": "Uefi"}})).status == 405

    tell(machine, story)
    assert ("set_firmware", Firmware(boot_mode="UEFI", tpm=True)) in acts(machine)


# Secure Boot


def states(found: dict[str, Any]) -> tuple[object, ...]:
    return tuple(found[name] for name in ("SecureBootEnable", "SecureBootCurrentBoot", "SecureBootMode"))


def test_secure_boot_counts_from_the_next_start_on():
    machine = FakeMachine("On", inventory=replace(INVENTORY, boot_mode="UEFI"))

    async def story(client: Client) -> None:
        assert (await client.get(SYSTEM))["SecureBoot"] == {"@odata.id": SECURE_BOOT}
        for enable, before, after in (
            (True, ("Disabled", "SetupMode"), ("Enabled", "UserMode")),
            (False, ("Enabled", "UserMode"), ("Disabled", "SetupMode")),
        ):
            assert states(await client.get(SECURE_BOOT)) == (not enable, *before)
            answer = await client.patch(SECURE_BOOT, {"SecureBootEnable": enable})
            assert (answer.status, states(json.loads(answer.body))) == (200, (enable, *before))
            await client.post(RESET, {"ResetType": "ForceRestart"})
            assert states(await client.get(SECURE_BOOT)) == (enable, *after)
        await client.post(RESET, {"ResetType": "ForceOff"})
        assert states(await client.get(SECURE_BOOT)) == (False, None, "SetupMode")

    tell(machine, story)


def test_secure_boot_is_not_in_force_in_a_boot_with_a_bios():
    machine = FakeMachine(inventory=replace(INVENTORY, boot_mode="UEFI", secure_boot=True))

    async def story(client: Client) -> None:
        override = {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideMode": "Legacy"}
        assert (await client.patch(SYSTEM, {"Boot": {**override, "BootSourceOverrideTarget": "Hdd"}})).status == 200
        await client.post(RESET, {"ResetType": "On"})
        assert states(await client.get(SECURE_BOOT)) == (True, "Disabled", None)
        await client.post(RESET, {"ResetType": "ForceRestart"})
        assert states(await client.get(SECURE_BOOT)) == (True, "Enabled", "UserMode")

    tell(machine, story)


def test_secure_boot_needs_uefi():
    machine = FakeMachine(inventory=replace(INVENTORY, boot_mode="UEFI", secure_boot=True))
    settings = f"{BIOS}/Settings"

    async def story(client: Client) -> None:
        await client.patch(settings, {"Attributes": {"BootMode": "Legacy"}})
        assert states(await client.get(SECURE_BOOT)) == (False, None, None)
        answer = await client.patch(SECURE_BOOT, {"SecureBootEnable": True})
        assert (answer.status, error(answer)) == (409, "PropertyValueConflict")
        assert (await client.patch(SECURE_BOOT, {"SecureBootEnable": False})).status == 200
        await client.patch(settings, {"Attributes": {"BootMode": "Uefi"}})
        assert states(await client.get(SECURE_BOOT)) == (False, None, "SetupMode")
        await client.post(f"{BIOS}/Actions/Bios.ResetBios")
        assert states(await client.get(SECURE_BOOT)) == (True, None, "UserMode")

    tell(machine, story)


@pytest.mark.parametrize(
    "wish", [{"SecureBootEnable": "true"}, {"SecureBootEnable": None}, {"SecureBootMode": "UserMode"}]
)
def test_secure_boot_takes_nothing_else(wish):
    machine = FakeMachine(inventory=replace(INVENTORY, boot_mode="UEFI"))

    async def story(client: Client) -> None:
        assert (await client.patch(SECURE_BOOT, wish)).status == 400
        assert (await client.get(SECURE_BOOT))["Actions"] == {}

    tell(machine, story)
    assert acts(machine) == []


def test_no_secure_boot_where_the_host_lacks_the_keys():
    machine = FakeMachine(inventory=replace(INVENTORY, boot_mode="UEFI"), secure_boot=False)

    async def story(client: Client) -> None:
        assert "SecureBoot" not in await client.get(SYSTEM)
        assert (await client.send("GET", SECURE_BOOT)).status == 404
        assert (await client.patch(SECURE_BOOT, {"SecureBootEnable": True})).status == 404

    tell(machine, story)
    assert acts(machine) == []


# the attribute registry


def test_the_attribute_registry_is_served_and_listed():
    async def story(client: Client) -> None:
        name = (await client.get(BIOS))["AttributeRegistry"]
        files = [member["@odata.id"] for member in (await client.get("/redfish/v1/Registries"))["Members"]]
        (found,) = [uri for uri in files if uri.endswith(name)]
        registry = await client.get((await client.get(found))["Location"][0]["Uri"])
        assert registry["RegistryEntries"]["Attributes"]

    tell(FakeMachine(), story)


# the log and the manager


@pytest.mark.parametrize("owner", [SYSTEM, MANAGER])
def test_the_log_is_read_and_cleared(owner):
    async def story(client: Client) -> None:
        await client.post(RESET, {"ResetType": "On"})
        entries = await client.get(f"{owner}/LogServices/SEL/Entries")
        assert entries["Members@odata.count"] == len(entries["Members"]) == 2
        for member in entries["Members"]:
            alone = await client.get(member["@odata.id"])
            assert member.items() <= alone.items()
        assert (await client.post(f"{owner}/LogServices/SEL/Actions/LogService.ClearLog")).status == 204
        assert (await client.get(f"{owner}/LogServices/SEL/Entries"))["Members"] == []

    tell(FakeMachine(), story)


def test_a_reset_of_the_manager_ends_its_process_after_the_answer():
    machine = FakeMachine("On")

    async def story(client: Client) -> None:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        answer = await client.post(f"{MANAGER}/Actions/Manager.Reset", {"ResetType": "GracefulRestart"})
        assert answer.status == 204 and not ended.is_set()
        async with asyncio.timeout(5):
            await ended.wait()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)

    tell(machine, story)
    assert acts(machine) == []


def test_only_administrators_reset_the_manager():
    async def story(client: Client) -> None:
        answer = await client.post(f"{MANAGER}/Actions/Manager.Reset", {"ResetType": "ForceRestart"})
        assert answer.status == 403

    tell(FakeMachine(), story, "Operator")


def test_boot_reads_back_what_ipmi_set():
    machine = FakeMachine()

    async def story(client: Client) -> None:
        await machine.set_boot(BootOverride(enabled="Continuous", target="Cd"))
        boot = (await client.get(SYSTEM))["Boot"]
        assert (boot["BootSourceOverrideEnabled"], boot["BootSourceOverrideTarget"]) == ("Continuous", "Cd")

    tell(machine, story)
