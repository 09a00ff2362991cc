"""The accounts of a BMC: the same for IPMI and Redfish, kept durably with the node.

IPMI's key exchange needs the password itself (IPMI 2.0 section 13.31), so that no hash can be kept: the store is
readable by root alone. Limits are IPMI's: 16 bytes for a name, 20 for a password, 15 slots, slot 1 for the nameless
user, which stays disabled.
"""

from dataclasses import dataclass, field
from typing import Literal

Role = Literal["Administrator", "Operator", "ReadOnly"]

NAME_BYTES = 16
PASSWORD_BYTES = 20
FIRST_SLOT, LAST_SLOT = 2, 15


@dataclass(frozen=True, kw_only=True)
class Account:
    """One user; `slot` is the IPMI user id and the Redfish id."""

    slot: int
    name: str
    password: str = field(repr=False)
    role: Role
    enabled: bool = True
    ipmi: bool = True
    """Whether the user may log in over IPMI."""
    redfish: bool = True
    """Whether the user may log in over Redfish."""
