"""Asks the monitor of a QEMU something as soon as its owner lets go of it: `monitor.py SOCKET COMMAND`.

A monitor has one client at a time, and the next one in line is connected when that one ends. Prints "waiting" once it
is in line, then the answer as JSON.
"""

import json
import socket
import sys


def main() -> None:
    """Be the next client, ask, leave."""
    path, command = sys.argv[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(60)
        connection.connect(path)
        print("waiting", flush=True)
        with connection.makefile("rw") as monitor:
            monitor.readline()
            for request in ("qmp_capabilities", command):
                monitor.write(json.dumps({"execute": request, "id": request}) + "\n")
                monitor.flush()
                while (answer := json.loads(monitor.readline())).get("id") != request:
                    pass
    print(json.dumps(answer["return"]))


if __name__ == "__main__":
    main()
