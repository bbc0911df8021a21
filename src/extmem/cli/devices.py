"""`extmem devices`: what each device is, and what can be shared between processes through which handle type."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from extmem.cli._guard import FAILED, guarded
from extmem.cli._out import bytes_in_words, clean, emit_json, emit_line, table, width, words

if TYPE_CHECKING:
    from enum import IntFlag

    from extmem import vk
    from extmem.devices.backend import Answers, Offer

__all__ = ["describe_offer", "devices"]

_IMAGES = (
    ("R8G8B8A8_UNORM", "LINEAR", ("TRANSFER_SRC", "TRANSFER_DST", "SAMPLED")),
    ("R8G8B8A8_UNORM", "OPTIMAL", ("SAMPLED", "STORAGE")),
    ("B8G8R8A8_UNORM", "OPTIMAL", ("TRANSFER_DST", "COLOR_ATTACHMENT")),
    ("R16G16B16A16_SFLOAT", "OPTIMAL", ("STORAGE", "COLOR_ATTACHMENT")),
    ("D32_SFLOAT", "OPTIMAL", ("DEPTH_STENCIL_ATTACHMENT",)),
    ("BC7_UNORM_BLOCK", "OPTIMAL", ("SAMPLED",)),
)
_BUFFER_USAGE = ("TRANSFER_SRC", "TRANSFER_DST", "STORAGE_BUFFER")


def describe_offer(offer: Offer) -> dict[str, Any]:
    """Everything that a device answers, as plain data. It is opened only where nobody answers for it otherwise."""
    from extmem.errors import DriverError, UnsupportedError

    identity = offer.identity
    facts: dict[str, Any] = {
        "kind": offer.kind,
        "name": identity.device_name,
        "driver": identity.driver_name,
        "driver_version": identity.driver_version,
        "device_uuid": identity.device_uuid.hex(),
        "driver_uuid": identity.driver_uuid.hex(),
        "luid": identity.luid.hex() if identity.luid is not None else None,
        "node_mask": identity.node_mask,
        "min_imported_host_pointer_alignment": 0,
        "memory_heaps": [],
        "memory_types": [],
        "handle_types": [],
        "problem": "",
    }
    try:
        if offer.answers is not None:
            return {**facts, **_asked(offer.answers())}
        backend = offer.open()
        try:
            return {**facts, **_asked(backend)}
        finally:
            backend.close()
    except (DriverError, UnsupportedError) as error:
        return {**facts, "problem": str(error)}


def _asked(device: Answers) -> dict[str, Any]:
    from extmem import vk

    memory = device.memory_properties()
    return {
        "min_imported_host_pointer_alignment": device.min_imported_host_pointer_alignment,
        "memory_heaps": [
            {"index": index, "size": int(heap.size), "flags": _names(vk.MemoryHeapFlagBits, heap.flags)}
            for index, heap in enumerate(memory.memory_heaps)
        ],
        "memory_types": [
            {
                "index": index,
                "heap": int(kind.heap_index),
                "flags": _names(vk.MemoryPropertyFlagBits, kind.property_flags),
            }
            for index, kind in enumerate(memory.memory_types)
        ],
        "handle_types": [_handle_type(device, kind) for kind in _handle_types()],
    }


def _handle_types() -> Iterable[vk.ExternalMemoryHandleTypeFlagBits]:
    from extmem import vk

    return tuple(vk.ExternalMemoryHandleTypeFlagBits)


def _handle_type(device: Answers, kind: vk.ExternalMemoryHandleTypeFlagBits) -> dict[str, Any]:
    from extmem import vk
    from extmem.errors import UnsupportedError

    usage = vk.BufferUsageFlagBits(0)
    for name in _BUFFER_USAGE:
        usage |= vk.BufferUsageFlagBits[name]
    asked = vk.PhysicalDeviceExternalBufferInfo(vk.BufferCreateFlagBits(0), usage, kind)
    images = []
    for format_name, tiling, usages in _IMAGES:
        image_usage = vk.ImageUsageFlagBits(0)
        for name in usages:
            image_usage |= vk.ImageUsageFlagBits[name]
        query = vk.PhysicalDeviceImageFormatInfo2(
            vk.Format[format_name],
            vk.ImageType.TYPE_2D,
            vk.ImageTiling[tiling],
            image_usage,
            vk.ImageCreateFlagBits(0),
            vk.PhysicalDeviceExternalImageFormatInfo(kind),
        )
        found = None
        why = ""
        try:
            found = vk.find(device.image_format_properties(query), vk.ExternalImageFormatProperties)
        except UnsupportedError as error:
            why = str(error)
        answer = _capability(found.external_memory_properties if found is not None else None)
        images.append({"format": format_name, "tiling": tiling, "usage": list(usages), **answer, "reason": why})
    return {
        "type": _bare(kind.name),
        "buffer": {
            "usage": list(_BUFFER_USAGE),
            **_capability(device.external_buffer_properties(asked).external_memory_properties),
        },
        "images": images,
    }


def _capability(properties: vk.ExternalMemoryProperties | None) -> dict[str, Any]:
    from extmem import vk

    features = vk.ExternalMemoryFeatureFlagBits(int(properties.external_memory_features) if properties else 0)
    known = properties is not None and bool(features)
    kinds = vk.ExternalMemoryHandleTypeFlagBits
    return {
        "export": bool(features & vk.ExternalMemoryFeatureFlagBits.EXPORTABLE),
        "import": bool(features & vk.ExternalMemoryFeatureFlagBits.IMPORTABLE),
        "dedicated_only": bool(features & vk.ExternalMemoryFeatureFlagBits.DEDICATED_ONLY),
        "compatible": _names(kinds, properties.compatible_handle_types) if properties is not None and known else [],
        "export_from_imported": (
            _names(kinds, properties.export_from_imported_handle_types) if properties is not None and known else []
        ),
    }


def _names(kind: type[IntFlag], flags: int) -> list[str]:
    return [_bare(bit.name) for bit in kind if bit & flags]


def _bare(name: str | None) -> str:
    """A handle type's name without its vendor: DMA_BUF, HOST_ALLOCATION."""
    return (name or "?").removesuffix("_EXT")


