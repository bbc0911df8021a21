"""Connects to the broker, and starts one where none runs.

How this works. A client first tries to connect. If no broker listens, it takes the start lock. Of many clients at once,
one gets it, and the others find the new broker when they get the lock. The holder starts the broker as a process of its
own session, without a terminal, with `/` as its directory, and with a pipe as the only inherited file descriptor. The
broker writes one line to the pipe: `ready`, or the reason of its failure. The broker holds the broker lock for its
lifetime, and only the broker removes a stale socket, so that a late starter cannot disconnect a running broker. If the
client is killed meanwhile, the kernel releases the start lock.

If the broker lock is held and no socket listens, the broker is starting or ending, or its socket was removed. The
client waits for `_HELD` seconds; after that it raises an error that names the process.

The runtime directory is opened once for each connection and checked, and its files are opened relative to that file
descriptor (`wire.runtime_dir`).

`EXTMEM_BROKER_START=never` forbids starting a broker (for example because a service manager starts it).
`EXTMEM_BROKER_PYTHON` names the interpreter that runs the broker. A program that embeds Python, or that was frozen into
one file, must not be started a second time in place of an interpreter, so such a program starts a broker only with that
variable.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from extmem.errors import VK_ERROR_TOO_MANY_OBJECTS, ExtmemError, OutOfMemoryError, PeerGoneError, UnsupportedError
from extmem.forks import no_fork
from extmem.owning import OwnedFd, pipes_and_sockets
from extmem.wire.runtime_dir import RuntimeDir, address_in, lock_holder

__all__ = ["START_TIMEOUT", "connect", "connect_or_start", "start_broker"]

START_TIMEOUT: Final = 10.0
"""Seconds that a broker may take to start and a client to connect."""
_STARTS: Final = 4
_ABSENT: Final = (errno.ENOENT, errno.ECONNREFUSED)
_TIMEVAL: Final = struct.Struct("ll")
_LOG_LIMIT: Final = 262_144
_HELD: Final = 3.0
"""Seconds for which a broker may hold its lock without listening, while it starts or ends."""
_PAUSE: Final = 0.005
_PYTHONS: Final = ("python", "pypy", "graalpy")
"""Prefixes of the names of programs that run the script in their first argument."""


def set_deadline(sock: socket.socket, seconds: float) -> None:
    """Limit each call on a blocking socket to `seconds`, in the kernel, without an additional poll() for each call."""
    whole = int(seconds)
    value = _TIMEVAL.pack(whole, int((seconds - whole) * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)


def connect(directory: RuntimeDir, timeout: float) -> socket.socket | None:
    """Return a connection to the broker of the directory; None if none listens. `timeout` applies to each later call.

    Errors: UnsupportedError for a directory that is not private or that this user may not enter; PeerGoneError for a
    broker that does not accept the connection in time, or that runs and cannot be reached; OutOfMemoryError where this
    process cannot open another file.
    """
    try:
        opened = directory.open()
    except OSError as error:
        raise _failed(directory, error) from error
    if opened is None:
        return None
    with contextlib.closing(opened):
        return _connect_in(directory, opened.fd, timeout)


def how_to_end(pid: int | None) -> str:
    """Return how to end a broker that does not answer, for a message. pid: None or 0 if it is not known."""
    command = f"`kill -9 {pid}`" if pid else "SIGKILL"
    return f"end the broker with {command}: the processes that run keep what they hold"


def _connect_in(directory: RuntimeDir, opened: int, timeout: float) -> socket.socket | None:
    deadline = time.monotonic() + _HELD
    while True:
        sock = _try_connect(directory, opened, timeout)
        if sock is not None:
            return sock
        holder = lock_holder(directory.broker_lock.name, opened)
        if holder is None:
            # The lock may have changed since the first attempt: a broker has ended, or it listens by now.
            return _try_connect(directory, opened, timeout)
        if time.monotonic() >= deadline:
            raise PeerGoneError(
                f"a broker runs in {directory.path} ({f'process {holder}' if holder else 'another process'} holds "
                f"{directory.broker_lock}), but does not listen at {directory.socket}: the socket was removed or "
                "replaced. End that process: the processes that run keep what they hold, and the next request starts "
                "another broker"
            )
        time.sleep(_PAUSE)


def _try_connect(directory: RuntimeDir, opened: int, timeout: float) -> socket.socket | None:
    sock = None
    try:
        sock = pipes_and_sockets.socket_above_standard_streams(
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        )
        set_deadline(sock, timeout)
        sock.connect(address_in(opened, directory.socket.name))
    except OSError as error:
        if sock is not None:
            sock.close()
        if error.errno in _ABSENT:
            return None
        if isinstance(error, BlockingIOError):
            raise PeerGoneError(
                f"the broker at {directory.socket} did not accept a connection within {timeout:g} s"
                f"{directory.see_log()}. Try again, or {how_to_end(lock_holder(directory.broker_lock.name, opened))}"
            ) from error
        raise _failed(directory, error) from error
    except BaseException:
        if sock is not None:
            sock.close()
        raise
    return sock


def _failed(directory: RuntimeDir, error: OSError) -> ExtmemError:
    """Return the error for a failed system call of a caller that needs a broker."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return OutOfMemoryError(
            f"cannot connect to the broker at {directory.socket}: {error.strerror}; close some files, or raise "
            "`ulimit -n`",
            result=VK_ERROR_TOO_MANY_OBJECTS,
            command="connect",
        )
    return UnsupportedError(
        f"cannot connect to the broker at {directory.socket}: {error.strerror or error}. Set EXTMEM_RUNTIME_DIR to a "
        "directory of your own",
        requires_one_of=["EXTMEM_RUNTIME_DIR"],
    )


