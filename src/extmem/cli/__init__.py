"""The command line, `extmem …`: data on stdout, words on stderr. One file a command.

Nothing here is imported by the library, and `extmem --version` loads nothing else either.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

__all__ = ["main"]

_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: `arguments` without the program's name, None for this process's own."""
    given = sys.argv[1:] if arguments is None else arguments
    _open_streams()
    if given in (["--version"], ["-V"]):
        import extmem

        sys.stdout.write(f"extmem {extmem.__version__}\n")
        sys.exit(0)
    try:
        from extmem.cli._app import app
        from extmem.cli._out import prepare

        prepare()
        app(args=given, prog_name="extmem")
    except KeyboardInterrupt:
        _interrupted()
    except SystemExit as end:
        # Within a command the guard has said so; typer alone ends without a word.
        if end.code == _INTERRUPTED and not getattr(sys.modules.get("extmem.cli._guard"), "told_interrupted", False):
            _interrupted()
        raise


def _open_streams() -> None:
    """Python has no stream where the program was started with one closed. Words may get lost; data may not."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")
    if sys.stdout is None:
        sys.stderr.write("error: the standard output is closed; give the command one, such as >/dev/null\n")
        sys.exit(1)


def _interrupted() -> NoReturn:
    sys.stderr.write("interrupted\n")
    sys.exit(_INTERRUPTED)
