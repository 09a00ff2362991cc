"""A JSON Schema of cluster files, made from the records of `models`, for editors that complete and check YAML.

Draft 2020-12. It describes one document of a file; `schema.json` beside this module is what `json_schema` gives.
It is stricter than `load`, which accepts with a warning what placemat v2 accepts: keys in another case, leftovers.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from types import NoneType
from typing import Literal, cast, get_args, get_origin, get_type_hints

from .describe import KINDS, key_of
from .models import Rule

Schema = dict[str, object]

FILE = Path(__file__).with_name("schema.json")
"""The generated schema, as it is installed."""

# Text may be written as a number or bool: it is taken as written. A pattern applies to what is written as text.
_TEXT = ["string", "number", "boolean"]
_ADDRESS = "[0-9a-fA-F:.]+"


def json_schema() -> Schema:
    """The schema as plain dicts and lists."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "placemat cluster file",
        "description": "One resource of a cluster; lines with --- separate the documents of a file.",
        "type": "object",
        **_by_kind({kind: {"$ref": f"#/$defs/{kind}"} for kind in KINDS}),
        "$defs": {kind: _record(record, kind) for kind, record in KINDS.items()},
    }


def schema_text() -> str:
    """The schema as `FILE` holds it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _by_kind(schemas: Mapping[str, Schema]) -> Schema:
    """A mapping whose `kind` decides what else is in it; if/then gives better messages than oneOf."""
    return {
        "required": ["kind"],
        "properties": {"kind": {"enum": list(schemas)}},
        "allOf": [
            {"if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]}, "then": schema}
            for kind, schema in schemas.items()
        ],
    }


def _record(record: type, kind: str = "") -> Schema:
    hints = get_type_hints(record)
    properties: Schema = {"kind": {"const": kind}} if kind else {}
    required = list(properties)
    for field in fields(record):
        if "doc" in field.metadata:
            key, value = key_of(field.name), _value(hints[field.name], field.metadata["rule"])
            if field.default is MISSING:
                required.append(key)
            else:
                value = _optional(value, field.default)
            properties[key] = {"description": field.metadata["doc"], **value}
    return {
        "description": (record.__doc__ or "").strip(),
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _optional(value: Schema, default: object) -> Schema:
    """A value that may be left empty, which gives the default."""
    shown = {"default": default} if isinstance(default, str | int) and default != "" else {}
    if "enum" in value:
        return {**value, "enum": [*cast(list[object], value["enum"]), None], **shown}
    types = value["type"]
    return {**value, "type": [*(types if isinstance(types, list) else [types]), "null"], **shown}


def _value(hint: object, rule: Rule) -> Schema:
    """The schema of a field of this type; types are those that `values.reader_of` and `decode` know."""
    arguments = tuple(argument for argument in get_args(hint) if argument is not NoneType)
    if get_origin(hint) is Literal:
        return _choice(arguments)
    if get_origin(hint) is tuple:
        return _collection(arguments[0], rule)
    if len(arguments) > 1:
        return _one_of(arguments)
    return _value(arguments[0], rule) if arguments else _single(hint, rule)


def _single(hint: object, rule: Rule) -> Schema:
    if is_dataclass(hint):
        return _record(cast(type, hint))
    if hint is bool:
        return {"type": "boolean"}
    if hint is int:
        limits = {"minimum": rule.minimum, "maximum": rule.maximum}
        return {"type": "integer", **{name: limit for name, limit in limits.items() if limit is not None}}
    pattern = "/.*" if rule.absolute else rule.pattern
    return {"type": list(_TEXT), **({"pattern": f"^({pattern})$"} if pattern else {})}


def _choice(choices: tuple[object, ...]) -> Schema:
    """One of several words; YAML 1.1 reads the word no as false."""
    return {"enum": [*choices, *([False] if "no" in choices else [])]}


def _collection(item: object, rule: Rule) -> Schema:
    if get_origin(item) is tuple:
        names: Schema = {"propertyNames": {"pattern": f"^({rule.pattern})$"}} if rule.pattern else {}
        return {"type": "object", "additionalProperties": {"type": [*_TEXT, "null"]}, **names}
    at_least: Schema = {"minItems": rule.min_items} if rule.min_items else {}
    return {"type": "array", "items": _value(item, rule), **at_least}


def _one_of(options: tuple[object, ...]) -> Schema:
    if IPv4Interface in options:
        return {"type": "string", "pattern": f"^{_ADDRESS}/[0-9]{{1,3}}$"}
    if IPv4Address in options:
        return {"type": "string", "pattern": f"^{_ADDRESS}$"}
    records = {str(get_args(get_type_hints(option)["kind"])[0]): cast(type, option) for option in options}
    return {"type": "object", **_by_kind({kind: _record(record, kind) for kind, record in records.items()})}
