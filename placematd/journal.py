"""Log records to the journal with fields of their own, so that `journalctl PLACEMAT_NODE=worker-1` finds them.

Speaks journald's native protocol (systemd.journal-fields(7), https://systemd.io/JOURNAL_NATIVE_PROTOCOL): one datagram
per record. python-systemd would do the same, but has to be compiled where Debian does not bring it.
"""

import logging
import socket
import struct
import sys
from collections.abc import Mapping
from pathlib import Path

SOCKET = Path("/run/systemd/journal/socket")

# logging level -> syslog priority (syslog(3))
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def encode(fields: Mapping[str, str]) -> bytes:
    """One datagram: FIELD=value lines; a value with a newline is written as name, 64-bit length and bytes."""
    parts = []
    for name, value in fields.items():
        data = value.encode(errors="replace")
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)


class JournalHandler(logging.Handler):
    """Sends records to journald; `extra={"fields": {...}}` of a logging call adds fields."""

    def __init__(self, identifier: str, fields: Mapping[str, str], path: Path = SOCKET) -> None:
        super().__init__()
        self._fields = {"SYSLOG_IDENTIFIER": identifier, **fields}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._path = str(path)

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; what journald does not take goes to stderr, since a lost log line helps nobody."""
        message = self.format(record)
        extra: Mapping[str, str] = getattr(record, "fields", {})
        priority = str(PRIORITIES.get(record.levelno, 6))
        datagram = encode({"MESSAGE": message, "PRIORITY": priority, **self._fields, **extra})
        try:
            self._socket.sendto(datagram, self._path)
        except OSError:
            sys.stderr.write(message + "\n")

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()


def configure(cluster: str) -> None:
    """Make the root logger write to the journal, or to stderr where there is none."""
    fields = {"PLACEMAT_CLUSTER": cluster}
    handler = JournalHandler("placematd", fields) if SOCKET.exists() else logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
