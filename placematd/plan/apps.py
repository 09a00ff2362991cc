"""The units of a network namespace: one that runs its init scripts, and one per app.

Apps are real daemons that nobody wrote for us, so their units take away only what would hurt the host: measured ones
look for systemd, open the console and reboot (design section 3).
"""

from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from ..facts import Host, Settings
from ..models import App, Cluster, NetworkNamespace
from ..names import app_unit, init_unit, namespace_sysfs, slice_unit
from ..resources import Key, UnitResource
from ..unit import Property, Unit, command

FRAGILE = frozenset("$;`")
"""What systemd 252 garbles in the commands of transient units when `systemctl daemon-reload` has it read them again."""

DECODE_AND_RUN = """\
import os, sys, urllib.parse
argv = [urllib.parse.unquote_to_bytes(word) for word in sys.argv[1:]]
os.execvp(argv[0], argv)"""

JOURNAL_SOCKETS = ("/run/systemd/journal/dev-log", "/run/systemd/journal/socket")
"""Where syslog(3) (/dev/log) and sd_journal_print(3) send what they log: all that apps see of /run/systemd."""

RESOLVED = "/run/systemd/resolve"
UPSTREAM = f"{RESOLVED}/resolv.conf"
"""The name servers that systemd-resolved asks: what a namespace can reach, if anything; not its stub at 127.0.0.53."""

NETNS_DIRECTORY = Path("/run/netns")
"""Where ip-netns(8) keeps named network namespaces."""

SECOND = 1_000_000
"""systemd counts microseconds."""

INIT_TIMEOUT_SECONDS = 300
STOP_TIMEOUT_SECONDS = 10
RESTART_DELAY_SECONDS = 1
RESTARTS_ALLOWED = 5
RESTARTS_PERIOD_SECONDS = 30

ALL_CAPABILITIES = (1 << 64) - 1
CAP_SYS_BOOT = 1 << 22  # linux/capability.h


def app_units(cluster: Cluster, namespace_name: str, host: Host, settings: Settings) -> Iterator[UnitResource]:
    """The init unit, if there are scripts, and then the apps, each behind those it is `after`."""
    namespace = next(item for item in cluster.namespaces if item.name == namespace_name)
    around = _surroundings(cluster, namespace, host, settings)
    if namespace.init_scripts:
        yield _init(cluster, namespace, around)
    for app in _in_order(namespace.apps):
        yield _app(cluster, namespace, app, around)


def _in_order(apps: tuple[App, ...]) -> list[App]:
    """The apps in the order of their start; the file's order where `after` says nothing."""
    by_name = {app.name: app for app in apps}
    order = TopologicalSorter({app.name: app.after for app in apps}).static_order()
    return [by_name[name] for name in order if name in by_name]


def _init(cluster: Cluster, namespace: NetworkNamespace, around: tuple[Property, ...]) -> UnitResource:
    unit = Unit(
        init_unit(cluster.name, namespace.name),
        (
            ("Description", f"Init scripts of namespace {namespace.name} of cluster {cluster.name}"),
            ("Type", "oneshot"),
            ("RemainAfterExit", True),
            ("ExecStart", tuple(command(str(script)) for script in namespace.init_scripts)),
            ("TimeoutStartUSec", INIT_TIMEOUT_SECONDS * SECOND),
            ("WorkingDirectory", str(namespace.directory)),
            ("Environment", _environment(cluster, namespace)),
            ("SyslogIdentifier", f"{namespace.name}-init"),
            *around,
        ),
    )
    return UnitResource(
        name=unit.name,
        owner=_owner(namespace),
        needs=(Key("netns", namespace.name),),
        what="init",
        unit=unit,
        journal_fields=_journal_fields(cluster, namespace),
    )


def _app(cluster: Cluster, namespace: NetworkNamespace, app: App, around: tuple[Property, ...]) -> UnitResource:
    first = tuple(app_unit(cluster.name, namespace.name, name) for name in app.after)
    init = (init_unit(cluster.name, namespace.name),) if namespace.init_scripts else ()
    unit = Unit(
        app_unit(cluster.name, namespace.name, app.name),
        (
            ("Description", f"App {app.name} of namespace {namespace.name} of cluster {cluster.name}"),
            ("After", init + first),
            ("Type", "exec"),
            ("ExecStart", (command(*_argv(namespace, app)),)),
            *_restart(app),
            ("WorkingDirectory", str(app.working_directory or namespace.directory)),
            ("Environment", _environment(cluster, namespace) + tuple(f"{key}={val}" for key, val in app.environment)),
            ("SyslogIdentifier", app.name),
            *((("User", app.user),) if app.user != "root" else ()),
            *around,
        ),
    )
    return UnitResource(
        name=unit.name,
        owner=_owner(namespace),
        needs=(Key("netns", namespace.name), *(Key("unit", name) for name in init)),
        what="app",
        unit=unit,
        journal_fields=(*_journal_fields(cluster, namespace), ("PLACEMAT_APP", app.name)),
    )


