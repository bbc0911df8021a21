"""Finding the broker, and starting one where there is none.

How this works. A client first just connects. If nothing listens, it takes `start.lock`; of many clients that come at
once, one gets it, and the others find the new broker when it is their turn. The holder starts the broker as a process
of its own session, with no terminal, no inherited descriptor but a pipe, and `/` as its directory. Through the pipe
comes one line: `ready`, or why not. The broker holds `broker.lock` for life and alone removes a stale socket, so that
a late starter can never cut off a living one. If the client is killed meanwhile, the kernel frees the lock.

`EXTMEM_BROKER_START=never` forbids starting (a service manager does it, or nobody is to).
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

import errno
import fcntl
import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from extmem.broker.paths import RuntimeDir
from extmem.errors import PeerGoneError, UnsupportedError

__all__ = ["START_TIMEOUT", "connect", "connect_or_start", "start_broker"]

START_TIMEOUT: Final = 10.0
"""Seconds that a broker may take to start, and a client to find it."""
_STARTS: Final = 4
_ABSENT: Final = (errno.ENOENT, errno.ECONNREFUSED)
_TIMEVAL: Final = struct.Struct("ll")
_LOG_LIMIT: Final = 262_144


def set_deadline(sock: socket.socket, seconds: float) -> None:
    """Let every single call on a blocking socket end after `seconds`, in the kernel: no extra poll() per call."""
    whole = int(seconds)
    value = _TIMEVAL.pack(whole, int((seconds - whole) * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)


def connect(directory: RuntimeDir, timeout: float) -> socket.socket | None:
    """A connection to the broker that listens there; None if none does. `timeout` holds for each later call too.

    Raises UnsupportedError for a directory that is not private or not ours to enter, PeerGoneError for a broker that
    does not take the connection in time.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        set_deadline(sock, timeout)
        sock.connect(os.fspath(directory.socket))
    except OSError as error:
        sock.close()
        if error.errno in _ABSENT:
            return None
        if isinstance(error, BlockingIOError):
            raise PeerGoneError(
                f"the broker at {directory.socket} did not take a connection within {timeout:g} s; see {directory.log}"
            ) from error
        raise UnsupportedError(
            f"cannot connect to the broker at {directory.socket}: {error.strerror}. Set EXTMEM_RUNTIME_DIR to a "
            "directory "
            "of your own",
            requires_one_of=["EXTMEM_RUNTIME_DIR"],
        ) from error
    except BaseException:
        sock.close()
        raise
    return sock


def connect_or_start(directory: RuntimeDir, timeout: float) -> socket.socket:
    """A connection to the broker, which is started if there is none. Raises as `connect` and `start_broker`."""
    if directory.path.exists():
        directory.check()
    sock = connect(directory, timeout)
    if sock is not None:
        return sock
    if directory.system or os.environ.get("EXTMEM_BROKER_START", "").lower() == "never":
        raise UnsupportedError(
            f"no broker listens in {directory.path}, and this process may not start one "
            "(EXTMEM_BROKER_START=never). Run `extmem broker run` there, or unset EXTMEM_BROKER_START",
            requires_one_of=["a running broker", "EXTMEM_BROKER_START"],
        )
    directory.prepare()
    deadline = time.monotonic() + max(timeout, START_TIMEOUT)
    lock = _lock(directory, deadline)
    try:
        return _start(directory, timeout, deadline)
    finally:
        os.close(lock)


def _start(directory: RuntimeDir, timeout: float, deadline: float) -> socket.socket:
    # A broker that was killed while it started is started again, and so is one that left before we came (it was told to
    # be idle for no time at all). And one that cannot start because another runs means that a client was killed while
    # it started that one: then the other is connected to, once it listens.
    failed = 0
    while True:
        sock = connect(directory, timeout)
        if sock is not None:
            return sock
        late = time.monotonic() >= deadline
        if late and not failed:
            raise PeerGoneError(f"the broker was ready and is gone already; see {directory.log}, then try again")
        try:
            start_broker(directory, deadline)
        except (PeerGoneError, UnsupportedError):
            failed += 1
            sock = connect(directory, timeout)
            if sock is not None:
                return sock
            if late or failed >= _STARTS:
                raise


