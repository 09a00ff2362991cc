import logging
import socket
import struct
from pathlib import Path

from placematd.journal import JournalHandler, encode


def test_a_value_of_one_line_is_field_equals_value() -> None:
    assert encode({"MESSAGE": "hello", "PRIORITY": "6"}) == b"MESSAGE=hello\nPRIORITY=6\n"


def test_a_value_with_a_newline_carries_its_length() -> None:
    assert encode({"MESSAGE": "a\nb"}) == b"MESSAGE\n" + struct.pack("<Q", 3) + b"a\nb\n"


def test_a_record_reaches_the_journal_with_its_fields(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        journal.settimeout(30)
        logger = logging.Logger("test")
        handler = JournalHandler("placematd", {"PLACEMAT_CLUSTER": "lab"}, tmp_path / "journal")
        logger.addHandler(handler)
        logger.warning("power %s", "Off", extra={"fields": {"PLACEMAT_NODE": "worker-1"}})
        lines = journal.recv(4096).decode().splitlines()
        handler.close()
    assert set(lines) == {
        "MESSAGE=power Off",
        "PRIORITY=4",
        "SYSLOG_IDENTIFIER=placematd",
        "PLACEMAT_CLUSTER=lab",
        "PLACEMAT_NODE=worker-1",
    }


def test_what_the_journal_does_not_take_goes_to_stderr(tmp_path: Path, capsys: object) -> None:
    handler = JournalHandler("placematd", {}, tmp_path / "nobody-listens")
    handler.emit(logging.makeLogRecord({"msg": "lost?", "levelno": logging.ERROR}))
    handler.close()
    assert capsys.readouterr().err == "lost?\n"  # type: ignore[attr-defined]
