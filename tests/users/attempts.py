"""What another user may attempt, each as one expression, and the ways in which it may end.

How this works. An attempt is evaluated in a process of another user, which is connected to the broker and has the
helpers of `OTHERS`. It got more than it was granted if the expression has a value other than `nothing`; it was refused
if it raises one of `REFUSALS`; any other error is a fault of the attempt, or of the broker. Where `owner` is set, the
same expression must work for the owner, who evaluates it afterwards: otherwise the refusal would prove nothing.

Variables: `hidden` and `shown` are names of the owner; no other user may open the first, all may read the second.
`memory`, `handle` and `ticket` are the owner's numbers for the first; `secret` is of the owner's session, `record` is
the owner's signed record of the second, `pid` the owner's process.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tests.process.broker.steps import ASK, CLIMB

__all__ = ["ATTEMPTS", "IN_THE_WINDOW", "OTHERS", "REFUSALS", "Attempt"]

REFUSALS: Final = frozenset(
    {
        "AccessDeniedError",
        "InvalidHandleError",
        "NameNotFoundError",
        "NameTakenError",
        "PermissionError",  # the kernel's error
    }
)

OTHERS: Final = (
    ASK
    + CLIMB
    + """
import socket
from extmem.wire import transport
from extmem.wire.runtime_dir import runtime_directory
from extmem.errors import ExtmemError
from extmem.objects import error_for
def attempted(source, variables):
    '''(what it got, None) or (None, the class of the error, the error).'''
    try:
        value = eval(source, {**globals(), **variables})
    except (ExtmemError, OSError) as error:
        return None, type(error).__name__, str(error)
    return repr(value), None, None
def writable(name):
    found = m.import_by_name(name, READ)
    try: return mmap.mmap(found.payload.fd, 4096)
    finally: drop(found)
def reopened(name):
    found = m.import_by_name(name, READ)
    try: return os.open(f'/proc/self/fd/{found.payload.fd}', os.O_RDWR)
    finally: drop(found)
def mode_changed(name):
    found = m.import_by_name(name, READ)
    try: return os.fchmod(found.payload.fd, 0o666) or 'changed'
    finally: drop(found)
def climbed(name):
    found = m.import_by_name(name, READ)
    try: return True in climb(found)
    finally:
        drop(found)
        # Else a number of the owner's would be one of this process's own.
        for value in list(m.client.state.handles): m.close(value)
        for memory in list(m.client.state.references): m.release(memory)
def pushed(name, pid):
    mine = m.open_handle(name, READ)
    try:
        return m.duplicate(mine, desired=None, inherit=False, same_attributes=False, close_source=False, into=pid)
    finally: m.close(mine)
def announced(record):
    fd = payload(b'evil!')
    try:
        with m.client.lock: return m.client.exchange(wire.AnnounceRecord(record, b'self-description', 1), [fd])
    finally: os.close(fd)
def spoken(*messages):
    '''The last reply to these messages, each with a descriptor or None, over a connection of their own.'''
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(20)
        sock.connect(str(runtime_directory().socket))
        for message, fd in messages:
            transport.send(sock, wire.encode(message), fd)
            reply = wire.decode_reply(transport.receive(sock)[0])
    if type(reply) is wire.Refusal: raise error_for(reply.status, reply.detail)
    return reply
def resumed(secret, memory):
    return spoken((wire.Hello(wire.PROTOCOL_VERSION, False, secret, 1), None), (wire.GetHandle(memory), None))
def announced_first(fd, message):
    return spoken((wire.Hello(wire.PROTOCOL_VERSION, True), None), (message, fd))
"""
)
"""What the process of another user has in addition to `steps.PEER`."""


class Attempt(NamedTuple):
    """See the module."""

    source: str
    nothing: str = ""
    """The printed value of the expression where it got nothing."""
    owner: bool = True
    """Whether the expression works for the owner."""


ATTEMPTS: Final = (
    Attempt("reads(hidden)"),
    Attempt("m.open_handle(hidden, READ)"),
    Attempt("m.open_handle(hidden, 0x40000)"),
    Attempt("m.import_by_name(shown, READ_WRITE)"),
    Attempt("m.open_handle(shown, READ_WRITE)"),
    Attempt("m.open_handle(shown, 0x40000)"),
    Attempt("m.open_handle(shown, 0x80000)"),
    Attempt("share(hidden, b'evil!')", owner=False),
    Attempt("share(shown, b'evil!')", owner=False),
    Attempt("share(hidden, b'evil!', replace=True)", owner=False),
    Attempt("share(shown, b'evil!', replace=True)", owner=False),
    Attempt("import_named(m, hidden, READ, 5)"),
    Attempt("import_named(m, shown, READ_WRITE, 5)"),
    Attempt("m.forget_name(hidden)", "False", owner=False),
    Attempt("m.is_superseded(memory)"),
    Attempt("m.lease(memory)"),
    Attempt("ask(wire.EndWait(1))", owner=False),
    Attempt("writable(shown)", owner=False),
    Attempt("reopened(shown)", owner=False),
    Attempt("mode_changed(shown)", owner=False),
    Attempt("climbed(shown)", "False", owner=False),
    Attempt("[name for row in m.snapshot() for name in row.names if name.endswith(hidden)]", "[]"),
    Attempt("m.bind_offer(ticket, os.getpid()) or 'bound'", owner=False),
    Attempt("m.claim(ticket)"),
    Attempt("m.withdraw(ticket)", "False", owner=False),
    Attempt("m.info(handle)"),
    Attempt("m.import_by_handle(handle)"),
    Attempt("m.get_handle(memory)"),
    Attempt("m.offer(handle=handle)"),
    Attempt("m.offer(reference=memory)"),
    Attempt("m.close(handle) or 'closed'", owner=False),
    Attempt("m.release(memory) or 'freed'", owner=False),
    Attempt("pushed(shown, pid)"),
    Attempt("announced(record)", owner=False),
    Attempt("ask(wire.AnnounceReference(77, 1, 1, True, ALL, False))", owner=False),
    Attempt("ask(wire.AnnounceHandle(4, 1, 1, ALL, False, False))", owner=False),
    Attempt("ask(wire.AnnounceTicket(bytes(16), 'reference', 1, 1, ALL, False))", owner=False),
    Attempt("ask(wire.Stop(True))", owner=False),
    Attempt("ask(wire.Stop(False))", owner=False),
    Attempt("ask(wire.Follow(bytes(32)))", owner=False),
    Attempt("resumed(secret, memory)", owner=False),
)

IN_THE_WINDOW: Final = (
    Attempt("announced_first(shared.payload.fd, wire.AnnounceRecord(record, b'self-description', 1))", owner=False),
    Attempt("announced_first(own, wire.AnnounceRecord(record, b'self-description', 1))", owner=False),
    Attempt("announced_first(None, wire.AnnounceReference(1, 1, 1, True, ALL, False))", owner=False),
    Attempt("announced_first(None, wire.AnnounceHandle(4, 1, 1, ALL, False, False))", owner=False),
    Attempt("announced_first(None, wire.AnnounceTicket(bytes(16), 'reference', 1, 1, ALL, False))", owner=False),
)
"""What is attempted while the next broker takes announcements and the owner has not announced yet.

`shared` is the other user's import of `shown`, `own` a file of the other user.
"""