def connect_or_start(directory: RuntimeDir, timeout: float) -> socket.socket:
    """Return a connection to the broker, which is started if none runs. Errors: as `connect` and `start_broker`."""
    sock = connect(directory, timeout)
    if sock is not None:
        return sock
    if directory.system or os.environ.get("EXTMEM_BROKER_START", "").lower() == "never":
        raise UnsupportedError(
            f"no broker listens in {directory.path}, and this process may not start one "
            "(EXTMEM_BROKER_START=never). Run `extmem broker run` there, or unset EXTMEM_BROKER_START",
            requires_one_of=["a running broker", "EXTMEM_BROKER_START"],
        )
    try:
        opened = directory.prepare()
    except OSError as error:
        raise _failed(directory, error) from error
    deadline = time.monotonic() + max(timeout, START_TIMEOUT)
    with contextlib.closing(opened), _locked(directory, opened.fd, deadline):
        return _start(directory, opened.fd, timeout, deadline)


def _start(directory: RuntimeDir, opened: int, timeout: float, deadline: float) -> socket.socket:
    # A broker that was killed while it started is started again, and so is one that ended before this process connected
    # (its idle time is 0). If a broker cannot start because another one runs, a client was killed while it started
    # that one: this process connects to it once it listens.
    failed = 0
    while True:
        sock = _connect_in(directory, opened, timeout)
        if sock is not None:
            return sock
        late = time.monotonic() >= deadline
        if late and not failed:
            raise PeerGoneError(f"the broker was ready and has ended already{directory.see_log()}. Try again")
        try:
            start_broker(directory, opened, deadline)
        except (PeerGoneError, UnsupportedError):
            failed += 1
            sock = _connect_in(directory, opened, timeout)
            if sock is not None:
                return sock
            if failed >= _STARTS or time.monotonic() >= deadline:
                raise


@contextlib.contextmanager
def _locked(directory: RuntimeDir, opened: int, deadline: float) -> Iterator[None]:
    """Hold the lock under which a process starts a broker. Errors: PeerGoneError at the deadline."""
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        lock = OwnedFd.open(directory.start_lock.name, flags, 0o600, dir_fd=opened)
    except OSError as error:
        raise _unstartable(directory, directory.start_lock, error) from error
    with contextlib.closing(lock):
        try:
            # flock(2) does not have a time limit; some milliseconds between attempts are short beside a broker's start.
            while not _try_lock(lock.fd):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise PeerGoneError(
                        f"another process holds {directory.start_lock} and does not start a broker; stop that process "
                        "and try again"
                    )
                time.sleep(min(_PAUSE, left))
            yield
        finally:
            # Closing the file does not end the lock if a child that another thread forked has a copy of the fd.
            fcntl.flock(lock.fd, fcntl.LOCK_UN)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unstartable(directory: RuntimeDir, path: Path, error: OSError) -> ExtmemError:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return _failed(directory, error)
    return UnsupportedError(
        f"no broker listens in {directory.path}, and this process may not start one: {path}: {error.strerror}. Make "
        "the directory writable, or run `extmem broker run` as a user who may write there",
        requires_one_of=["a running broker", "EXTMEM_RUNTIME_DIR"],
    )


def interpreter(directory: RuntimeDir) -> str:
    """Return the program that runs the broker: `EXTMEM_BROKER_PYTHON`, or this process's Python.

    Errors: UnsupportedError where this process is not a Python interpreter that could run it.
    """
    stated = os.environ.get("EXTMEM_BROKER_PYTHON")
    if stated:
        return stated
    if getattr(sys, "frozen", False):
        problem = f"this program is frozen: {sys.executable} is the program itself"
    elif not sys.executable:
        problem = "the path of this program's Python is not known (sys.executable is empty)"
    elif not os.path.basename(sys.executable).lower().startswith(_PYTHONS):
        problem = f"this program embeds Python: {sys.executable} is not an interpreter by its name"
    else:
        return sys.executable
    raise UnsupportedError(
        f"no broker listens in {directory.path}, and this process cannot start one: {problem}. Set "
        "EXTMEM_BROKER_PYTHON to a Python that has extmem installed, or run `extmem broker run`",
        requires_one_of=["a running broker", "EXTMEM_BROKER_PYTHON"],
    )


