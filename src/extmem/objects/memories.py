"""Exporting, importing and freeing memory objects (B10, B12, B13, B19, B24, B26, B32, B61, B65–B68, B73, B75)."""

from __future__ import annotations

from typing import Final

from extmem.objects.access import ALL_ACCESS, MAXIMUM_ALLOWED, READ_CONTROL, RESOURCE_WRITE, requested
from extmem.objects.core import Core
from extmem.objects.entities import Memory, Payload, Process, SharedObject
from extmem.objects.lifetimes import KEEPS, Holder
from extmem.objects.names import NameKey
from extmem.objects.results import TYPE_NAME, Exported, Imported
from extmem.objects.sddl import format_sddl, parse_sddl
from extmem.objects.security import SecurityDescriptor, default_descriptor, grant
from extmem.objects.status import Refused, Status
from extmem.sharing.kinds import Share

__all__ = ["Memories"]

_EXPORTING: Final = KEEPS[Holder.EXPORTING_MEMORY]
_IMPORTED_NT: Final = KEEPS[Holder.IMPORTED_NT]
_ON_PAYLOAD, _ON_OBJECT, _ON_KMT = _IMPORTED_NT.payload, _IMPORTED_NT.object, _IMPORTED_NT.kmt
_IMPORTED_KMT: Final = KEEPS[Holder.IMPORTED_KMT]


