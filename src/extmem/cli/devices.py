"""`extmem devices`: each device, with the handle types by which its buffers and images can be shared."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
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
    """Return all properties of a device as plain data. Open it only if they cannot be queried otherwise."""
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
            return {**facts, **_queried(offer.answers())}
        with closing(offer.open()) as backend:
            return {**facts, **_queried(backend)}
    except (DriverError, UnsupportedError) as error:
        return {**facts, "problem": str(error)}


def _queried(device: Answers) -> dict[str, Any]:
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
                "heap": int(memory_type.heap_index),
                "flags": _names(vk.MemoryPropertyFlagBits, memory_type.property_flags),
            }
            for index, memory_type in enumerate(memory.memory_types)
        ],
        "handle_types": [_handle_type(device, handle_type) for handle_type in vk.ExternalMemoryHandleTypeFlagBits],
    }


def _handle_type(device: Answers, handle_type: vk.ExternalMemoryHandleTypeFlagBits) -> dict[str, Any]:
    from extmem import vk
    from extmem.errors import UnsupportedError

    usage = vk.BufferUsageFlagBits(sum(vk.BufferUsageFlagBits[name] for name in _BUFFER_USAGE))
    buffers = vk.PhysicalDeviceExternalBufferInfo(vk.BufferCreateFlagBits(0), usage, handle_type)
    images = []
    for format_name, tiling, usages in _IMAGES:
        query = vk.PhysicalDeviceImageFormatInfo2(
            vk.Format[format_name],
            vk.ImageType.TYPE_2D,
            vk.ImageTiling[tiling],
            vk.ImageUsageFlagBits(sum(vk.ImageUsageFlagBits[name] for name in usages)),
            vk.ImageCreateFlagBits(0),
            vk.PhysicalDeviceExternalImageFormatInfo(handle_type),
        )
        properties, reason = None, ""
        try:
            properties = vk.find(device.image_format_properties(query), vk.ExternalImageFormatProperties)
        except UnsupportedError as error:
            reason = str(error)
        images.append(
            {
                "format": format_name,
                "tiling": tiling,
                "usage": list(usages),
                **_capability(properties.external_memory_properties if properties is not None else None),
                "reason": reason,
            }
        )
    return {
        "type": _without_vendor(handle_type.name),
        "buffer": {
            "usage": list(_BUFFER_USAGE),
            **_capability(device.external_buffer_properties(buffers).external_memory_properties),
        },
        "images": images,
    }


def _capability(properties: vk.ExternalMemoryProperties | None) -> dict[str, Any]:
    from extmem import vk

    known = properties or vk.ExternalMemoryProperties()
    features = vk.ExternalMemoryFeatureFlagBits(int(known.external_memory_features))
    types = vk.ExternalMemoryHandleTypeFlagBits
    return {
        "export": bool(features & vk.ExternalMemoryFeatureFlagBits.EXPORTABLE),
        "import": bool(features & vk.ExternalMemoryFeatureFlagBits.IMPORTABLE),
        "dedicated_only": bool(features & vk.ExternalMemoryFeatureFlagBits.DEDICATED_ONLY),
        "compatible": _names(types, known.compatible_handle_types) if features else [],
        "export_from_imported": _names(types, known.export_from_imported_handle_types) if features else [],
    }


def _names(enum: type[IntFlag], flags: int) -> list[str]:
    return [_without_vendor(bit.name) for bit in enum if bit & flags]


def _without_vendor(name: str | None) -> str:
    """Return the name of a handle type without its vendor: DMA_BUF, HOST_ALLOCATION."""
    return (name or "?").removesuffix("_EXT")


def _supported(answer: dict[str, Any]) -> bool:
    return bool(answer["export"] or answer["import"])


def _resources(entry: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the resources that can be shared by the handle type of an entry, each with its capabilities."""
    buffers = [("buffers", entry["buffer"])] * _supported(entry["buffer"])
    return buffers + [(f"{image['format']} {image['tiling']}", image) for image in entry["images"] if _supported(image)]


