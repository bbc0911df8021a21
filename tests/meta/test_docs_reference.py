"""Docstrings become Markdown without loss: parameters, prose with colons, bullets, and literal blocks."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from scripts import docstrings
from tests.meta.tools import ROOT

_NAMES = {"size", "info", "bound", "child", "first", "second"}


def _markdown(doc: str) -> str:
    return docstrings.paragraphs(doc, _NAMES)


def test_a_parameter_is_an_item() -> None:
    assert _markdown("Return it.\n\nsize: bytes.\nfirst, second: the ends.\n\nIt is new.") == (
        "Return it.\n\n- `size`: bytes.\n- `first, second`: the ends.\n\nIt is new."
    )


def test_several_parameters_on_one_line_are_items() -> None:
    assert _markdown("info: how it was made. bound: whether it is. Else it is not.") == (
        "- `info`: how it was made.\n- `bound`: whether it is. Else it is not."
    )


@pytest.mark.parametrize(
    "doc",
    [
        "Handles are copied when the child\nstarts: a later change has no effect.",  # not a parameter
        "Handles are copied at the start of the\nchild: a later change has no effect.",  # within a sentence
        "Raise an error for a tensor that ends past it,\nor spans several: one handle refers to one.",
        "Not ordered: work of other streams.",
    ],
)
def test_a_line_of_prose_with_a_colon_is_prose(doc: str) -> None:
    assert _markdown(doc) == doc


@pytest.mark.parametrize("indentation", ["", "    "])
def test_a_description_continues_on_the_next_line(indentation: str) -> None:
    assert _markdown(f"size: of the file (with\n{indentation}its head), in bytes.\nIt is new.") == (
        "- `size`: of the file (with\n  its head), in bytes.\n\nIt is new."
    )


def test_bullets_keep_their_continuation_lines() -> None:
    doc = "* *One*: a first\n  line and more.\n* Two."
    assert _markdown(doc) == doc


@pytest.mark.parametrize("end", ["", "\n\nThe end."])
def test_an_indented_block_after_two_colons_is_code(end: str) -> None:
    code = "for one in many:\n    use(one)\n\nsize: int = 3"
    indented = code.replace("\n", "\n    ").replace("    \n", "\n")
    assert _markdown(f"To use it::\n\n    {indented}{end}") == f"To use it:\n\n```text\n{code}\n```{end}"
    assert _markdown(f"To use it.\n\n::\n\n    {indented}{end}") == f"To use it.\n\n```text\n{code}\n```{end}"


def test_two_colons_without_a_block_are_kept() -> None:
    assert _markdown("The operator of C++ is ::\n\nIt is not used.") == "The operator of C++ is ::\n\nIt is not used."


def _names_in(source: Path) -> set[str]:
    """Return the names of parameters, fields and members in all files."""
    names: set[str] = set()
    for path in source.rglob("*.py"):
        if "_generated" not in path.parts:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.arg):
                    names.add(node.arg)
                elif isinstance(node, ast.AnnAssign):
                    names.add(ast.unparse(node.target))
                elif isinstance(node, ast.FunctionDef):
                    names.add(node.name)
    return names


def _faults(page: str, names: set[str]) -> list[str]:
    """Return the lines of a page that are not what the docstring has: items that are prose, and unmarked blocks."""
    return [
        line
        for line in page.splitlines()
        if re.search(r"(?<!`)::$", line)
        or ((item := re.match(r"- `([a-z_ ,]+)`: ", line)) and not set(item[1].split(", ")) <= names)
    ]


def test_the_pages_have_no_torn_text() -> None:
    names = _names_in(ROOT / "src")
    folder = ROOT / "docs" / "reference"
    pages = {page.name: page.read_text(encoding="utf-8") for page in folder.glob("*.md") if page.name != "rules.md"}
    assert {name: found for name, text in pages.items() if (found := _faults(text, names))} == {}
    assert "- `pointer`: first address of an allocation" in pages["raw.md"]


@pytest.mark.parametrize("line", ["- `or spans several`: one handle", "- `moves bytes`: its payloads", "So::"])
def test_torn_text_is_found(line: str) -> None:
    assert _faults(f"# Page\n\n{line}\n", _NAMES) == [line]
    assert _faults("- `size`: bytes.\n- `first, second`: the ends.\n", _NAMES) == []
