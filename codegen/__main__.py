"""`python -m codegen` writes the generated files; `--check` prints how the files on disk differ instead.

`python -m codegen layout` gets every struct's layout from the C compiler and writes it as a fixture of the tests.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from codegen import files, layout, registry

ROOT = Path(__file__).resolve().parent.parent


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0, or 1 if --check found a difference."""
    parser = argparse.ArgumentParser("python -m codegen", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["layout"], help="write the layout fixture instead")
    parser.add_argument("--check", action="store_true", help="compare with the disk and write nothing")
    parser.add_argument("--root", type=Path, default=ROOT, help="repository to write to or to check")
    options = parser.parse_args(argv)
    model = registry.load()
    if options.what == "layout":
        if not layout.available():
            print("no C compiler or no /usr/include/vulkan: install gcc and libvulkan-dev", file=sys.stderr)
            return 1
        print(f"wrote {layout.write_fixture(model, options.root)}")
        return 0
    texts = files.render(model)
    if options.check:
        complaints = files.compare(options.root, texts)
        for complaint in complaints:
            print(complaint)
        if complaints:
            print(f"{len(complaints)} generated file(s) are out of step: run `python -m codegen`", file=sys.stderr)
        return 1 if complaints else 0
    for path in files.write(options.root, texts):
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
