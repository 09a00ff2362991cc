"""`placemat-cli sandbox`: a private systemd and network, for machines without systemd and for tests.

Four kinds of process: the command that wants a sandbox (`session`), the supervisor that makes and removes it
(`supervisor`), the sandbox's process 1 (`init`, then systemd), and one for each command that runs inside (`enter`).
"""

from .checks import Missing, NotReady
from .registry import Running
from .session import Entrance, Sandbox, join

__all__ = ["Entrance", "Missing", "NotReady", "Running", "Sandbox", "join"]
