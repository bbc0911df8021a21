"""Restoring what a process held after the object manager was killed (`records`), and describing payloads and objects.

How this works. A client that connects again announces payloads, then the objects on them, then its references, handles
and tickets. Announcements of several clients about one payload (same identity) or object (same id) merge. The
announcement itself holds what is announced until `finishing`, so that nothing ends half-way; what has no other
holder ends then. If two objects claim one name, the one that was created last gets it, since the other must have lost
the name before; the other stays without a name. Records come from clients and are checked for contradictions like any
other input. The caller must prove that a process held what it announces (the broker signs records).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from extmem.objects.entities import Identity, Payload, Process, Reference, SharedObject, Ticket, User
from extmem.objects.lifetimes import EXPORTER, IMPORTED_KMT, IMPORTED_NT, KMT_TICKET, NT_TICKET
from extmem.objects.names import NameKey, parse_path
from extmem.objects.object_types import OBJECT_TYPES
from extmem.objects.records import (
    HandleRecord,
    ObjectRecord,
    PayloadRecord,
    ReferenceRecord,
    RestoredPayload,
    TicketRecord,
)
from extmem.objects.sddl import parse_sddl
from extmem.objects.security import Token, user_sid
from extmem.objects.status import Refused, Status
from extmem.objects.table import FLAG_INHERIT, FLAG_PROTECT, Entry
from extmem.objects.tickets import Tickets
from extmem.sharing.keeping import NOT_KEPT
from extmem.sharing.kinds import Share

__all__ = ["Restoring"]

_SOURCES: Final = ("reference", "handle", "kmt")
_ID_MAX: Final = (1 << 63) - 1
_REFERENCE_MAX: Final = (1 << 53) - 1


class Restoring(Tickets):
    """Announcing and describing what a process holds."""

    # -- announcing -------------------------------------------------------------------------------------------------

    def restore_payload(self, process: int, record: PayloadRecord) -> RestoredPayload:
        """Announce a payload. The further records of this process use the id `record.payload`.

        Refused INVALID_PARAMETER when it contradicts an earlier announcement, QUOTA_EXCEEDED.
        """
        owner = self._process(process)
        share = Share(record.share)
        self._check_share(share)
        self._check_descriptor(record.descriptor)
        self._check_handle_count(len(record.identity))
        _check_id("payload", record.payload, _ID_MAX)
        if share is Share.NT and record.kmt is not None:
            raise _contradiction(f"payload {record.payload} is shared by NT handle and has KMT number {record.kmt:#x}")
        limits = self.limits
        if len(owner.announced_payloads) >= limits.references + limits.handles + limits.tickets:
            raise Refused(
                Status.QUOTA_EXCEEDED,
                f"This process announced {len(owner.announced_payloads)} payloads, more than it can hold. Announce "
                "what it held.",
            )
        payload = self._by_identity.get(record.identity)
        earlier = owner.announced_payloads.get(record.payload)
        if earlier is not None and earlier is not payload:
            raise _contradiction(f"payload {record.payload} was announced with another identity")
        if payload is not None and payload.share is not share:
            raise _contradiction(f"payload {payload.id} is shared by {payload.share.name}, not by {share.name}")
        if payload is not None and payload.object_kind is not record.object_kind:
            raise _contradiction(
                f"payload {payload.id} is {payload.type.noun}, not {OBJECT_TYPES[record.object_kind].noun}"
            )
        if payload is None and record.payload in self._payloads:
            raise _contradiction(f"payload {record.payload} was announced with another identity")
        if earlier is None:
            number_is_free = record.kmt is not None and self._kmt.available(record.kmt)
            if payload is None:
                payload = self._new_payload(
                    record.identity,
                    record.descriptor,
                    share,
                    record.object_kind,
                    uid=record.uid,
                    writable=False,
                    strict_kmt=record.strict_kmt,
                    number=record.payload,
                )
            if record.kmt is not None and number_is_free and payload.kmt is None:
                self._kmt.restore(record.kmt, payload)
                payload.kmt = record.kmt
                payload.strict_kmt = record.strict_kmt
            owner.announced_payloads[record.payload] = payload
            self._announce(owner, payload, None)
        else:
            payload = earlier
        payload.writable |= record.writable
        return RestoredPayload(payload.id, payload.kmt)

    def restore_object(self, process: int, record: ObjectRecord) -> bool:
        """Announce a shared object whose payload is announced. Return False if its name is taken: it has none then.
        One that is known to have been superseded has none either, and True is returned.

        Refused INVALID_PARAMETER for contradictions, or what `parse_sddl` and `parse_path` raise.
        """
        owner = self._process(process)
        payload = self._announced_payload(owner, record.payload)
        _check_id("object", record.object, _ID_MAX)
        shared = self._objects.get(record.object)
        if shared is not None:
            if (
                not isinstance(shared, SharedObject)
                or shared.payload is not payload
                or shared.sddl != record.sddl
                or shared.writable != record.writable
            ):
                raise _contradiction(f"shared object {record.object} was announced with another payload or security")
        else:
            shared = self._restore_new_object(owner, payload, record)
        if record.object not in owner.announced_objects:
            owner.announced_objects[record.object] = shared
            self._announce(owner, payload, shared)
        return record.name is None or shared.name is not None or record.object in self.superseded_before

    def restore_reference(self, process: int, record: ReferenceRecord) -> None:
        """Announce a reference. It gets the number that the process has for it."""
        owner = self._process(process)
        payload, shared = self._announced(owner, record.payload, record.object)
        _check_id("reference", record.reference, _REFERENCE_MAX)
        self._reference_room(owner)
        if record.reference in owner.references:
            raise _contradiction(f"the reference {record.reference} exists in process {owner.pid} already")
        keeps = EXPORTER if record.exporting else IMPORTED_KMT if shared is None else IMPORTED_NT
        granted = self._kmt_rights(payload) if shared is None else record.granted & shared.may_give
        writes = payload.writable if record.exporting else granted & payload.type.modify
        following = max(owner.next_reference, record.reference + 1)
        owner.next_reference = record.reference
        self._add_reference(
            owner,
            Reference(
                payload,
                shared,
                keeps,
                granted,
                exporting=record.exporting,
                inherit=record.inherit and record.exporting,
                writes=bool(writes),
            ),
        )
        owner.next_reference = following

    def restore_handle(self, process: int, record: HandleRecord) -> None:
        """Announce a handle. It gets its old value. Refused INVALID_PARAMETER for a value in use or an invalid one."""
        owner = self._process(process)
        shared = self._announced_object(owner, record.object)
        flags = (FLAG_INHERIT if record.inherit else 0) | (FLAG_PROTECT if record.protect else 0)
        owner.table.put(record.value, Entry(shared, record.granted & shared.may_give, flags))
        self._retain_handle(shared)

    def restore_ticket(self, process: int, record: TicketRecord) -> None:
        """Announce a ticket that this process has sent and that is not known to be claimed."""
        owner = self._process(process)
        payload, shared = self._announced(owner, record.payload, record.object)
        _check_id("ticket", record.ticket, (1 << 128) - 1)
        if record.ticket in self._tickets:
            raise _contradiction("the ticket is in flight already")
        if (
            record.source not in _SOURCES
            or (record.source == "handle" and shared is None)
            or (record.source == "kmt" and shared is not None)
        ):
            raise _contradiction(f"a ticket for a {record.source!r} on a payload shared by {payload.share.name}")
        self._ticket_room(owner.token.uid)
        granted = self._kmt_rights(payload) if shared is None else record.granted & shared.may_give
        keeps = KMT_TICKET if shared is None else NT_TICKET
        user = User(owner.token.uid)
        self._put_ticket(Ticket(record.ticket, user, owner, record.source, payload, shared, granted, keeps))

    def finishing(self, process: int) -> Iterator[None]:
        """End the announcements of a process, in steps: what it announced and no process holds ends now."""
        return self._ending_announcements(self._process(process))

    # -- describing -------------------------------------------------------------------------------------------------

    def find_payload(self, identity: Identity) -> int | None:
        """Return the id of the live payload with this identity, or None."""
        found = self._by_identity.get(identity)
        return None if found is None else found.id

    def payload_record(self, payload: int) -> PayloadRecord:
        """Return what a client that holds something of this payload must keep of it. KeyError for an unknown id."""
        p = self._payloads[payload]
        return PayloadRecord(
            p.id, p.identity, p.descriptor, p.share, p.writable, p.kmt, p.strict_kmt, p.uid, p.object_kind
        )

    def object_record(self, shared: int) -> ObjectRecord:
        """Return what a client that holds something of this object must keep of it. KeyError for an unknown id."""
        s = self._objects[shared]
        if not isinstance(s, SharedObject):
            raise KeyError(shared)
        name = None if s.name is None else s.name.display
        keep = NOT_KEPT if s.kept is None else s.kept.keep
        return ObjectRecord(
            s.id, s.payload.id, name, s.owner, s.sddl, s.writable, s.born, s.publisher, keep, s.superseded
        )

    # -- parts ------------------------------------------------------------------------------------------------------

    def _restore_new_object(self, owner: Process, payload: Payload, record: ObjectRecord) -> SharedObject:
        if payload.share is not Share.NT:
            raise _contradiction(
                f"shared object {record.object} is announced on payload {payload.id}, which is shared by KMT"
            )
        sd = parse_sddl(record.sddl, Token(record.owner, owner.token.gid), payload.type)
        if sd.owner != user_sid(record.owner):
            raise _contradiction(
                f"shared object {record.object} is announced with the owners {record.owner} and {sd.owner}"
            )
        key: NameKey | None = None
        if record.name is not None:
            key = parse_path(record.name, self.session)
            self._check_global(key)
        self._object_room(owner)
        superseded = record.superseded or record.object in self.superseded_before
        if superseded:
            key = None
        if key is not None:
            rival = self._directory.holder(key)
            if rival is not None and rival.born < record.born:
                # The older one had the name until the newer one took it.
                self._supersede(rival)
                self._end_keep(rival)
            elif self._directory.taken(key):
                key = None
                superseded = rival is not None
        shared = self._new_object(record.object, owner, payload, key, sd, writable=record.writable, born=record.born)
        shared.publisher = record.publisher
        shared.superseded = superseded
        if superseded:
            self._superseded.append((shared.id, payload.id, True))
        self._keep_restored(shared, record.keep, record.owner)
        return shared

    def _announced_payload(self, owner: Process, payload: int) -> Payload:
        found = owner.announced_payloads.get(payload)
        if found is None:
            raise _contradiction(f"payload {payload} is used but was not announced before")
        return found

    def _announced_object(self, owner: Process, shared: int) -> SharedObject:
        found = owner.announced_objects.get(shared)
        if found is None:
            raise _contradiction(f"shared object {shared} is used but was not announced before")
        return found

    def _announced(self, owner: Process, payload: int, shared: int | None) -> tuple[Payload, SharedObject | None]:
        found = self._announced_payload(owner, payload)
        target = None if shared is None else self._announced_object(owner, shared)
        if (target is None) is (found.share is Share.NT) or (target is not None and target.payload is not found):
            raise _contradiction(
                f"shared object {shared} is not on payload {payload}, which is shared by {found.share.name}"
            )
        return found, target


def _check_id(what: str, number: int, top: int) -> None:
    if not 0 < number <= top:
        raise Refused(
            Status.INVALID_PARAMETER,
            f"{number:#x} cannot be the id of a {what}. Announce the id that the object manager gave.",
        )


def _contradiction(what: str) -> Refused:
    return Refused(
        Status.INVALID_PARAMETER, f"What this process announces is contradictory: {what}. Announce what was held."
    )
