"""Handles for other processes: inheritance by child processes, and transfer through a socket.

Children inherit handles as with CreateProcess(bInheritHandles=TRUE).

A child that this module starts has every inheritable NT handle of its parent under the same number, with the same
access, and inheritable; it takes ownership of one with `extmem.raw.nt_handle(value)`. Handles are copied when the child
starts: a handle that the parent closes later stays open in the child.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

from extmem.arguments import a_type
from extmem.errors import UnsupportedError
from extmem.handles import FdHandle, NtHandle
from extmem.handles.arguments import handle_number
from extmem.manager import INHERIT_VARIABLE, manager
from extmem.objects import Status, error_for
from extmem.owning import late_imports, out_of_descriptors

__all__ = ["Popen", "receive_handle", "run", "send_handle"]

_LONGEST_TIMEOUT: Final = 2_000_000.0
"""Seconds. subprocess passes its timeout to poll(), which accepts at most 2**31 milliseconds."""


class Popen(subprocess.Popen[Any]):
    """`subprocess.Popen` whose child inherits NT handles.

    handles: only these are inherited, as with PROC_THREAD_ATTRIBUTE_HANDLE_LIST (each must be inheritable); None is all
        inheritable ones of this process.
    All other arguments are passed to `subprocess.Popen`.

    Errors: those of `subprocess.Popen` and of the object manager; TypeError for handles that are not NtHandle;
    OutOfMemoryError if the process has no file descriptor left.
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
        values = None if handles is None else _values(handles)
        with contextlib.ExitStack() as until_started:
            try:
                super().__init__(args, **_inheriting(values, env, pass_fds, options, until_started))
            except OSError as error:
                raise out_of_descriptors(error, "Popen") from None


def _values(handles: Iterable[NtHandle]) -> list[int]:
    """Return the values of handles to inherit. Errors: TypeError for other objects; HandleStateError once closed."""
    if not isinstance(handles, Iterable):
        raise TypeError(f"handles is {handles!r}, {a_type(handles)}; give a list of NtHandle, or None")
    return [
        int(handle) if isinstance(handle, NtHandle) else handle_number(handle, "an NT handle") for handle in handles
    ]


if sys.platform == "win32":

    def _inheriting(
        values: list[int] | None,
        env: dict[str, str] | None,
        pass_fds: Iterable[int],
        options: dict[str, Any],
        until_started: contextlib.ExitStack,
    ) -> dict[str, Any]:
        """Return the options for bInheritHandles of CreateProcess, and for the handle list if handles are given."""
        if list(pass_fds):
            raise UnsupportedError(
                "Windows has no pass_fds: only handles are inherited; give them as handles=[...]",
                requires_one_of=["handles"],
            )
        if values is None:
            return {**options, "env": env, "close_fds": False}
        for value in values:
            if not manager().info(value).inherit:
                raise error_for(
                    Status.INVALID_HANDLE,
                    f"The handle {value:#x} is not inheritable. Create it as inheritable (SecurityAttributes, "
                    "inherit=True), or set it with set_info(inherit=True).",
                )
        # Only the handle list of the caller's STARTUPINFO is changed.
        startup = options.pop("startupinfo", None) or subprocess.STARTUPINFO()
        attributes = dict(startup.lpAttributeList or {})
        attributes["handle_list"] = [*attributes.get("handle_list", ()), *values]
        startup.lpAttributeList = attributes
        return {**options, "env": env, "startupinfo": startup, "close_fds": True}

else:

    def _inheriting(
        values: list[int] | None,
        env: dict[str, str] | None,
        pass_fds: Iterable[int],
        options: dict[str, Any],
        until_started: contextlib.ExitStack,
    ) -> dict[str, Any]:
        """Return the options that pass the child's end of a connection that already has the handles.

        If the child ends before it takes them, the connection breaks and they are closed.
        """
        with late_imports():
            from extmem.wire.peers import inheritance

        channel = until_started.enter_context(manager().inherit_socket(values))
        environment = dict(os.environ if env is None else env)
        environment[INHERIT_VARIABLE] = inheritance(channel)
        return {**options, "env": environment, "pass_fds": [*pass_fds, channel.fileno()]}


def run(
    args: Sequence[str | os.PathLike[str]] | str,
    *,
    input: str | bytes | None = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Start a child as `Popen` does, wait for it and return its result: `subprocess.run`, and its arguments.

    timeout: seconds; 2,000,000 (23 days) or more is no limit. The child is killed if waiting ends early. Errors: as
    `Popen` and `subprocess.run`.
    """
    if input is not None:
        if options.get("stdin") is not None:
            raise ValueError("give the child input or stdin, not both")
        options["stdin"] = subprocess.PIPE
    if capture_output:
        if options.get("stdout") is not None or options.get("stderr") is not None:
            raise ValueError("capture_output sets stdout=PIPE and stderr=PIPE; do not pass stdout or stderr with it")
        options["stdout"] = options["stderr"] = subprocess.PIPE
    with Popen(args, **options) as child:
        try:
            limited = timeout is not None and timeout < _LONGEST_TIMEOUT
            out, err = child.communicate(input, timeout=timeout if limited else None)
        except BaseException:
            child.kill()
            raise
    result = subprocess.CompletedProcess(child.args, child.returncode, out, err)
    if check:
        result.check_returncode()
    return result


def send_handle(sock: socket.socket, handle: FdHandle) -> None:
    """Send an fd handle and its payload's description through a Unix socket (SOCK_SEQPACKET), without a broker.

    Ownership: the caller keeps the handle; the receiver gets another one.
    Errors: UnsupportedError for another kind of socket; TypeError for another object; HandleStateError for a closed
    handle; PeerGoneError; BlockingIOError if the socket is non-blocking and full.
    """
    fd_sockets().send_handle(sock, handle)


def receive_handle(sock: socket.socket) -> FdHandle:
    """Receive the next handle that `send_handle` sent through the other end. The caller owns it.

    The description comes from the peer, and is checked when the handle is imported. Processes of one user trust each
    other. If the socket's peer (SO_PEERCRED) is another user, an fd of a GPU is also verified on a separate device
    before it is imported, and so is a payload that `extmem.raw.send_payload` sent.
    Errors: PeerGoneError if the other end is closed; PeerProtocolError for another message; UnsupportedError as
    `send_handle`; BlockingIOError if the socket is non-blocking and empty.
    """
    return cast("FdHandle", fd_sockets().receive_handle(sock))


@functools.cache
def fd_sockets() -> Any:
    """Return the module that sends file descriptors (for the library itself). Errors: UnsupportedError on Windows."""
    try:
        with late_imports():
            from extmem.api import sockets
    except ImportError as error:
        raise UnsupportedError(
            f"{error}; on Windows pass an NtHandle with multiprocessing, or duplicate(into=pid)",
            requires_one_of=["Linux"],
        ) from None
    return sockets
