"""The adapters of all kinds of resources, put together for one placematd."""

import threading
from collections.abc import Mapping
from typing import Any

from .adapter import Adapter
from .events import Events
from .facts import Settings
from .firewall import Firewalls
from .image import Images, Surroundings
from .network import Bridges, Namespaces, Taps
from .passage import Passages
from .resources import Kind
from .sysctl import Sysctls
from .systemd import Systemd
from .units import Units
from .volume import Volumes


def make_adapters(
    settings: Settings, systemd: Systemd, events: Events, cancelled: threading.Event
) -> Mapping[Kind, Adapter[Any]]:
    """One adapter per kind; setting `cancelled` ends downloads and the wait for units, and lets no more begin."""

    def progress(item: str, done: int, total: int | None) -> None:
        percent = f" {100 * done // total} %" if total else f" {done >> 20} MiB"
        events.publish_threadsafe("progress", f"{item}:{percent}", item=item, done=done, total=total)

    def warn(message: str) -> None:
        events.publish_threadsafe("warning", message)

    return {
        "image": Images(settings.cache_dir, Surroundings(progress=progress, warn=warn, cancelled=cancelled)),
        "volume": Volumes(settings.data_dir, progress=progress, warn=warn),
        "sysctl": Sysctls(settings.run_dir),
        "bridge": Bridges(),
        "firewall": Firewalls(),
        "passage": Passages(),
        "netns": Namespaces(run_dir=settings.run_dir),
        "tap": Taps(),
        "unit": Units(systemd, cancelled),
    }
