"""`node enter` in a real pseudo-terminal, and piped."""

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator

import pytest
from fakes.api import FakeApi
from placemat_cli.terminal import EscapeKeys, Screen

DEADLINE_SECONDS = 15
ENTER = [sys.executable, "-m", "placemat_cli", "node", "enter", "worker-1"]


class Person:
    """Someone at a terminal who runs `placemat-cli node enter worker-1`."""

    def __init__(self, arguments: list[str]) -> None:
        self.keyboard, self._terminal = pty.openpty()
        self.before = termios.tcgetattr(self._terminal)
        self.screen = b""
        self.process = subprocess.Popen(
            arguments, stdin=self._terminal, stdout=self._terminal, stderr=self._terminal, start_new_session=True
        )

    def type(self, keys: bytes) -> None:
        os.write(self.keyboard, keys)

    def sees(self, text: bytes) -> None:
        """Wait until the text is on the screen."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while text not in self.screen:
            readable, _, _ = select.select([self.keyboard], [], [], max(0, deadline - time.monotonic()))
            assert readable, f"{text!r} did not come: {self.screen!r}"
            self.screen += os.read(self.keyboard, 4096)

    def status(self) -> int:
        """The exit status, after reading the rest of the screen."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"still running: {self.screen!r}"
            if select.select([self.keyboard], [], [], 0.02)[0]:
                self.screen += os.read(self.keyboard, 4096)
        while select.select([self.keyboard], [], [], 0)[0]:
            self.screen += os.read(self.keyboard, 4096)
        return self.process.returncode

    def attributes(self) -> list[object]:
        return termios.tcgetattr(self._terminal)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.keyboard)
        os.close(self._terminal)


@pytest.fixture
def person(api: FakeApi) -> Iterator[Person]:
    someone = Person(ENTER)
    yield someone
    someone.close()


def test_typing_and_answer_then_ctrl_q_ctrl_x_leaves(person: Person, api: FakeApi):
    person.sees(b"Connected to worker-1. Ctrl-Q Ctrl-X leaves.")
    person.sees(b"login: ")
    assert person.attributes() != person.before
    person.type(b"hello\r")
    person.sees(b"HELLO\r")
    person.type(b"\x11\x18")
    assert person.status() == 0
    assert person.attributes() == person.before


def test_control_keys_go_to_the_guest(person: Person):
    person.sees(b"login: ")
    person.type(b"a\x03b\x1ac\x1cd\x13e\x11\x11f\x04g")
    person.sees(b"A\x03B\x1aC\x1cD\x13E\x11F\x04G")
    person.type(b"\x11\x18")
    assert person.status() == 0


