"""Commands on a running cluster: what they print, ask for, and end with."""

import contextlib
import json
import os
import pty
import subprocess
import sys

import pytest
from placemat_cli import __main__
from placemat_cli.table import plain_lines


def test_status_shows_all_parts(cli, api):
    result = cli("status")
    assert result.status == 0
    lines = [line.split() for line in result.out.splitlines()]
    assert lines[0] == ["lab", "running", "1", "of", "2", "nodes", "on,", "tcg"]
    assert ["net0", "external", "172.16.0.1/24", "fd00::1/64"] in lines
    assert ["inside", "internal", "-"] in lines
    assert ["boot", "eth0", "net0", "172.16.0.2/24", "dnsmasq", "running"] in lines
    assert ["eth1", "inside", "web", "failed"] in lines
    assert ["worker-1", "On", "2", "2G", "net0", "172.16.1.2", "placemat-lab-node-worker-1.service", "running"] in lines
    assert ["worker-2", "Off", "2", "2G", "net0", "-", "placemat-lab-node-worker-2.service", "inactive"] in lines
    assert "\x1b" not in result.out


def test_status_shows_the_step_while_starting_and_what_is_wrong(cli, api):
    api.cluster |= {
        "state": "starting",
        "step": "image ubuntu: 12%",
        "warnings": ["a.yml:1:1: warning: x"],
        "error": "e",
    }
    api.cluster["failed_units"] = ["placemat-lab-app-boot-web.service"]
    lines = cli("status").out.splitlines()
    assert lines[:4] == [
        "lab  starting  image ubuntu: 12%, tcg",
        "error: e",
        "failed: placemat-lab-app-boot-web.service",
        "warning: a.yml:1:1: warning: x",
    ]


def test_at_a_terminal_states_have_colours_and_names_are_not_taken_for_markup(api):
    api.nodes[0]["memory"] = "[bold]2G"
    controller, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    environment.pop("NO_COLOR", None)
    argv = [sys.executable, "-m", "placemat_cli", "status"]
    assert subprocess.run(argv, stdout=terminal, env=environment, timeout=60).returncode == 0
    os.close(terminal)
    screen = b""
    with contextlib.suppress(OSError):  # EIO at the end
        while data := os.read(controller, 4096):
            screen += data
    os.close(controller)
    text = screen.decode()
    assert "\x1b[1mlab\x1b[0m  \x1b[1;32mrunning\x1b[0m" in text
    assert "\x1b[32mOn\x1b[0m" in text
    assert "web \x1b[1;31mfailed\x1b[0m" in text
    assert "[bold]2G" in text


@pytest.mark.parametrize(
    ("command", "path"),
    [
        (("status",), "/v1/cluster"),
        (("node", "list"), "/v1/nodes"),
        (("node", "show", "worker-1"), "/v1/nodes/worker-1"),
    ],
)
def test_json_is_the_apis(cli, api, command, path):
    expected = {
        "/v1/cluster": api.cluster | {"nodes": api.nodes},
        "/v1/nodes": api.nodes,
        "/v1/nodes/worker-1": api.nodes[0],
    }
    result = cli(*command, "--json")
    assert json.loads(result.out) == expected[path]
    assert result.out.count("\n") == 1


def test_netns_list(cli, api):
    assert cli("netns", "list").out.splitlines()[1].split()[:3] == ["boot", "eth0", "net0"]
    assert json.loads(cli("netns", "list", "--json").out) == api.cluster["namespaces"]


def test_node_list_can_be_names_only(cli, api):
    assert cli("node", "list", "--quiet").out == "worker-1\nworker-2\n"
    api.nodes.clear()
    assert cli("node", "list", "-q").out == ""


def test_node_show(cli, api):
    lines = cli("node", "show", "worker-1").out.splitlines()
    assert [line.strip() for line in lines[lines.index("volumes        root") :][:2]] == ["volumes        root", "data"]
    rows = dict(line.split(maxsplit=1) for line in lines if not line.startswith(" "))
    assert rows["NODE"] == "worker-1"
    assert rows["power"] == "On"
    assert rows["firmware"] == "BIOS, TPM 2.0"
    assert rows["interfaces"].split() == ["net0", "52:54:00:00:00:01", "pmt-abc"]
    assert rows["serial"] == "1234abcd"


