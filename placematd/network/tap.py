"""Taps: persistent, attached to a bridge, and open to one user only, so that QEMU needs no privilege.

Linux makes a tap when /dev/net/tun is opened and named (ioctl TUNSETIFF), not over netlink: linux/if_tun.h and
Documentation/networking/tuntap.rst.
"""

import os
import pwd
import struct
from collections.abc import Sequence
from fcntl import ioctl
from pathlib import Path

from ..errors import StepError
from ..names import OwnerMark
from ..resources import Kind, Tap
from .netlink import Netlink, attempt
from .ownership import check_link, same_owner, unfinished

TUNSETIFF = 0x400454CA
TUNSETPERSIST = 0x400454CB
TUNSETOWNER = 0x400454CC
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
IFF_MULTI_QUEUE = 0x0100
IFNAMSIZ = 16


class Taps:
    """Adapter for taps in the network namespace of the calling thread. See `adapter.Adapter`."""

    kind: Kind = "tap"

    def __init__(self, device: Path = Path("/dev/net/tun")) -> None:
        self._device = device

    def observe(self, cluster: str) -> Sequence[OwnerMark]:
        """The marks of the cluster's taps."""
        with attempt("list taps"), Netlink() as netlink:
            marks = [(link.name, link.mark) for link in netlink.links() if link.kind == "tun"]
        return [mark for name, mark in marks if mark and mark.cluster == cluster and mark.name == name]

    def create(self, resource: Tap, cluster: str) -> None:
        """Make the tap; one with our mark is made anew, since owner and queues can only be set at birth."""
        mark = resource.mark(cluster)
        owner = _user_id(resource)
        with attempt(f"create tap {resource.name} on bridge {resource.bridge}"), Netlink() as netlink:
            existing = netlink.link(resource.name)
            check_link(existing, mark)
            bridge = bridge_index(netlink, resource.bridge, f"create tap {resource.name}")
            if existing is not None:
                netlink.delete_link(existing.index)
            self._open(resource.name, owner, multi_queue=resource.queues > 1)
            link = netlink.link(resource.name)
            if link is None:
                raise StepError(f"create tap {resource.name}", "it went away while it was made")
            try:
                netlink.set_link(link.index, alias=unfinished(mark))
                netlink.set_link_local(link.index, wanted=False)
                netlink.set_link(link.index, alias=mark, mtu=resource.mtu, master=bridge, up=True)
            except BaseException:
                netlink.delete_link(link.index)
                raise

    def _open(self, name: str, owner: int, *, multi_queue: bool) -> None:
        """Make the tap and close the descriptor: a queue that stays open here would swallow the guest's packets.

        IFF_MULTI_QUEUE must be set if and only if QEMU opens more than one queue, or QEMU is refused.
        """
        flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (IFF_MULTI_QUEUE if multi_queue else 0)
        try:
            descriptor = os.open(self._device, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            hint = f"modprobe tun; in a container, pass the device {self._device}"
            raise StepError(f"open {self._device}", error.strerror or str(error), hint) from error
        try:
            ioctl(descriptor, TUNSETIFF, struct.pack(f"{IFNAMSIZ}sH22x", name.encode(), flags))
            ioctl(descriptor, TUNSETOWNER, owner)
            ioctl(descriptor, TUNSETPERSIST, 1)
        finally:
            os.close(descriptor)

    def remove(self, mark: OwnerMark) -> None:
        """Delete the tap if it carries this mark's cluster and name."""
        with attempt(f"remove tap {mark.name}"), Netlink() as netlink:
            link = netlink.link(mark.name)
            if link is not None and same_owner(link.mark, mark):
                netlink.delete_link(link.index)


def bridge_index(netlink: Netlink, name: str, step: str) -> int:
    """The index of a bridge; raises StepError, naming the step, where there is none or the link is something else."""
    link = netlink.link(name)
    if link is None:
        raise StepError(step, f"there is no bridge {name}", "declare it as a Network, or create it before the start")
    if link.kind != "bridge":
        raise StepError(step, f"{name} is no bridge but a {link.kind or 'hardware'} link", "name a bridge")
    return link.index


def _user_id(resource: Tap) -> int:
    try:
        return pwd.getpwnam(resource.user).pw_uid
    except KeyError as error:
        raise StepError(
            f"create tap {resource.name}", f"there is no user {resource.user}", "make install creates it"
        ) from error
