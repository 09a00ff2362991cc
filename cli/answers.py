"""What the HTTP API answers with, as types; `placematd.api` documents the routes."""

from typing import Literal, NotRequired, TypedDict

Power = Literal["On", "Off", "PoweringOn", "PoweringOff", "Unknown"]


class NodeInterface(TypedDict):
    """A NIC of a node."""

    network: str
    tap: str
    mac: str


class Smbios(TypedDict):
    """System information that the guest sees."""

    manufacturer: str
    product: str
    serial: str


class Node(TypedDict):
    """A node; `pid` is QEMU's."""

    name: str
    power: Power
    unit: str
    unit_state: str
    interfaces: list[NodeInterface]
    volumes: list[str]
    cpu: int
    memory: str
    uefi: bool
    secure_boot: bool
    tpm: bool
    smbios: Smbios
    accelerator: str
    console: str
    bmc_address: str | None
    pid: NotRequired[int | None]


class Network(TypedDict):
    """A network."""

    name: str
    type: str
    addresses: list[str]


class NamespaceInterface(TypedDict):
    """An interface of a network namespace."""

    name: str
    network: str
    addresses: list[str]


class App(TypedDict):
    """An app of a network namespace."""

    name: str
    unit: str
    state: str
    command: str


class Namespace(TypedDict):
    """A network namespace."""

    name: str
    interfaces: list[NamespaceInterface]
    apps: list[App]


class Cluster(TypedDict):
    """The whole cluster."""

    name: str
    state: str
    step: str
    error: str
    warnings: list[str]
    accelerator: str | None
    failed_units: NotRequired[list[str]]
    networks: list[Network]
    namespaces: list[Namespace]
    nodes: list[Node]


class Forward(TypedDict):
    """A port forward; `pod` is `netns` under the name that placemat v2 gave it."""

    protocol: Literal["tcp", "udp"]
    local_address: str
    local_port: int
    netns: str
    pod: str
    remote_host: str
    remote_port: int


class Volume(TypedDict):
    """Something stored for a node; `changes` says how it differs from what the cluster file would make now."""

    node: str
    name: str
    form: Literal["copy", "cow", "raw", "seed", "vars", "directory", "state"]
    path: str
    exists: bool
    stored_bytes: int
    changes: str
    made: str


class BmcUser(TypedDict):
    """An account of a BMC."""

    name: str
    role: str
    enabled: bool


class BmcSession(TypedDict):
    """A login to a BMC."""

    user: str
    protocol: str
    remote: str
    time: str


class Bmc(TypedDict):
    """The BMC of a node."""

    node: str
    address: str | None
    source: Literal["file", "guest"] | None
    ipmi: bool
    cipher_suites: list[int]
    users: list[BmcUser]
    unit: str
    unit_state: str
    last_session: BmcSession | None


class BootOverride(TypedDict):
    """Where the node boots from instead of its own order."""

    enabled: str
    target: str
    mode: str | None


class Watchdog(TypedDict):
    """The watchdog timer of a BMC."""

    running: bool
    action: str
    seconds_left: float


class Media(TypedDict):
    """A virtual media slot."""

    slot: str
    image: str
    inserted: bool


class BmcState(Bmc):
    """The BMC of a node with its state."""

    power: Power
    restart_cause: str
    boot: BootOverride
    watchdog: Watchdog
    media: list[Media]
    sel_entries: int


class SelEntry(TypedDict):
    """An entry of a BMC's event log; `data` is hexadecimal."""

    id: int
    time: str
    severity: str
    message: str
    data: str


class Change(TypedDict):
    """One change that a reload makes, or would make."""

    action: Literal["create", "replace", "remove"]
    resource: str
    reason: str


class _Said(TypedDict):
    time: str
    kind: str
    message: str


class Event(_Said, total=False):
    """Something that happened; `done` and `total` are bytes, `state` is the cluster's."""

    item: str
    done: int
    total: int | None
    node: str
    power: Power
    address: str
    state: str
