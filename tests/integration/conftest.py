"""A network of its own for each test: the machine's is never touched.

The fixture `private_net` moves the test process into new network and mount namespaces, with an empty /run, and back.
It needs root, or `unshare --user --map-root-user --net --mount` around pytest. Witnesses are ip(8), nft(8) and ping(8),
not our own code.
"""

import ctypes
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CLONE_FS, CLONE_NEWNS, CLONE_NEWNET = 0x00000200, 0x00020000, 0x40000000  # linux/sched.h
MS_PRIVATE, MS_REC = 0x40000, 0x4000  # sys/mount.h
HOST_NETWORK = Path("/proc/self/ns/net").stat().st_ino

NAMESPACES = {"net": CLONE_NEWNET, "mnt": CLONE_NEWNS}

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


class Net:
    """What the independent witnesses see in the test's network namespace."""

    def sh(self, *argv: str, input: str | None = None) -> str:
        """Output of a program that must succeed."""
        done = subprocess.run(argv, input=input, text=True, capture_output=True, timeout=60)
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout

    def ip(self, *arguments: str, netns: str = "") -> Any:
        """`ip -json -details ...`, decoded."""
        inside = ("-netns", netns) if netns else ()
        return json.loads(self.sh("ip", *inside, "-json", "-details", *arguments) or "[]")

    def link(self, name: str, netns: str = "") -> Any:
        return self.ip("link", "show", "dev", name, netns=netns)[0]

    def links(self) -> set[str]:
        return {link["ifname"] for link in self.ip("link")}

    def addresses(self, name: str, netns: str = "") -> list[str]:
        """ADDRESS/PREFIX of a link, link-local ones left out."""
        info = self.ip("address", "show", "dev", name, netns=netns)[0]["addr_info"]
        return [f"{item['local']}/{item['prefixlen']}" for item in info if item["scope"] != "link"]

    def everything(self) -> Any:
        """Links and addresses, without what changes by itself (timers, carrier)."""
        keys = ("ifindex", "ifname", "address", "mtu", "ifalias", "master")
        return [({key: link.get(key) for key in keys}, self.addresses(link["ifname"])) for link in self.ip("address")]

    def namespaces(self) -> set[str]:
        return {item["name"] for item in self.ip("netns", "list")}

    def ping(self, netns: str, address: str) -> bool:
        argv = ["ip", "netns", "exec", netns, "ping", "-n", "-c1", "-W3", address]
        return subprocess.run(argv, capture_output=True, timeout=60).returncode == 0

    def sysctl(self, name: str, netns: str = "") -> str:
        inside = ("ip", "netns", "exec", netns) if netns else ()
        return self.sh(*inside, "sysctl", "-n", name).strip()


@pytest.fixture
def private_net() -> Iterator[Net]:
    """New network and mount namespaces with an empty /run, for one test."""
    here = os.getcwd()  # noqa: PTH109
    before = [(os.open(f"/proc/self/ns/{kind}", os.O_RDONLY), flag) for kind, flag in NAMESPACES.items()]
    try:
        if any(libc.setns(descriptor, flag) for descriptor, flag in before):  # no way back, so no way in
            pytest.skip("needs root, or: unshare --user --map-root-user --net --mount pytest ...")
        check(libc.unshare(CLONE_NEWNET | CLONE_NEWNS), "unshare the network and mount namespaces")
        try:
            check(libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None), "make mounts private")
            check(libc.mount(b"tmpfs", b"/run", b"tmpfs", ctypes.c_ulong(0), b"mode=755"), "mount /run")
            assert Path("/proc/self/ns/net").stat().st_ino != HOST_NETWORK
            yield Net()
        finally:
            libc.unshare(CLONE_FS)  # a thread that is just ending still shares it, and setns(2) then refuses
            for descriptor, flag in before:
                check(libc.setns(descriptor, flag), "return to the namespace that pytest was started in")
            os.chdir(here)
    finally:
        for descriptor, _ in before:
            os.close(descriptor)
    assert Path("/proc/self/ns/net").stat().st_ino == HOST_NETWORK
