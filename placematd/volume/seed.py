"""cloud-init's NoCloud seed: a disk labelled "cidata" with user-data, meta-data and network-config.

https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html
cloud-localds (package cloud-image-utils) makes it, as in placemat v2; the result is always qcow2, because an ISO 9660
image of odd length cannot be opened with cache=none (O_DIRECT wants whole sectors).
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ..run import run

SEED_SECONDS = 60


def files(name: str, user_data: Path, network_config: Path | None) -> dict[str, bytes]:
    """The content of the seed of volume NODE/VOLUME: file name -> bytes.

    The instance-id derives from the rest, so cloud-init runs again when, and only when, something changed. Raises
    OSError.
    """
    content = {"user-data": user_data.read_bytes()}
    if network_config:
        content["network-config"] = network_config.read_bytes()
    node = name.partition("/")[0]
    instance = hashlib.sha256((node + digest(content)).encode()).hexdigest()[:16]
    meta_data = {"instance-id": f"iid-{instance}", "local-hostname": node}  # JSON is YAML
    return {**content, "meta-data": json.dumps(meta_data).encode() + b"\n"}


def digest(content: Mapping[str, bytes]) -> str:
    """16 hexadecimal digits over names and bytes."""
    parts = "\n".join(f"{name} {hashlib.sha256(data).hexdigest()}" for name, data in sorted(content.items()))
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def build(content: Mapping[str, bytes], output: Path) -> None:
    """Make the seed. Raises StepError, OSError."""
    with tempfile.TemporaryDirectory(prefix="placemat-seed-") as name:
        directory = Path(name)
        for file, data in content.items():
            (directory / file).write_bytes(data)
        network = ("--network-config", directory / "network-config") if "network-config" in content else ()
        argv = ("cloud-localds", "--disk-format", "qcow2", *network, output)
        run([*argv, directory / "user-data", directory / "meta-data"], timeout_seconds=SEED_SECONDS)
