"""The adapters of all kinds of resources, put together for one placematd."""

from collections.abc import Mapping
from typing import Any

from .adapter import Adapter
from .events import Events
from .facts import Settings
from .firewall import Firewalls
from .network import Bridges, Namespaces, Taps
from .passage import Passages
from .resources import Kind
from .sysctl import Sysctls
from .systemd import Systemd
from .units import Units


def make_adapters(settings: Settings, systemd: Systemd, events: Events) -> Mapping[Kind, Adapter[Any]]:
    """One adapter per kind."""
    return {
        "sysctl": Sysctls(settings.run_dir),
        "bridge": Bridges(),
        "firewall": Firewalls(),
        "passage": Passages(),
        "netns": Namespaces(),
        "tap": Taps(),
        "unit": Units(systemd),
    }
