"""`python -m extmem.broker`: run a broker in this process.

Clients start one by themselves; nobody needs this by hand.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("the broker runs on Linux only; extmem.manager selects what the system has")

import argparse
import os
from pathlib import Path


def _make_importable(libraries: str | None) -> None:
    """Started by path in isolated mode: Python looks neither beside us nor in the caller's places for modules."""
    import importlib.util

    here = Path(__file__).resolve().parents[2]
    spec = importlib.util.find_spec("extmem")
    if spec is None or spec.origin is None or Path(spec.origin).resolve().parents[1] != here:
        sys.path.insert(0, str(here))
    if libraries is not None:
        sys.path.append(libraries)


def main() -> int:
    """Parse the command line and run. The exit status."""
    parser = argparse.ArgumentParser(prog="python -m extmem.broker", description=__doc__)
    parser.add_argument("title", nargs="?", help="anything: what lists of processes show")
    parser.add_argument("--directory", help="the runtime directory (default: this user's)")
    parser.add_argument("--system", action="store_true", help="serve all users from /run/extmem (as root)")
    parser.add_argument(
        "--ready-fd", type=int, help="tell `ready`, or what failed, to this descriptor, and go on detached"
    )
    parser.add_argument("--libraries", help="where else to look for modules")
    options = parser.parse_args()
    if options.ready_fd is not None and os.fork():
        os._exit(0)  # the starter waits for us alone; the broker itself belongs to nobody
    if not __package__:
        _make_importable(options.libraries)
    from extmem.broker.run import run

    return run(options.directory, system=options.system, ready_fd=options.ready_fd)


if __name__ == "__main__":
    sys.exit(main())
