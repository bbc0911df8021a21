"""Opening by name, the second time: the answer without asking everything again.

How this works. Most requests open names that were opened before, by the same user, with the same mask: the very same
bytes. An object keeps its name and its security for life, so what such a request gets is known, but for the new memory
object's number and whether the process has the descriptor already. A hit skips decoding, the directory, the security
check and encoding; the object manager still makes the memory object, and still says so when the object has ended.
That this answers as the slow way does is a property test.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

from typing import Final

from extmem import wire
from extmem.broker.payloads import Payloads
from extmem.broker.sessions import Made, Session
from extmem.objects import Memory, ObjectManager, Token
from extmem.wire import transport

__all__ = ["QuickOpens"]

_HEAD: Final = wire.IMPORTED_HEAD
_encode: Final = wire.encode
_send: Final = transport.send
_ROOM: Final = 12 << 20
"""Bytes that the known answers may take before all are forgotten."""
_OVERHEAD: Final = 300


class _Known:
    """What one user gets for one request. `token` is compared by identity: the server has one object per user.

    `fd` is the payload's own descriptor, which stays while the payload lives (or `clear` is called); -1 where the user
    gets a read-only one, of which there are not so many.
    """

    __slots__ = ("fd", "like", "needs", "payload", "size", "token", "with_fd", "without")

    def __init__(self, token: Token, like: Memory, facts: bytes) -> None:
        told = wire.decode_facts(facts)
        encoded = wire.encode(facts)
        self.token = token
        self.like = like
        self.payload = told.payload
        self.needs = told.needs
        self.fd = -1
        self.without = b"\0" + encoded
        self.with_fd = wire.encode(told.needs) + encoded
        self.size = _OVERHEAD + 2 * len(encoded)


class QuickOpens:
    """Known answers by the request's bytes."""

    def __init__(self, model: ObjectManager, payloads: Payloads) -> None:
        self._model = model
        self._again = model.import_again
        self._payloads = payloads
        self._known: dict[bytes, _Known] = {}
        self._size = 0

    def remember(self, data: bytes, session: Session, reply: wire.Imported) -> None:
        """The slow way has answered an `ImportName`."""
        known = _Known(session.token, self._model.imported(session.process, reply.memory), reply.facts)
        if known.needs == wire.READ_WRITE:
            known.fd = self._payloads.fd_for(known.payload, known.needs)
        self._size += len(data) + known.size
        if self._size > _ROOM:
            self.clear()
        self._known[data] = known

    def serve(self, data: bytes, session: Session) -> bool:
        """Answer, if this is known. False if the slow way must be gone; then nothing has been done.

        Raises as `transport.send`. Called only for sessions that wait for nothing else (`Session.ready`).
        """
        known = self._known.get(data)
        if known is None or known.token is not session.token:
            return False
        memory = self._again(session.process, known.like)
        if memory is None:
            del self._known[data]
            return False
        fd: int | None = None
        tail = known.without
        held = session.held.get(known.payload, 0)
        if not held & known.needs:
            fd = known.fd
            if fd == -1:
                try:
                    fd = self._payloads.fd_for(known.payload, known.needs)
                except OSError:
                    self._model.free_memory(session.process, memory)
                    return False  # no descriptors left: the slow way meets the same, and says so
            session.held[known.payload] = held | known.needs
            tail = known.with_fd
        session.made = Made(memory, known.payload, held)
        reply = _HEAD + _encode(memory) + tail
        try:
            try:
                _send(session.sock, reply, fd)
            except BlockingIOError:
                session.wait(reply, fd)
        except ConnectionError:
            raise
        except OSError:
            # The reply cannot be sent: the slow way meets the same, and says so.
            session.held[known.payload] = held
            self._model.free_memory(session.process, memory)
            return False
        session.served += 1
        return True

    def clear(self) -> None:
        """Forget all: after a payload's descriptor has become another one."""
        self._known.clear()
        self._size = 0
