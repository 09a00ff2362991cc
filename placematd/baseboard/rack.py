"""The baseboards of a cluster, each with the socket that its BMC asks, its accounts and its certificate.

learn: what is remembered of nodes  ->  plan  ->  fit: a baseboard for each node  ->  the units of BMCs
"""

import asyncio
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from ..bmc.machine import Firmware, Limits
from ..bmc_settings import effective
from ..errors import NotFound, StepError
from ..events import Events
from ..facts import FirmwareChoice, Learned, Settings
from ..models import Cluster, IPInterface, Node
from ..names import bmc_files, mac_address, run_directory, unit_part
from ..nodes import NodeControl
from ..plan.bmc import bmc_addresses, speaks_ipmi
from ..plan.network import bmc_network
from ..resources import Key
from ..wanted import Wanted
from .addresses import BmcAddresses
from .certificates import certify
from .identity import Identity, identity
from .machine import Baseboard
from .override import overridden
from .seed import credentials_directory, seed
from .serve import MachineSocket
from .store import State, Store

ACCOUNTS = "accounts"


class Rack:
    """All baseboards of one cluster, by node. A cluster without a network for BMCs has none."""

    def __init__(self, settings: Settings, events: Events) -> None:
        self._settings, self._events = settings, events
        run = run_directory(settings.run_dir, settings.cluster)
        self.addresses = BmcAddresses(run / "address", settings.cluster, events)
        self.boards: dict[str, Baseboard] = {}
        self._stores: dict[str, Store] = {}
        self._sockets: dict[str, MachineSocket] = {}

    def board(self, node: str) -> Baseboard:
        """A node's baseboard; raises NotFound."""
        if node not in self.boards:
            known = ", ".join(self.boards) or "none: there is no network of type bmc"
            raise NotFound(f"no BMC of node {node} in cluster {self._settings.cluster} (nodes with a BMC: {known})")
        return self.boards[node]

    def address(self, node: str) -> str | None:
        """The address of a node's BMC; None where it has none yet."""
        return self.boards[node].identity.limits.address or None if node in self.boards else None

    def subscribed(self) -> list[str]:
        """The nodes whose BMC has to tell somebody of events, and so must not wait for a first packet."""
        return [name for name in self.boards if self._stores[name].section("redfish").get("subscriptions")]

    # -- for planning -------------------------------------------------------------------------------------------------

    async def learn(self, cluster: Cluster, on: Collection[str]) -> Learned:
        """What is remembered of the nodes of a cluster, of which those are `on`.

        Raises StepError where the system refuses to read it.
        """
        nodes = nodes_with_bmc(cluster)
        for node in nodes:
            if node.name not in self._stores:
                self._stores[node.name] = await Store.open(self._state(node.name))
        self.addresses.adopt(cluster, [node.name for node in nodes])
        return self.learned(cluster, on)

    def learned(self, cluster: Cluster, on: Collection[str]) -> Learned:
        """What is known of the nodes by now: the firmware of those that are on, and what others would start with."""
        firmware: dict[str, FirmwareChoice] = {}
        for node in nodes_with_bmc(cluster):
            state = self._stores[node.name].state
            choice = state.running if node.name in on and state.running else firmware_of_next_start(state, node)
            firmware[node.name] = firmware_choice(choice)
        return Learned(addresses=dict(self.addresses.of), firmware=firmware)

    # -- life ---------------------------------------------------------------------------------------------------------

    async def fit(self, wanted: Wanted, controls: Mapping[str, NodeControl]) -> set[str]:
        """Have a baseboard in each node of the plan; returns the nodes whose certificate or accounts were made anew.

        Raises StepError.
        """
        nodes = nodes_with_bmc(wanted.cluster)
        for name in self.boards.keys() - {node.name for node in nodes}:
            await self._take_out(name)
        addresses = bmc_addresses(wanted.cluster, self.addresses.of)
        renewed = set[str]()
        for node in nodes:
            certified = await self._certify(wanted.cluster, node, addresses.get(node.name))
            if await self._seed(wanted.cluster, node) or certified:
                renewed.add(node.name)
            await self._put_in(controls[node.name], self._identity(wanted, node, addresses.get(node.name)))
        return renewed

    async def stop(self) -> None:
        """The nodes are about to be taken away."""
        for board in self.boards.values():
            try:
                await board.cluster_stops()
            except StepError as error:
                self._events.publish("warning", str(error))

    async def close(self) -> None:
        """Let go of all nodes; what is remembered stays."""
        for name in list(self.boards):
            await self._take_out(name)

    def clear(self) -> None:
        """The cluster is gone: forget addresses and leave nothing in the run directory."""
        self.addresses.clear()
        shutil.rmtree(run_directory(self._settings.run_dir, self._settings.cluster) / "bmc", ignore_errors=True)

    async def _put_in(self, control: NodeControl, identity: Identity) -> None:
        name = control.plan.name
        if control.board and control.board is self.boards.get(name):
            self.boards[name].identity = identity
            return
        await self._take_out(name)
        control.board = self.boards[name] = Baseboard(control, identity, self._stores[name], self._events)
        path = control.plan.paths.machine
        socket = MachineSocket(path, self.boards[name])
        try:
            path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.mkdir(exist_ok=True)
            path.parent.chmod(0o755)
            await socket.start()
        except OSError as error:
            raise StepError(f"open the machine of node {name} to its BMC at {path}", str(error)) from error
        self._sockets[name] = socket

    async def _take_out(self, name: str) -> None:
        if socket := self._sockets.pop(name, None):
            await socket.stop()
        if board := self.boards.pop(name, None):
            await board.close()

    def _state(self, node: str) -> Path:
        return bmc_files(self._settings.data_dir, self._settings.cluster, node).state

    # -- parts of a BMC -----------------------------------------------------------------------------------------------

    async def _certify(self, cluster: Cluster, node: Node, address: IPInterface | None) -> bool:
        own, addresses = effective(cluster, node).certificate, [address.ip] if address else []
        return await asyncio.to_thread(certify, self._settings.data_dir, cluster.name, node.name, addresses, own)

    async def _seed(self, cluster: Cluster, node: Node) -> bool:
        store = self._stores[node.name]
        users = effective(cluster, node).users
        seeded = await asyncio.to_thread(seed, store.section(ACCOUNTS), users, credentials_directory(os.environ))
        if seeded:
            store.set_section(ACCOUNTS, seeded.section)
            await store.commit()
            self._events.publish("state", f"node {node.name}: {seeded.message}")
        return seeded is not None

    def _identity(self, wanted: Wanted, node: Node, address: IPInterface | None) -> Identity:
        return identity(
            wanted.cluster,
            node,
            wanted.plan.node(node.name),
            wanted.host,
            self._settings,
            limits=limits(wanted.cluster, node, address),
            media_folder=effective(wanted.cluster, node).media_directory,
        )


