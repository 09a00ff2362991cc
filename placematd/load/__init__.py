"""Cluster files to a Cluster: reads YAML, the only module that does, and hands the trees to `decode`.

YAML is read as events, not objects: that keeps marks and the text as written, constructs nothing that a tag names, and
bounds what anchors and nesting can cost. After a document with a syntax error, reading goes on at the next.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ..describe import Resource, quote
from ..errors import Mark, Mistake
from ..models import Cluster, ClusterSettings, DeviceClass, Image, Network, NetworkNamespace, Node
from .decode import Report, decode_resource
from .source import Source, read_source
from .syntax import explain
from .tree import Mapping, Scalar, Tree, is_null
from .tree import Sequence as TreeSequence

MAX_DEPTH = 32
"""Levels of nesting; the deepest that a cluster file needs is 5."""

MAX_ALIASED = 1_000_000
"""Values of one file that may come from aliases; a few lines can otherwise mean billions ("billion laughs")."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "bool", "float", "null", "seq", "map", "timestamp")}
_DOCUMENT_START = re.compile(r"^---(?=\s|$)", re.MULTILINE)


@dataclass(frozen=True)
class Loaded:
    """What the files hold, as far as it could be read, and everything that is wrong with how they are written.

    `complete` is False where whole documents could not be read: a name that nothing in `cluster` has may be in there.
    """

    cluster: Cluster
    mistakes: tuple[Mistake, ...]
    complete: bool = True


def load(files: Sequence[Path], name: str) -> Loaded:
    """Reads the files in the order given. Never raises for what is in them; an unreadable file is a mistake too.

    Fields that could not be read hold a stand-in and are named in their record's `marks.broken`.
    """
    mistakes: list[Mistake] = []
    loaded: list[Resource] = []
    complete = True
    for path in files:
        source, unreadable = read_source(path)
        mistakes += unreadable
        complete = complete and source is not None
        if source:
            reader, report = _Reader(source, mistakes), Report(path)
            resources = [decode_resource(tree, report) for tree in reader.documents()]
            loaded += [resource for resource in resources if resource]
            said = {mistake.mark for mistake in mistakes}  # what could not be read is not what was expected, either
            mistakes += [mistake for mistake in report.mistakes if mistake.mark not in said]
            complete = complete and reader.complete and report.complete
    return Loaded(_cluster(name, loaded), tuple(dict.fromkeys(mistakes)), complete)


def _cluster(name: str, resources: Sequence[Resource]) -> Cluster:
    return Cluster(
        name=name,
        networks=tuple(resource for resource in resources if isinstance(resource, Network)),
        namespaces=tuple(resource for resource in resources if isinstance(resource, NetworkNamespace)),
        nodes=tuple(resource for resource in resources if isinstance(resource, Node)),
        images=tuple(resource for resource in resources if isinstance(resource, Image)),
        device_classes=tuple(resource for resource in resources if isinstance(resource, DeviceClass)),
        settings=tuple(resource for resource in resources if isinstance(resource, ClusterSettings)),
    )


class _Unreadable(Exception):
    """The rest of the document cannot be read; the mistake is reported already."""


@dataclass(slots=True)
class _Open:
    """A collection that has begun: its children so far, and how many values it holds once aliases are expanded."""

    index: int
    anchor: str | None
    mapping: bool
    children: list[Tree] = field(default_factory=list)
    size: int = 1


