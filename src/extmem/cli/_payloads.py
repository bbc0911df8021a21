"""Live payloads and their holders, as plain data and as a table, for `extmem ps` and the demo."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import IO, Any

from extmem import vk
from extmem.cli._out import bytes_in_words, clean, table
from extmem.core.naming import short_name
from extmem.errors import DescriptorError
from extmem.manager import process_name, start_time
from extmem.objects import ObjectKind, PayloadRow, Share
from extmem.sharing.descriptor import Descriptor
from extmem.sharing.descriptor.sync import SyncDescriptor
from extmem.sharing.kinds import PageRole
from extmem.vk.value_text import enum_text

__all__ = [
    "access_in_words",
    "describe_kind",
    "describe_loan",
    "describe_payload",
    "describe_sync",
    "other_broker_in_words",
    "payload_table",
    "process_name",
    "short_name",
]

_RIGHTS = ((0x0002_0000, "read"), (0x0000_0001, "write"))
_SYNC_RIGHTS = ((0x0000_0001, "wait"), (0x0000_0002, "signal"))
_REST = 0x001D_0000
_COUNTS = {ObjectKind.MEMORY: "memory_objects", ObjectKind.SEMAPHORE: "semaphores", ObjectKind.FENCE: "fences"}
"""The key of the number of a holder's objects, by their kind. Semaphores include timelines, as in Vulkan."""
_PLURALS = {"timeline": "timelines", "binary": "binary semaphores"}
"""What several semaphores are called, by the type of their payload."""


def access_in_words(mask: int, object_kind: ObjectKind = ObjectKind.MEMORY) -> str:
    """Return an access mask as text: `read`, `read+write`, `read+write+manage`; of other kinds `wait+signal`."""
    names = _RIGHTS if object_kind is ObjectKind.MEMORY else _SYNC_RIGHTS
    rights = [word for bit, word in names if mask & bit]
    if mask & _REST:
        rights.append("manage")
    return "+".join(rights) or "nothing"


def describe_kind(descriptor: Descriptor) -> dict[str, Any]:
    """Return the contents of a payload as plain data: `{"type": "array" | "arrays" | "image" | "buffer" | "bytes", …}`.

    "arrays" are named arrays. What they are is in the payload's table, which the object manager does not tell.
    """
    if descriptor.array is not None:
        return {
            "type": "array",
            "shape": list(descriptor.array.shape),
            "dtype": descriptor.array.dtype,
            "strides": list(descriptor.array.strides),
        }
    if PageRole.TABLE in descriptor.pages:
        return {"type": "arrays"}
    if descriptor.image is not None:
        return _image(descriptor.image.format, list(descriptor.image.extent), descriptor.image.tiling)
    dedicated = descriptor.dedicated
    if isinstance(dedicated, vk.ImageCreateInfo):
        extent = dedicated.extent
        size = [] if extent is None else [extent.width, extent.height, extent.depth]
        return _image(int(dedicated.format), size, int(dedicated.tiling))
    if isinstance(dedicated, vk.BufferCreateInfo):
        return {"type": "buffer", "size": int(dedicated.size)}
    return {"type": "bytes"}


def describe_sync(descriptor: SyncDescriptor | None, counter: int | None) -> dict[str, Any] | None:
    """Return what a semaphore or fence is: `{"type": "timeline" | "binary" | "fence", …}`; None if that is unknown.

    counter: the value of a timeline; None where it is not known.
    """
    if descriptor is None:
        return None
    if descriptor.object_kind == ObjectKind.FENCE:
        return {"type": "fence"}
    return {"type": "timeline", "value": counter} if descriptor.timeline else {"type": "binary"}


def describe_loan(
    descriptor: Descriptor | None, processes: Callable[[int], str] = process_name
) -> dict[str, Any] | None:
    """Return who has lent the memory and how much of it, as plain data; None for memory of extmem.

    `bytes` are those of the allocations: what the lender keeps out of the use of its allocator is in them.
    """
    if descriptor is None or PageRole.LIFELINE not in descriptor.pages:
        return None
    pid = descriptor.owner_pid
    runs = bool(pid) and start_time(pid) == descriptor.owner_start_time
    return {
        "pid": pid,
        "process": processes(pid) if runs else "",
        "running": runs,
        "bytes": descriptor.allocation_size,
        "allocations": len(descriptor.part_sizes) or 1,
    }


def _image(number: int, extent: list[int], tiling: int) -> dict[str, Any]:
    return {
        "type": "image",
        "format": enum_text(number, vk.Format),
        "extent": extent,
        "tiling": enum_text(tiling, vk.ImageTiling),
    }


