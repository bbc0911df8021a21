"""The parts of the documentation that are generated from the code are up to date."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts import docs
from tests.meta.tools import ROOT


def test_the_documentation_is_in_step_with_the_code() -> None:
    found = docs.compare(ROOT, docs.render(ROOT))
    assert not found, "run `python -m scripts.docs`:\n" + "\n".join(found)


# Texts of errors in the guide.


def _messages(source: str) -> list[str]:
    """Return the texts in a module of Python, with `…` for each value that is filled in."""
    texts = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            texts.append("".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append(node.value)
    return texts


def _quoted(page: str) -> list[str]:
    """Return the texts of errors that the headings of the cases quote."""
    headings = re.findall(r"^\*\*(.+?)\*\*", page, re.MULTILINE | re.DOTALL)
    return [" ".join(text.split()) for heading in headings for text in re.findall(r'"([^"]+)"', heading)]


def _unknown(page: str, messages: list[str]) -> list[str]:
    """Return the quoted texts that no message contains; `…` in a quotation stands for any text."""
    everything = "\0".join(messages)
    found = []
    for text in _quoted(page):
        parts = [re.escape(part.strip()) for part in text.rstrip(".").split("…")]
        if not re.search(r"[^\0]*".join(parts), everything, re.IGNORECASE):
            found.append(text)
    return found


@pytest.fixture(scope="module")
def messages() -> list[str]:
    files = (path for path in (ROOT / "src").rglob("*.py") if "_generated" not in path.parts)
    return [text for path in files for text in _messages(path.read_text(encoding="utf-8"))]


def test_the_guide_quotes_errors_that_exist(messages: list[str]) -> None:
    page = (ROOT / "docs" / "guides" / "errors.md").read_text(encoding="utf-8")
    assert len(_quoted(page)) > 8
    assert _unknown(page, messages) == []


@pytest.mark.parametrize("text", ["The memory was never exported.", "data is … or the payload holds …"])
def test_a_quoted_error_that_does_not_exist_is_found(text: str, messages: list[str]) -> None:
    assert _unknown(f'**"No live object is named …", "{text}"** Do this.', messages) == [text]


def test_every_table_is_used_somewhere() -> None:
    from scripts.docs_tables import TABLES

    pages = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md"))
    assert not [name for name in TABLES if f"<!-- generated: {name} -->" not in pages]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the script reads and writes, up to date: made once, because the script takes a second."""
    root = tmp_path_factory.mktemp("docs")
    for name in ("docs", "src"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "_generated"))
    for page in ROOT.glob("*.md"):
        shutil.copy(page, root / page.name)
    assert docs.main(["--root", str(root)]) == 0
    return root


@pytest.fixture(scope="module")
def outputs(template: Path) -> dict[Path, str]:
    """The outputs for the copy, rendered once, because that takes seconds."""
    outputs = docs.render(template)
    assert docs.compare(template, outputs) == []
    return outputs


@pytest.fixture
def copy(template: Path, tmp_path: Path) -> Path:
    """A copy of it, in which a fault is planted."""
    return shutil.copytree(template, tmp_path / "copy")


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.slow("copies the documentation and writes all of it again")
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (lambda root: (root / "docs/reference/errors.md").unlink(), "errors.md is missing"),
        (lambda root: _edit(root / "docs/reference/raw.md", "Own a file", "Rent a file"), "raw.md differs"),
        (lambda root: _edit(root / "docs/images/lifetimes-dark.svg", "a name", "a game"), "lifetimes-dark.svg differs"),
        (
            lambda root: _edit(root / "docs/concepts/object-model.md", "| fd handle | yes", "| fd handle | no"),
            "differs",
        ),
        (lambda root: (root / "docs/images/old.svg").write_text("<svg/>"), "old.svg is not written by this script"),
    ],
)
def test_planted_drift_is_found(
    copy: Path, outputs: dict[Path, str], fault: Callable[[Path], object], expected: str
) -> None:
    fault(copy)
    assert expected in "\n".join(docs.compare(copy, outputs))


@pytest.mark.slow("copies the documentation and writes all of it again")
def test_planted_drift_of_the_code_is_printed(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _edit(copy / "src/extmem/raw.py", "Own a file descriptor", "Own an fd")
    assert docs.main(["--root", str(copy), "--check"]) == 1
    assert "raw.md differs" in capsys.readouterr().out


@pytest.mark.slow("copies the documentation and writes all of it again")
def test_planted_lifetime_that_the_table_does_not_have_is_found(monkeypatch: pytest.MonkeyPatch, copy: Path) -> None:
    """The picture and the table follow the model: without one of its references both are out of date."""
    from extmem.objects.lifetimes import KEEPS, Holder, Keeps
    from scripts import docs_pictures, docs_tables

    changed = {**KEEPS, Holder.IMPORTED_NT: Keeps(payload=1, object=0, name=0, kmt=0)}
    monkeypatch.setattr(docs_tables, "KEEPS", changed)
    monkeypatch.setattr(docs_pictures, "KEEPS", changed)
    differing = "\n".join(docs.compare(copy, docs.render(copy)))
    for name in ("object-model.md", "how-it-works-light.svg", "lifetimes-light.svg"):
        assert f"{name} differs" in differing


@pytest.mark.parametrize(
    "text", ["<!-- generated: nonsense -->\n<!-- end generated -->\n", "<!-- generated: access -->\n"]
)
def test_planted_bad_mark_is_found(text: str) -> None:
    with pytest.raises(LookupError):
        docs.fill(text, "page.md")
