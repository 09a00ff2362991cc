"""What the cluster file says about the BMC of a node: its own section over that of the whole cluster."""

from dataclasses import dataclass
from pathlib import Path

from .models import BmcCertificate, BmcUser, Cluster, IPAddress, Node

DEFAULT_NAME = DEFAULT_PASSWORD = "cybozu"
"""The Administrator of a BMC that no users are configured for, as in placemat v2."""


@dataclass(frozen=True, kw_only=True)
class BmcSettings:
    """The settings that count for one BMC."""

    users: tuple[BmcUser, ...]
    """Empty means the one well-known account, `DEFAULT_NAME`."""
    ipmi: bool
    address: IPAddress | None
    """None where the guest has to tell one."""
    media_directory: Path | None
    certificate: BmcCertificate | None


def effective(cluster: Cluster, node: Node) -> BmcSettings:
    """The settings of a node's BMC. Users of a node take the place of the cluster's, all of them."""
    return BmcSettings(
        users=node.bmc.users or cluster.bmc.users,
        ipmi=cluster.bmc.ipmi if node.bmc.ipmi is None else node.bmc.ipmi,
        address=node.bmc.address,
        media_directory=cluster.bmc.media_directory,
        certificate=cluster.bmc.certificate,
    )
