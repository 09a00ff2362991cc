"""Kernel parameters of the host: recorded, shared by clusters, restored. /proc/sys is a directory of files."""

import threading

import pytest

from placematd.errors import NotOurs, StepError
from placematd.resources import Sysctl
from placematd.sysctl import Sysctls, read_sysctl, sysctl_path, write_sysctl

FORWARD = "net.ipv4.ip_forward"


@pytest.fixture
def proc_sys(tmp_path):
    root = tmp_path / "proc-sys"
    (root / "net/ipv4/conf/eth0.5").mkdir(parents=True)
    (root / "net/ipv4/ip_forward").write_text("0\n")
    (root / "net/ipv4/tcp_rmem").write_text("4096\t131072\t6291456\n")
    (root / "net/ipv4/conf/eth0.5/rp_filter").write_text("2\n")
    return root


@pytest.fixture
def run_dir(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def sysctls(run_dir, proc_sys):
    return Sysctls(run_dir, proc_sys)


def sysctl(value="1", name=FORWARD):
    return Sysctl(name=name, value=value)


def value(proc_sys, name=FORWARD):
    return read_sysctl(name, proc_sys)


# -- names and values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.5/rp_filter", "net/ipv4/conf/eth0.5/rp_filter"),
        ("net.ipv4.conf.eth0/5.rp_filter", "net/ipv4/conf/eth0.5/rp_filter"),
        ("/net/ipv4/ip_forward", "net/ipv4/ip_forward"),
    ],
)
def test_first_separator_decides(proc_sys, name, path):
    assert sysctl_path(name, proc_sys) == proc_sys / path


@pytest.mark.parametrize("name", ["", "/", "net/../../etc/passwd", "/../etc", "net.//.x"])
def test_names_that_lead_out_of_proc_sys_are_refused(proc_sys, name):
    with pytest.raises(StepError, match="not the name of a kernel parameter"):
        sysctl_path(name, proc_sys)


def test_value_is_read_without_its_tabs(proc_sys):
    assert read_sysctl("net.ipv4.tcp_rmem", proc_sys) == "4096 131072 6291456"
    assert read_sysctl("net.ipv4.none", proc_sys) is None


def test_value_that_is_there_is_not_written(proc_sys):
    """In a container /proc/sys is read-only, and often right already."""
    file = proc_sys / "net/ipv4/tcp_rmem"
    before = file.stat().st_mtime_ns
    write_sysctl("net.ipv4.tcp_rmem", "4096 131072  6291456", proc_sys)
    assert file.stat().st_mtime_ns == before


def test_without_ipv6_its_parameters_are_skipped(proc_sys):
    """Spec section 10 C3: a host without IPv6 works."""
    write_sysctl("net.ipv6.conf.all.forwarding", "1", proc_sys)
    assert not (proc_sys / "net/ipv6").exists()


# -- the contract of every adapter ------------------------------------------------------------------------------------


def test_set_observed_and_restored(sysctls, proc_sys, run_dir):
    assert list(sysctls.observe("c")) == []
    sysctls.create(sysctl(), "c")
    assert value(proc_sys) == "1"
    assert list(sysctls.observe("c")) == [sysctl().mark("c")]
    assert list(sysctls.observe("d")) == []
    sysctls.create(sysctl(), "c")
    sysctls.remove(sysctl().mark("c"))
    assert value(proc_sys) == "0"
    assert list(sysctls.observe("c")) == []
    assert list((run_dir / "sysctl").iterdir()) == []
    sysctls.remove(sysctl().mark("c"))


def test_value_that_was_right_before_stays(sysctls, proc_sys):
    (proc_sys / "net/ipv4/ip_forward").write_text("1\n")
    sysctls.create(sysctl(), "c")
    sysctls.remove(sysctl().mark("c"))
    assert value(proc_sys) == "1"


def test_last_of_two_clusters_restores(run_dir, proc_sys):
    first, second = Sysctls(run_dir, proc_sys), Sysctls(run_dir, proc_sys)
    first.create(sysctl(), "c")
    second.create(sysctl(), "d")
    first.remove(sysctl().mark("c"))
    assert value(proc_sys) == "1"
    assert list(second.observe("d")) == [sysctl().mark("d")]
    second.remove(sysctl().mark("d"))
    assert value(proc_sys) == "0"


