"""The TPM as a trusted component of the chassis, which is how Redfish shows one since ComputerSystem 1.19."""

from collections.abc import Sequence
from typing import Final

from ..resource import Call, Json, Resource, collection, link, missing
from .parts import HEALTHY
from .paths import SYSTEM, TRUSTED

TPM: Final = f"{TRUSTED}/TPM"


def tpm() -> Json:
    """The TPM of a machine that has one: swtpm's."""
    return {
        "Id": "TPM",
        "Name": "Trusted Platform Module 2.0",
        "TrustedComponentType": "Discrete",
        "Model": "swtpm",
        "Status": HEALTHY,
        "Links": {"ComponentsProtected": [link(SYSTEM)]},
    }


async def _get_all(call: Call) -> Json:
    there = (await call.machine.inventory()).tpm
    return collection("Trusted Components", [TPM] if there else [])


async def _get(call: Call) -> Json:
    if not (await call.machine.inventory()).tpm:
        raise missing(call)
    return tpm()


def routes() -> Sequence[Resource]:
    """TrustedComponents of the chassis."""
    return [
        Resource(uri=TRUSTED, type="TrustedComponentCollection.TrustedComponentCollection", get=_get_all),
        Resource(uri=TPM, type="TrustedComponent.v1_3_2.TrustedComponent", get=_get),
    ]