def test_node_show_tells_of_secure_boot(cli, api):
    api.nodes[0].update(uefi=True, secure_boot=True, tpm=False)
    assert "UEFI, Secure Boot\n" in cli("node", "show", "worker-1").out


@pytest.mark.parametrize("spelling", [("node",), ("node", "action")])
@pytest.mark.parametrize(("action", "power"), [("start", "On"), ("stop", "Off"), ("restart", "On")])
def test_node_actions(cli, api, spelling, action, power):
    result = cli(*spelling, action, "worker-1")
    assert (result.status, result.out) == (0, f"worker-1 is {power}\n")
    assert api.requests == [("POST", f"/v1/nodes/worker-1/{action}", {"graceful": False, "timeout_seconds": 60})]


def test_graceful_stop_with_a_deadline(cli, api):
    assert cli("node", "stop", "worker-1", "--graceful", "--timeout", "5").status == 0
    assert api.requests[-1][2] == {"graceful": True, "timeout_seconds": 5}


@pytest.mark.parametrize(("status", "exit_status"), [(400, 2), (404, 4), (409, 1), (500, 1), (504, 1)])
def test_an_error_of_the_service_is_text_and_an_exit_status(cli, api, status, exit_status):
    api.fail("/v1/nodes/worker-1/stop", status, "stop node worker-1: the guest did not shut down", "without --graceful")
    result = cli("node", "stop", "worker-1")
    assert result.status == exit_status
    assert result.err == "error: stop node worker-1: the guest did not shut down (without --graceful)\n"
    assert result.out == ""


@pytest.mark.parametrize(
    "command",
    [
        ("node", "list"),
        ("node", "start", "x"),
        ("node", "enter", "x"),
        ("netns", "list"),
        ("reload",),
        ("node", "show", "x"),
    ],
)
def test_no_cluster_is_exit_status_3(cli, places, command):
    result = cli(*command)
    assert (result.status, result.err) == (3, "error: no cluster is running (start one: placemat-cli up FILE)\n")
    result = cli("--cluster", "lab", *command)
    assert (result.status, result.err) == (3, "error: cluster lab is not running (placemat-cli up lab)\n")


def test_the_cluster_is_chosen_by_option_environment_or_being_alone(cli, api, places, monkeypatch):
    (places.run / "other").mkdir()
    (places.run / "other" / "api.sock").touch()
    result = cli("node", "list", "-q")
    assert (result.status, result.err) == (
        2,
        "error: which cluster? running: lab, other (choose with --cluster NAME)\n",
    )
    assert cli("-c", "lab", "node", "list", "-q").out == "worker-1\nworker-2\n"
    monkeypatch.setenv("PLACEMAT_CLUSTER", "lab")
    assert cli("node", "list", "-q").out == "worker-1\nworker-2\n"


def test_reload_tells_the_changes(cli, api):
    api.changes = [{"action": "replace", "resource": "unit worker-1", "reason": "memory 2G, was 1G"}]
    assert cli("reload").out == "replace  unit worker-1: memory 2G, was 1G\nlab: 1 resource changed\n"
    assert cli("reload", "lab", "--dry-run").out.splitlines()[-1] == "lab: 1 resource would change"
    assert json.loads(cli("reload", "--json").out) == {"changes": api.changes}
    api.changes = []
    assert cli("reload").out == "lab: nothing changed\n"
    assert [path for _, path, _ in api.requests] == ["/v1/reload", "/v1/reload?dry_run=1", "/v1/reload", "/v1/reload"]


SHOW_FAILED = r"""
case "$1" in
show) printf '%s\n' LoadState=loaded ActiveState=failed SubState=failed Result=exit-code \
    'StatusText=create bridge net0: it exists' ExecMainStatus=1 InvocationID=abc ;;
list-units) echo 'placemat-lab.slice loaded active active Slice'
    echo 'placemat-lab-node-worker-1.service loaded active running QEMU of worker-1' ;;
esac
"""


