"""Kernel parameters of a real network namespace."""

import pytest

from placematd.errors import StepError
from placematd.resources import Sysctl
from placematd.sysctl import Sysctls

pytestmark = pytest.mark.integration

FORWARDING = (
    Sysctl(name="net.ipv4.ip_forward", value="1"),
    Sysctl(name="net.ipv6.conf.all.forwarding", value="1"),
)


def test_forwarding_is_switched_on_and_restored(private_net):
    before = [private_net.sysctl(resource.name) for resource in FORWARDING]
    assert before == ["0", "0"]
    for resource in FORWARDING:
        Sysctls().create(resource, "c")
        assert private_net.sysctl(resource.name) == "1"
    assert set(Sysctls().observe("c")) == {resource.mark("c") for resource in FORWARDING}
    for resource in FORWARDING:
        Sysctls().remove(resource.mark("c"))
    assert [private_net.sysctl(resource.name) for resource in FORWARDING] == before


def test_value_that_the_kernel_refuses_leaves_no_record(private_net):
    with pytest.raises(StepError, match=r"net\.ipv4\.ip_forward = yes: Invalid argument \(the kernel does not take"):
        Sysctls().create(Sysctl(name="net.ipv4.ip_forward", value="yes"), "c")
    assert Sysctls().observe("c") == []


def test_read_only_proc_sys_is_explained(private_net):
    """As in a container without privileges."""
    private_net.sh("mount", "-o", "bind,ro", "/proc/sys", "/proc/sys")
    with pytest.raises(StepError, match=r"Read-only file system \(/proc/sys is read-only here: run the container"):
        Sysctls().create(FORWARDING[0], "c")
    assert Sysctls().observe("c") == []
    Sysctls().create(Sysctl(name="net.ipv4.ip_forward", value="0"), "c")  # right already
