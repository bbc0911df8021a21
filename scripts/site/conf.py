"""The configuration of Sphinx: `make docs` builds README, the pages beside it and docs/ as a site in build/docs.

How this works. The source directory is the repository's root, so that a relative link is the same in the repository's
web view and in the site. The pages stay plain Markdown. The following is added when Sphinx reads a page:

- the tables of contents, which are the lists of links in docs/README.md, docs/reference/README.md and
  docs/design/README.md: a page that none of them links to is a warning;
- `<picture>` becomes two images, one for light and one for dark pages;
- a link to a file of the project that is not a page leads to a page of the site that shows the file;
- the headings of docs/reference that are public names become Python objects: the search finds them by name, and other
  projects can refer to them (objects.inv).

Each warning is an error: a missing page, heading, file or image, and an image or reference that does not resolve.
"""

from __future__ import annotations

import posixpath
import re
import tomllib
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.logging import getLogger

_ROOT = Path(__file__).resolve().parents[2]
_log = getLogger(__name__)

project = "extmem"
release = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
html_title = f"extmem {release}"
extensions = ["myst_parser"]
root_doc = "README"
include_patterns = ["*.md", "docs/**", "examples/README.md"]
exclude_patterns = [".*", "build", "codegen", "src", "tests", "scripts", "fuzz"]
nitpicky = True

html_theme = "furo"
html_extra_path = ["index.html"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False

myst_heading_anchors = 6
myst_enable_extensions = ["html_image"]

_BESIDE = ("examples/README", "CONTRIBUTING", "SECURITY", "CHANGELOG")
"""The pages that are not in docs/README.md's lists, in their order in the site's table of contents."""
_LISTED = re.compile(r"^- \[[^\]]+\]\(([^)#\s]+)\.md\)", re.MULTILINE)
_PICTURE = re.compile(r'<picture>\s*<source [^>]*srcset="([^"]+)">\s*<img ([^>]*?)src="([^"]+)"([^>]*)>\s*</picture>')


def _toctree(entries: list[str], caption: str = "") -> str:
    lines = ["```{toctree}", ":hidden:", *([f":caption: {caption}"] if caption else []), *entries, "```"]
    return "\n\n" + "\n".join(lines) + "\n"


def _contents(root: Path) -> str:
    """Return the site's table of contents: the sections of docs/README.md, and the pages beside docs."""
    text = (root / "docs" / "README.md").read_text(encoding="utf-8")
    parts = [_toctree(["/docs/README"])]
    for section in text.split("\n## ")[1:]:
        pages = [f"/docs/{page}" for page in _LISTED.findall(section)]
        parts.append(_toctree(pages, section.partition("\n")[0]))
    return "".join([*parts, _toctree([f"/{page}" for page in _BESIDE], "Project")])


def _read(app: Sphinx, docname: str, content: list[str]) -> None:
    """Add the tables of contents and turn each picture into images for light and dark pages."""
    text = _PICTURE.sub(r'<img class="only-light" \2src="\3"\4>\n\n<img class="only-dark" \2src="\1"\4>', content[0])
    if docname == "README":
        text += _contents(Path(app.srcdir))
    elif docname in ("docs/reference/README", "docs/design/README"):
        text += _toctree(_LISTED.findall(text))
    content[0] = text


class _ShownFiles(SphinxTransform):
    """Change links to files that are not pages to a page that shows the file. Sphinx would make them downloads."""

    default_priority = 500

    def apply(self, **_: Any) -> None:
        for link in list(self.document.findall(addnodes.download_reference)):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(self.env.docname), link["reftarget"]))
            if path.startswith(("/", "..")):
                _log.warning("%r is outside of the repository", link["reftarget"], location=link, type="extmem")
                continue
            if not Path(self.app.srcdir, path).is_file():
                continue  # Sphinx reports it
            uri = self.app.builder.get_relative_uri(self.env.docname, f"source/{path}")
            link.replace_self(nodes.reference("", "", *link.children, refuri=uri, internal=True))
            _shown.add(path)


_shown: set[str] = set()
"""The files that a page links to, by their path from the source directory."""


def _source_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    for path in sorted(_shown):
        text = Path(app.srcdir, path).read_text(encoding="utf-8")
        lexer = {".py": "python", ".sh": "sh", ".toml": "toml", ".json": "json"}.get(Path(path).suffix, "text")
        code = app.builder.highlighter.highlight_block(text, lexer)  # type: ignore[attr-defined]
        yield f"source/{path}", {"title": path, "body": f"<h1>{escape(path)}</h1>{code}"}, "page.html"


_MODULES = {"errors": "extmem", "extmem": "extmem", "checks": "extmem.rules", "vk": "extmem.vk"}
"""The module of the names in a page's headings, if no heading of the page is the name of the module."""


class _Names(SphinxTransform):
    """Register the names in the headings of docs/reference as Python objects, and add them to the index."""

    default_priority = 700  # before Sphinx collects the index

    def apply(self, **_: Any) -> None:
        folder, _slash, page = self.env.docname.rpartition("/")
        if folder != "docs/reference":
            return
        module = _MODULES.get(page, "")
        for section in list(self.document.findall(nodes.section)):
            title = section.next_node(nodes.title)
            words = title.children if title is not None else []
            if len(words) != 1 or not isinstance(words[0], nodes.literal):
                continue
            name, _equals, value = words[0].astext().partition(" = ")
            if name.startswith("extmem."):
                module = name
            elif module and name.replace(".", "").isidentifier():
                object_type = "data" if value else "class" if name[0].isupper() else "function"
                anchor = section["ids"][0]
                self.env.domains.python_domain.note_object(f"{module}.{name}", object_type, anchor, location=section)
                entry = ("single", f"{name} (in {module})", anchor, "", None)
                section.insert(0, addnodes.index(entries=[entry]))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the functions of this module with Sphinx."""
    app.connect("source-read", _read)
    app.connect("html-collect-pages", _source_pages)
    app.add_transform(_ShownFiles)
    app.add_transform(_Names)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
