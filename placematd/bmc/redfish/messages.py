"""Messages of Redfish answers and events (DSP0266 section "Error responses")."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .base_registry import Template
from .registry import REGISTRIES

LONGEST_ARGUMENT = 200
"""What a client sent comes back in a message no longer than this."""


@dataclass(frozen=True)
class Message:
    """A message with its arguments; `at` is the JSON pointer's path of the property it is about, "Boot/Target"."""

    name: str
    arguments: Sequence[str] = ()
    at: str = ""
    registry: str = "Base"

    def __post_init__(self) -> None:
        if len(self.arguments) != self.template.arguments:
            raise TypeError(f"{self.name} takes {self.template.arguments} arguments, not {len(self.arguments)}")

    @property
    def template(self) -> Template:
        """What the registry says."""
        return REGISTRIES[self.registry][1][self.name]

    @property
    def id(self) -> str:
        """MessageId: registry, major and minor version, name."""
        version = REGISTRIES[self.registry][0].rpartition(".")[0]
        return f"{self.registry}.{version}.{self.name}"

    @property
    def text(self) -> str:
        """The text with its arguments."""
        return fill(self.template.text, self.arguments)

    def json(self) -> dict[str, Any]:
        """The message as a Message object of DSP0266 (Message.v1_1)."""
        related = {"RelatedProperties": ["/" + self.at]} if self.at else {}
        return {
            "@odata.type": "#Message.v1_1_2.Message",
            "MessageId": self.id,
            "Message": self.text,
            "MessageArgs": list(self.arguments),
            **related,
            "MessageSeverity": self.template.severity,
            "Resolution": self.template.resolution,
        }


def fill(text: str, arguments: Sequence[str]) -> str:
    """`text` with %1... replaced in one go: an argument may hold a "%2" itself."""
    parts = text.split("%")
    filled = [parts[0]]
    for part in parts[1:]:
        number = int(part[0]) if part[:1].isdigit() else 0
        filled.append(arguments[number - 1] + part[1:] if 0 < number <= len(arguments) else "%" + part)
    return "".join(filled)


class RedfishError(Exception):
    """An answer other than success: `RedfishError("PropertyValueNotInList", "Tape", "Target", at="Boot/Target")`.

    The status is that of the message unless `status` says otherwise; `headers` go with the answer.
    """

    def __init__(
        self,
        name: str,
        *arguments: object,
        at: str = "",
        registry: str = "Base",
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        shown = tuple(str(argument)[:LONGEST_ARGUMENT] for argument in arguments)
        message = Message(name, shown, at, registry)
        super().__init__(message.text)
        self.messages: Sequence[Message] = (message,)
        self.status = int(message.template.status if status is None else status)
        self.headers = dict(headers or {})

    @classmethod
    def of(cls, messages: Sequence[Message], status: int | None = None) -> "RedfishError":
        """One error of several messages, with the status of the first unless told."""
        error = cls("GeneralError")
        error.messages = tuple(messages)
        error.status = int(messages[0].template.status if status is None else status)
        return error

    def json(self) -> dict[str, Any]:
        """The body of the error (DSP0266 section "Error responses")."""
        general = Message("GeneralError") if len(self.messages) > 1 else self.messages[0]
        infos = [message.json() for message in self.messages]
        return {"error": {"code": general.id, "message": general.text, "@Message.ExtendedInfo": infos}}


def annotations(messages: Sequence[Message], payload: Mapping[str, Any]) -> dict[str, Any]:
    """`@Message.ExtendedInfo` of a PATCH that took some properties and not others: all, and at each known property."""
    if not messages:
        return {}
    notes: dict[str, Any] = {"@Message.ExtendedInfo": [message.json() for message in messages]}
    for message in messages:
        top = message.at.partition("/")[0]
        if top in payload:
            notes.setdefault(f"{top}@Message.ExtendedInfo", []).append(message.json())
    return notes