def _argv(namespace: NetworkNamespace, app: App) -> tuple[str, ...]:
    """The command; a program with a slash is relative to the file's directory, one without is looked up by systemd."""
    program, *arguments = app.command
    return _sturdy((str(namespace.directory / program) if "/" in program else program, *arguments))


def _sturdy(argv: tuple[str, ...]) -> tuple[str, ...]:
    """A command that is the same after `systemctl daemon-reload`, when Restart= runs it again.

    One with a FRAGILE character is percent-encoded, and decoded by the process that it then replaces.
    """
    if FRAGILE.isdisjoint("".join(argv)):
        return argv
    codes = {ord(character): f"%{ord(character):02X}" for character in {"%", *FRAGILE}}
    return ("/usr/bin/python3", "-I", "-c", DECODE_AND_RUN, *(word.translate(codes) for word in argv))


def _restart(app: App) -> tuple[Property, ...]:
    """When to start again, at most 5 times in 30 s: then the app has failed.

    An app that ends well leaves its unit active and what it put into the background alive, as placemat v2 did; except
    that `always` means that it shall not end (RemainAfterExit= would win over Restart=always).
    """
    return (
        ("Restart", app.restart),
        ("RestartUSec", RESTART_DELAY_SECONDS * SECOND),
        ("StartLimitBurst", RESTARTS_ALLOWED),
        ("StartLimitIntervalUSec", RESTARTS_PERIOD_SECONDS * SECOND),
        ("RemainAfterExit", app.restart != "always"),
    )


def _surroundings(
    cluster: Cluster, namespace: NetworkNamespace, host: Host, settings: Settings
) -> tuple[Property, ...]:
    """Where a process of the namespace runs, what it sees of the namespace, and what it does not see of the host."""
    return (
        ("Slice", slice_unit(cluster.name)),
        ("NetworkNamespacePath", str(NETNS_DIRECTORY / namespace.name)),
        ("TemporaryFileSystem", (("/run/systemd", "ro"),)),
        (
            "BindPaths",
            (
                ("/dev/null", "/dev/console", True, 0),
                *((path, path, True, 0) for path in JOURNAL_SOCKETS),
                *_of_the_namespace(namespace, host, settings),
            ),
        ),
        ("CapabilityBoundingSet", ALL_CAPABILITIES & ~CAP_SYS_BOOT),
        ("KillMode", "control-group"),
        ("TimeoutStopUSec", STOP_TIMEOUT_SECONDS * SECOND),
        ("StandardOutput", "journal"),
        ("StandardError", "journal"),
    )


def _of_the_namespace(
    namespace: NetworkNamespace, host: Host, settings: Settings
) -> Iterator[tuple[str, str, bool, int]]:
    """What `ip netns exec` puts in place as well: the namespace's sysfs, and its own files of /etc (ip-netns(8))."""
    yield str(namespace_sysfs(settings.run_dir, namespace.name)), "/sys", False, 0
    files = [file for file in sorted(host.netns_files) if file.parent.name == namespace.name]
    for file in files:
        yield str(file), f"/etc/{file.name}", False, 0
    if "resolv.conf" not in {file.name for file in files}:
        for name in ("resolv.conf", "stub-resolv.conf"):  # where /etc/resolv.conf may lead to
            yield UPSTREAM, f"{RESOLVED}/{name}", True, 0


def _environment(cluster: Cluster, namespace: NetworkNamespace) -> tuple[str, ...]:
    return (f"PLACEMAT_CLUSTER={cluster.name}", f"PLACEMAT_NETNS={namespace.name}")


def _journal_fields(cluster: Cluster, namespace: NetworkNamespace) -> tuple[tuple[str, str], ...]:
    return (("PLACEMAT_CLUSTER", cluster.name), ("PLACEMAT_NETNS", namespace.name))


def _owner(namespace: NetworkNamespace) -> str:
    return f"NetworkNamespace {namespace.name}"
