"""Exporting, importing and releasing payloads (B10, B12, B13, B19, B24, B26, B32, B61, B65–B68, B73, B75).

How this works. A process that exports or imports a payload gets a reference to it, which one object of its device
holds. The kind of the payload decides its rights (`object_types`); everything else is the same for all kinds.
"""

from __future__ import annotations

from extmem.objects.access import MAXIMUM_ALLOWED
from extmem.objects.entities import Identity, Payload, Process, Reference, Replacement, SharedObject
from extmem.objects.keeping import Keeping
from extmem.objects.lifetimes import EXPORTER, IMPORTED_KMT, IMPORTED_NT
from extmem.objects.names import NameKey
from extmem.objects.object_types import OBJECT_TYPES, OPENED_BY, known_kind
from extmem.objects.results import Exported, Imported
from extmem.objects.sddl import format_sddl, parse_sddl
from extmem.objects.security import SecurityDescriptor, default_descriptor, grant
from extmem.objects.status import Refused, Status
from extmem.sharing.keeping import NOT_KEPT, Keep, KeepMode
from extmem.sharing.kinds import ObjectKind, Share

__all__ = ["References"]

_ON_PAYLOAD, _ON_OBJECT, _ON_KMT = IMPORTED_NT.payload, IMPORTED_NT.object, IMPORTED_NT.kmt


