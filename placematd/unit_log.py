"""What a unit said last, for the message that tells of its failure."""

import json

from .errors import StepError
from .run import run

JOURNAL_SECONDS = 5.0
LINES = 5


def last_lines(unit: str) -> list[str]:
    """The last lines of a unit's processes in its latest run, or systemd's own about it where they said nothing; empty
    without journal.

    `journalctl -u` would miss what systemd says between fork and exec ("Failed to locate executable"): journald sees it
    come from a process that is gone, and so knows no unit of it.
    """
    matches = [f"_SYSTEMD_UNIT={unit}", "+", f"UNIT={unit}"]
    options = [
        "--lines=20",
        "--output=json",
        "--output-fields=MESSAGE,_PID,INVOCATION_ID,_SYSTEMD_INVOCATION_ID",
        "--no-pager",
    ]
    try:
        run(["journalctl", "--sync"], timeout_seconds=JOURNAL_SECONDS)
        output = run(["journalctl", *options, *matches], timeout_seconds=JOURNAL_SECONDS)
    except StepError:  # the journal only explains an error, which stands without it
        return []
    entries = [entry for entry in map(json.loads, output.splitlines()) if isinstance(entry.get("MESSAGE"), str)]
    runs = [entry.get("INVOCATION_ID") or entry.get("_SYSTEMD_INVOCATION_ID") for entry in entries]
    entries = [entry for entry, its_run in zip(entries, runs, strict=True) if its_run in (None, runs[-1])]
    own = [entry["MESSAGE"] for entry in entries if entry.get("_PID") != "1"]
    return (own or [entry["MESSAGE"] for entry in entries])[-LINES:]
