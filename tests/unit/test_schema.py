"""The schema that editors use: generated, not stale, accepts what is valid and refuses what is misshapen."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from placematd.models import Network, Node
from placematd.schema import FILE, json_schema, schema_text

GOLDEN = Path(__file__).parents[1] / "golden"
EXAMPLES = Path(__file__).parents[2] / "examples"
VALIDATOR = jsonschema.Draft202012Validator(json_schema())

# Mistakes that can be seen without knowing other resources or the rules of QEMU.
MISSHAPEN = [
    *("choice", "key-misspelt", "key-missing", "key-unknown", "kind-misspelt", "kind-missing", "kind-of-version-1"),
    *(
        "kind-unknown",
        "kind-wrong-case",
        "many-in-all-kinds",
        "many-in-one-node",
        "memory",
        "name-network",
        "name-node",
    ),
    *("namespace-settings", "path-not-absolute", "queue", "root-is-a-list", "root-is-text", "type-bool", "type-dash"),
    *("type-list", "type-mapping", "type-null-item", "type-number", "type-text", "volume-kind", "volume-size"),
    *("address-malformed", "image-source", "key-empty", "bmc-users", "cluster-twice"),
]


class EditorLoader(yaml.SafeLoader):
    """Reads dates as text, as JSON and the YAML 1.2 of editors have none."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def refused(file: Path) -> list[str]:
    """What the schema says about the documents of a file that are not empty."""
    documents = yaml.load_all(file.read_text(), Loader=EditorLoader)
    documents = (document for document in documents if document is not None)
    return [error.message for document in documents for error in VALIDATOR.iter_errors(document)]


def test_the_file_is_what_the_models_say(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update-golden"):
        FILE.write_text(schema_text())
    assert FILE.read_text() == schema_text(), "the models changed: pytest --update-golden test_schema.py"


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(FILE.read_text()))


@pytest.mark.parametrize(
    "file",
    [*GOLDEN.glob("valid/*.yml"), *GOLDEN.glob("plans/*.yml"), *EXAMPLES.glob("*/cluster.yml")],
    ids=lambda file: f"{file.parent.name}-{file.stem}",
)
def test_valid_files(file: Path) -> None:
    assert refused(file) == []


@pytest.mark.parametrize("case", MISSHAPEN)
def test_misshapen_files(case: str) -> None:
    assert refused(GOLDEN / "errors" / f"{case}.yml")


def test_it_explains_every_key() -> None:
    node = json_schema()["$defs"]["Node"]  # type: ignore[index]
    keys = {name.replace("_", "-") for name in Node.__dataclass_fields__} - {"marks"} | {"kind"}
    assert set(node["properties"]) == keys
    assert all("description" in value for key, value in node["properties"].items() if key != "kind")
    assert node["required"] == ["kind", "name"]


def test_text_may_be_written_as_a_number_or_bool() -> None:
    document = {"kind": "Node", "name": 123, "cpu": 1, "memory": 2048, "smbios": {"serial": 1.5, "product": True}}
    assert VALIDATOR.is_valid(document)


def test_enumerations_and_patterns_are_those_of_the_model() -> None:
    network = json_schema()["$defs"]["Network"]  # type: ignore[index]
    assert network["properties"]["type"]["enum"] == ["internal", "external", "bmc"]
    rule = Network.__dataclass_fields__["name"].metadata["rule"]
    assert network["properties"]["name"]["pattern"] == f"^({rule.pattern})$"
