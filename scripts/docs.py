"""`python -m scripts.docs` writes the parts of the documentation that come from the code; `--check` compares them.

This script alone writes the pages of docs/reference and the pictures of docs/images. In the other pages it fills the
sections between `<!-- generated: NAME -->` and `<!-- end generated -->`, and the last column of docs/behaviours.md.
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
    """Return the page with its generated sections filled in. Errors: LookupError for a section without a table."""

    def one(match: re.Match[str]) -> str:
        make = docs_tables.TABLES.get(match["name"])
        if make is None:
            names = ", ".join(docs_tables.TABLES)
            raise LookupError(f"{where} names the table {match['name']!r}, which does not exist; choose from: {names}")
        return f"{match['open']}{make()}\n{match['close']}"

    filled = _MARKED.sub(one, text)
    if text.count("<!-- generated:") != len(_MARKED.findall(text)):
        raise LookupError(f"{where} has a generated section without an end")
    return filled


def render(root: Path) -> dict[Path, str]:
    """Return the text of every output by its path relative to the root."""
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
    """Return the files that are missing, different or not written by this script, with the start of each difference."""
    found = []
    for path, text in outputs.items():
        target = root / path
        if not target.exists():
            found.append(f"{path} is missing")
        elif (old := target.read_text(encoding="utf-8")) != text:
            lines = difflib.unified_diff(
                old.splitlines(), text.splitlines(), "on disk", "from the code", lineterm="", n=0
            )
            found.append("\n".join([f"{path} differs", *list(lines)[:20]]))
    for folder in _OWNED:
        for file in sorted((root / folder).rglob("*")) if (root / folder).is_dir() else ():
            if file.is_file() and file.relative_to(root) not in outputs:
                found.append(f"{file.relative_to(root)} is not written by this script")
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the command line. Return the exit status: 1 if --check found a difference, else 0."""
    parser = argparse.ArgumentParser("python -m scripts.docs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the files and do not write them")
    parser.add_argument("--root", type=Path, default=ROOT, help="repository whose files are written or compared")
    options = parser.parse_args(argv)
    outputs = render(options.root)
    if options.check:
        found = compare(options.root, outputs)
        for complaint in found:
            sys.stdout.write(complaint + "\n")
        if found:
            sys.stderr.write(f"{len(found)} file(s) differ: run `python -m scripts.docs`\n")
        return 1 if found else 0
    for path, text in outputs.items():
        target = options.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")
            sys.stdout.write(f"wrote {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