class References(Keeping):
    """Operations on references."""

    def export(
        self,
        process: int,
        identity: Identity,
        descriptor: bytes,
        *,
        share: Share,
        name: str | None,
        access: int,
        sddl: str | None,
        inherit: bool,
        strict_kmt: bool = False,
        writable: bool = True,
        object_kind: int = ObjectKind.MEMORY,
        replace: bool = False,
        keep: Keep = NOT_KEPT,
    ) -> Exported:
        """Share a payload. Its name and shared object exist from here on (B13); `get_handle` creates handles.

        identity: a pair of numbers for each handle of the payload, such as the (st_dev, st_ino) of an fd. A payload
            that is shared already is the same payload, and another NT share creates a second, independent object on it
            (B66, B67). `descriptor` and `object_kind` are those of the first export.
        access, inherit: of the handles of this reference. Access 0 gives handles without rights (B19).
        writable: False where the exporter itself can only read. Then this object gives no one the right to write.
        replace: takes the name of the object that has it, in the same step. That object continues to exist without a
            name. Only its publisher may do this, or any process of its user once the publisher has ended.
        keep: how long the object manager itself keeps the object.

        Refused: OBJECT_NAME_COLLISION, OBJECT_TYPE_MISMATCH (B10) or what `resolve_name` and `parse_sddl` raise;
        INVALID_PARAMETER for NT and KMT at once (B61), also over time, and for a name with KMT; ACCESS_DENIED,
        QUOTA_EXCEEDED.
        """
        owner = self._process(process)
        share = Share(share)
        kind = known_kind(object_kind)
        object_type = OBJECT_TYPES[kind]
        self._check_share(share)
        self._check_terms(name, replace, keep)
        self._check_descriptor(descriptor)
        self._check_handle_count(len(identity))
        self._reference_room(owner)
        payload = self._by_identity.get(identity)
        if payload is not None and payload.share is not share:
            raise Refused(
                Status.INVALID_PARAMETER,
                f"This payload ({payload.type.noun}) is shared by {payload.share.name} already and cannot be shared by "
                f"{share.name} too. Share it by {payload.share.name}, or create another.",
            )
        if payload is not None and payload.object_kind is not kind:
            raise Refused(
                Status.INVALID_PARAMETER,
                f"These handles are shared as {payload.type.noun} already and cannot be shared as {object_type.noun} "
                "too. Share another payload.",
            )
        if share is Share.KMT:
            return self._export_kmt(
                owner, payload, kind, identity, descriptor, name, strict_kmt=strict_kmt, writable=writable
            )
        granted = object_type.requested(access)
        if granted & MAXIMUM_ALLOWED:
            granted = granted & ~MAXIMUM_ALLOWED | object_type.all
        sd = default_descriptor(owner.token) if sddl is None else parse_sddl(sddl, owner.token, object_type)
        key = None if name is None else self._resolve(name)
        rival = None
        if key is not None and (refusal := self._directory.taken(key)):
            rival = self._directory.holder(key) if replace else None
            if rival is None:
                raise refusal
            self._check_replaceable(owner, rival, kind, key)
        self._object_room(owner)
        if keep:
            self._keep_room(owner.token.uid)
        self._settle(owner)
        if rival is not None:
            self._supersede(rival)
        if payload is None:
            payload = self._new_payload(identity, descriptor, share, kind, uid=owner.token.uid, writable=writable)
        shared = self._new_object(self._fresh_id(self._objects), owner, payload, key, sd, writable=writable)
        new = Reference(
            payload,
            shared,
            EXPORTER,
            granted & shared.may_give,
            exporting=True,
            inherit=inherit,
            writes=writable,
        )
        if rival is not None and key is not None:
            owner.replaced = Replacement(shared, rival, key)
        if keep:
            self._keep_object(shared, keep, owner.token.uid)
        return Exported(self._add_reference(owner, new), payload.id, shared.id, None)

    def import_by_name(
        self, process: int, name: str, desired: int = MAXIMUM_ALLOWED, object_kind: int = ObjectKind.MEMORY
    ) -> Imported:
        """Open by name and keep the object alive (B73).

        Refused OBJECT_NAME_NOT_FOUND, OBJECT_TYPE_MISMATCH for an object of another kind, ACCESS_DENIED (B18), or what
        `resolve_name` raises.
        """
        owner = self._process(process)
        shared = self._find_named(name)
        self._check_kind(shared, object_kind, repr(name))
        token = owner.token
        granted = grant(
            shared.rights(token), desired, shared.type, user=token.uid, ceiling=shared.may_give, frozen=shared.frozen
        )
        return self._import_nt(owner, shared, granted)

    def reference(self, process: int, reference: int) -> Reference:
        """Return a reference that the process holds, as `import_again` takes one."""
        return self._reference(self._process(process), reference)

    def import_again(self, process: int, earlier: Reference) -> int | None:
        """Repeat an `import_by_name` that succeeded: by a process with the token that got `earlier` for this name and
        mask. Return the number of the new reference.

        Return None if the object has ended (the name may be another object's by now), or if the process is at its
        limit: `import_by_name` raises the reason. The same for a payload that was frozen. Nothing else is checked
        again, because nothing can have changed: an object keeps its security for life, and its name, or it has none any
        more.
        """
        shared = earlier.object
        owner = self._processes[process]
        if shared is None or not shared.refs or shared.name is None or len(owner.references) >= self.limits.references:
            return None
        if shared.kept is not None and shared.kept.keep.mode is KeepMode.TAKEN:
            return None  # `import_by_name` counts who takes it
        if earlier.writes:
            if earlier.payload.frozen:
                return None
            writers = earlier.payload.writers
            writers[process] = writers.get(process, 0) + 1
        # `_add_reference` and `_retain` inlined: this is the most frequent operation of the broker.
        earlier.payload.refs += _ON_PAYLOAD
        earlier.payload.kmt_refs += _ON_KMT
        shared.refs += _ON_OBJECT
        reference = owner.next_reference
        owner.next_reference = reference + 1
        owner.references[reference] = earlier
        return reference

    def import_by_handle(self, process: int, handle: int, object_kind: int = ObjectKind.MEMORY) -> Imported:
        """Import by an open handle of the calling process and keep the object alive (G9). The handle stays open (B76).

        Refused INVALID_HANDLE (B68, B97, B99), OBJECT_TYPE_MISMATCH (B69, B98), ACCESS_DENIED without READ_CONTROL
        (G4).
        """
        owner = self._process(process)
        entry = owner.table.find(handle)
        shared = entry.object
        if not isinstance(shared, SharedObject):
            wanted = OBJECT_TYPES[known_kind(object_kind)]
            raise Refused(
                Status.OBJECT_TYPE_MISMATCH,
                f"The handle {handle:#x} refers to an object of type {shared.type.name}, not {wanted.name}. Pass a "
                f"handle to {wanted.noun}.",
            )
        self._check_kind(shared, object_kind, f"The handle {handle:#x}")
        return self._import_nt(owner, shared, entry.granted)

    def import_by_kmt(self, process: int, number: int, object_kind: int = ObjectKind.MEMORY) -> Imported:
        """Import by KMT number, from any process (B55), and keep the payload and the number alive.

        Refused INVALID_PARAMETER (B59, B99), also for a number of another kind of object.
        """
        owner = self._process(process)
        payload = self._kmt.find(number)
        if payload.object_kind != object_kind:
            raise Refused(
                Status.INVALID_PARAMETER,
                f"The KMT number {number:#x} is of {payload.type.noun}, not of "
                f"{OBJECT_TYPES[known_kind(object_kind)].noun}. Import it as what it is.",
            )
        return self._import_kmt(owner, payload)

    def release(self, process: int, reference: int) -> None:
        """End a reference. Handles to its object stay open (B77). Refused INVALID_HANDLE for an unknown number."""
        owner = self._process(process)
        self._reference(owner, reference)
        self._drop_reference(owner, reference)

    def _check_kind(self, shared: SharedObject, object_kind: int, what: str) -> None:
        """Refuse an object of another kind than the caller imports."""
        if shared.payload.object_kind != object_kind:
            wanted = OBJECT_TYPES[known_kind(object_kind)]
            type_name = shared.type.name
            if type_name == wanted.name:  # a fence and a semaphore
                type_name, wanted_name = shared.type.noun, f"{wanted.noun}; both are of type {type_name}"
            else:
                type_name, wanted_name = f"an object of type {type_name}", wanted.name
            raise Refused(
                Status.OBJECT_TYPE_MISMATCH,
                f"{what} refers to {type_name}, not {wanted_name}. Import it as {shared.type.noun} "
                f"({OPENED_BY[known_kind(shared.payload.object_kind)]}), or pass another.",
            )

    def _export_kmt(
        self,
        owner: Process,
        payload: Payload | None,
        kind: ObjectKind,
        identity: Identity,
        descriptor: bytes,
        name: str | None,
        *,
        strict_kmt: bool,
        writable: bool,
    ) -> Exported:
        if name is not None:
            raise Refused(
                Status.INVALID_PARAMETER,
                f"A payload shared by KMT number has no object that could have the name {name!r}. Share it by NT "
                "handle, or omit the name.",
            )
        if payload is None:
            payload = self._new_payload(
                identity, descriptor, Share.KMT, kind, uid=owner.token.uid, writable=writable, strict_kmt=strict_kmt
            )
        payload.writable |= writable
        if payload.kmt is None:
            try:
                payload.kmt = self._kmt.assign(payload)
            except Refused:
                if not payload.refs:
                    self._discard_payload(payload)
                raise
            payload.strict_kmt = strict_kmt
        new = Reference(payload, None, EXPORTER, self._kmt_rights(payload), exporting=True, writes=writable)
        return Exported(self._add_reference(owner, new), payload.id, None, payload.kmt)

    def _import_nt(self, owner: Process, shared: SharedObject, granted: int) -> Imported:
        self._check_readable(granted, shared.type)
        self._reference_room(owner)
        payload = shared.payload
        if payload.frozen:
            granted &= ~shared.type.modify
        writes = granted & shared.type.modify != 0
        reference = self._add_reference(owner, Reference(payload, shared, IMPORTED_NT, granted, writes=writes))
        if shared.kept is not None:
            self._taken(owner, shared, 1)
        name = None if shared.name is None else shared.name.display
        return Imported(reference, payload.id, shared.id, granted, None, name, payload.object_kind)

    def _import_kmt(self, owner: Process, payload: Payload) -> Imported:
        self._reference_room(owner)
        granted = self._kmt_rights(payload)
        writes = granted & payload.type.modify != 0
        reference = self._add_reference(owner, Reference(payload, None, IMPORTED_KMT, granted, writes=writes))
        return Imported(reference, payload.id, None, granted, payload.kmt, None, payload.object_kind)

    @staticmethod
    def _kmt_rights(payload: Payload) -> int:
        """Return the rights of a KMT import. A number carries none: they are what the exporters could do."""
        writable = payload.writable and not payload.frozen
        return payload.type.read | payload.type.modify if writable else payload.type.read

    def _object_room(self, owner: Process) -> None:
        if owner.objects >= self.limits.objects:
            raise Refused(
                Status.QUOTA_EXCEEDED,
                f"This process has created {owner.objects} shared objects that still exist, the limit of one process. "
                "Free some.",
            )

    def _check_handle_count(self, count: int) -> None:
        if not 0 < count <= self.limits.payload_handles:
            raise Refused(
                Status.INVALID_PARAMETER,
                f"A payload has 1 to {self.limits.payload_handles} handles, this one has {count}. Share it as several "
                "payloads.",
            )

    def _new_payload(
        self,
        identity: Identity,
        descriptor: bytes,
        share: Share,
        object_kind: ObjectKind,
        *,
        uid: int,
        writable: bool,
        strict_kmt: bool = False,
        number: int = 0,
    ) -> Payload:
        payload = Payload(
            number or self._fresh_id(self._payloads),
            identity,
            descriptor,
            share,
            object_kind=object_kind,
            uid=uid,
            writable=writable,
            strict_kmt=strict_kmt,
        )
        self._payloads[payload.id] = payload
        self._by_identity[identity] = payload
        return payload

    def _discard_payload(self, payload: Payload) -> None:
        """Undo `_new_payload` for a payload that has no holder yet. It is not reported as released."""
        del self._payloads[payload.id]
        del self._by_identity[payload.identity]

    def _new_object(
        self,
        number: int,
        owner: Process,
        payload: Payload,
        key: NameKey | None,
        sd: SecurityDescriptor,
        *,
        writable: bool,
        born: int = 0,
    ) -> SharedObject:
        if not born:
            born = self._last_born = self._last_born + 1
        text = format_sddl(sd, payload.type)
        shared = SharedObject(number, key, payload, sd, text, owner, born=born, writable=writable)
        self._directory.add(shared)
        if key is not None and key.key in self._waiting:
            self._appeared.add(key.key)
        self._objects[shared.id] = shared
        payload.objects[shared.id] = shared
        owner.objects += 1
        return shared
