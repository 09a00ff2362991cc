"""Bridges, network namespaces and taps over netlink: the only package that knows pyroute2.

Every link we make carries its mark as ifalias. A link without our cluster's mark is never changed and never deleted.
"""

from .bridge import Bridges
from .namespace import Namespaces
from .netlink import Link, Netlink, attempt
from .tap import Taps

__all__ = ["Bridges", "Link", "Namespaces", "Netlink", "Taps", "attempt"]
