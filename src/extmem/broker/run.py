"""Running a broker: locks, socket, limits, signals, and telling the starter how it went."""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

import contextlib
import fcntl
import gc
import os
import resource
import secrets
import signal
import socket
import time
from pathlib import Path
from types import FrameType
from typing import Final

from extmem.broker.journal import Grace, Journal
from extmem.broker.paths import SYSTEM_DIRECTORY, RuntimeDir, address_in, runtime_directory
from extmem.broker.server import Server
from extmem.errors import UnsupportedError
from extmem.objects import ObjectManager

__all__ = ["IDLE", "run"]

IDLE: Final = 10.0
"""Seconds without a client after which a broker leaves; `EXTMEM_BROKER_IDLE` says otherwise."""
_BACKLOG: Final = 512
_LOCK_PATIENCE: Final = 5.0


def run(directory: str | None, *, system: bool = False, ready_fd: int | None = None) -> int:
    """Run a broker until it leaves. The exit status: 0, or 1 when it could not start (said on stderr or `ready_fd`)."""
    try:
        _occupy_standard()
        where = _place(directory, system)
        lock, listener = _prepare(where)
    except (UnsupportedError, OSError) as error:
        _tell(ready_fd, str(error))
        return 1
    idle = _idle(system)
    journal = Journal(where.journal)
    grace = Grace(journal.read(), time.monotonic())
    model = ObjectManager(session=0 if system else 1, random=secrets.randbelow, global_names=system)
    server = Server(where, listener, model, instance=secrets.randbits(62) | 1, idle=idle, journal=journal, grace=grace)
    signal.set_wakeup_fd(server.signal_fd, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _noted)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # What is here by now stays; what comes later are mostly records that hold nothing in a circle. Looking for circles
    # among them takes milliseconds that some client would wait for.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    _tell(ready_fd, "ready")
    try:
        server.run()
    finally:
        signal.set_wakeup_fd(-1)
        server.close()
        os.close(lock)
    return 0


def _place(directory: str | None, system: bool) -> RuntimeDir:
    if directory is not None:
        return RuntimeDir(Path(directory), system)
    return RuntimeDir(SYSTEM_DIRECTORY, True) if system else runtime_directory()


def _occupy_standard() -> None:
    # Where stdin, stdout or stderr is closed, the next file would get its number, and be written to by what logs there.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open("/dev/null", os.O_RDWR)  # gets the lowest number that is free, which is this one


def _prepare(where: RuntimeDir) -> tuple[int, socket.socket]:
    os.umask(0o077)
    opened = where.prepare()
    try:
        return _lock_and_listen(where, opened)
    finally:
        os.close(opened)


def _lock_and_listen(where: RuntimeDir, opened: int) -> tuple[int, socket.socket]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        lock = os.open(where.broker_lock.name, flags, 0o600, dir_fd=opened)
    except OSError as error:
        raise UnsupportedError(
            f"{where.broker_lock} cannot be opened: {error.strerror}. Remove it, or make the directory writable",
            requires_one_of=["another EXTMEM_RUNTIME_DIR"],
        ) from error
    try:
        _take_lock(where, lock)
        listener = _listen(where, opened)
    except BaseException:
        os.close(lock)
        raise
    return lock, listener


def _take_lock(where: RuntimeDir, lock: int) -> None:
    # A predecessor that is just leaving holds it for some milliseconds more.
    deadline = time.monotonic() + _LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
                raise UnsupportedError(
                    f"another broker is running in {where.path} (process {holder or 'unknown'} holds "
                    f"{where.broker_lock}); end it with `extmem broker stop`, or use another directory",
                    requires_one_of=["another EXTMEM_RUNTIME_DIR"],
                ) from None
            time.sleep(0.01)
        else:
            # Clients that find the lock held and nobody listening name the process.
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)
            return


def _listen(where: RuntimeDir, opened: int) -> socket.socket:
    # The lock is ours, so nobody listens at a socket that is there: a killed broker left it. Ours gets its name when it
    # listens: who finds it can connect.
    beside = ".broker.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(beside, dir_fd=opened)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        listener.bind(address_in(opened, beside))
        os.chmod(beside, 0o666 if where.system else 0o600, dir_fd=opened)
        listener.listen(_BACKLOG)
        os.rename(beside, where.socket.name, src_dir_fd=opened, dst_dir_fd=opened)
    except BaseException:
        listener.close()
        raise
    return listener


def _idle(system: bool) -> float:
    """Seconds; the system's broker stays.

    What is no number is ignored, as it may come from any program's environment.
    """
    if system:
        return float("inf")
    try:
        seconds = float(os.environ.get("EXTMEM_BROKER_IDLE", IDLE))
    except ValueError:
        return IDLE
    return seconds if seconds >= 0 else IDLE


def _noted(number: int, frame: FrameType | None) -> None:
    """The wakeup descriptor tells the loop."""


def _tell(ready_fd: int | None, text: str) -> None:
    if ready_fd is None:
        if text != "ready":
            print(f"extmem broker: {text}", file=sys.stderr)  # noqa: T201  (a program's own words, in the foreground)
        return
    try:
        os.write(ready_fd, f"{' '.join(text.split())}\n".encode(errors="backslashreplace"))
    except BrokenPipeError:
        pass  # the starter gave up; whoever comes next finds us
    os.close(ready_fd)