def _lock(directory: RuntimeDir, deadline: float) -> int:
    try:
        fd = os.open(directory.start_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise UnsupportedError(
            f"no broker listens in {directory.path}, and this process may not start one: {error.strerror}. Make the "
            "directory writable, or run `extmem broker run` as somebody who may",
            requires_one_of=["a running broker", "EXTMEM_RUNTIME_DIR"],
        ) from error
    try:
        _wait(lambda: _try_lock(fd), deadline, f"another process holds {directory.start_lock} and starts no broker")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(done: Callable[[], bool], deadline: float, problem: str) -> None:
    # flock has no time limit of its own; a few milliseconds between tries are nothing beside a broker's start.
    while not done():
        left = deadline - time.monotonic()
        if left <= 0:
            raise PeerGoneError(f"{problem}; stop that process and try again")
        time.sleep(min(0.005, left))


def _command(directory: RuntimeDir, ready: int) -> list[str]:
    if not sys.executable:
        raise UnsupportedError(
            f"no broker listens in {directory.path}, and this program does not know its Python (sys.executable is "
            "empty). "
            "Run `extmem broker run`",
            requires_one_of=["a running broker"],
        )
    # Run by path and isolated: neither the caller's directory nor its PYTHON* variables decide what is imported. The
    # places where this process found extmem and msgspec are told, in case they are not where Python looks by itself.
    script = Path(__file__).with_name("__main__.py")
    libraries = str(Path(str(msgspec.__file__)).parents[1])
    options = ["--directory", str(directory.path), "--ready-fd", str(ready), "--libraries", libraries]
    return [sys.executable, "-I", str(script), "extmem.broker", *options]


def start_broker(directory: RuntimeDir, deadline: float) -> None:
    """Start a broker and wait until it is ready. The caller holds `start.lock`.

    Raises UnsupportedError with the broker's own words where it cannot start, PeerGoneError where it says nothing in
    time.
    """
    receiving, sending = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            _spawn(directory, sending)
        finally:
            os.close(sending)
        answer = _read_line(receiving, deadline)
    finally:
        os.close(receiving)
    if answer != "ready":
        raise UnsupportedError(
            f"no broker listens in {directory.path}, and none could be started: {answer or 'it ended without a word'} "
            f"(see {directory.log}). `extmem broker run` starts one in the foreground",
            requires_one_of=["a running broker"],
        )


def _spawn(directory: RuntimeDir, ready: int) -> None:
    log = os.open(directory.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if os.fstat(log).st_size > _LOG_LIMIT:
            os.ftruncate(log, 0)
        starter = subprocess.Popen(
            _command(directory, ready),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            pass_fds=(ready,),
            start_new_session=True,
        )
    except OSError as error:
        raise UnsupportedError(
            f"no broker listens in {directory.path}, and {sys.executable} cannot be run to start one: {error.strerror}",
            requires_one_of=["a running broker"],
        ) from error
    finally:
        os.close(log)
    # The starter forks at once and leaves: the broker is nobody's child, so nobody has to reap it.
    starter.wait(timeout=START_TIMEOUT)


def _read_line(fd: int, deadline: float) -> str:
    text = b""
    pipe = select.poll()  # not select(): a client may well have more than 1024 descriptors
    pipe.register(fd, select.POLLIN)
    while b"\n" not in text and len(text) < 4_096:
        left = deadline - time.monotonic()
        if left <= 0 or not pipe.poll(left * 1000):
            raise PeerGoneError(
                "the broker that was started did not become ready in time; see broker.log beside its socket"
            )
        piece = os.read(fd, 4_096)
        if not piece:
            break
        text += piece
    return text.decode("utf-8", "replace").strip()