def test_status_without_the_service_is_what_systemd_knows(cli, places, program):
    program("systemctl", SHOW_FAILED)
    result = cli("status", "lab")
    assert result.status == 3
    assert result.out.splitlines() == [
        "lab  failed  exit-code",
        "last status: create bridge net0: it exists",
        "",
        "UNIT STILL THERE                    STATE",
        "placemat-lab-node-worker-1.service  active running",
    ]
    assert result.err == "error: cluster lab is not running (placemat-cli up lab)\n"
    result = cli("status", "lab", "--json")
    assert result.status == 3
    assert json.loads(result.out) == {
        "name": "lab",
        "state": "failed",
        "error": "create bridge net0: it exists",
        "units": [{"unit": "placemat-lab-node-worker-1.service", "active": "active", "sub": "running"}],
    }


def test_status_without_the_service_and_without_systemd(cli, places, program):
    program("systemctl", "echo 'System has not been booted with systemd' >&2; exit 1")
    result = cli("status", "lab")
    assert (result.status, result.err) == (3, "error: cluster lab is not running (placemat-cli up lab)\n")


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """In a process of its own, for commands that become another program."""
    return subprocess.run(
        [sys.executable, "-m", "placemat_cli", *arguments], capture_output=True, text=True, timeout=60
    )


def test_netns_exec_becomes_ip_netns_exec_and_ends_as_the_command(api, program):
    program("ip", 'printf "[%s]" "$@"; exit 7')
    done = run("netns", "exec", "boot", "ls", "-l", "--all", "a b")
    assert (done.returncode, done.stdout) == (7, "[netns][exec][boot][ls][-l][--all][a b]")


def test_netns_exec_takes_two_dashes_before_the_command(api, program):
    program("ip", 'printf "[%s]" "$@"')
    assert run("netns", "exec", "boot", "--", "ls", "--", "x").stdout == "[netns][exec][boot][ls][--][x]"


def test_netns_exec_of_an_unknown_namespace(api, program):
    program("ip", "echo called")
    done = run("netns", "exec", "root", "ls")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == "error: no network namespace root (there is boot)\n"


def test_netns_exec_without_a_service_leaves_it_to_ip(places, program):
    program("ip", "echo called")
    assert run("netns", "exec", "root", "ls").stdout == "called\n"


OURS = "PLACEMAT_CLUSTER=lab"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], [OURS, "+", "UNIT=placemat@lab.service"]),
        (["-f", "-n", "5"], ["--follow", "--lines=5", OURS, "+", "UNIT=placemat@lab.service"]),
        (["worker-1"], [OURS, "PLACEMAT_NODE=worker-1", "+", OURS, "PLACEMAT_NETNS=worker-1"]),
        (["boot/dnsmasq", "-o", "cat"], ["--output=cat", OURS, "PLACEMAT_NETNS=boot", "PLACEMAT_APP=dnsmasq"]),
        (["--daemon", "--since", "-5min"], ["--since=-5min", "--unit=placemat@lab.service"]),
    ],
)
def test_logs_becomes_journalctl(places, program, arguments, expected):
    program("journalctl", 'printf "%s\\n" "$@"')
    done = run("-c", "lab", "logs", *arguments)
    assert (done.returncode, done.stdout.splitlines()) == (0, expected)


def test_version_and_help(cli, places):
    assert cli("--version").out.startswith("placemat-cli 3.")
    result = cli("--help")
    assert result.status == 0
    assert "Exit status: 0 done" in result.out
    names = ["check", "plan", "up", "down", "status", "reload", "logs", "node", "netns"]
    positions = [result.out.index(f"│ {name} ") for name in names]
    assert positions == sorted(positions)


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("node", "show"), ("node", "action", "explode", "x"), ("status", "--x")]
)
def test_wrong_usage_is_exit_status_2(cli, places, arguments):
    result = cli(*arguments)
    assert result.status == 2
    assert "Usage" in result.err


def test_ctrl_c_is_exit_status_130(cli, api, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "execv", interrupt)
    assert cli("logs").status == 130


def test_plain_tables_align_cells_of_several_lines():
    assert plain_lines([("A", "BB", "C"), ("aaa", "1\n22", "x"), ("b", "", "y")]) == [
        "A    BB  C",
        "aaa  1   x",
        "     22",
        "b        y",
    ]


def test_main_is_the_entry_point(places, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["placemat-cli", "--version"])
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code in (0, None)
