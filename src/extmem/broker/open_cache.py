"""A cache of replies to requests that open an object by name.

How this works. Most requests open names that were opened before, by the same user with the same access mask: they have
the same bytes. An object keeps its name and its security for life, so the reply is known, except for the number of the
new reference and whether the process has the payload's file descriptors already. A hit skips decoding, the directory,
the security check and encoding. The object manager still creates the reference, and reports when the object has ended.
A property test checks that the replies equal those of the general path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from extmem import wire
from extmem.broker.payload_fds import PayloadFds
from extmem.broker.sessions import Made, Session
from extmem.objects import ObjectManager, Reference, Token
from extmem.wire import transport

__all__ = ["OpenCache"]

_HEAD: Final = wire.IMPORTED_HEAD
_encode: Final = wire.encode
_send: Final = transport.send_many
_ROOM: Final = 12 << 20
"""Bytes that the cached replies may take before all are removed."""
_OVERHEAD: Final = 300


class _Known:
    """The reply to one request of one user. `token` is compared by identity: the server has one object per user.

    `fds` are the payload's own file descriptors, borrowed: valid until the payload ends or `clear` is called. None if
    this user gets read-only ones, which are opened on demand, or the payload has several handles.
    """

    __slots__ = ("earlier", "fds", "needs", "payload", "size", "token", "with_fds", "without")

    def __init__(self, token: Token, earlier: Reference, facts: bytes) -> None:
        decoded = wire.decode_facts(facts)
        encoded = wire.encode(facts)
        self.token = token
        self.earlier = earlier
        self.payload = decoded.payload
        self.needs = decoded.needs
        self.fds: Sequence[int] | None = None
        self.without = b"\0" + encoded
        self.with_fds = wire.encode(min(decoded.handles, wire.MAX_FDS)) + encoded
        self.size = _OVERHEAD + 2 * len(encoded)


class OpenCache:
    """Replies by the bytes of the request."""

    def __init__(self, model: ObjectManager, payloads: PayloadFds) -> None:
        self._model = model
        self._again = model.import_again
        self._payloads = payloads
        self._known: dict[bytes, _Known] = {}
        self._size = 0

    def remember(self, data: bytes, session: Session, reply: wire.Imported) -> None:
        """Store the general path's reply to an `ImportName`."""
        known = _Known(session.token, self._model.reference(session.process, reply.reference), reply.facts)
        if known.needs == wire.READ_WRITE and len(self._payloads.given(known.payload).identity) == 1:
            known.fds = self._payloads.fds_for(known.payload, known.needs)
        self._size += len(data) + known.size
        if self._size > _ROOM:
            self.clear()
        self._known[data] = known

    def serve(self, data: bytes, session: Session) -> bool:
        """Answer the request if its reply is cached. Return False otherwise; nothing is changed then.

        Raises as `transport.send_many`. Call it only for sessions without a queued reply or request (`Session.ready`).
        """
        known = self._known.get(data)
        if known is None or known.token is not session.token or session.replaced:
            return False
        reference = self._again(session.process, known.earlier)
        if reference is None:
            del self._known[data]
            return False
        fds: Sequence[int] = ()
        tail = known.without
        held = session.held.get(known.payload, 0)
        if not held & known.needs:
            if known.fds is None:
                try:
                    fds = self._payloads.fds_for(known.payload, known.needs)
                except OSError:
                    self._model.release(session.process, reference)
                    return False  # no fd is left: the general path fails alike, and refuses with the reason
            else:
                fds = known.fds
            session.held[known.payload] = held | known.needs
            tail = known.with_fds
        session.made = Made(reference, known.payload, held)
        reply = _HEAD + _encode(reference) + tail
        try:
            try:
                _send(session.sock, reply, fds)
            except BlockingIOError:
                session.wait(reply, fds)
        except ConnectionError:
            raise
        except OSError:
            # The reply cannot be sent: the general path fails alike, and refuses with the reason.
            session.held[known.payload] = held
            self._model.release(session.process, reference)
            return False
        session.served += 1
        return True

    def clear(self) -> None:
        """Remove all replies. Called after the file descriptors of a payload have been replaced."""
        self._known.clear()
        self._size = 0