def describe_payload(row: PayloadRow, processes: Callable[[int], str] = process_name) -> dict[str, Any]:
    """Return one live payload as plain data. Values that come from a descriptor are None if it cannot be read.

    processes: returns the name of a process by its pid.
    """
    descriptor: Descriptor | None = None
    sync: SyncDescriptor | None = None
    with contextlib.suppress(DescriptorError):
        if row.object_kind is ObjectKind.MEMORY:
            descriptor = Descriptor.parse(row.descriptor)
        else:
            sync = SyncDescriptor.parse(row.descriptor)
    header = descriptor or sync
    return {
        "payload": row.payload,
        "object_kind": row.object_kind.name.lower(),
        "handle_count": row.handle_count,
        "names": [short_name(path) for path in row.names],
        "paths": list(row.names),
        "size": descriptor.payload_size if descriptor is not None else None,
        "allocation_size": descriptor.allocation_size if descriptor is not None else None,
        "kind": describe_kind(descriptor) if descriptor is not None else describe_sync(sync, row.counter),
        "device": header.device_name if header is not None else None,
        "read_only": header.read_only if header is not None else None,
        "share": "NT" if row.share & Share.NT else "KMT" if row.share & Share.KMT else "fd",
        "in_flight": row.in_flight,
        "kmt": row.kmt or None,
        "security": [shared.sddl for shared in row.objects],
        "kept": [shared.kept for shared in row.objects if shared.kept],
        "superseded": any(shared.superseded for shared in row.objects),
        "lent": describe_loan(descriptor, processes),
        "holders": [
            {
                "pid": holder.pid,
                "process": processes(holder.pid),
                "exporter": header is not None and holder.pid == header.owner_pid,
                _COUNTS[row.object_kind]: holder.references,
                "rights": access_in_words(holder.rights, row.object_kind) if holder.references else "",
                "in_flight": holder.tickets,
                "handles": [
                    {
                        "value": handle.value,
                        "access": handle.granted,
                        "rights": access_in_words(handle.granted, row.object_kind),
                    }
                    for handle in holder.handles
                ],
            }
            for holder in row.holders
        ],
    }


def other_broker_in_words(version: int, pid: int, socket: str) -> str:
    """Return a sentence about a broker of another version of extmem. pid: 0 if it is not known."""
    return (
        f"A broker of another version runs: version {version} of the wire format, process {pid or 'unknown'}, at "
        f"{clean(socket)}. Programs with that version of extmem use it."
    )


def _kind_in_words(kind: dict[str, Any] | None) -> str:
    if kind is None:
        return "?"
    if kind["type"] == "array":
        return f"array {' x '.join(map(str, kind['shape']))} {clean(kind['dtype'])}"
    if kind["type"] == "image":
        return f"image {' x '.join(map(str, kind['extent']))}\n{kind['format']} {kind['tiling']}"
    if kind["type"] == "arrays":
        return "named arrays"
    if kind["type"] == "timeline" and kind["value"] is not None:
        return f"timeline at {kind['value']}"
    return str(kind["type"])


def _size_in_words(payload: dict[str, Any]) -> str:
    if payload["size"] is not None:
        return bytes_in_words(payload["size"])
    return "?" if payload["object_kind"] == "memory" else "-"


def _object_in_words(payload: dict[str, Any]) -> str:
    count, kind = int(payload["handle_count"]), str(payload["object_kind"])
    # Semaphores and fences consist of one object and the page beside it: nothing that tells one from another.
    return f"{kind}\n{count} handles" if count > 1 and kind == "memory" else kind


def _objects_in_words(payload: dict[str, Any]) -> str:
    """Return what several objects of a payload are called."""
    if payload["object_kind"] == "memory":
        return "memory objects"
    kind = payload["kind"] or {}
    return _PLURALS.get(kind.get("type", ""), f"{payload['object_kind']}s")


def _holder_in_words(holder: dict[str, Any], payload: dict[str, Any]) -> list[str]:
    process = f"{holder['pid']} {clean(holder['process'])}".strip()
    if holder["pid"] == 0:
        process = "a child that is starting"
    kind = ObjectKind[payload["object_kind"].upper()]
    count = holder[_COUNTS[kind]]
    lines = []
    if count:
        role = "exporter" if holder["exporter"] else "importer"
        role += "" if kind is ObjectKind.MEMORY else f" ({holder['rights']})"
        lines.append(f"{process}: {role}" + f", {count} {_objects_in_words(payload)}" * (count > 1))
    lines += [f"{process}: handle {handle['value']:#x} {handle['rights']}" for handle in holder["handles"]]
    if holder["in_flight"]:
        lines.append(f"{process}: {holder['in_flight']} in flight")
    return lines or [process]


def _holders_in_words(payload: dict[str, Any]) -> list[str]:
    lines = [line for holder in payload["holders"] for line in _holder_in_words(holder, payload)]
    if payload["in_flight"]:
        lines.append(f"{payload['in_flight']} in flight from processes that have ended")
    lines += [f"the broker: kept {text}" for text in payload["kept"]]
    lent = payload["lent"]
    if lent is not None:
        lender = f"{lent['pid']} {clean(lent['process'])}".strip()
        lines.append(f"lent by {lender}{', which has ended' * (not lent['running'])}: {bytes_in_words(lent['bytes'])}")
    return lines


def payload_table(payloads: Sequence[dict[str, Any]], *, title: str = "", stream: IO[str] | None = None) -> None:
    """Print payloads, each as returned by `describe_payload`, as a table."""
    table(
        ("name", "object", "size", "kind", "share", "held by"),
        [
            (
                "\n".join(map(clean, payload["names"])) or ("(superseded)" if payload["superseded"] else "(unnamed)"),
                _object_in_words(payload),
                _size_in_words(payload),
                _kind_in_words(payload["kind"]),
                f"{payload['share']} {payload['kmt']:#x}" if payload["kmt"] else payload["share"],
                "\n".join(_holders_in_words(payload)) or "no process",
            )
            for payload in payloads
        ],
        title=title,
        stream=stream,
    )
