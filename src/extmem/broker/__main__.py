"""`python -m extmem.broker`: run a broker in this process.

Clients start a broker when they need one; this command is for `extmem` itself.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("the broker runs on Linux only; extmem.manager selects what the system has")

import argparse
import importlib.util
import os
from pathlib import Path


def _make_importable(libraries: str | None) -> None:
    """Add the directories of extmem and its libraries to the path, where Python in isolated mode does not search."""
    here = Path(__file__).resolve().parents[2]
    spec = importlib.util.find_spec("extmem")
    if spec is None or spec.origin is None or Path(spec.origin).resolve().parents[1] != here:
        sys.path.insert(0, str(here))
    if libraries is not None:
        sys.path.append(libraries)


def main() -> int:
    """Parse the command line, and run the broker. Return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m extmem.broker", description=__doc__)
    parser.add_argument("title", nargs="?", help="any text, which lists of processes show")
    parser.add_argument("--directory", help="the runtime directory (default: this user's)")
    parser.add_argument("--system", action="store_true", help="serve all users from /run/extmem (as root)")
    parser.add_argument(
        "--ready-fd", type=int, help="write `ready`, or the failure, to this file descriptor, and continue detached"
    )
    parser.add_argument("--libraries", help="a further directory of modules")
    options = parser.parse_args()
    if options.ready_fd is not None and os.fork():
        os._exit(0)  # the starter waits for this process only; the broker is not its child
    if not __package__:
        _make_importable(options.libraries)
    # By name: a type checker for Windows would follow an import statement.
    run = importlib.import_module("extmem.broker.run").run
    return int(run(options.directory, system=options.system, ready_fd=options.ready_fd))


if __name__ == "__main__":
    sys.exit(main())
