"""Docstrings as Markdown: paragraphs, descriptions of parameters, bullets and literal blocks."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections import deque
from collections.abc import Collection

__all__ = ["paragraphs"]

_ENTRY = re.compile(r"([a-z_][a-z0-9_]*(?:, [a-z_][a-z0-9_]*)*): (?=\S)")
_SENTENCE_ENDS = (".", ".)", ":", ";")
_NOTE = re.compile(r"((?:Errors?|Ownership|Raises|Threads)(?: of [^:]*)?):")


def paragraphs(doc: str, parameters: Collection[str] = ()) -> str:
    """Return a docstring as Markdown. Lines of the form `name: text` become a list, literal blocks become fences.

    parameters: names that the documented object has. A line describes one of them if it begins a paragraph or follows
    the end of a sentence; another line that begins with a word and a colon is prose. The lines that continue a
    description are indented or follow a line that does not end a sentence.
    """
    lines: list[str] = []
    source = deque(doc.splitlines())
    in_list = False  # whether the paragraph is a list of parameters so far
    while source:
        line = source.popleft()
        if line.rstrip().endswith("::") and (block := _literal_block(source)):
            text = line.strip().removesuffix("::")
            before = [f"{line.rstrip()[:-1]}", ""] if text else []
            lines += [*before, "```text", *block, "```", ""]
            in_list = False
            continue
        between = not lines or lines[-1].rstrip().endswith(_SENTENCE_ENDS)
        entries = _entries(line, parameters) if between or not lines[-1].strip() else []
        if entries:
            lines += entries
            in_list = True
        elif not line.strip():
            lines.append("")
            in_list = False
        elif _NOTE.match(line):
            name, _, text = line.partition(":")
            lines += ["", f"*{name}:*{text}"]
            in_list = False
        elif (in_list and not between) or (line.startswith("    ") and lines):
            lines.append(f"  {line.strip()}")
        else:
            if in_list:
                lines.append("")
            lines.append(line)
            in_list = False
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip()


def _entries(line: str, parameters: Collection[str]) -> list[str]:
    """Return the descriptions of parameters that a line of a docstring consists of, as items of a list.

    The line may have several: `width: columns. height: rows.` Return an empty list if it does not begin with one.
    """
    starts = [
        match.start()
        for match in re.finditer(rf"(?:^|(?<=\. )){_ENTRY.pattern}", line)
        if set(match[1].split(", ")) <= set(parameters)
    ]
    if starts[:1] != [0]:
        return []
    parts = [line[begin:end].rstrip() for begin, end in itertools.pairwise([*starts, len(line)])]
    return [f"- `{name}`: {text}" for name, _, text in (part.partition(": ") for part in parts)]


def _literal_block(source: deque[str]) -> list[str]:
    """Remove the indented block at the head of `source` and return its lines without their common indentation.

    Return an empty list and remove nothing if the next line that is not empty is not indented.
    """
    count = end = 0
    for line in source:
        if line.strip() and not line.startswith(" "):
            break
        count += 1
        if line.strip():
            end = count
    block = textwrap.dedent("\n".join(list(source)[:end])).strip("\n")
    if not block:
        return []
    for _ in range(end):
        source.popleft()
    return block.split("\n")
