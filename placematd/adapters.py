"""The adapters of all kinds of resources, put together for one placematd."""

from collections.abc import Mapping
from typing import Any

from .adapter import Adapter
from .events import Events
from .facts import Settings
from .resources import Kind
from .systemd import Systemd
