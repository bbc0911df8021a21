"""The object manager's model with what only tests need: all that a process holds at once, rows, and counts."""

from __future__ import annotations

from dataclasses import dataclass

from extmem.objects import (
    FLAG_INHERIT,
    FLAG_PROTECT,
    HandleRecord,
    ObjectManager,
    ObjectRecord,
    PayloadRecord,
    PayloadRow,
    ReferenceRecord,
    RestoredPayload,
    TicketRecord,
    Token,
    assemble,
)
from extmem.objects.entities import Payload, SharedObject


@dataclass(frozen=True, slots=True)
class Held:
    """Everything that one process holds, in an order in which it can be announced."""

    payloads: tuple[PayloadRecord, ...] = ()
    objects: tuple[ObjectRecord, ...] = ()
    references: tuple[ReferenceRecord, ...] = ()
    handles: tuple[HandleRecord, ...] = ()
    tickets: tuple[TicketRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class Restored:
    """The result of `ObjectManager.restore`: `nameless` are objects whose names were taken in the meantime."""

    payloads: tuple[RestoredPayload, ...]
    nameless: tuple[int, ...]


class DescribedManager(ObjectManager):
    """An object manager whose whole state can be read, and announced to another one."""

    def restore(self, process: int, held: Held) -> Restored:
        """Announce everything. On Refused, what was announced before the refused record stays."""
        try:
            payloads = tuple(self.restore_payload(process, record) for record in held.payloads)
            named = [(record, self.restore_object(process, record)) for record in held.objects]
            for reference in held.references:
                self.restore_reference(process, reference)
            for handle in held.handles:
                self.restore_handle(process, handle)
            for ticket in held.tickets:
                self.restore_ticket(process, ticket)
        finally:
            self.restore_done(process)
        return Restored(payloads, tuple(record.object for record, kept in named if not kept))

    def restore_done(self, process: int) -> None:
        """End the announcements of a process: what it announced and no one holds ends now."""
        for _ in self.finishing(process):
            pass

    def describe(self, process: int) -> Held:
        """Return all that a process holds, as it would announce it to a new manager.

        Demoted tickets are not part of it: they keep nothing alive, and another process may announce their payload
        later.
        """
        owner = self._process(process)
        payloads: dict[int, PayloadRecord] = {}
        objects: dict[int, ObjectRecord] = {}

        def note(payload: Payload, shared: SharedObject | None) -> None:
            if payload.id not in payloads:
                payloads[payload.id] = self.payload_record(payload.id)
            if shared is not None and shared.id not in objects:
                objects[shared.id] = self.object_record(shared.id)

        references = []
        for number, m in owner.references.items():
            note(m.payload, m.object)
            shared_id = None if m.object is None else m.object.id
            references.append(ReferenceRecord(number, m.payload.id, shared_id, m.exporting, m.granted, m.inherit))
        handles = []
        for value, entry in owner.table:
            if isinstance(shared := entry.object, SharedObject):
                note(shared.payload, shared)
                flags = entry.flags
                handles.append(
                    HandleRecord(
                        value, shared.id, entry.granted, bool(flags & FLAG_INHERIT), bool(flags & FLAG_PROTECT)
                    )
                )
        tickets = []
        for t in owner.tickets.values():
            if not t.keeps.payload:
                continue
            note(t.payload, t.object)
            shared_id = None if t.object is None else t.object.id
            tickets.append(TicketRecord(t.id, t.source, t.payload.id, shared_id, t.granted))
        return Held(
            tuple(payloads.values()), tuple(objects.values()), tuple(references), tuple(handles), tuple(tickets)
        )

    def snapshot(self, token: Token | None = None) -> list[PayloadRow]:
        """Every live payload with its objects and holders. Takes time in the number of everything that is held.

        token: only what this user may open, as `walk`.
        """
        return assemble(part for part in self.walk(token) if part is not None)

    def counts(self) -> dict[str, int]:
        """Return the number of everything that exists. All are zero once every process has left."""
        processes = self._processes.values()
        return {
            "processes": len(self._processes),
            "payloads": len(self._payloads),
            "objects": len(self._objects),
            "names": len(self._directory),
            "kmt_numbers": len(self._kmt),
            "tickets": len(self._tickets),
            "references": sum(len(process.references) for process in processes),
            "handles": sum(len(process.table) for process in processes),
        }

    def processes(self) -> tuple[int, ...]:
        """Return the ids of all attached processes, oldest first."""
        return tuple(self._processes)
