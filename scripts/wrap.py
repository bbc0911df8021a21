"""`python -m scripts.wrap [PAGE...]` wraps the prose of Markdown pages at 120 columns; `--check` reports long lines.

How this works. A page is split into blocks. Prose is a paragraph or the text of a list item; everything else (fenced
code, tables, headings, HTML, link definitions) is not changed. A block of prose is wrapped again if one of its lines is
too long, or if a line is much shorter than the width although the next word would fit. Code spans, HTML tags and links
are not broken: a line may be longer than 120 columns if it is one of these.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["WIDTH", "long_lines", "main", "pages", "rewrapped", "wrapped"]

ROOT: Final = Path(__file__).resolve().parent.parent
WIDTH: Final = 120
_RAGGED: Final = 90
"""A line is too short if it would be shorter than this together with the next word."""

_WORD = re.compile(r"(?:(`+)(?:(?!\1).)+\1|\[[^\[\]]*\]\([^)]*\)|<!--.*?-->|<[a-zA-Z/][^>]*>|\S)+")
_NOT_FIRST = re.compile(r"[-+*=|#>:~]|\d+[.)]$|```")
"""A word that must not begin a line, because Markdown would parse it as the start of a block."""
_FENCE = re.compile(r"\s*(```+|~~~+)")
_ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+(?=\S)")
_KEPT = re.compile(r"\s*(?:$|#{1,6} |\||<|>|\[[^\]]+\]: |---+$|===+$)")
_BREAK = re.compile(r"(?:<br>|\\|  )$")


@dataclass(frozen=True)
class _Block:
    """Lines of a page. number: of the first line, from 1. lead: the text before the prose; None if it is not prose."""

    number: int
    lines: list[str]
    lead: str | None = None


def wrapped(text: str, lead: str = "", width: int = WIDTH) -> list[str]:
    """Return the text as lines of at most `width` columns: the first after `lead`, the others indented as far."""
    words: list[str] = []
    for match in _WORD.finditer(" ".join(text.split("\n"))):
        if words and _NOT_FIRST.match(match[0]):
            words[-1] += " " + match[0]
        else:
            words.append(match[0])
    lines = [lead.rstrip() if not words else lead + words[0]]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += " " + word
        else:
            lines.append(" " * len(lead) + word)
    return lines


def _blocks(page: str) -> Iterator[_Block]:
    fence = comment = ""
    open_block: _Block | None = None
    for number, line in enumerate(page.split("\n"), 1):
        mark = _FENCE.match(line)
        inside = bool(fence or comment)
        if fence:
            if mark and mark[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
        elif comment:
            comment = "" if "-->" in line else comment
        elif mark:
            fence, inside = mark[1], True
        elif line.lstrip().startswith("<!--"):
            comment, inside = ("" if "-->" in line else "<!--"), True
        if inside or _KEPT.match(line):
            if open_block:
                yield open_block
                open_block = None
            yield _Block(number, [line])
            continue
        item = _ITEM.match(line)
        if open_block and not item and not _BREAK.search(open_block.lines[-1]):
            open_block.lines.append(line)
            continue
        if open_block:
            yield open_block
        lead = item[0] if item else line[: len(line) - len(line.lstrip())]
        open_block = _Block(number, [line], lead)
    if open_block:
        yield open_block


def _too_long(line: str, lead: str) -> bool:
    return len(line) > WIDTH and len(wrapped(line.strip().removeprefix(lead.strip()), lead)) > 1


def _ragged(lines: list[str]) -> bool:
    following = [wrapped(line, width=1)[0] for line in lines[1:]]
    return any(len(line) + 1 + len(word) < _RAGGED for line, word in zip(lines, following, strict=False))


def long_lines(page: str) -> list[tuple[int, str]]:
    """Return the lines of prose that are longer than 120 columns and can be wrapped, with their numbers from 1."""
    return [
        (block.number + position, line)
        for block in _blocks(page)
        if block.lead is not None
        for position, line in enumerate(block.lines)
        if _too_long(line, block.lead if position == 0 else "")
    ]


def rewrapped(page: str) -> str:
    """Return the page with its badly wrapped blocks of prose wrapped again."""
    lines: list[str] = []
    for block in _blocks(page):
        found = block.lines
        if block.lead is not None and (
            any(_too_long(line, block.lead if n == 0 else "") for n, line in enumerate(found)) or _ragged(found)
        ):
            text = "\n".join(line.strip() for line in found).removeprefix(block.lead.strip()).strip()
            ending = _BREAK.search(found[-1])
            found = wrapped(text, block.lead)
            if ending and ending[0] == "  ":
                found[-1] += "  "
        lines += found
    return "\n".join(lines)


def pages(root: Path) -> list[Path]:
    """Return the pages: README and the other pages of the root folder, and those of docs, examples and codegen."""
    return [
        *sorted(root.glob("*.md")),
        *(p for f in ("docs", "examples", "codegen") for p in sorted((root / f).rglob("*.md"))),
    ]


def main(argv: list[str] | None = None) -> int:
    """Run the command line. Return the exit status: 1 if --check found long lines, else 0."""
    parser = argparse.ArgumentParser("python -m scripts.wrap", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pages", nargs="*", type=Path, help="all pages, if none is given")
    parser.add_argument("--check", action="store_true", help="report long lines and write nothing")
    options = parser.parse_args(argv)
    found = 0
    for path in options.pages or pages(ROOT):
        text = path.read_text(encoding="utf-8")
        if options.check:
            for number, line in long_lines(text):
                sys.stdout.write(f"{path}:{number}: {len(line)} columns\n")
                found += 1
        elif (new := rewrapped(text)) != text:
            path.write_text(new, encoding="utf-8")
            sys.stdout.write(f"wrapped {path}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
