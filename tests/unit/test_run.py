"""Programs that succeed, fail, hang, or are not there."""

import os
import time
from pathlib import Path

import pytest

from placematd.errors import MissingTool, StepError, TimedOut
from placematd.run import find, run


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Make a fake program on PATH from the body of a shell script."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def make(name: str, body: str) -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    return make


def test_output_is_returned_and_arguments_are_never_split(program):
    program("show", 'printf "%s\\n" "$#" "$1"; cat')
    assert run(["show", "a b; $HOME"], input="from stdin") == "1\na b; $HOME\nfrom stdin"


def test_without_input_stdin_is_empty(program):
    program("show", "cat")
    assert run(["show"]) == ""


def test_environment_is_added_and_messages_are_english(program, monkeypatch):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    program("show", 'echo "$LC_ALL $EXTRA $HOME"')
    assert run(["show"], env={"EXTRA": "x"}) == f"C x {os.environ['HOME']}\n"


def test_failure_shows_a_line_to_paste_the_status_and_the_last_lines_of_stderr(program):
    program("fail", "seq 1 100 >&2; exit 3")
    with pytest.raises(StepError) as caught:
        run(["fail", "it's", "two words"])
    assert caught.value.attempted == "run fail 'it'\"'\"'s' 'two words'"
    assert caught.value.answer == "exit status 3: " + "\n".join(str(number) for number in range(91, 101))


def test_a_signal_is_named(program):
    program("fail", "kill -SEGV $$")
    with pytest.raises(StepError, match=r"run fail: killed by SIGSEGV"):
        run(["fail"])


def alive(stat):
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_deadline_kills_grandchildren_that_hold_the_pipes(program, tmp_path):
    program("hang", f"sleep 60 & echo $! >{tmp_path}/pid; echo waiting >&2; wait")
    before = time.monotonic()
    with pytest.raises(TimedOut, match=r"run hang: not finished after 2 s: waiting"):
        run(["hang"], timeout_seconds=2)
    assert time.monotonic() - before < 20
    grandchild = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")
    while alive(grandchild):  # killed, and perhaps not gone yet
        assert time.monotonic() - before < 20
        time.sleep(0.01)


def test_a_missing_program_names_its_package(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingTool, match=r"run qemu-img: not found in PATH \(apt-get install qemu-utils\)"):
        run(["qemu-img", "--version"])


def test_a_missing_program_without_a_known_package_has_its_own_name(tmp_path):
    with pytest.raises(MissingTool) as caught:
        run([tmp_path / "frobnicate"])
    assert caught.value.package == "frobnicate"


def test_a_program_that_cannot_be_executed(program):
    path = program("broken", "")
    path.write_text("#!/no/such/interpreter\n")
    with pytest.raises(StepError, match="No such file or directory"):
        run([path])


def test_sbin_is_searched_too(monkeypatch, tmp_path):
    """A user's PATH on Debian has no sbin."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find("ldconfig").name == "ldconfig"


def test_bytes_that_are_no_utf8_do_not_break_the_message(program):
    program("fail", "printf 'caf\\351' >&2; exit 1")
    with pytest.raises(StepError, match="caf\N{REPLACEMENT CHARACTER}"):
        run(["fail"])
