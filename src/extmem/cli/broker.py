"""`extmem broker`: show the state of the broker, run one in the foreground, or end it."""

from __future__ import annotations

import sys
from typing import Any

import click

from extmem.cli._guard import FAILED, guarded
from extmem.cli._out import bytes_in_words, clean, counted, emit_json, emit_line, words
from extmem.errors import UnsupportedError

__all__ = ["broker"]

_NONE_NEEDED = "Windows needs no broker: its kernel keeps names and handles. `extmem ps` lists what is shared."
_as_json = click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")


@click.group(short_help="Show, run or stop the broker.", no_args_is_help=True)
def broker() -> None:
    """Control the process that keeps names, handles and KMT numbers. It starts and ends automatically."""


def _none_runs(facts: dict[str, Any]) -> str:
    which = "No broker of this version" if facts["other_versions"] else "No broker"
    return f"{which} runs here. One starts when a program shares memory."


def _status() -> dict[str, Any]:
    from extmem.manager import manager

    found = manager().status()
    others = [
        {"version": other.version, "pid": other.pid, "socket": other.socket} for other in manager().other_brokers()
    ]
    if found is None:
        return {"running": False, "other_versions": others}
    return {
        "running": True,
        "other_versions": others,
        "pid": found.pid,
        "version": found.version,
        "socket": found.socket,
        "uptime": found.uptime,
        "clients": found.clients,
        "payloads": found.payloads,
        "descriptors": found.fds,
        "resident": found.resident,
        "limit": found.limit,
        "used": found.used,
        "reserve": found.reserve,
        "client_share": found.client_share,
        "user_share": found.user_share,
        "longest_turn": found.longest_turn,
        "kept": found.kept,
        "waiting": found.waiting,
    }


@broker.command
@_as_json
@guarded
def status(as_json: bool) -> None:
    """Show the state of the broker. Do not start one.

    Exit codes: 0 a broker runs; 1 none runs.
    """
    from extmem.cli._payloads import other_broker_in_words
    from extmem.manager import manager

    facts = _status()
    if as_json:
        emit_json(facts)
    for other in facts["other_versions"]:
        words(other_broker_in_words(other["version"], other["pid"], other["socket"]))
    if not facts["running"]:
        words(_none_runs(facts) if manager().has_broker else _NONE_NEEDED)
        raise click.exceptions.Exit(FAILED)
    if not as_json:
        for label, value in (
            ("pid", facts["pid"]),
            ("socket", clean(facts["socket"])),
            ("up for", f"{facts['uptime']:.1f} s"),
            ("clients", facts["clients"]),
            ("payloads", facts["payloads"]),
            ("kept", facts["kept"]),
            ("waits", facts["waiting"]),
            ("open files", f"{facts['used']} of {facts['limit']} used, {facts['reserve']} in reserve"),
            ("shares", f"{facts['client_share']} for one more client, {facts['user_share']} for one more user"),
            ("memory", bytes_in_words(facts["resident"])),
            ("longest turn", f"{facts['longest_turn'] * 1000:.1f} ms"),
            ("wire format", f"version {facts['version']}"),
        ):
            emit_line(f"{label:12} {value}")


@broker.command(short_help="Run a broker in the foreground.")
@click.option(
    "--system",
    is_flag=True,
    help="Serve all users of the machine from /run/extmem, with Global\\ names (requires root).",
)
@_as_json
@guarded
def run(system: bool, as_json: bool) -> None:
    """Run a broker in the foreground, until it is stopped or has had no client for some seconds.

    Exit codes: 0 it has ended; 1 it could not start, or another one runs.
    """
    if sys.platform == "linux":
        from extmem.broker.run import run as run_broker
        from extmem.wire.runtime_dir import SYSTEM_DIRECTORY, runtime_directory

        where = SYSTEM_DIRECTORY if system else runtime_directory().path
        words(f"Starting a broker in {where}; Ctrl-C ends it.")
        code = run_broker(None, system=system)
        if as_json:
            emit_json({"directory": str(where), "left": code == 0})
        if code:
            raise click.exceptions.Exit(FAILED)
        words("The broker has ended.")
    else:
        raise UnsupportedError(
            "the broker runs on Linux only; on Windows the kernel is the object manager", requires_one_of=["Linux"]
        )


@broker.command
@click.option(
    "--force",
    is_flag=True,
    help="End it even if other processes use it, or it keeps memory. The processes start another broker and announce "
    "to it what they hold.",
)
@_as_json
@guarded
def stop(force: bool, as_json: bool) -> None:
    """End the broker. What it alone keeps (keep=) ends with it.

    Exit codes: 0 no broker runs any more; 1 other processes use it, or it keeps something (see --force).
    """
    from extmem.cli._payloads import other_broker_in_words
    from extmem.manager import manager

    before, owner = _status(), manager()
    stopped = owner.stop(force=force)
    if as_json:
        emit_json({"was_running": before["running"], "stopped": stopped})
    if not stopped:
        clients, kept = int(before.get("clients", 0)), int(before.get("kept", 0))
        uses = f"{counted(clients, 'process')} use{'s' * (clients == 1)} the broker"
        keeps = f" and it keeps {counted(kept, 'payload')}, which would be lost unless a process has it open" * bool(
            kept
        )
        words(f"{uses}{keeps}; --force ends it nevertheless.")
        raise click.exceptions.Exit(FAILED)
    for other in before["other_versions"]:
        words(other_broker_in_words(other["version"], other["pid"], other["socket"]))
    without = _none_runs(before) if owner.has_broker else _NONE_NEEDED
    words("The broker is ending." if before["running"] else without)
