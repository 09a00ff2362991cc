"""Keeping the way through the host's firewall open while a cluster runs.

Docker, firewalld and nftables.service load their rules anew when they start or are reloaded, and then ours among them
are gone. The kernel tells each change of nftables' rules to who listens (NFNLGRP_NFTABLES, as `nft monitor` does).
Changes made by iptables-legacy are told to nobody; a reload of the cluster finds them.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from .adapter import Adapter
from .plan import Plan
from .reconcile import Change, compare
from .resources import Kind, key_of

NETLINK_NETFILTER = 12  # linux/netlink.h
NFNLGRP_NFTABLES = 7  # linux/netfilter/nfnetlink.h
SETTLE_SECONDS = 1.0
"""From the first change to looking: a firewall is loaded in many steps."""

KINDS: tuple[Kind, ...] = ("firewall", "passage")

log = logging.getLogger("placematd")


class FirewallWatch:
    """Calls `changed` some time after rules in this network namespace were changed, by whomever, until closed."""

    def __init__(self, changed: Callable[[], Awaitable[None]], settle_seconds: float = SETTLE_SECONDS) -> None:
        self._changed = changed
        self._settle_seconds = settle_seconds
        self._socket: socket.socket | None = None
        self._waiting: asyncio.Task[None] | None = None
        self._looking: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Listen, in the running event loop. Where the kernel refuses, this is told and nothing is watched."""
        family = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        watched = socket.socket(socket.AF_NETLINK, family, NETLINK_NETFILTER)
        try:
            watched.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))
        except OSError as error:
            watched.close()
            log.warning("changes of the host's firewall will not be noticed: %s", os.strerror(error.errno or 0))
            return
        self._socket = watched
        asyncio.get_running_loop().add_reader(watched, self._told)

    def _told(self) -> None:
        """Something was changed: read it away, and look later, once for all that comes until then."""
        if self._socket is None:
            return
        try:
            while self._socket.recv(65536):
                pass
        except BlockingIOError:
            pass
        except OSError:  # ENOBUFS: more than fits, which is as good a sign
            pass
        if self._waiting is None:
            self._waiting = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        await asyncio.sleep(self._settle_seconds)
        if self._waiting is not None:
            self._looking.add(self._waiting)
            self._waiting.add_done_callback(self._looking.discard)
        self._waiting = None  # what comes from here on needs another look
        await self._changed()

    def close(self) -> None:
        """Listen no more; a look that has begun comes to its end."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


def mend(plan: Plan, adapters: Mapping[Kind, Adapter[Any]]) -> list[Change]:
    """Make the rules on the host those of the plan; returns what that changed. Raises StepError."""
    resources = tuple(resource for resource in plan.resources if resource.kind in KINDS)
    marks = {key_of(mark): mark for kind in KINDS for mark in adapters[kind].observe(plan.cluster)}
    changes = compare(Plan(cluster=plan.cluster, resources=resources), marks.values())
    if not changes.remove and not changes.create:
        return []
    for change in changes.remove:
        adapters[change.key.kind].remove(marks[change.key])
    for change in changes.create:
        adapters[change.key.kind].create(change.resource, plan.cluster)
    there = {key_of(mark) for kind in KINDS for mark in adapters[kind].observe(plan.cluster)}
    return [
        change
        for change in (*changes.remove, *changes.create)
        if (change.key in there) == (change.resource is not None)
    ]
