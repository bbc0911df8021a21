"""The command line, `extmem …`: data on stdout, messages on stderr. There is one file for each command.

The library does not import this package. `extmem --version` loads no other module of it.
"""

from __future__ import annotations

import sys

__all__ = ["main"]

_FAILED, _INTERRUPTED = 1, 130


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit. arguments: without the program's name; None for those of this process."""
    try:
        code = _main(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        # During an import of this package's modules, or while the output is written.
        if sys.stderr is not None:
            sys.stderr.write("interrupted\n")
        code = _INTERRUPTED
    sys.exit(code)


def _main(given: list[str]) -> int:
    from extmem.cli._streams import end_output, open_streams

    open_streams()
    try:
        code = _version() if given in (["--version"], ["-V"]) else _run(given)
    except KeyboardInterrupt:
        # Before or after the command; during the command, `guarded` writes the same.
        sys.stderr.write("interrupted\n")
        code = _INTERRUPTED
    except OSError as error:
        # An error of the output; `guarded` reports those of the command.
        sys.stderr.write(f"error: {type(error).__name__}: {error}\n")
        code = _FAILED
    return end_output(code)


def _version() -> int:
    import extmem

    sys.stdout.write(f"extmem {extmem.__version__}\n")
    return 0


def _run(arguments: list[str]) -> int:
    from extmem.cli._app import run
    from extmem.cli._out import prepare

    prepare()
    return run(arguments)
