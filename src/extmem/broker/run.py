"""Runs a broker: its lock, socket, limits and signals, and the report to the process that started it."""

from __future__ import annotations

import contextlib
import gc
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Final

from extmem.broker.client_journal import Journal, RecoveryWindow
from extmem.broker.fd_quota import FdQuota, raise_limit
from extmem.broker.object_notes import ObjectNotes
from extmem.broker.owned_directory import OwnedDirectory, listen, lock_of
from extmem.broker.server import Server
from extmem.broker.signing import Signer, read_key
from extmem.broker.tickets import SECONDS, Tickets
from extmem.errors import UnsupportedError
from extmem.objects import ObjectManager
from extmem.wire.runtime_dir import SYSTEM_DIRECTORY, RuntimeDir, address_in, lock_holder, runtime_directory

__all__ = ["IDLE", "run"]

IDLE: Final = 10.0
"""Seconds without a client after which a broker ends; the default of EXTMEM_BROKER_IDLE."""
_LOCK_PATIENCE: Final = 5.0
"""Seconds for which a broker waits for the lock."""
_ENDING_PATIENCE: Final = 0.2
"""Seconds of these after which a holder of the lock that listens is not a predecessor that is ending, but another
broker: the process that starts this one can use it, and may have two seconds to announce what it holds."""
_ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that end a process without handlers for them."""


def run(directory: str | None, *, system: bool = False, ready_fd: int | None = None) -> int:
    """Run a broker until it ends. Return the exit status: 0, or 1 if it could not start.

    The reason is written to `ready_fd`, or to stderr without one.
    """
    try:
        _occupy_standard()
        with _signal_mask_restored():
            server = _server(_runtime_dir(directory, system), system=system)
            signal.set_wakeup_fd(server.signal_fd, warn_on_full_buffer=False)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, _ignored)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
    except (UnsupportedError, OSError) as error:
        _report(ready_fd, str(error))
        return 1
    # The objects that exist now stay. Later ones are mostly records without reference cycles, and a full collection
    # takes milliseconds that a client would wait for: only the youngest generation is collected.
    gc.collect()
    gc.freeze()
    gc.set_threshold(1_000, 1_000_000, 1_000_000)
    _report(ready_fd, "ready")
    try:
        server.run()
    finally:
        signal.set_wakeup_fd(-1)
        server.close()
    return 0


@contextlib.contextmanager
def _signal_mask_restored() -> Iterator[None]:
    # The signals that `_locked` blocks are delivered here: they have handlers now, or the broker does not start.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _runtime_dir(directory: str | None, system: bool) -> RuntimeDir:
    if directory is not None:
        return RuntimeDir(Path(directory), system)
    return RuntimeDir(SYSTEM_DIRECTORY, True) if system else runtime_directory()


def _occupy_standard() -> None:
    # Where stdin, stdout or stderr is closed, the next file would get its number, and log output would be written to
    # it.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open("/dev/null", os.O_RDWR)  # gets the lowest number that is free, which is this one


def _server(where: RuntimeDir, *, system: bool) -> Server:
    os.umask(0o077)
    with contextlib.closing(where.prepare()) as opened:
        lock = _take_lock(where, opened.fd)
        try:
            return _locked(where, opened.fd, lock, system=system)
        except BaseException:
            os.close(lock)
            raise


def _locked(where: RuntimeDir, opened: int, lock: int, *, system: bool) -> Server:
    quota = FdQuota(raise_limit(), where.path)
    model = ObjectManager(
        session=0 if system else 1,
        random=secrets.randbelow,
        global_names=system,
        epoch=time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    )
    signer = Signer(read_key(where, opened))
    journal = Journal(where.journal)
    # A broker that ends removes its socket. Where one exists, its broker was killed.
    follows = os.path.lexists(where.socket) or os.path.exists(where.journal)
    window = RecoveryWindow(journal.read() if follows else frozenset(), time.monotonic())
    journal.begin()
    notes = ObjectNotes(where.notes)
    notes.begin(follows=follows)
    # Before their handlers are set, these signals would end the broker and leave its socket in the directory.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    listener = listen(where, opened)
    return Server(
        OwnedDirectory(where, opened, lock),
        listener,
        model,
        instance=secrets.randbits(62) | 1,
        idle=_idle(system),
        journal=journal,
        window=window,
        signer=signer,
        quota=quota,
        notes=notes,
        tickets=Tickets(model, _seconds("EXTMEM_TICKET_SECONDS", SECONDS)),
    )


def _take_lock(where: RuntimeDir, opened: int) -> int:
    # A predecessor that is ending holds the lock for some milliseconds more.
    began = time.monotonic()
    while True:
        try:
            return lock_of(where, opened)
        except BlockingIOError:
            waited = time.monotonic() - began
            if waited >= _LOCK_PATIENCE or (waited >= _ENDING_PATIENCE and _is_listening(where, opened)):
                holder = lock_holder(where.broker_lock.name, opened)
                raise UnsupportedError(
                    f"another broker is running in {where.path} (process {holder or 'unknown'} holds "
                    f"{where.broker_lock}); end it with `extmem broker stop`, or use another directory",
                    requires_one_of=["another EXTMEM_RUNTIME_DIR"],
                ) from None
            time.sleep(0.01)
        except OSError as error:
            raise UnsupportedError(
                f"{where.broker_lock} cannot be opened: {error.strerror}. Remove it, or make the directory writable",
                requires_one_of=["another EXTMEM_RUNTIME_DIR"],
            ) from error


def _is_listening(where: RuntimeDir, opened: int) -> bool:
    """Return whether a process listens at the broker's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.setblocking(False)
        try:
            sock.connect(address_in(opened, where.socket.name))
        except BlockingIOError:
            return True  # more connections wait than it accepts
        except OSError:
            return False
    return True


def _idle(system: bool) -> float:
    """Return the idle time in seconds; the system-wide broker does not end by itself."""
    if system:
        return float("inf")
    return _seconds("EXTMEM_BROKER_IDLE", IDLE)


def _seconds(variable: str, default: float) -> float:
    """Return the value of an environment variable; one that is not a number is ignored."""
    try:
        seconds = float(os.environ.get(variable, default))
    except ValueError:
        return default
    return seconds if seconds >= 0 else default


def _ignored(number: int, frame: FrameType | None) -> None:
    """Do nothing: the wakeup file descriptor notifies the loop."""


def _report(ready_fd: int | None, text: str) -> None:
    if ready_fd is None:
        if text != "ready":
            print(f"extmem broker: {text}", file=sys.stderr)  # noqa: T201  (the output of a program in the foreground)
        return
    try:
        os.write(ready_fd, f"{' '.join(text.split())}\n".encode(errors="backslashreplace"))
    except BrokenPipeError:
        pass  # the process that started it has given up; the next client finds this broker
    os.close(ready_fd)