def _command(directory: RuntimeDir, ready: int) -> list[str]:
    # The broker runs by path and isolated, so that the caller's directory and PYTHON* variables do not decide what is
    # imported. The directories of extmem and msgspec are passed, as they may not be on the default path of Python.
    python = interpreter(directory)
    options = ["--directory", str(directory.path), "--ready-fd", str(ready)]
    script = Path(__file__).resolve().parents[2] / "broker" / "__main__.py"
    if not script.is_file():
        # A frozen program has its modules in an archive, so the interpreter must have extmem installed.
        return [python, "-I", "-m", "extmem.broker", *options]
    libraries = str(Path(str(msgspec.__file__)).parents[1])
    return [python, "-I", str(script), "extmem.broker", *options, "--libraries", libraries]


def start_broker(directory: RuntimeDir, opened: int, deadline: float) -> None:
    """Start a broker and wait until it is ready. The caller holds the start lock of the opened directory.

    Errors: UnsupportedError with the broker's reason where it cannot start; PeerGoneError where it does not answer in
    time; OutOfMemoryError.
    """
    with contextlib.ExitStack() as stack:
        # No other thread forks until the starter has ended: a child would have copies of the pipes, this one and those
        # of `subprocess`, and their ends would not be seen here as long as it runs.
        with no_fork():
            try:
                receiving, sending = pipes_and_sockets.pipe(os.O_CLOEXEC)
            except OSError as error:
                raise _failed(directory, error) from error
            stack.callback(receiving.close)
            with contextlib.closing(sending):
                command = _command(directory, sending.fd)
                _spawn(directory, opened, command, sending.fd, deadline)
        answer = _read_line(directory, receiving.fd, deadline)
    if answer != "ready":
        raise UnsupportedError(
            f"no broker listens in {directory.path}, and {command[0]} did not start one: "
            f"{answer or 'it ended without a message'} (see {directory.log}). `extmem broker run` starts one in the "
            "foreground",
            requires_one_of=["a running broker"],
        )


def _spawn(directory: RuntimeDir, opened: int, command: list[str], ready: int, deadline: float) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        log = OwnedFd.open(directory.log.name, flags, 0o600, dir_fd=opened)
    except OSError as error:
        raise _unstartable(directory, directory.log, error) from error
    try:
        if os.fstat(log.fd).st_size > _LOG_LIMIT:
            os.ftruncate(log.fd, 0)
        starter = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log.fd,
            stderr=log.fd,
            cwd="/",
            # The started program, whatever it is, must not start a broker itself.
            env={**os.environ, "EXTMEM_BROKER_START": "never"},
            pass_fds=(ready,),
            start_new_session=True,
        )
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise _failed(directory, error) from error
        raise UnsupportedError(
            f"no broker listens in {directory.path}, and {command[0]} cannot be run to start one: {error.strerror}. "
            "Set EXTMEM_BROKER_PYTHON to a Python that has extmem installed, or run `extmem broker run`",
            requires_one_of=["a running broker", "EXTMEM_BROKER_PYTHON"],
        ) from error
    finally:
        log.close()
    # The started process forks and ends at once, so the broker is not a child of this process and need not be reaped.
    try:
        starter.wait(timeout=max(0.0, deadline - time.monotonic()))
    except BaseException as error:
        starter.kill()
        starter.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        raise PeerGoneError(
            f"{command[0]} was run to start a broker in {directory.path} and did not do so within "
            f"{START_TIMEOUT:g} s: it is not a Python interpreter, or it hangs; see {directory.log}. Set "
            "EXTMEM_BROKER_PYTHON to a Python that has extmem installed, or run `extmem broker run`"
        ) from error


def _read_line(directory: RuntimeDir, fd: int, deadline: float) -> str:
    text = b""
    pipe = select.poll()  # not select(): a client may have more than 1024 file descriptors
    pipe.register(fd, select.POLLIN)
    while b"\n" not in text and len(text) < 4_096:
        left = deadline - time.monotonic()
        if left <= 0 or not pipe.poll(left * 1000):
            raise PeerGoneError(
                f"the broker that was started in {directory.path} did not become ready in time; see {directory.log}"
            )
        piece = os.read(fd, 4_096)
        if not piece:
            break
        text += piece
    return text.decode("utf-8", "replace").strip()
