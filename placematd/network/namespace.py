"""Network namespaces with their veth pairs, made whole before they get a name.

A thread of its own unshares, fills the new namespace and last binds it to /run/netns/NAME. So a name that exists stands
for a complete namespace; where a step fails, or placematd dies, the thread ends and the kernel takes everything back.
No thread that does anything else ever leaves the host's namespace.
"""

import threading
from collections.abc import Sequence
from pathlib import Path

from ..errors import StepError
from ..names import OwnerMark, namespace_sysfs
from ..resources import Kind, Netns, Veth
from ..sysctl import read_sysctl, write_sysctl
from . import nsfs
from .netlink import LOOPBACK, Link, Netlink, attempt
from .ownership import check_link, not_ours, same_owner, unfinished
from .tap import bridge_index

OWN_SYSCTLS = (("net.ipv6.conf.default.accept_dad", "0"),)
"""Set before the resource's: MACs are derived and so unique, and a daemon that binds to a link-local address at its
start would fail for the second or two that duplicate address detection takes."""


class Namespaces:
    """Adapter for named network namespaces. See `adapter.Adapter`; `directory` is ip-netns(8)'s.

    The sysfs of each is mounted below `run_dir`, for the units that run in it (names.namespace_sysfs).
    """

    kind: Kind = "netns"

    def __init__(
        self,
        directory: Path = nsfs.DIRECTORY,
        proc_sys: Path = Path("/proc/sys"),
        run_dir: Path = Path("/run/placemat"),
    ) -> None:
        self._directory = directory
        self._run_dir = run_dir
        self._proc_sys = proc_sys

    # -- observe

    def observe(self, cluster: str) -> Sequence[OwnerMark]:
        """The marks on lo of all named namespaces.

        Outer veth ends whose namespace has lost its name (`ip netns delete` while something runs in it) count as well,
        with a digest that is never up to date.
        """
        with attempt("list network namespaces"):
            named = {name: self._mark_of(name) for name in nsfs.names(self._directory)}
        found = {name: mark for name, mark in named.items() if mark and mark.cluster == cluster and mark.name == name}
        with attempt("list veth pairs"), Netlink() as netlink:
            ends = [link.mark for link in netlink.links() if link.kind == "veth"]
        stray = [mark for mark in ends if mark and mark.cluster == cluster and mark.kind == self.kind]
        return [*found.values(), *dict.fromkeys(unfinished(mark) for mark in stray if mark.name not in found)]

    def _mark_of(self, name: str) -> OwnerMark | None:
        def look() -> OwnerMark | None:
            with Netlink() as netlink:
                link = netlink.link_at(LOOPBACK)
                return link.mark if link else None

        try:
            return nsfs.inside(self._directory / name, look)
        except FileNotFoundError:
            return None  # deleted since we listed it

    # -- create

    def create(self, resource: Netns, cluster: str) -> None:
        """Make the namespace; one with our mark is made anew, since nobody knows what ran in it."""
        mark = resource.mark(cluster)
        path = self._directory / resource.name
        with attempt(f"create network namespace {resource.name}"):
            if nsfs.is_namespace(path):
                found = self._mark_of(resource.name)
                if not same_owner(found, mark):
                    hint = f"choose another name, or remove it: ip netns delete {resource.name}"
                    raise not_ours(mark, f"a network namespace named {resource.name}", found, hint)
                self.remove(mark)
            nsfs.in_thread(lambda: self._build(resource, mark))

    def _build(self, resource: Netns, mark: OwnerMark) -> None:
        """Runs in a thread that ends with it."""
        with Netlink() as host:
            bridges = [_check_veth(host, resource, veth, mark) for veth in resource.interfaces]
            nsfs.unshare()
            outer_ends: list[int] = []
            sysfs = namespace_sysfs(self._run_dir, resource.name)
            try:
                with Netlink() as inside:
                    self._fill(host, inside, resource, mark, bridges, outer_ends)
                nsfs.mount_sysfs(sysfs)
                nsfs.give_name(self._directory, resource.name)
            except BaseException:
                nsfs.unmount_sysfs(sysfs)
                for index in outer_ends:  # the kernel would do it too, but some time later
                    host.delete_link(index)
                raise

    def _fill(
        self,
        host: Netlink,
        inside: Netlink,
        resource: Netns,
        mark: OwnerMark,
        bridges: Sequence[int],
        outer_ends: list[int],
    ) -> None:
        inside.set_link(LOOPBACK, alias=mark, up=True)
        later = self._set_sysctls((*OWN_SYSCTLS, *resource.sysctls))
        for veth, bridge in zip(resource.interfaces, bridges, strict=True):
            with attempt(f"create interface {veth.inside} of namespace {resource.name} on bridge {veth.bridge}"):
                index = host.add_veth(veth.outside, veth.inside, veth.mac, threading.get_native_id())
                outer_ends.append(index)
                host.set_link(index, alias=mark, mtu=veth.mtu)
                host.set_link_local(index, wanted=False)
                host.set_link(index, master=bridge, up=True)
                self._configure_inside(inside, veth)
        for name, value in later:
            write_sysctl(name, value, self._proc_sys)
        for to, via in resource.routes:
            with attempt(f"add route to {to} via {via} in namespace {resource.name}"):
                inside.add_route(to, via)

    def _set_sysctls(self, sysctls: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Set what exists before there are interfaces, so that `conf.default` applies to these; returns the rest."""
        later = []
        for name, value in sysctls:
            if read_sysctl(name, self._proc_sys) is None:
                later.append((name, value))
            else:
                write_sysctl(name, value, self._proc_sys)
        return later

    def _configure_inside(self, inside: Netlink, veth: Veth) -> None:
        link = inside.link(veth.inside)
        if link is None:
            raise StepError(f"create interface {veth.inside}", "it went away while it was made")
        inside.set_link(link.index, mtu=veth.mtu, up=True)
        for address in veth.addresses:
            with attempt(f"add address {address} to {veth.inside}"):
                inside.add_address(link.index, address)

    # -- remove

    def remove(self, mark: OwnerMark) -> None:
        """Delete the veth pairs and take the name away, if lo carries this mark's cluster and name.

        The namespace itself lives on as long as a process is in it, without a name and without a way out.
        """
        path = self._directory / mark.name
        with attempt(f"remove network namespace {mark.name}"):
            named = nsfs.is_namespace(path)
            ours = named and same_owner(self._mark_of(mark.name), mark)
            if ours:
                nsfs.inside(path, _delete_veths)
                nsfs.take_name(self._directory, mark.name)
            if ours or not named:
                nsfs.unmount_sysfs(namespace_sysfs(self._run_dir, mark.name))
            if ours:
                return
            with Netlink() as host:
                for link in host.links():
                    if link.kind == "veth" and same_owner(link.mark, mark):
                        host.delete_link(link.index)


def _check_veth(host: Netlink, resource: Netns, veth: Veth, mark: OwnerMark) -> int:
    """The index of the veth's bridge. A leftover of our own in the veth's place is deleted."""
    existing: Link | None = host.link(veth.outside)
    check_link(existing, mark)
    bridge = bridge_index(host, veth.bridge, f"create interface {veth.inside} of namespace {resource.name}")
    if existing is not None:
        host.delete_link(existing.index)
    return bridge


def _delete_veths() -> None:
    """Deleting one end deletes the other, at once; the kernel's own clean-up of a namespace comes some time later."""
    with Netlink() as inside:
        for link in inside.links():
            if link.kind == "veth":
                inside.delete_link(link.index)
