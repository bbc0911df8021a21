"""`python -m scripts.docs` writes what the documentation takes from the code; `--check` says what has drifted.

The pages of docs/reference and the pictures of docs/images are this script's alone. In pages that people write it
fills the stretches between `<!-- generated: NAME -->` and `<!-- end generated -->`, and the last column of
docs/behaviours.md.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from pathlib import Path

from scripts import docs_pictures, docs_reference, docs_tables, docs_tested

__all__ = ["compare", "main", "render"]

ROOT = Path(__file__).resolve().parent.parent
_OWNED = ("docs/reference", "docs/images")
_MARKED = re.compile(
    r"(?P<open><!-- generated: (?P<name>[^>]*?) -->\n)(?P<body>.*?)(?P<close>^<!-- end generated -->)",
    re.DOTALL | re.MULTILINE,
)


def fill(text: str, where: str) -> str:
    """The page with every marked stretch as the code has it now. LookupError for a name that there is no table for."""

    def one(match: re.Match[str]) -> str:
        make = docs_tables.TABLES.get(match["name"])
        if make is None:
            known = ", ".join(docs_tables.TABLES)
            raise LookupError(f"{where} asks for the table {match['name']!r}; there are: {known}")
        return f"{match['open']}{make()}\n{match['close']}"

    filled = _MARKED.sub(one, text)
    if text.count("<!-- generated:") != len(_MARKED.findall(text)):
        raise LookupError(f"{where} opens a generated stretch that it does not close")
    return filled


def render(root: Path) -> dict[Path, str]:
    """Every output, by its path from the root."""
    out = {Path("docs/reference") / name: text for name, text in docs_reference.pages(root).items()}
    for name, theme in docs_pictures.THEMES.items():
        out[Path(f"docs/images/how-it-works-{name}.svg")] = docs_pictures.how_it_works(theme)
        out[Path(f"docs/images/lifetimes-{name}.svg")] = docs_pictures.lifetimes(theme)
    for page in [*root.glob("*.md"), *(root / "docs").rglob("*.md")]:
        path = page.relative_to(root)
        text = page.read_text(encoding="utf-8")
        if path not in out and "<!-- generated:" in text:
            out[path] = fill(text, str(path))
    behaviours = Path("docs/behaviours.md")
    if (root / behaviours).exists():
        out[behaviours] = docs_tested.fill((root / behaviours).read_text(encoding="utf-8"), root)
    return out


def compare(root: Path, outputs: dict[Path, str]) -> list[str]:
    """What is missing, different or nobody's, each with the beginning of the difference."""
    found = []
    for path, text in outputs.items():
        there = root / path
        if not there.exists():
            found.append(f"{path} is missing")
        elif (old := there.read_text(encoding="utf-8")) != text:
            lines = difflib.unified_diff(
                old.splitlines(), text.splitlines(), "on disk", "from the code", lineterm="", n=0
            )
            found.append("\n".join([f"{path} differs", *list(lines)[:20]]))
    for folder in _OWNED:
        for there in sorted((root / folder).rglob("*")) if (root / folder).is_dir() else ():
            if there.is_file() and there.relative_to(root) not in outputs:
                found.append(f"{there.relative_to(root)} is written by nobody")
    return found


def main(argv: list[str] | None = None) -> int:
    """The exit status: 0 in order, 1 drift found by --check."""
    parser = argparse.ArgumentParser("python -m scripts.docs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the disk and write nothing")
    parser.add_argument("--root", type=Path, default=ROOT, help="repository to write to or to check")
    options = parser.parse_args(argv)
    outputs = render(options.root)
    if options.check:
        found = compare(options.root, outputs)
        for complaint in found:
            sys.stdout.write(complaint + "\n")
        if found:
            sys.stderr.write(f"{len(found)} file(s) are out of step: run `python -m scripts.docs`\n")
        return 1 if found else 0
    for path, text in outputs.items():
        there = options.root / path
        there.parent.mkdir(parents=True, exist_ok=True)
        if not there.exists() or there.read_text(encoding="utf-8") != text:
            there.write_text(text, encoding="utf-8")
            sys.stdout.write(f"wrote {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
