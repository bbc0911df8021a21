"""The project stands alone: it has no path of the machine it was written on, and no word about how it was written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.meta.tools import ROOT, text_files

# The words are written in two halves so that this file does not contain them.
_FORBIDDEN = [
    ("/wo" + "rk/", "a path of a machine"),
    ("/ro" + "ot/", "a path of a machine"),
    ("/home/" + r"(?!user\b|me\b|you\b|alice\b|bob\b)\w+", "a path of a machine"),
    ("shared/" + r"(?:design|reference|hooks)", "a document that is not here"),
    (r"win32-" + r"behaviour\.md", "a document that is not here"),
    (r"peers-" + r"and-demand", "a document that is not here"),
    (r"model-" + r"codebases", "a document that is not here"),
    (r"\brules\.md sect" + r"ion\b", "a document that is not here"),
    (r"\bCONT" + r"RACT\.md", "a document that is not here"),
    (r"\bissues " + r"show\b", "a tool that is not here"),
    (r"\bissue " + r"#?2\b", "a task that is not here"),
    (r"\bdesign (?:doc(?:ument)? )?sect" + r"ion \d", "a document that is not here"),
    (r"\bsub-?ag" + r"ents?\b", "how it came to be"),
    (r"\bcl" + r"aude\b", "how it came to be"),
    (r"\banth" + r"ropic\b", "how it came to be"),
    (r"\bchat" + r"gpt\b", "how it came to be"),
    (r"\bAI[- ](?:assist" + r"ant|generated)\b", "how it came to be"),
    (r"\b(?:this|the|another|my) hel" + r"per session\b", "how it came to be"),
    (r"\bthe le" + r"ad (?:wrote|writes|says|person)\b", "how it came to be"),
    (r"\bin this issu" + r"e\b", "a task that is not here"),
]
_PATTERN = re.compile("|".join(f"(?:{pattern})" for pattern, _ in _FORBIDDEN), re.IGNORECASE)
_EXEMPT = {"LICENSE": "the licence's own text"}


def forbidden(text: str) -> list[str]:
    """Return every forbidden word with its line."""
    return [
        f"line {number}: {match.group()}"
        for number, line in enumerate(text.splitlines(), 1)
        for match in [_PATTERN.search(line)]
        if match
    ]


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def test_no_file_speaks_of_anything_outside_the_project() -> None:
    looked_at = 0
    found = []
    for path in text_files(ROOT):
        name = path.relative_to(ROOT).as_posix()
        text = _read(path)
        if text is None or name in _EXEMPT:
            continue
        looked_at += 1
        found += [f"{name}: {sentence}" for sentence in forbidden(text)]
    assert looked_at > 50, "the test reads the wrong folder"
    assert not found, "\n".join(found)


def test_no_file_is_named_for_anything_outside_the_project() -> None:
    names = [path.relative_to(ROOT).as_posix() for path in text_files(ROOT)]
    assert not [name for name in names if _PATTERN.search("/" + name)]


@pytest.mark.parametrize(
    "line",
    [
        "see /wo" + "rk/main/x",
        "as shared/" + "design.md says",
        "win32-" + "behaviour.md B12",
        "as Cl" + "aude wrote",
        "see design sect" + "ion 9",
        "/home/" + "someone/x",
        "read CONT" + "RACT.md",
    ],
)
def test_planted_forbidden_word_is_found(line: str) -> None:
    assert forbidden(f"fine\n{line}\n")


@pytest.mark.parametrize(
    "line", ["a Windows session", "the helper finds it", "work/ is a folder", "the root/ of it", "a lead of 3 bytes"]
)
def test_plain_words_pass(line: str) -> None:
    assert not forbidden(line)