def _abilities(answer: dict[str, Any]) -> str:
    abilities = ", ".join(word for word in ("export", "import") if answer[word])
    return f"{abilities}\ndedicated only" if answer["dedicated_only"] else abilities


def _grouped(entry: dict[str, Any], columns: Callable[[dict[str, Any]], tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the rows of one handle type. Resources with the same columns share a row."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for resource, answer in _resources(entry):
        groups.setdefault(columns(answer), []).append(resource)
    return [(entry["type"], "\n".join(resources), *cells) for cells, resources in groups.items()]


def _relations(answer: dict[str, Any]) -> tuple[str, str]:
    return "\n".join(answer["compatible"]) or "-", "\n".join(answer["export_from_imported"]) or "-"


def _relation_rows(entry: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of relations. Write "images" where all formats have the same relations, as they usually do."""
    rows = []
    for name, resources, *cells in _grouped(entry, _relations):
        lines = resources.splitlines()
        images = [line for line in lines if line != "buffers"]
        all_images = len(images) == sum(line != "buffers" for line, _ in _resources(entry))
        shown = ["buffers"] * ("buffers" in lines) + (["images"] if images and all_images else images)
        rows.append((name, "\n".join(shown), *cells))
    return rows


def _draw(facts: dict[str, Any]) -> None:
    emit_line(f"{facts['kind']}: {clean(facts['name'])}")
    # A UUID is not wrapped: in a narrow window it is printed below its label.
    narrow = width(sys.stdout) < 48
    for label, value in (
        ("driver", clean(f"{facts['driver']} {facts['driver_version']}")),
        ("device UUID", facts["device_uuid"]),
        ("driver UUID", facts["driver_uuid"]),
        ("LUID", facts["luid"] or "none"),
    ):
        emit_line(f"  {label}\n    {value}" if narrow else f"  {label:12} {value}")
    emit_line()
    if facts["problem"]:
        emit_line(f"This device cannot be queried: {clean(facts['problem'])}")
        emit_line()
        return
    table(
        ("memory type", "properties", "heap"),
        [
            (
                str(memory_type["index"]),
                "\n".join(memory_type["flags"]) or "-",
                f"{memory_type['heap']}: {bytes_in_words(facts['memory_heaps'][memory_type['heap']]['size'])}",
            )
            for memory_type in facts["memory_types"]
        ],
    )
    entries = [entry for entry in facts["handle_types"] if _resources(entry)]
    table(
        ("handle type", "resources", "supports"),
        [row for entry in entries for row in _grouped(entry, lambda answer: (_abilities(answer),))],
        title="Resources by handle type",
    )
    table(
        ("handle type", "resources", "compatible with", "imports export as"),
        [row for entry in entries for row in _relation_rows(entry)],
        title="Handle types that can be combined",
    )
    for entry in entries:
        refused = [image["format"] for image in entry["images"] if not _supported(image)]
        _list(f"{entry['type']}: no images of these formats:", refused)
    absent = [entry["type"] for entry in facts["handle_types"] if not _resources(entry)]
    _list("Not supported by this device:", absent)
    if absent:
        emit_line()


def _list(title: str, names: list[str]) -> None:
    """Write the title and each name once, if there are names."""
    for line in [title, *(f"  {name}" for name in dict.fromkeys(names))] if names else []:
        emit_line(line)


@click.command(short_help="List every device with its memory types and handle types.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@guarded
def devices(as_json: bool) -> None:
    """List every device: UUIDs, memory types, and the handle types that its buffers and images support.

    Exit codes: 0 shown; 1 there is no device.
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
                title="Images that were queried",
            )
    if vulkan.missing():
        words(f"No Vulkan device: {vulkan.missing()}")
    if cuda.missing():
        words(f"No CUDA device: {cuda.missing()}")
    if not found:
        words("There is no device: the host device requires Linux or Windows.")
        raise click.exceptions.Exit(FAILED)
