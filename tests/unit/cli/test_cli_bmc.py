"""`bmc list|show|sel|ca`: what they print, ask for, and end with."""

import json
import re

from fakes.api import CERTIFICATE, bmc

ENTRY = {
    "id": 1,
    "time": "2026-01-02T03:04:05+00:00",
    "severity": "OK",
    "message": "Power on",
    "data": "02" + "00" * 12,
}


def asked(api) -> list[tuple[str, str]]:
    return [(method, path) for method, path, _ in api.requests]


def test_bmcs_are_listed(cli, api):
    api.bmcs.append(bmc("worker-3", source="guest", ipmi=False, cipher_suites=[], users=[]))
    header, first, second, third = cli("bmc", "list").out.splitlines()
    assert header.split() == ["NODE", "ADDRESS", "SOURCE", "IPMI", "USERS", "LAST", "SESSION"]
    assert re.split("  +", first) == [
        *("worker-1", "172.16.1.2", "file", "suites 3 17", "admin, op (disabled)"),
        "admin ipmi from 172.16.1.1 at 2026-01-02T03:04:05+00:00",
    ]
    assert second.split() == ["worker-2", "-", "-", "suites", "3", "17", "admin,", "op", "(disabled)", "-"]
    assert third.split()[:5] == ["worker-3", "172.16.1.2", "guest", "off", "-"]
    listed = json.loads(cli("bmc", "list", "lab", "--json").out)
    assert [found["node"] for found in listed] == ["worker-1", "worker-2", "worker-3"]
    assert "boot" not in listed[0]


def test_one_bmc_is_shown(cli, api):
    lines = cli("bmc", "show", "worker-1").out.splitlines()
    assert lines[0] == "BMC OF worker-1"
    values = dict(re.split("  +", line, maxsplit=1) for line in lines[1:] if line[0] != " ")
    assert values["address"] == "172.16.1.2 (cluster file)"
    assert values["boot override"] == "Pxe Once (UEFI)"
    assert values["watchdog"] == "reset in 12.5 s"
    assert values["media"] == "Cd  http://images/live.iso"
    assert values["users"] == "admin  Administrator"
    assert values["event log"] == "2 entries"
    assert json.loads(cli("bmc", "show", "worker-1", "--json").out) == api.bmcs[0]


def test_a_bmc_that_does_nothing(cli, api):
    idle = {"boot": {"enabled": "Disabled", "target": "None", "mode": None}, "sel_entries": 1}
    idle["watchdog"] = {"running": False, "action": "none", "seconds_left": 0}
    api.bmcs = [
        bmc("worker-1", **idle, address=None, source=None, media=[{"slot": "Cd", "image": "", "inserted": False}])
    ]
    rows = [line.split() for line in cli("bmc", "show", "worker-1").out.splitlines()]
    for name in (["address"], ["boot", "override"], ["watchdog"], ["media"]):
        assert [*name, "-"] in rows
    assert ["event", "log", "1", "entry"] in rows


def test_the_event_log_is_shown_and_emptied(cli, api):
    api.sel = [ENTRY]
    rows = [line.split() for line in cli("bmc", "sel", "worker-1").out.splitlines()]
    assert rows == [["ID", "TIME", "SEVERITY", "MESSAGE"], ["1", "2026-01-02T03:04:05+00:00", "OK", "Power", "on"]]
    assert json.loads(cli("bmc", "sel", "worker-1", "--json").out) == [ENTRY]
    done = cli("bmc", "sel", "worker-1", "--clear")
    assert (done.status, done.out, api.sel) == (0, "", [])
    assert asked(api)[-1] == ("DELETE", "/v1/bmcs/worker-1/sel")
    assert json.loads(cli("bmc", "sel", "worker-1", "--json").out) == []


def test_the_authority_is_printed_as_a_file(cli, api):
    assert cli("bmc", "ca").out == CERTIFICATE
    assert cli("--cluster", "lab", "bmc", "ca").out == CERTIFICATE
    assert json.loads(cli("bmc", "ca", "lab", "--json").out) == {"certificate": CERTIFICATE}


def test_a_node_that_does_not_exist(cli, api):
    for words in (("show", "none"), ("sel", "none"), ("sel", "none", "--clear")):
        done = cli("bmc", *words)
        assert (done.status, done.out) == (4, "")
    assert cli("bmc", "show", "../nodes").status == 4
    assert asked(api)[-1] == ("GET", "/v1/bmcs/..%2Fnodes")
