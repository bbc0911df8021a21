"""Which tests hold each numbered behaviour: the last column of docs/behaviours.md, from the tests' names."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["fill", "tested"]

_TEST = re.compile(r"^\s*(?:async )?def (test_\w+)\(", re.MULTILINE)
_NUMBER = re.compile(r"(?<![A-Za-z0-9])B(\d{1,3})(?!\d)")
_ROW = re.compile(r"^(\| B(\d+) \|.*\|) [^|]*\|$", re.MULTILINE)
_BARE = re.compile(r"^(\| B(\d+) \|.*\|) \|$", re.MULTILINE)


def tested(root: Path) -> dict[int, list[str]]:
    """Behaviour → the files with a test that has its number in its name, from the root."""
    found: dict[int, set[str]] = {}
    for path in sorted((root / "tests").rglob("test_*.py")):
        for name in _TEST.findall(path.read_text(encoding="utf-8")):
            for number in _NUMBER.findall(name.replace("_", " ")):
                found.setdefault(int(number), set()).add(str(path.relative_to(root)))
    return {number: sorted(names) for number, names in found.items()}


def _short(name: str) -> str:
    path = Path(name)
    return f"{path.parent.name}/{path.stem.removeprefix('test_')}"


def fill(text: str, root: Path) -> str:
    """The page with the last cell of each behaviour's row as the tests have it now."""
    where = tested(root)

    def one(match: re.Match[str]) -> str:
        names = where.get(int(match[2]), [])
        links = ", ".join(f"[{_short(name)}](../{name})" for name in names)
        return f"{match[1]} {links or '–'} |"

    return _ROW.sub(one, _BARE.sub(r"\1  |", text))
