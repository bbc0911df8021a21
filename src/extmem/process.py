"""Handles for other processes: children that inherit them, and a socket that carries them.

Children inherit handles as with CreateProcess(bInheritHandles=TRUE).

A child started here finds every inheritable NT handle of its parent under the same number, with the same access and
still inheritable; it adopts one with `extmem.raw.nt_handle(value)`. Inheritance is a copy, made when the child starts:
what the parent closes later, the child keeps.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterable, Sequence
from typing import Any

from extmem.handles import FdHandle, NtHandle
from extmem.manager import INHERIT_VARIABLE, manager

__all__ = ["Popen", "receive_handle", "run", "send_handle"]


class Popen(subprocess.Popen[Any]):
    """`subprocess.Popen` whose child inherits NT handles.

    handles: only these arrive, as with PROC_THREAD_ATTRIBUTE_HANDLE_LIST (each must be inheritable); None is all
        inheritable ones of this process.
    Everything else is passed to `subprocess.Popen`. Errors: its own, and the object manager's.
    """

    def __init__(
        self,
        args: Sequence[str | os.PathLike[str]] | str,
        *,
        handles: Iterable[NtHandle] | None = None,
        env: dict[str, str] | None = None,
        pass_fds: Iterable[int] = (),
        **options: Any,
    ) -> None:
        values = None if handles is None else [int(handle) for handle in handles]
        # The child's end of a connection that already has the handles: if the child dies without a word, the
        # connection breaks and they are closed.
        with manager().inherit_socket(values) as channel:
            environment = dict(os.environ if env is None else env)
            environment[INHERIT_VARIABLE] = str(channel.fileno())
            super().__init__(args, env=environment, pass_fds=[*pass_fds, channel.fileno()], **options)


def run(args: Sequence[str | os.PathLike[str]] | str, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Start a child as `Popen` does, wait for it and return its result.

    timeout and input are as in `subprocess.run`; the child is killed when waiting ends early.
    """
    patience = options.pop("timeout", None)
    text = options.pop("input", None)
    check = options.pop("check", False)
    with Popen(args, **options) as child:
        try:
            out, err = child.communicate(text, timeout=patience)
        except BaseException:
            child.kill()
            raise
    result = subprocess.CompletedProcess(child.args, child.returncode, out, err)
    if check:
        result.check_returncode()
    return result


def send_handle(sock: socket.socket, handle: FdHandle) -> None:
    """Send an fd handle through a Unix socket (SOCK_SEQPACKET), with its payload's description, without a broker.

    Ownership: the handle stays the caller's; the receiver gets one of its own.
    Errors: UnsupportedError for another kind of socket; HandleStateError for a closed handle; PeerGoneError;
    BlockingIOError where the socket does not block and is full.
    """
    from extmem.memory import sockets

    sockets.send_handle(sock, handle)


def receive_handle(sock: socket.socket) -> FdHandle:
    """The next handle that `send_handle` sent through the other end. The caller owns it.

    What comes is the peer's word: the description is checked as any other when the handle is imported. Processes of one
    user trust each other; where the socket's peer (SO_PEERCRED) is another user, a GPU's fd is proven besides, on a
    device of its own, before it is imported.
    Errors: PeerGoneError at the end; PeerProtocolError for what is no such message; UnsupportedError as `send_handle`;
    BlockingIOError where the socket does not block and nothing is there.
    """
    from extmem.memory import sockets

    return sockets.receive_handle(sock)