def nodes_with_bmc(cluster: Cluster) -> tuple[Node, ...]:
    """The nodes that have a BMC: all of a cluster that has a network for them."""
    return cluster.nodes if any(network.type == "bmc" for network in cluster.networks) else ()


def firmware_choice(firmware: Firmware) -> FirmwareChoice:
    """The same for planning."""
    return FirmwareChoice(uefi=firmware.boot_mode == "UEFI", tpm=firmware.tpm, secure_boot=firmware.secure_boot)


def firmware_of_next_start(state: State, node: Node) -> Firmware:
    """What a node's next QEMU has to have: an override's mode goes before the settings, these before the file."""
    own = Firmware(boot_mode="UEFI" if node.uefi else "Legacy", tpm=node.tpm, secure_boot=node.secure_boot)
    return overridden(state.pending or state.chosen or own, state.boot)


def concerns_bmcs(key: Key, cluster: Cluster) -> bool:
    """Whether a change follows the addresses of BMCs: their units, and the bridges that they are on."""
    networks = {network.name for network in cluster.networks if network.type == "bmc"}
    return key.name in networks if key.kind == "bridge" else key.kind == "unit" and unit_part(key.name) == "bmc"


def limits(cluster: Cluster, node: Node, address: IPInterface | None) -> Limits:
    """What a BMC may be and do."""
    network = bmc_network(cluster, address.ip) if address else None
    return Limits(
        ipmi=speaks_ipmi(cluster, node),
        address=str(address.ip) if address else "",
        network=str(address) if address else "",
        mac=mac_address(cluster.name, f"bridge {network.name}", 0) if network else "",
    )
