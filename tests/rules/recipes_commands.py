"""Calls that raise the rules on commands: the wrong call of each case, with real resources in place of the facts.

How this works. A case ends in a function of `extmem.rules`, with the facts of its resources, the device's queue among
them. Here a scripted GPU with such a queue creates buffers and images by these facts, binds them to memory, and records
the same command.
"""

from __future__ import annotations

import functools
from typing import Any
from unittest import mock

import extmem
from extmem import rules, vk
from extmem.testing.fake_vulkan import Family
from tests.rules import cases_barrier_ranges, cases_commands
from tests.rules.cases import CASES
from tests.rules.raising import broken_by
from tests.rules.recipes_world import RECIPES, World

__all__ = ["put"]

L, S = vk.ImageLayout, vk.PipelineStageFlagBits
_LAID_OUT = {
    "VUID-VkImageMemoryBarrier-oldLayout-01197": lambda c, i, b: c.change_layout(i, L.TRANSFER_SRC_OPTIMAL, L.GENERAL),
    "VUID-vkCmdCopyBufferToImage-dstImageLayout-00180": lambda c, i, b: c.copy_buffer_to_image(b, i, layout=7),
    "VUID-vkCmdCopyImageToBuffer-srcImageLayout-00189": lambda c, i, b: c.copy_image_to_buffer(i, b, layout=6),
    "VUID-vkCmdClearColorImage-imageLayout-00004": lambda c, i, b: c.clear_color_image(i, (0,) * 4, layout=7),
}
"""Rules that depend on earlier commands."""


def _judged(vuid: str) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """Return the last function of the rules that the case's wrong call calls, and its arguments."""
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def recording(name: str, check: Any) -> Any:
        def noted(*given: Any, **more: Any) -> Any:
            calls.append((name, given, more))
            return check(*given, **more)

        return noted

    names = [name for name in rules.__all__ if name.startswith("check_")]
    changed = {name: recording(name, getattr(rules, name)) for name in names}
    with mock.patch.multiple(rules, **changed):
        CASES[vuid].wrong()
    return calls[-1]


def _made(world: World, device: extmem.Device, facts: rules.ResourceFacts, shared: Any = None) -> Any:
    """Return the buffer or image of these facts, bound to memory. shared: bind it at the beginning of this memory."""
    info: Any = facts.create_info
    made = world.keep(device.create_buffer(info) if facts.kind == "buffer" else device.create_image(info))
    memory = shared or world.memory(device)
    (device.bind_buffer_memory if facts.kind == "buffer" else device.bind_image_memory)(made, memory, 0)
    return made


def put(world: World, vuid: str) -> set[str]:
    """Return the rules that the public command with the case's values breaks."""
    if vuid == "VUID-vkQueueSubmit-pSubmits-02808":
        device = world.gpu()
        first, second = (_made(world, device, cases_commands.buffer_of()) for _ in range(2))
        return _run(device, lambda c: (c.release(first), c.copy_buffer(first, second)))
    if vuid in _LAID_OUT:
        device = world.gpu()
        image, buffer = (_made(world, device, made) for made in (cases_commands.image_of(), cases_commands.buffer_of()))
        _run(device, lambda c: c.change_layout(image, L.UNDEFINED, L.GENERAL))
        return _run(device, lambda c: _LAID_OUT[vuid](c, image, buffer))
    name, given, more = _judged(vuid)
    values = {**dict(zip(_ORDER.get(name, ()), given, strict=False)), **more}
    facts = values["device"]
    flags = facts.queue_flags
    device = world.gpu() if flags is None else world.gpu(families=(Family(flags),))
    return _PUT[name](world, device, values)


def _run(device: extmem.Device, work: Any) -> set[str]:
    def block() -> None:
        with device.commands() as commands:
            work(commands)

    return broken_by(block)


def _fill(world: World, device: extmem.Device, values: dict[str, Any]) -> set[str]:
    buffer = _made(world, device, values["buffer"])
    return _run(device, lambda c: c.fill_buffer(buffer, 1, offset=values["offset"], size=values["size"]))


def _copy(world: World, device: extmem.Device, values: dict[str, Any]) -> set[str]:
    places = values["places"]
    source = _made(world, device, values["source"])
    target = _made(world, device, values["target"], source.memory if places[0] == places[1] else None)
    offsets = {"source_offset": values["source_offset"], "target_offset": values["target_offset"]}
    return _run(device, lambda c: c.copy_buffer(source, target, size=values["size"], **offsets))


def _clear(world: World, device: extmem.Device, values: dict[str, Any]) -> set[str]:
    image = _made(world, device, values["image"])
    return _run(device, lambda c: c.clear_color_image(image, (0,) * 4, layout=values["layout"]))


def _image_copy(to_image: bool, world: World, device: extmem.Device, values: dict[str, Any]) -> set[str]:
    image = _made(world, device, values["image"])
    first, second = values.get("places", (None, None))
    shared = first is not None and first.memory == second.memory
    buffer = _made(world, device, values["buffer"], image.memory if shared else None)
    how = {
        name: values[name]
        for name in ("layout", "buffer_offset", "mip_level", "array_layer", "aspect")
        if name in values
    }
    if to_image:
        return _run(device, lambda c: c.copy_buffer_to_image(buffer, image, **how))
    return _run(device, lambda c: c.copy_image_to_buffer(image, buffer, **how))


def _barrier(kind: str, world: World, device: extmem.Device, values: dict[str, Any]) -> set[str]:
    barrier, made = values["barrier"], _made(world, device, values["resource"])
    setattr(barrier, kind, made)
    listed: Any = {f"{kind}_memory_barriers": [barrier]}
    return _run(device, lambda c: c.pipeline_barrier(S.TRANSFER, S.TRANSFER, **listed))


def _pipeline(world: World, device: extmem.Device, values: dict[str, Any]) -> set[str]:
    lists: Any = {}
    for kind in ("buffer", "image"):
        listed = lists[f"{kind}_memory_barriers"] = list(values[f"{kind}_memory_barriers"])
        for barrier in listed:
            setattr(barrier, kind, _made(world, device, values[f"{kind}s"][0]))
    lists["memory_barriers"] = values["memory_barriers"]
    return _run(device, lambda c: c.pipeline_barrier(*values["stage_masks"], **lists))


_ORDER = {
    "check_fill_buffer": ("buffer", "offset", "size", "device"),
    "check_copy_buffer": ("source", "target", "source_offset", "target_offset", "size", "device"),
    "check_clear_color_image": ("image", "layout", "device"),
    "check_buffer_memory_barrier": ("barrier", "resource", "device"),
    "check_image_memory_barrier": ("barrier", "resource", "device"),
}
_PUT: dict[str, Any] = {
    "check_fill_buffer": _fill,
    "check_copy_buffer": _copy,
    "check_clear_color_image": _clear,
    "check_copy_buffer_to_image": functools.partial(_image_copy, True),
    "check_copy_image_to_buffer": functools.partial(_image_copy, False),
    "check_buffer_memory_barrier": functools.partial(_barrier, "buffer"),
    "check_image_memory_barrier": functools.partial(_barrier, "image"),
    "check_pipeline_barrier": _pipeline,
}
_OF_COMMANDS = {vuid for module in (cases_commands, cases_barrier_ranges) for vuid in module.ENTERED}
RECIPES.update({vuid: functools.partial(put, vuid=vuid) for vuid in _OF_COMMANDS})
