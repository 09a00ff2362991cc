"""Settings files of a cluster (NAME.conf), which systemd reads as EnvironmentFile= (systemd.exec(5))."""

import re
from collections.abc import Mapping
from pathlib import Path

from .errors import BadUsage

_ASSIGNMENT = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)=(.*)")


def parse(text: str) -> dict[str, str]:
    """The assignments of a file, one a line, with systemd's quotes; comments and other lines are skipped."""
    matches = (_ASSIGNMENT.fullmatch(line) for line in text.splitlines())
    return {match[1]: _unquote(match[2].strip()) for match in matches if match}


def _unquote(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == "'":
        return value[1:-1]
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r'\\(["\\`$])', r"\1", value[1:-1])
    return re.sub(r"\\(.)", r"\1", value)


def read(path: Path) -> dict[str, str]:
    """The assignments of a file that may be missing. Raises BadUsage where it cannot be read."""
    try:
        return parse(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise BadUsage(f"read {path}: {error}") from error


def render(settings: Mapping[str, str]) -> str:
    """The text of a file. Raises BadUsage on a value with a line break, which no such file can hold."""
    for name, value in settings.items():
        if "\n" in value:
            raise BadUsage(f"{name}={value!r}: a line break cannot stand in a settings file")
    return "".join(f'{name}="{_escape(value)}"\n' for name, value in settings.items())


def _escape(value: str) -> str:
    return re.sub(r'(["\\`$])', r"\\\1", value)
