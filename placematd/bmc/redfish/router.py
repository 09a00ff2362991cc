"""Which resource, or which action of it, a path names."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .resource import Action, Resource

_SEGMENT = re.compile(r"[A-Za-z0-9._~$@!'()*,;=:-]+")
LONGEST_PATH = 512


@dataclass(frozen=True)
class Found:
    """Where a path leads; `uri` is the path as it is written in payloads."""

    resource: Resource
    uri: str
    parameters: Mapping[str, str]
    action: Action | None = None
    members: bool = False
    """Whether the path was a collection's "Members" property, which takes POST alone."""

    @property
    def allow(self) -> str:
        """The methods of the path, as in the Allow header."""
        if self.action or self.members:
            return "POST"
        offered = {"POST": self.resource.post, "PATCH": self.resource.patch, "DELETE": self.resource.delete}
        return ", ".join(["GET", "HEAD", *(method for method, does in offered.items() if does)])


@dataclass
class _Branch:
    resource: Resource | None = None
    fixed: dict[str, "_Branch"] = field(default_factory=dict)
    free: "tuple[str, _Branch] | None" = None

    def lead(self, segments: Sequence[str], parameters: dict[str, str]) -> tuple[Resource, dict[str, str]] | None:
        """Where the segments lead from here; what is written out goes before what is free."""
        if not segments:
            return (self.resource, parameters) if self.resource else None
        first, rest = segments[0], segments[1:]
        if first in self.fixed and (led := self.fixed[first].lead(rest, parameters)):
            return led
        return self.free[1].lead(rest, {**parameters, self.free[0]: first}) if self.free else None


class Router:
    """A tree of the templates' segments."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self.resources = tuple(resources)
        self._root = _Branch()
        for resource in self.resources:
            self._add(resource)

    def find(self, path: str) -> Found | None:
        """What is at a path; one slash at the end makes no difference. A path with anything escaped is nowhere."""
        segments = path.removesuffix("/").split("/")[1:]
        if len(path) > LONGEST_PATH or not path.startswith("/") or not all(map(_SEGMENT.fullmatch, segments)):
            return None
        if len(segments) > 2 and segments[-2] == "Actions":
            return self._action(segments)
        if segments and segments[-1] == "Members":
            above = self._resource(segments[:-1])
            if above and above.resource.post:
                return Found(above.resource, above.uri, above.parameters, members=True)
        return self._resource(segments)

    def _action(self, segments: Sequence[str]) -> Found | None:
        found = self._resource(segments[:-2])
        for action in found.resource.actions if found else ():
            if found and action.name == segments[-1]:
                return Found(found.resource, found.uri, found.parameters, action)
        return None

    def _resource(self, segments: Sequence[str]) -> Found | None:
        led = self._root.lead(segments, {})
        return Found(led[0], "/" + "/".join(segments), led[1]) if led else None

    def _add(self, resource: Resource) -> None:
        branch = self._root
        for segment in resource.uri.strip("/").split("/"):
            if segment.startswith("{"):
                branch.free = branch.free or (segment.strip("{}"), _Branch())
                branch = branch.free[1]
            else:
                branch = branch.fixed.setdefault(segment, _Branch())
        if branch.resource:
            raise ValueError(f"{resource.uri} is there twice")
        branch.resource = resource