def _supported(answer: dict[str, Any]) -> bool:
    return bool(answer["export"] or answer["import"])


def _resources(kind: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What can be shared through a handle type, resource by resource."""
    found = [("buffers", kind["buffer"])] * _supported(kind["buffer"])
    return found + [(f"{image['format']} {image['tiling']}", image) for image in kind["images"] if _supported(image)]


def _abilities(answer: dict[str, Any]) -> str:
    words = [word for word in ("export", "import") if answer[word]]
    return ", ".join(words) + ("\ndedicated only" if answer["dedicated_only"] else "")


def _grouped(kind: dict[str, Any], tell: Callable[[dict[str, Any]], tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Rows of one handle type; resources with the same answer share a row."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for what, answer in _resources(kind):
        groups.setdefault(tell(answer), []).append(what)
    return [(kind["type"], "\n".join(what), *told) for told, what in groups.items()]


def _relations(answer: dict[str, Any]) -> tuple[str, str]:
    return "\n".join(answer["compatible"]) or "-", "\n".join(answer["export_from_imported"]) or "-"


def _kinds_alone(kind: dict[str, Any]) -> list[tuple[str, ...]]:
    """Relations differ between buffers and images, not between formats: name those two where that is so."""
    rows = []
    for name, what, *told in _grouped(kind, _relations):
        lines = what.splitlines()
        images = [line for line in lines if line != "buffers"]
        whole = len(images) == sum(line != "buffers" for line, _ in _resources(kind))
        shown = ["buffers"] * ("buffers" in lines) + (["images"] if images and whole else images)
        rows.append((name, "\n".join(shown), *told))
    return rows


def _draw(facts: dict[str, Any]) -> None:
    emit_line(f"{facts['kind']}: {clean(facts['name'])}")
    facts_of_it = (
        ("driver", clean(f"{facts['driver']} {facts['driver_version']}")),
        ("device UUID", facts["device_uuid"]),
        ("driver UUID", facts["driver_uuid"]),
        ("LUID", facts["luid"] or "none"),
    )
    # A UUID is not broken: where it does not fit beside its name, it stands below.
    narrow = width(sys.stdout) < 48
    for what, value in facts_of_it:
        emit_line(f"  {what}\n    {value}" if narrow else f"  {what:12} {value}")
    emit_line()
    if facts["problem"]:
        emit_line(f"It cannot be asked: {clean(facts['problem'])}")
        emit_line()
        return
    heaps = facts["memory_heaps"]
    table(
        ("memory type", "properties", "heap"),
        [
            (
                str(kind["index"]),
                "\n".join(kind["flags"]) or "-",
                f"{kind['heap']}: {bytes_in_words(heaps[kind['heap']]['size'])}",
            )
            for kind in facts["memory_types"]
        ],
    )
    kinds = [kind for kind in facts["handle_types"] if _resources(kind)]
    table(
        ("handle type", "of", "can"),
        [row for kind in kinds for row in _grouped(kind, lambda answer: (_abilities(answer),))],
        title="What each handle type can share",
    )
    table(
        ("handle type", "of", "compatible with", "an import exports as"),
        [row for kind in kinds for row in _kinds_alone(kind)],
        title="What goes together",
    )
    for kind in kinds:
        refused = [image["format"] for image in kind["images"] if not _supported(image)]
        if refused:
            emit_line(f"{kind['type']}: no images of")
            for name in dict.fromkeys(refused):
                emit_line(f"  {name}")
    absent = [kind["type"] for kind in facts["handle_types"] if not _resources(kind)]
    if absent:
        emit_line("Not on this device:")
        for name in absent:
            emit_line(f"  {name}")
        emit_line()


@click.command
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@guarded
def devices(as_json: bool) -> None:
    """Show every device: UUIDs, memory types, and which handle types its buffers and images take.

    Exit codes: 0 shown; 1 no device here.
    """
    from extmem.devices import cuda, select, vulkan

    found = [describe_offer(offer) for offer in select.enumerate_offers()]
    if as_json:
        emit_json(found)
    else:
        for facts in found:
            _draw(facts)
        if found:
            table(
                ("format", "tiling", "usage"),
                [(name, tiling, "\n".join(usages)) for name, tiling, usages in _IMAGES],
                title="Images were asked about as",
            )
    if vulkan.missing():
        words(f"No Vulkan device: {vulkan.missing()}")
    if cuda.missing():
        words(f"No CUDA device: {cuda.missing()}")
    if not found:
        words("There is no device here: the host device needs Linux.")
        raise click.exceptions.Exit(FAILED)
