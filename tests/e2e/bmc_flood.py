"""What strangers send to a BMC, to be run in a sandbox: `python bmc_flood.py MODE SECONDS RATE SEED TARGET [SOURCE]`.

The packets are those of the fuzzing tests, which know what killed other BMCs; here they go to the BMC of a real node,
as many a second as RATE says, 0 for as many as can be. Prints what was sent and answered as a JSON object.
$PYTHONPATH has to have `PATHS` of `test_bmc_flood`.
"""

import json
import random
import selectors
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from ipmi_peer import Peer
from test_ipmi_fuzz import mutated, seeds

PORTS = 16
BURST_SECONDS = 0.01
SECONDS_TO_ANSWER = 10.0
FRESH_PACKETS = 20_000
"""After so many, packets are made anew: of a handshake that is still in the table."""

HEAD = b"POST /redfish/v1/SessionService/Sessions HTTP/1.1\r\nHost: x\r\n"
LOGIN = b'{"UserName": "admin", "Password": "wrong"}'
REQUESTS = [
    b"GET /redfish/v1/ HTTP/1.1\r\nHost: x\r\n\r\n",
    HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(LOGIN), LOGIN),
    HEAD + b"Content-Length: 99999999999\r\n\r\n{",
    HEAD + b"Content-Length: -1\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffff\r\nx\r\n",
    HEAD + b"Content-Length: 60000\r\n\r\n" + b"[" * 60000,
    b"GET /" + b"%2e%2e/" * 2000 + b" HTTP/1.1\r\n\r\n",
    b"GET /redfish/v1/Systems?$expand=*($levels=9999999) HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /redfish/v1/Systems/System.Embedded.1 HTTP/1.1\r\nHost: x\r\nX-Auth-Token: " + b"\xff" * 500 + b"\r\n\r\n",
    b"GET /redfish/v1/Systems HTTP/1.1\r\nHost: x\r\nAuthorization: Basic " + b"A" * 9000 + b"\r\n\r\n",
    b"DELETE /redfish/v1/AccountService/Accounts/2 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x00" * 20000,
]


class Remote:
    """The BMC as `Peer` sees it, through a socket."""

    def __init__(self, target: str, source: str) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((source, 0))
        self._socket.connect((target, 623))
        self._socket.settimeout(1.0)

    def send(self, datagram: bytes, address: tuple[str, int]) -> list[bytes]:
        """The answer; sent again where it is lost in the flood."""
        deadline = time.monotonic() + SECONDS_TO_ANSWER
        while time.monotonic() < deadline:
            self._socket.send(datagram)
            with suppress(TimeoutError):
                return [self._socket.recv(2048)]
        return []


def packets(seconds: float, rate: int, chance: random.Random, target: str, source: str) -> dict[str, Any]:
    """Mutated packets of all kinds, many of a session that is open, from some ports of a host."""
    peer = Peer(Remote(target, source), user="admin")  # type: ignore[arg-type]
    assert peer.log_in() == 0
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(PORTS)]
    sent = answers = 0
    with selectors.DefaultSelector() as selector:
        for sender in sockets:
            sender.bind((source, 0))
            sender.connect((target, 623))
            sender.setblocking(False)
            selector.register(sender, selectors.EVENT_READ)
        began = time.monotonic()
        while (now := time.monotonic()) < began + seconds:
            if sent % FRESH_PACKETS == 0:
                kinds = seeds(peer)
            due = FRESH_PACKETS if not rate else int((now - began) * rate) - sent
            for _ in range(min(due, FRESH_PACKETS - sent % FRESH_PACKETS, 500)):
                with suppress(BlockingIOError):
                    chance.choice(sockets).send(mutated(kinds[sent % len(kinds)], chance))
                sent += 1
            answers += sum(drain(key.fileobj) for key, _ in selector.select(BURST_SECONDS if rate else 0))
    return {"sent": sent, "answers": answers, "took": time.monotonic() - began}


def drain(sender: Any) -> int:
    """How many datagrams were waiting."""
    count = 0
    with suppress(BlockingIOError):
        while sender.recv(2048):
            count += 1
    return count


def web(seconds: float, rate: int, chance: random.Random, target: str, source: str) -> dict[str, Any]:
    """What is no TLS, TLS that breaks off, and requests over TLS that are wrong, one connection after the other."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    sent = answers = 0
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        sent += 1
        with suppress(OSError), socket.create_connection((target, 443), 5, (source, 0)) as line:
            if sent % 4 == 0:
                line.sendall(chance.randbytes(chance.randrange(1, 3000)))
                continue
            if sent % 4 == 1:
                line.sendall(mutated(hello(context), chance))
                if chance.randrange(2):  # reset by the client
                    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                continue
            with context.wrap_socket(line) as tls:
                request = chance.choice(REQUESTS)
                tls.sendall(request if chance.randrange(2) else mutated(request, chance))
                tls.settimeout(0.2)
                answers += bool(tls.recv(100))
    return {"sent": sent, "answers": answers, "took": time.monotonic() - began}


def hello(context: ssl.SSLContext) -> bytes:
    """The first record of a client."""
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing)
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def machine(seconds: float, rate: int, chance: random.Random, target: str, source: str) -> dict[str, Any]:
    """Nonsense to placematd from the process of a BMC that somebody took over; `target` is the machine's socket."""
    sent = answers = 0
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as line:
            line.connect(target)
            line.settimeout(0.05)
            for call in calls(chance):
                line.sendall(call)
                sent += 1
            answers += bool(line.recv(100))
    return {"sent": sent, "answers": answers, "took": time.monotonic() - began}


def calls(chance: random.Random) -> Iterator[bytes]:
    """What may follow each other on a connection. No mutation makes an order of a question."""
    names = ("GetPowerState", "Load", "GetSel", "Inventory", "Events", "Limits", "Console")
    for _ in range(chance.randrange(1, 20)):
        parameters = {"section": "accounts"} if chance.randrange(2) else {}
        call = {"method": f"io.placemat.Machine.{chance.choice(names)}", "parameters": parameters}
        call |= chance.choice(({}, {"more": True}, {"oneway": True}, {"upgrade": True}))
        text = json.dumps(call).encode()
        yield (text if chance.randrange(2) else mutated(text, chance)) + b"\0"
    yield chance.choice((b"", b"[" * 100_000 + b"\0", b"{" * 100_000, chance.randbytes(5000), b"x" * (2 << 20)))


MODES: dict[str, Callable[..., dict[str, Any]]] = {"packets": packets, "web": web, "machine": machine}


def main() -> None:
    """See the module."""
    mode, seconds, rate, seed, target, *source = sys.argv[1:]
    print(json.dumps(MODES[mode](float(seconds), int(rate), random.Random(seed), target, *(source or [""]))))


if __name__ == "__main__":
    main()
