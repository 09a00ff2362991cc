"""Whatever is in a file: loading it raises nothing, and every mistake stands inside the file."""

import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from placematd.load import load
from placematd.validate import validate

YAML_PIECES = st.sampled_from(
    [
        *("kind: Node\n", "kind: Network\n", "kind: NetworkNamespace\n", "name: n\n", "---\n", "...\n", "%YAML 1.1\n"),
        *(
            "- ",
            "  ",
            "{",
            "}",
            "[",
            "]",
            ",",
            ": ",
            "? ",
            "&a ",
            "*a ",
            "<<: ",
            "'",
            '"',
            "|\n",
            ">\n",
            "!!int ",
            "!x ",
        ),
        *("volumes:\n", "- kind: raw\n", "interfaces: ", "cpu: ", "smp: ", "a: b\n", "0x", "010", "~", "y", "1"),
        *("\t", "\n", "#", "@", "`", "\u2028", "\x85", "\r", "\ufeff", "\x00", "\ud7ff", "\U0001f600"),
    ]
)


def check(content: bytes) -> None:
    text = content.decode("utf-8", "replace").removeprefix("\ufeff")
    lines = text.split("\n")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "cluster.yml")
        path.write_bytes(content)
        loaded = load([path], "test")
    for mistake in (*loaded.mistakes, *validate(loaded.cluster, complete=loaded.complete)):
        assert mistake.mark.file == str(path)
        assert 1 <= mistake.mark.line <= len(lines)
        assert 1 <= mistake.mark.column <= len(lines[mistake.mark.line - 1]) + 1
        assert f"{mistake.subject}{mistake.message}{mistake.hint}".isprintable(), mistake


@settings(max_examples=400, deadline=None)
@given(st.lists(YAML_PIECES, max_size=40).map("".join))
@example('kind: Node\nname: "a\\nb"\ncpu: "\\e"\n"a\\b": "\\b"\nvolumes: [{kind: "\\b", name: "\\b"}]\n')
@example(
    'kind: Node\nname: "n\\b"\ninterfaces: "\\n"\nvolumes: [{kind: raw, name: "\\b"}, {kind: image, name: "\\b"}]\n'
)
@example('kind: Network\nname: "n\\b"\n---\nkind: Node\nname: n\ninterfaces: ["n\\a"]\n')
@example(
    'kind: NetworkNamespace\nname: n\napps: [{name: "a\\b", after: ["a\\b"]}, {name: a, after: ["a\\a", "\\a"]}]\n'
)
@example('kind: NetworkNamespace\nname: n\nroutes: [{to: "a\\b", via: "\\a"}, {to: "a\\b", via: 10.0.0.1}]\n')
@example('kind: Network\nname: n\ntype: "\\a"\naddress: "\\a/1"\naddresses: "\\a"\n')
@example('kind: Node\nname: "\\b"\ncpu: 1\ninterfaces: [a, "a\\b"]\n')
def test_any_pieces_of_yaml(text: str) -> None:
    check(text.encode())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"kind: Node\nname: \xff\n")
@example(b"\xff\xfe")
def test_any_bytes(content: bytes) -> None:
    check(content)
