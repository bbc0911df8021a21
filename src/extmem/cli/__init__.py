"""The command line, `extmem …`: data on stdout, words on stderr. One file a command.

Nothing here is imported by the library, and `extmem --version` loads nothing else either.
"""

from __future__ import annotations

import sys

from extmem.cli._streams import end_output, open_streams

__all__ = ["main"]

_FAILED, _INTERRUPTED = 1, 130


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: `arguments` without the program's name, None for this process's own."""
    given = sys.argv[1:] if arguments is None else arguments
    open_streams()
    try:
        code = _version() if given in (["--version"], ["-V"]) else _run(given)
    except KeyboardInterrupt:
        # Before or after the command itself, whose `guarded` writes the same.
        sys.stderr.write("interrupted\n")
        code = _INTERRUPTED
    except OSError as error:
        # Of the output: a command's own are told by `guarded`.
        sys.stderr.write(f"error: {type(error).__name__}: {error}\n")
        code = _FAILED
    sys.exit(end_output(code))


def _version() -> int:
    import extmem

    sys.stdout.write(f"extmem {extmem.__version__}\n")
    return 0


def _run(arguments: list[str]) -> int:
    from extmem.cli._app import run
    from extmem.cli._out import prepare

    prepare()
    return run(arguments)
