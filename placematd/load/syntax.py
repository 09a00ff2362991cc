"""YAML syntax errors in words for the author of the file, from libyaml's and PyYAML's."""

from typing import NamedTuple

from ..describe import quote


class Explanation(NamedTuple):
    """What to report; `at_context` is True where the mistake stands at the construct that was begun, not at its end."""

    message: str
    hint: str = ""
    at_context: bool = False


_COLUMNS = "keys of one mapping, and dashes of one list, stand in the same column"
_BRACKETS = "check its commas and its closing bracket"

# Part of libyaml's or PyYAML's words (context and problem) -> ours. The first that is found wins.
_EXPLANATIONS = {
    "quoted scalar found unexpected": Explanation("this quote is never closed", at_context=True),
    "found unknown escape": Explanation("unknown escape in double quotes", "single quotes keep a backslash as it is"),
    "flow sequence": Explanation('the list that "[" opens here is not well-formed', _BRACKETS, at_context=True),
    "flow mapping": Explanation('the mapping that "{" opens here is not well-formed', _BRACKETS, at_context=True),
    "flow node": Explanation("expected a value in this [list] or {mapping}", _BRACKETS),
    "mapping values are not allowed": Explanation(
        '":" is not expected here', f'{_COLUMNS}; text with ": " in it needs quotes'
    ),
    "mapping keys are not allowed": Explanation('"?" is not expected here', _COLUMNS),
    "sequence entries are not allowed": Explanation(
        '"-" is not expected here', f"a list begins on its own line; {_COLUMNS}"
    ),
    "could not find expected ':'": Explanation(
        'expected "key: value"', "is the colon or the space after it missing?", at_context=True
    ),
    "block mapping": Explanation("expected a key", _COLUMNS),
    "block collection": Explanation('expected "- "', _COLUMNS),
    "incompatible YAML document": Explanation("unknown YAML version", "remove the %YAML line"),
}


def explain(context: str, problem: str, char: str) -> Explanation:
    """A syntax error; `char` is the character that stands where the problem was found ("" at the end of the file)."""
    words = f"{context} {problem}"
    if char == "\t" or "tab character" in words:
        return Explanation("a tab where YAML expects spaces", "indent with spaces")
    if "cannot start any token" in words:
        return Explanation(f"a value cannot begin with {quote(char)}", "put it in quotes")
    for part, explanation in _EXPLANATIONS.items():
        if part in words:
            return explanation
    return Explanation(f"not valid YAML: {words.strip()}")