def test_clusters_that_need_different_values_are_told(sysctls, proc_sys):
    sysctls.create(sysctl("1"), "c")
    with pytest.raises(NotOurs, match=r"set sysctl net\.ipv4\.ip_forward = 2: placemat cluster c needs 1"):
        sysctls.create(sysctl("2"), "d")
    assert list(sysctls.observe("d")) == []
    sysctls.remove(sysctl("2").mark("d"))
    assert value(proc_sys) == "1"


def test_only_holder_may_change_its_value_and_the_original_stays(sysctls, proc_sys):
    sysctls.create(sysctl("1"), "c")
    sysctls.create(sysctl("2"), "c")
    assert value(proc_sys) == "2"
    assert list(sysctls.observe("c")) == [sysctl("2").mark("c")]
    sysctls.remove(sysctl("2").mark("c"))
    assert value(proc_sys) == "0"


def test_name_with_slashes(sysctls, proc_sys):
    name = "net/ipv4/conf/eth0.5/rp_filter"
    sysctls.create(sysctl("0", name), "c")
    assert value(proc_sys, name) == "0"
    assert list(sysctls.observe("c")) == [sysctl("0", name).mark("c")]
    sysctls.remove(sysctl("0", name).mark("c"))
    assert value(proc_sys, name) == "2"


def test_parameter_the_kernel_lacks_leaves_no_record(sysctls, run_dir, proc_sys):
    (proc_sys / "net/ipv6").mkdir()
    with pytest.raises(StepError, match=r"set sysctl net\.ipv4\.none\.x = 1: No such file .*misspelt"):
        sysctls.create(sysctl(name="net.ipv4.none.x"), "c")
    assert list((run_dir / "sysctl").iterdir()) == []


def test_host_without_ipv6_is_not_asked_again_and_again(sysctls):
    resource = sysctl(name="net.ipv6.conf.all.forwarding")
    sysctls.create(resource, "c")
    assert list(sysctls.observe("c")) == [resource.mark("c")]
    sysctls.remove(resource.mark("c"))
    assert list(sysctls.observe("c")) == []


# -- crashes and others -----------------------------------------------------------------------------------------------


def test_crash_between_record_and_write_is_repaired(sysctls, proc_sys):
    sysctls.create(sysctl(), "c")
    (proc_sys / "net/ipv4/ip_forward").write_text("0\n")  # as if it had not been written
    [mark] = sysctls.observe("c")
    assert mark.digest == "000000000000"  # so it is set again
    sysctls.create(sysctl(), "c")
    assert value(proc_sys) == "1"
    sysctls.remove(sysctl().mark("c"))
    assert value(proc_sys) == "0"


def test_crash_between_restoring_and_removing_the_record_is_repaired(sysctls, proc_sys, run_dir):
    sysctls.create(sysctl(), "c")
    (proc_sys / "net/ipv4/ip_forward").write_text("0\n")  # restored
    sysctls.remove(sysctl().mark("c"))
    assert value(proc_sys) == "0"
    assert list((run_dir / "sysctl").iterdir()) == []


def test_value_that_somebody_changed_since_is_theirs(sysctls, proc_sys):
    sysctls.create(sysctl(), "c")
    (proc_sys / "net/ipv4/ip_forward").write_text("2\n")
    sysctls.remove(sysctl().mark("c"))
    assert value(proc_sys) == "2"


def test_spoilt_record_is_named(sysctls, run_dir):
    sysctls.create(sysctl(), "c")
    [record] = (run_dir / "sysctl").iterdir()
    record.write_text("{")
    with pytest.raises(StepError, match=rf"read {record}: .*rm {record}"):
        sysctls.observe("c")


def test_many_clusters_at_once(run_dir, proc_sys):
    clusters = [f"c{number}" for number in range(20)]

    def in_parallel(call):
        threads = [threading.Thread(target=call, args=(cluster,)) for cluster in clusters]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    in_parallel(lambda cluster: Sysctls(run_dir, proc_sys).create(sysctl(), cluster))
    assert all(len(Sysctls(run_dir, proc_sys).observe(cluster)) == 1 for cluster in clusters)
    in_parallel(lambda cluster: Sysctls(run_dir, proc_sys).remove(sysctl().mark(cluster)))
    assert value(proc_sys) == "0"
    assert list((run_dir / "sysctl").iterdir()) == []
