"""Configuration files with gaps: see peers/README.md."""

import re
from collections.abc import Mapping, Set

_IF = re.compile(r"@if (!?)(\w+)@")
_GAP = re.compile(r"@(\w+)@")


def render(text: str, features: Set[str], values: Mapping[str, object], routes: int) -> str:
    """Fills in a template. A value that is not there is an error; `routes` is how often an `@each@` block is there."""
    lines = iter(text.splitlines())
    return "".join(f"{_fill(line, values)}\n" for line in _block(lines, features, routes, open_block=False))


def _block(lines, features: Set[str], routes: int, open_block: bool) -> list[str]:
    kept: list[str] = []
    for line in lines:
        if condition := _IF.fullmatch(line):
            inner = _block(lines, features, routes, open_block=True)
            if (condition[2] in features) != bool(condition[1]):
                kept += inner
        elif line == "@each@":
            inner = _block(lines, features, routes, open_block=True)
            kept += [one.replace("@index@", str(index)) for index in range(routes) for one in inner]
        elif line == "@end@":
            if not open_block:
                raise ValueError("@end@ without a block")
            return kept
        else:
            kept.append(line)
    if open_block:
        raise ValueError("a block without @end@")
    return kept


def _fill(line: str, values: Mapping[str, object]) -> str:
    return _GAP.sub(lambda gap: str(values[gap[1]]), line)
