"""packaging/migration.md and packaging/placemat.conf.example name what there is."""

import inspect
import re
from pathlib import Path

import pytest
from placemat_cli.__main__ import app
from placemat_cli.clusters import Places
from typer.main import get_command

from placematd.facts import Settings

PACKAGING = Path(__file__).parents[2] / "packaging"
PAGE = (PACKAGING / "migration.md").read_text()
VARIABLE = re.compile(r"PLACEMAT_[A-Z_]+")
SETTINGS = set(VARIABLE.findall(inspect.getsource(Settings.from_environment)))


def test_every_setting_has_a_line_of_the_example() -> None:
    example = (PACKAGING / "placemat.conf.example").read_text()
    assert set(re.findall(r"^#(PLACEMAT_[A-Z_]+)=", example, re.MULTILINE)) == SETTINGS - {"PLACEMAT_RUN_DIR"}


def test_the_page_names_settings_that_exist() -> None:
    assert set(VARIABLE.findall(PAGE)) == SETTINGS | {"PLACEMAT_CLUSTER"}
    assert "PLACEMAT_RUN_DIR" in inspect.getsource(Places)


@pytest.mark.parametrize("words", sorted(set(re.findall(r"placemat-cli ((?:[a-z]+ ?)+)", PAGE))))
def test_the_page_names_commands_that_exist(words: str) -> None:
    command = get_command(app)
    for word in words.split():
        commands = getattr(command, "commands", None)
        if commands is None:
            return  # the rest are arguments
        assert word in commands
        command = commands[word]


@pytest.mark.parametrize("line", re.findall(r"^\| `((?:node|forward) [^`]*)`", PAGE, re.MULTILINE))
def test_v2s_commands_exist_still(line: str) -> None:
    words = re.findall(r"(?<![-\w])[a-z]+(?!\w)", line.replace("\\|", " "))
    command = get_command(app)
    for word in words:
        commands = getattr(command, "commands", {})
        assert not commands or word in commands
        command = commands.get(word, command)