def test_what_the_guest_did_to_the_screen_is_undone(api: FakeApi):
    api.greeting = b"\x1b[?1049h\x1b[?25l\x1b[?7leditor"
    person = Person(ENTER)
    try:
        person.sees(b"editor")
        person.type(b"\x11\x18")
        assert person.status() == 0
        after = person.screen.partition(b"editor")[2]
        assert all(sequence in after for sequence in (b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?7h", b"\x1b[0m"))
    finally:
        person.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_restores_the_terminal(person: Person, number: int):
    person.sees(b"login: ")
    person.process.send_signal(number)
    assert person.status() == 128 + number
    assert person.attributes() == person.before


def test_window_changes_and_stops_are_ignored(person: Person):
    person.sees(b"login: ")
    person.process.send_signal(signal.SIGWINCH)
    person.type(b"still here")
    person.sees(b"STILL HERE")
    person.type(b"\x11\x18")
    assert person.status() == 0


def test_death_of_the_service_is_told_and_restores_the_terminal(api: FakeApi):
    hurried = (
        "import placemat_cli.console as c; c.RECONNECT_SECONDS = 0.5; from placemat_cli.__main__ import main; main()"
    )
    someone = Person([sys.executable, "-c", hurried, "node", "enter", "worker-1"])
    try:
        someone.sees(b"login: ")
        api.stop()
        assert someone.status() == 3
        assert b"the console of worker-1 is gone" in someone.screen
        assert someone.attributes() == someone.before
    finally:
        someone.close()


def test_a_restart_of_the_service_is_survived_quietly(person: Person, api: FakeApi):
    person.sees(b"login: ")
    api.stop()
    api.greeting = b"again: "
    api.start()
    person.sees(b"again: ")
    person.type(b"hello")
    person.sees(b"HELLO")
    person.type(b"\x11\x18")
    assert person.status() == 0
    assert b"error" not in person.screen


def test_a_service_that_does_not_know_its_nodes_yet_is_waited_for(person: Person, api: FakeApi):
    person.sees(b"login: ")
    api.stop()
    nodes, api.nodes, api.greeting = api.nodes, [], b"again: "
    api.start()
    assert api.node_missed.acquire(timeout=30)
    api.nodes = nodes
    person.sees(b"again: ")
    person.type(b"\x11\x18")
    assert person.status() == 0
    assert b"error" not in person.screen


def test_leaving_while_the_service_is_away(person: Person, api: FakeApi):
    person.sees(b"login: ")
    api.stop()
    person.type(b"\x11\x18")
    assert person.status() == 0
    assert person.attributes() == person.before


def test_several_people_on_one_console(person: Person, api: FakeApi):
    other = Person(ENTER)
    try:
        for someone in (person, other):
            someone.sees(b"login: ")
            someone.type(b"hello")
            someone.sees(b"HELLO")
        person.type(b"\x11\x18")
        assert person.status() == 0
        other.type(b"more")
        other.sees(b"MORE")
    finally:
        other.close()


def test_an_unknown_node_leaves_the_terminal_alone(api: FakeApi):
    person = Person([*ENTER[:-1], "worker-9"])
    try:
        assert person.status() == 4
        assert b"no /v1/nodes/worker-9/console in cluster lab" in person.screen
        assert person.attributes() == person.before
    finally:
        person.close()


def test_piped_input_is_sent_as_it_is_and_its_end_ends_nothing(api: FakeApi):
    with subprocess.Popen(ENTER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(b"one\x11\x18two\n")
        process.stdin.close()
        assert process.stdout.read(len(b"login: ONE\x11\x18TWO\n")) == b"login: ONE\x11\x18TWO\n"
        api.consoles[0].sendall(b"later")
        assert process.stdout.read(5) == b"later"
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_SECONDS) == 128 + signal.SIGTERM
        assert process.stderr.read() == b"Connected to worker-1.\n"


def test_much_output_arrives_whole(api: FakeApi):
    api.greeting = b""
    text = b"".join(b"%08d\n" % number for number in range(100_000))
    with subprocess.Popen(ENTER, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        assert api.console_opened.acquire(timeout=DEADLINE_SECONDS)
        thread = threading.Thread(target=api.consoles[0].sendall, args=(text,))
        thread.start()
        assert process.stdout.read(len(text)) == text
        thread.join()
        process.terminate()


@pytest.mark.parametrize(
    ("typed", "sent", "left"),
    [
        ([b"abc"], b"abc", False),
        ([b"\x11\x18"], b"", True),
        ([b"a\x11", b"\x18b"], b"a", True),
        ([b"\x11\x11"], b"\x11", False),
        ([b"\x11\x11\x18"], b"\x11\x18", False),
        ([b"\x11", b"x"], b"\x11x", False),
        ([b"\x18\x11"], b"\x18", False),
    ],
)
def test_escape_keys(typed: list[bytes], sent: bytes, left: bool):
    keys = EscapeKeys()
    results = [keys.feed(part) for part in typed]
    assert b"".join(part for part, _ in results) == sent
    assert results[-1][1] is left


def test_screen_remembers_the_alternate_screen_across_cuts():
    screen = Screen()
    screen.feed(b"text\x1b[?10")
    screen.feed(b"49hmore")
    assert b"\x1b[?1049l" in screen.undo()
    screen.feed(b"\x1b[?1049l")
    assert b"\x1b[?1049l" not in screen.undo()
