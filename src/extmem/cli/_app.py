"""The group of all commands. A command imports everything except Click when it runs."""

from __future__ import annotations

import os

import click

import extmem
from extmem.cli import bench, broker, channel, channels, demo, devices, explain, forget, ps, rules, top

__all__ = ["app", "run"]


class _InOrder(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which the commands were added. Click would sort them."""
        return list(self.commands)


@click.group("extmem", cls=_InOrder, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(extmem.__version__, "--version", "-V", message="extmem %(version)s", help="Print the version.")
def app() -> None:
    """Share memory between processes by operating-system handle: name, NT handle, KMT number or fd.

    Data goes to stdout, messages to stderr; every command takes --json.

    Exit codes: 0 done; 1 refused, failed, not found, or a bound missed; 2 wrong arguments; 130 interrupted.
    EXTMEM_RUNTIME_DIR sets the directory of the broker; EXTMEM_TRACEBACK=1 prints the traceback of an error.
    """


for command in (
    devices.devices,
    ps.ps,
    top.top,
    channels.channels,
    channel.channel,
    forget.forget,
    rules.rules,
    explain.explain,
    demo.demo,
    bench.bench,
    broker.broker,
):
    app.add_command(command)


def run(arguments: list[str]) -> int:
    """Run the command line and return the exit code. Problems of the arguments are written to stderr.

    Errors: KeyboardInterrupt outside of a command; OSError of the output; SystemExit for completion and SIGTERM.
    """
    try:
        code = app.main(arguments, prog_name="extmem", standalone_mode=False)
    except click.ClickException as wrong:
        wrong.show()
        return wrong.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    except (KeyError, ValueError, IndexError):
        if not os.environ.get("_EXTMEM_COMPLETE"):
            raise
        return 1  # the variables of a shell's completion (COMP_WORDS, COMP_CWORD) are missing or wrong
    return code if isinstance(code, int) else 0