class Memories(Core):
    """Operations on memory objects."""

    def export_memory(
        self,
        process: int,
        identity: tuple[int, int],
        descriptor: bytes,
        *,
        share: Share,
        name: str | None,
        access: int,
        sddl: str | None,
        inherit: bool,
        strict_kmt: bool = False,
        writable: bool = True,
    ) -> Exported:
        """Share memory. Name and shared object exist from here on (B13); a handle is only made by `get_handle`.

        `identity` is the kernel's (st_dev, st_ino) of the memory's fd: memory that is shared already is the same
        payload, and another NT share makes a second, independent object on it (B66, B67). `access` and `inherit` are
        for the handles of this memory object; access 0 gives handles without rights (B19). `writable` False says that
        the exporter itself can only read, then nobody gets write access through this object. `descriptor` is kept from
        the first export.

        Refused: OBJECT_NAME_COLLISION, OBJECT_TYPE_MISMATCH (B10) or what `resolve_name` and `parse_sddl` say;
        INVALID_PARAMETER for NT and KMT at once (B61), also over time, and for a name with KMT; ACCESS_DENIED,
        QUOTA_EXCEEDED.
        """
        owner = self._process(process)
        share = Share(share)
        self._check_share(share)
        self._check_descriptor(descriptor)
        self._memory_room(owner)
        payload = self._by_identity.get(identity)
        if payload is not None and payload.share is not share:
            raise Refused(
                Status.INVALID_PARAMETER,
                f"This memory is shared by {payload.share.name} already and can't be shared by {share.name} as well. "
                f"Share it by {payload.share.name}, or allocate another.",
            )
        if share is Share.KMT:
            return self._export_kmt(
                owner, payload, identity, descriptor, name, strict_kmt=strict_kmt, writable=writable
            )
        granted = requested(access)
        if granted & MAXIMUM_ALLOWED:
            granted = granted & ~MAXIMUM_ALLOWED | ALL_ACCESS
        sd = default_descriptor(owner.token) if sddl is None else parse_sddl(sddl, owner.token)
        key = None if name is None else self._resolve(name)
        if key is not None and (refusal := self._directory.taken(key)):
            raise refusal
        self._object_room(owner)
        if payload is None:
            payload = self._new_payload(identity, descriptor, share, uid=owner.token.uid, writable=writable)
        shared = self._new_object(self._fresh_id(self._objects), owner, payload, key, sd, writable=writable)
        new = Memory(payload, shared, _EXPORTING, granted & shared.ceiling, exporting=True, inherit=inherit)
        return Exported(self._add_memory(owner, new), payload.id, shared.id, None)

    def import_by_name(self, process: int, name: str, desired: int = MAXIMUM_ALLOWED) -> Imported:
        """Open by name and pin the object (B73). Refused OBJECT_NAME_NOT_FOUND, OBJECT_TYPE_MISMATCH, ACCESS_DENIED
        (B18) …
        """
        owner = self._process(process)
        shared = self._find_named(name)
        token = owner.token
        granted = grant(shared.rights(token), desired, user=token.uid, ceiling=shared.ceiling)
        return self._import_nt(owner, shared, granted)

    def imported(self, process: int, memory: int) -> Memory:
        """What `import_again` makes another one of: a memory object that the process has just imported by name."""
        return self._memory(self._process(process), memory)

    def import_again(self, process: int, like: Memory) -> int | None:
        """`import_by_name` for one who is known to get it: a process with the token that was given `like` for the same
        name and mask. The new memory object; or None, if the object has ended (the name may lead to another one by
        now) or the process has as many as one may: `import_by_name` says which.

        Nothing else is checked again, because nothing can have changed: an object keeps its security for life, and its
        name, or it has none any more.
        """
        shared = like.object
        owner = self._processes[process]
        if shared is None or not shared.refs or shared.name is None or len(owner.memories) >= self.limits.memories:
            return None
        # `_add_memory` and `_retain` written out: this is what the broker does most.
        like.payload.refs += _ON_PAYLOAD
        like.payload.kmt_refs += _ON_KMT
        shared.refs += _ON_OBJECT
        memory = owner.next_memory
        owner.next_memory = memory + 1
        owner.memories[memory] = like
        return memory

    def import_by_handle(self, process: int, handle: int) -> Imported:
        """Import through an open handle of the calling process and pin the object (G9). The handle stays open (B76).

        Refused INVALID_HANDLE (B68, B97, B99), OBJECT_TYPE_MISMATCH (B69, B98), ACCESS_DENIED without READ_CONTROL
        (G4).
        """
        owner = self._process(process)
        entry = owner.table.find(handle)
        shared = entry.object
        if not isinstance(shared, SharedObject):
            raise Refused(
                Status.OBJECT_TYPE_MISMATCH,
                f"The handle {handle:#x} refers to an object of type {shared.type_name}, not {TYPE_NAME}. Pass a "
                "handle to memory.",
            )
        return self._import_nt(owner, shared, entry.granted)

    def import_by_kmt(self, process: int, number: int) -> Imported:
        """Import by KMT number, from any process (B55). Pins the payload and the number. Refused INVALID_PARAMETER
        (B59, B99).
        """
        owner = self._process(process)
        return self._import_kmt(owner, self._kmt.find(number))

    def free_memory(self, process: int, memory: int) -> None:
        """End a memory object. Handles to its object stay open (B77). Refused INVALID_HANDLE when there is no such."""
        owner = self._process(process)
        self._memory(owner, memory)
        self._free(owner, memory)

    def _export_kmt(
        self,
        owner: Process,
        payload: Payload | None,
        identity: tuple[int, int],
        descriptor: bytes,
        name: str | None,
        *,
        strict_kmt: bool,
        writable: bool,
    ) -> Exported:
        if name is not None:
            raise Refused(
                Status.INVALID_PARAMETER,
                f"Memory shared by KMT number has no object that could be named {name!r}. Share it by NT handle, or "
                "leave the name out.",
            )
        if payload is None:
            payload = self._new_payload(
                identity, descriptor, Share.KMT, uid=owner.token.uid, writable=writable, strict_kmt=strict_kmt
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
        new = Memory(payload, None, _EXPORTING, self._kmt_rights(payload), exporting=True)
        return Exported(self._add_memory(owner, new), payload.id, None, payload.kmt)

    def _import_nt(self, owner: Process, shared: SharedObject, granted: int) -> Imported:
        self._check_readable(granted)
        self._memory_room(owner)
        memory = self._add_memory(owner, Memory(shared.payload, shared, _IMPORTED_NT, granted))
        name = None if shared.name is None else shared.name.display
        return Imported(memory, shared.payload.id, shared.id, granted, None, name)

    def _import_kmt(self, owner: Process, payload: Payload) -> Imported:
        self._memory_room(owner)
        granted = self._kmt_rights(payload)
        memory = self._add_memory(owner, Memory(payload, None, _IMPORTED_KMT, granted))
        return Imported(memory, payload.id, None, granted, payload.kmt, None)

    @staticmethod
    def _kmt_rights(payload: Payload) -> int:
        """A KMT number carries no rights: whoever has it may do what the memory's exporters could."""
        return READ_CONTROL | RESOURCE_WRITE if payload.writable else READ_CONTROL

    def _object_room(self, owner: Process) -> None:
        if owner.objects >= self.limits.objects:
            raise Refused(
                Status.QUOTA_EXCEEDED,
                f"This process has made {owner.objects} shared objects that still live, as many as one may. Free some.",
            )

    def _new_payload(
        self,
        identity: tuple[int, int],
        descriptor: bytes,
        share: Share,
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
            uid=uid,
            writable=writable,
            strict_kmt=strict_kmt,
        )
        self._payloads[payload.id] = payload
        self._by_identity[identity] = payload
        return payload

    def _discard_payload(self, payload: Payload) -> None:
        """Undo `_new_payload` for one that nobody has held yet; it is not reported as released."""
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
        shared = SharedObject(number, key, payload, sd, format_sddl(sd), owner, born=born, writable=writable)
        self._directory.add(shared)
        self._objects[shared.id] = shared
        payload.objects[shared.id] = shared
        owner.objects += 1
        return shared
