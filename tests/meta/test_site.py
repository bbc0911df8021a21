"""`make docs`: the site is built from the pages, and each broken link or reference fails the build."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.meta.tools import ROOT, run

PICTURE = """
<picture>
  <source media="(prefers-color-scheme: dark)" srcset="docs/images/dark.svg">
  <img alt="Two squares" src="docs/images/light.svg" width="8">
</picture>
"""
PAGES = {
    "README.md": "# Front\n[Guide](docs/guides/one.md#a-heading) [code](src/file.py) [security](SECURITY.md)\n"
    + PICTURE,
    "SECURITY.md": "# Security\n",
    "CONTRIBUTING.md": "# Contributing\n",
    "CHANGELOG.md": "# Changelog\n",
    "examples/README.md": "# Examples\n[source](../src/file.py)\n",
    "docs/README.md": "# All\n\n## Guides\n\n- [One](guides/one.md)\n\n## Facts\n\n- [Names](reference/README.md)\n",
    "docs/guides/one.md": "# One\n\n## A heading\n\n```python\nx = 1\n```\n[Front](../../README.md#front)\n",
    "docs/reference/README.md": "# Reference\n- [Names](extmem.md)\n",
    "docs/reference/extmem.md": "# Names\n\n## `open_it`\n\nOpens it.\n",
    "docs/images/light.svg": '<svg xmlns="http://www.w3.org/2000/svg"/>',
    "docs/images/dark.svg": '<svg xmlns="http://www.w3.org/2000/svg"/>',
    "src/file.py": "print('a file that is shown')\n",
}


def built(root: Path, **changed: str) -> tuple[int, str, Path]:
    """Build a small repository with these pages added or changed. Return exit status, output, and the site's folder."""
    for name, text in {**PAGES, **{key.replace("__", "/") + ".md": text for key, text in changed.items()}}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    site = root / "site"
    done = run([sys.executable, "-m", "scripts.site", "--source", root, "--output", site], cwd=ROOT, timeout=100)
    return done.returncode, done.stdout + done.stderr, site


def test_a_repository_without_faults_becomes_a_site(tmp_path: Path) -> None:
    status, output, site = built(tmp_path)
    assert status == 0, output
    front = (site / "README.html").read_text(encoding="utf-8")
    for link in ("docs/guides/one.html#a-heading", "source/src/file.py.html", "SECURITY.html"):
        assert f'href="{link}"' in front, link
    assert "only-dark" in front and "only-light" in front and "<picture>" not in front
    assert {"light.svg", "dark.svg"} <= {path.name for path in (site / "_images").iterdir()}
    assert "a file that is shown" in (site / "source" / "src" / "file.py.html").read_text(encoding="utf-8")
    assert "README.html" in (site / "index.html").read_text(encoding="utf-8")
    assert "open_it" in (site / "genindex.html").read_text(encoding="utf-8")
    assert "open_it" in (site / "searchindex.js").read_text(encoding="utf-8")


FAULTS = {
    "[x](missing.md)": "'missing.md'",
    "[x](docs/guides/one.md#no-heading)": "'no-heading'",
    "[x](#nothing)": "'nothing'",
    "[x](src/missing.py)": "'src/missing.py'",
    "[x](../beside.txt)": "is outside of the repository",
    "![x](missing.png)": "missing.png",
    '<img src="missing.svg">': "missing.svg",
    "{ref}`no-label`": "'no-label'",
}


def test_each_planted_broken_link_fails_the_build(tmp_path: Path) -> None:
    (tmp_path / "beside.txt").write_text("not of the repository", encoding="utf-8")
    page = "# Security\n" + "".join(f"\n{fault}\n" for fault in FAULTS)
    status, output, _ = built(tmp_path / "repository", SECURITY=page)
    assert status != 0
    for position, named in enumerate(FAULTS.values()):
        line = f"SECURITY.md:{3 + 2 * position}:"
        assert any(line in warning and named in warning for warning in output.splitlines()), f"{line} {named}\n{output}"


def test_planted_page_that_no_list_links_to_fails_the_build(tmp_path: Path) -> None:
    status, output, _ = built(tmp_path, docs__guides__lost="# Lost\n")
    assert status != 0
    assert "lost.md" in output and "toctree" in output, output
