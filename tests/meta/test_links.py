"""Every relative link and picture of every document leads to a file or a heading."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.meta.tools import ROOT, markdown_files

_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
_ATTRIBUTE = re.compile(r"\b(?:src|href|srcset)=\"([^\"]+)\"")
_REFERENCE = re.compile(r"^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$", re.MULTILINE)
_ANCHOR = re.compile(r"<a (?:id|name)=\"([^\"]+)\"")
_ELSEWHERE = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def prose(text: str) -> str:
    """Return the document without its code."""
    return _CODE.sub("``", _FENCE.sub("", text))


def links(text: str) -> list[str]:
    """Return every link target of a document."""
    bare = prose(text)
    return [*_LINK.findall(bare), *_ATTRIBUTE.findall(bare), *_REFERENCE.findall(bare)]


def anchors(text: str) -> set[str]:
    """Return what `#…` may refer to: headings as GitHub spells them, and explicit anchors."""
    found: set[str] = set()
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        unique, count = slug, 0
        while unique in found:
            count += 1
            unique = f"{slug}-{count}"
        found.add(unique)
    return found | set(_ANCHOR.findall(text))


def dead_links(document: Path, root: Path = ROOT) -> list[str]:
    """Return each link of the document that leads nowhere, as a sentence."""
    text = document.read_text(encoding="utf-8")
    dead = []
    for link in links(text):
        if _ELSEWHERE.match(link):
            continue
        path, _, anchor = link.partition("#")
        target = document if not path else (document.parent / path)
        if not target.resolve().is_relative_to(root):
            dead.append(f"{document.name}: {link} leads out of the repository")
        elif not target.exists():
            dead.append(f"{document.name}: {link} does not exist")
        elif anchor and target.suffix == ".md" and anchor not in anchors(target.read_text(encoding="utf-8")):
            dead.append(f"{document.name}: {link}: no such heading")
    return dead


def test_every_relative_link_leads_somewhere() -> None:
    documents = markdown_files()
    assert documents, "no documents found: the test reads the wrong folder"
    dead = [
        f"{document.relative_to(ROOT).parent.as_posix()}/{sentence}"
        for document in documents
        for sentence in dead_links(document)
    ]
    assert not dead, "\n".join(dead)


def test_every_page_of_docs_is_reachable_from_its_front_page() -> None:
    front = ROOT / "docs" / "README.md"
    seen: set[Path] = set()
    todo = [front, ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        for link in links(page.read_text(encoding="utf-8")):
            path = link.partition("#")[0]
            if path and not _ELSEWHERE.match(link):
                todo.append((page.parent / path).resolve())
    lost = [
        page.relative_to(ROOT).as_posix()
        for page in markdown_files()
        if ROOT / "docs" in page.parents and page not in seen
    ]
    assert not lost, f"no link leads to {lost}"


@pytest.mark.parametrize(
    "fault",
    [
        "[x](missing.md)",
        "![x](no.svg)",
        '<img src="no.png">',
        "[x](#nowhere)",
        "[x](b.md#nowhere)",
        "[x](../../../etc/passwd)",
    ],
)
def test_planted_dead_link_is_found(fault: str, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(f"# One\n{fault}\n", encoding="utf-8")
    (tmp_path / "b.md").write_text("# Two words, `code`\n", encoding="utf-8")
    assert dead_links(tmp_path / "a.md", tmp_path)


def test_live_links_and_links_in_code_pass(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# Two words, `code`\n## B1…B3\n", encoding="utf-8")
    text = "# One\n[x](b.md#two-words-code) [y](#one) [z](https://nowhere.invalid/) `[q](no.md)`\n"
    text += "```text\n[r](no.md)\n```\n"
    (tmp_path / "a.md").write_text(text + "[s](b.md#b1b3)\n", encoding="utf-8")
    assert not dead_links(tmp_path / "a.md", tmp_path)
