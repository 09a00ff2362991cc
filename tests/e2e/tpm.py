"""Commands for a TPM 2.0 as bytes, since guests have no tpm2-tools: seal a value, keep it in the TPM, unseal it.

Structures and numbers are those of the "TPM 2.0 Library Specification", parts 2 (Structures) and 3 (Commands).
"""

import struct

TPM_ST_SESSIONS = 0x8002
TPM_CC_EVICT_CONTROL, TPM_CC_CREATE_PRIMARY, TPM_CC_UNSEAL = 0x120, 0x131, 0x15E
TPM_RH_OWNER, TPM_RS_PW = 0x40000001, 0x40000009
TRANSIENT_FIRST, PERSISTENT = 0x80000000, 0x81000010
TPM_ALG_KEYEDHASH, TPM_ALG_SHA256, TPM_ALG_NULL = 0x0008, 0x000B, 0x0010
FIXED_TPM, FIXED_PARENT, USER_WITH_AUTH, NO_DA = 1 << 1, 1 << 4, 1 << 6, 1 << 10
HEADER_BYTES = 10


def sized(data: bytes) -> bytes:
    """A TPM2B structure."""
    return struct.pack(">H", len(data)) + data


def command(code: int, handles: tuple[int, ...], parameters: bytes = b"") -> bytes:
    """A command whose first handle is authorised by an empty password."""
    session = struct.pack(">I", TPM_RS_PW) + sized(b"") + b"\0" + sized(b"")
    body = b"".join(struct.pack(">I", handle) for handle in handles)
    body += struct.pack(">I", len(session)) + session + parameters
    return struct.pack(">HII", TPM_ST_SESSIONS, HEADER_BYTES + len(body), code) + body


def seal(value: bytes) -> bytes:
    """TPM2_CreatePrimary of a sealed data object below the owner's seed; it becomes TRANSIENT_FIRST."""
    attributes = FIXED_TPM | FIXED_PARENT | USER_WITH_AUTH | NO_DA
    public = struct.pack(">HHI", TPM_ALG_KEYEDHASH, TPM_ALG_SHA256, attributes) + sized(b"")
    public += struct.pack(">H", TPM_ALG_NULL) + sized(b"")
    creation_pcrs = struct.pack(">I", 0)
    parameters = sized(sized(b"") + sized(value)) + sized(public) + sized(b"") + creation_pcrs
    return command(TPM_CC_CREATE_PRIMARY, (TPM_RH_OWNER,), parameters)


def keep() -> bytes:
    """TPM2_EvictControl: the sealed object stays in the TPM's own memory."""
    return command(TPM_CC_EVICT_CONTROL, (TPM_RH_OWNER, TRANSIENT_FIRST), struct.pack(">I", PERSISTENT))


def unseal() -> bytes:
    """TPM2_Unseal of the object that was kept."""
    return command(TPM_CC_UNSEAL, (PERSISTENT,))


def unsealed(answer: bytes) -> bytes:
    """The value in the answer to `unseal`."""
    (size,) = struct.unpack_from(">H", answer, HEADER_BYTES + 4)
    return answer[HEADER_BYTES + 6 :][:size]


def shell(*commands: bytes) -> str:
    """A line for busybox's shell that prints each answer of /dev/tpm0 as hexadecimal on a line of its own.

    A command is one write and its answer one read, and the TPM keeps transient objects as long as the file is open.
    """
    steps = [
        f"echo {data.hex()} | xxd -r -p > /tmp/c && dd if=/tmp/c bs=4096 2>/dev/null >&3 "
        "&& dd bs=4096 count=1 2>/dev/null <&3 | xxd -p | tr -d '\\n' && echo"
        for data in commands
    ]
    return f"(exec 3<>/dev/tpm0 && {' && '.join(steps)})"


def answers(printed: str) -> list[bytes]:
    """What `shell` printed; fails where the TPM refused a command."""
    found = [bytes.fromhex(line) for line in printed.split()]
    for answer in found:
        _, _, code = struct.unpack_from(">HII", answer)
        assert code == 0, f"TPM error {code:#x}"
    return found