class _Reader:
    """The documents of one source."""

    def __init__(self, source: Source, mistakes: list[Mistake]) -> None:
        self.complete = True
        self._source = source
        self._mistakes = mistakes
        self._aliased = 0
        self._offset = 0  # where the text that is being parsed begins
        self._start = 0  # where the document begins
        self._last = 0  # where the latest event is
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Tree, int] | None] = {}
        self._handlers: dict[type[yaml.Event], Callable[..., Tree | None]] = {
            yaml.DocumentStartEvent: self._document,
            yaml.ScalarEvent: self._scalar,
            yaml.AliasEvent: self._alias,
            yaml.SequenceStartEvent: self._open,
            yaml.MappingStartEvent: self._open,
            yaml.SequenceEndEvent: self._close,
            yaml.MappingEndEvent: self._close,
        }

    def documents(self) -> Iterator[Tree]:
        """The root of each document that is not empty."""
        while True:
            try:
                yield from self._until_broken()
                return
            except _Unreadable:
                broken_at = self._last
            except yaml.YAMLError as error:
                broken_at = self._syntax_error(error)
            self.complete = False
            following = _DOCUMENT_START.search(self._source.text, max(broken_at, self._start + 3))
            if not following:
                return
            self._offset = self._start = following.start()

    def _until_broken(self) -> Iterator[Tree]:
        for event in yaml.parse(self._source.text[self._offset :], Loader=_LOADER):
            handler = self._handlers.get(type(event))
            root = handler(event) if handler else None
            if root and not is_null(root):
                yield root

    # -- events: each gives the root of the document once it is whole --------------------------------------------------

    def _document(self, event: yaml.Event) -> None:
        self._start = self._index(event)
        self._stack, self._anchors = [], {}

    def _scalar(self, event: yaml.ScalarEvent) -> Tree | None:
        plain = event.implicit[0] or (event.tag or "") in _TAGS - {"tag:yaml.org,2002:str"}
        return self._add(Scalar(self._mark(event), event.value, plain), 1, event)

    def _alias(self, event: yaml.AliasEvent) -> Tree | None:
        if event.anchor not in self._anchors:
            self._wrong(event, f"unknown alias *{event.anchor}", f"no &{event.anchor} stands before it in the document")
        elif self._anchors[event.anchor] is None:
            self._wrong(event, f"alias *{event.anchor} stands inside of what it refers to")
        tree, size = self._anchors.get(event.anchor or "") or (Scalar(self._mark(event), ""), 1)
        self._aliased += size
        if self._aliased > MAX_ALIASED:
            self._wrong(event, f"aliases stand for more than {MAX_ALIASED:,} values", "write less with anchors")
            raise _Unreadable
        return self._add(tree, size)

    def _open(self, event: yaml.CollectionStartEvent) -> None:
        self._check_tag(event)
        if len(self._stack) >= MAX_DEPTH:
            self._wrong(event, f"nested deeper than {MAX_DEPTH} levels")
            raise _Unreadable
        if event.anchor:
            self._anchors[event.anchor] = None
        self._stack.append(_Open(self._index(event), event.anchor, isinstance(event, yaml.MappingStartEvent)))

    def _close(self, event: yaml.CollectionEndEvent) -> Tree | None:
        closed = self._stack.pop()
        mark = self._source.mark(closed.index)
        tree = self._mapping(closed) if closed.mapping else TreeSequence(mark, tuple(closed.children))
        if closed.anchor:
            self._anchors[closed.anchor] = tree, closed.size
        return self._add(tree, closed.size)

    def _add(self, tree: Tree, size: int, event: yaml.ScalarEvent | None = None) -> Tree | None:
        if event:
            self._check_tag(event)
            if event.anchor:
                self._anchors[event.anchor] = tree, size
        if not self._stack:
            return tree
        self._stack[-1].children.append(tree)
        self._stack[-1].size += size
        return None

    def _mapping(self, closed: _Open) -> Mapping:
        entries: list[tuple[Scalar, Tree]] = []
        merged: list[tuple[Scalar, Tree]] = []
        for key, value in zip(closed.children[::2], closed.children[1::2], strict=True):
            if not isinstance(key, Scalar):
                self._mistakes.append(Mistake(key.mark, "", "expected a key, found a list or mapping"))
            elif key.plain and key.text == "<<":
                merged += self._merged(value)
            else:
                entries.append((key, value))
        known = {key.text.casefold() for key, _ in entries}
        for key, value in merged:
            if key.text.casefold() not in known:
                known.add(key.text.casefold())
                entries.append((key, value))
        return Mapping(self._source.mark(closed.index), tuple(entries))

    def _merged(self, value: Tree) -> Iterator[tuple[Scalar, Tree]]:
        """What a merge key brings (https://yaml.org/type/merge.html); what stands first wins."""
        for tree in value.items if isinstance(value, TreeSequence) else (value,):
            if isinstance(tree, Mapping):
                yield from tree.entries
            else:
                message = 'expected a mapping to merge after "<<"'
                self._mistakes.append(Mistake(tree.mark, "", message, "write an alias, such as <<: *defaults"))

    # -- what is wrong, and where --------------------------------------------------------------------------------------

    def _index(self, event: yaml.Event) -> int:
        assert event.start_mark  # the parser marks every event
        self._last = self._offset + event.start_mark.index
        return self._last

    def _mark(self, event: yaml.Event) -> Mark:
        return self._source.mark(self._index(event))

    def _wrong(self, event: yaml.Event, message: str, hint: str = "") -> None:
        self._mistakes.append(Mistake(self._mark(event), "", message, hint))

    def _check_tag(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
        tag = event.tag
        if tag and tag != "!" and tag not in _TAGS:
            name = tag.replace("tag:yaml.org,2002:", "!!")
            self._wrong(event, f"the tag {quote(name)[1:-1]} means nothing here", "remove it")

    def _syntax_error(self, error: yaml.YAMLError) -> int:
        """Reports it; gives the position from which to look for the next document."""
        end = self._position(getattr(error, "problem_mark", None), self._last)
        context, problem = getattr(error, "context", ""), getattr(error, "problem", None) or str(error)
        explanation = explain(context or "", problem, self._source.text[end : end + 1])
        begin = self._position(getattr(error, "context_mark", None), end) if explanation.at_context else end
        self._mistakes.append(Mistake(self._source.mark(begin), "", explanation.message, explanation.hint))
        return end

    def _position(self, mark: object, default: int) -> int:
        index = getattr(mark, "index", None)
        return default if index is None else self._offset + int(index)
