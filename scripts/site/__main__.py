"""`python -m scripts.site` builds the documentation as a site with Sphinx, for `make docs`.

A warning is an error: the exit status is 1 after all pages were read. Everything is built again, because Sphinx reports
the warnings of a page only when it reads that page.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[2]


def main(argv: list[str] | None = None) -> int:
    """Build the site. Return the exit status: 0 without warnings, 1 for warnings, 2 if Sphinx is not installed."""
    parser = argparse.ArgumentParser("python -m scripts.site", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--source", type=Path, default=ROOT, help="repository whose pages are built")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "docs", help="folder to write the site to")
    options = parser.parse_args(argv)
    try:
        from sphinx.cmd.build import main as sphinx
    except ModuleNotFoundError as error:
        sys.stderr.write(f"{error}. Run `scripts/setup.sh docs`, which installs the packages for the site.\n")
        return 2
    shutil.rmtree(options.output, ignore_errors=True)
    settings = Path(__file__).parent
    checks = ["--quiet", "--nitpicky", "--fail-on-warning", "--fresh-env", "--write-all"]
    state = options.output.with_name(options.output.name + ".state")
    status = sphinx(
        [*checks, "--no-color", "-d", str(state), "-c", str(settings), str(options.source), str(options.output)]
    )
    shutil.rmtree(state, ignore_errors=True)
    if not status:
        sys.stdout.write(f"The site was written to {options.output / 'index.html'}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
