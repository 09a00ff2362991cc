"""What names, passwords and roles of BMC users may be: the cluster file, IPMI and Redfish all keep to these.

The limits are IPMI's (IPMI 2.0 sections 22.28 and 22.30), since one account serves both protocols.
"""

from typing import Literal

Role = Literal["Administrator", "Operator", "ReadOnly"]

NAME_BYTES = 16
PASSWORD_BYTES = 20
PASSWORD_FILE_BYTES = 4096
"""What is read of a file with a password; one that holds more is no such file."""

FIRST_SLOT, LAST_SLOT = 2, 15
"""IPMI user ids; 1 is the nameless user, which stays disabled."""


def name_problem(name: str) -> str:
    """Why a user cannot have this name, "" if it can; the text goes after the name.

    HTTP's Basic authentication ends a name at a colon (RFC 7617).
    """
    if not name:
        return "is empty"
    if len(name.encode(errors="surrogatepass")) > NAME_BYTES:
        return f"is longer than {NAME_BYTES} bytes, which is all that IPMI has for a user name"
    if not name.isprintable() or name != name.strip():
        return "has control characters or spaces around it"
    return "has a colon, which HTTP's Basic authentication cannot send" if ":" in name else ""


def password_problem(password: str) -> str:
    """Why a user cannot have this password, "" if it can; never the password itself."""
    if not password:
        return "is empty"
    if len(password.encode(errors="surrogatepass")) > PASSWORD_BYTES:
        return f"is longer than {PASSWORD_BYTES} bytes, which is all that IPMI has for a password"
    return "" if password.isprintable() else "has control characters"


def password_in(data: bytes) -> str:
    """The password in a file or systemd credential: its text without the line end. Raises ValueError, which tells what
    is wrong and never what was read."""
    try:
        password = data.decode()
    except UnicodeDecodeError:
        raise ValueError("what it holds is not UTF-8 text") from None
    password = password.removesuffix("\n").removesuffix("\r")
    if problem := password_problem(password):
        raise ValueError(f"what it holds {problem}")
    return password
