"""Hand-written calls that raise a rule: creating, exporting handles, allocating and importing."""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Any, Literal

import msgspec
import pytest

import extmem
from extmem import raw, vk
from extmem.testing import fake_vulkan
from tests.rules import recipes_bind, recipes_commands, recipes_modifiers, recipes_submit, recipes_sync
from tests.rules.raising import broken_by
from tests.rules.recipes_world import HAS_FDS, RECIPES, SHARED, SIZE, Kind, Recipe, T, World, dedicate, recipe

__all__ = ["OF_FDS", "RECIPES", "World", "modules"]

modules = (recipes_bind, recipes_commands, recipes_modifiers, recipes_submit, recipes_sync)
"""Recipes of other subjects; importing them fills the table."""
OF_FDS = recipes_sync.OF_SYNC_FDS | frozenset(
    f"VUID-{tail}"
    for tail in (
        "VkMemoryAllocateInfo-None-00643",
        "VkMemoryAllocateInfo-None-00644",
        "VkMemoryAllocateInfo-allocationSize-01742",
        "VkMemoryDedicatedAllocateInfo-image-01878",
        "VkMemoryDedicatedAllocateInfo-buffer-01879",
        "VkImportMemoryFdInfoKHR-handleType-09862",
        "VkImportMemoryFdInfoKHR-fd-00668",
        "VkImportMemoryFdInfoKHR-fd-01746",
        "VkImportMemoryFdInfoKHR-fd-01520",
    )
)
"""Rules whose recipe takes file descriptors, which Windows does not have."""
# Creating.


def image(size: tuple[int, int, int], kind: int = 1, **fields: Any) -> Recipe:
    known: dict[str, Any] = {"image_type": kind, "format": 37, "extent": vk.Extent3D(*size), "usage": 3, **fields}
    return lambda world: broken_by(lambda: world.gpu().create_image(vk.ImageCreateInfo(**known)))


recipe("VkImageCreateInfo-imageCreateMaxMipLevels-02251")(image((64, 64, 1), format=vk.Format.BC1_RGB_UNORM_BLOCK))
recipe("VkImageCreateInfo-extent-02252")(image((16385, 64, 1)))
recipe("VkImageCreateInfo-extent-02253")(image((64, 16385, 1)))
recipe("VkImageCreateInfo-extent-02254")(image((64, 64, 2049), 2))
recipe("VkImageCreateInfo-mipLevels-02255")(image((64, 64, 1), mip_levels=16))
recipe("VkImageCreateInfo-arrayLayers-02256")(image((64, 64, 1), array_layers=2049))
recipe("VkImageCreateInfo-usage-00964")(image((16385, 64, 1), usage=vk.ImageUsageFlagBits.COLOR_ATTACHMENT))
recipe("VkImageCreateInfo-usage-00965")(image((64, 16385, 1), usage=vk.ImageUsageFlagBits.COLOR_ATTACHMENT))


def layout(subresource: Any, **fields: Any) -> Recipe:
    """Query the layout of a part of a LINEAR image, on each device."""

    def put(world: World) -> set[str]:
        known = {"tiling": vk.ImageTiling.LINEAR, **fields}
        images = [world.resource(device, "image", **known) for device in (world.host, world.gpu())]
        one, other = (broken_by(lambda image=image: image.subresource_layout(subresource)) for image in images)  # type: ignore[misc]
        assert one == other
        return one

    return put


recipe("vkGetImageSubresourceLayout-pSubresource-parameter")(layout(None))
recipe("vkGetImageSubresourceLayout-image-07790")(layout(vk.ImageSubresource(1), tiling=vk.ImageTiling.OPTIMAL))
recipe("VkImageSubresource-aspectMask-parameter")(layout(vk.ImageSubresource(1 << 31)))
recipe("VkImageSubresource-aspectMask-requiredbitmask")(layout(vk.ImageSubresource(0)))
recipe("vkGetImageSubresourceLayout-aspectMask-00997")(layout(vk.ImageSubresource(9)))
recipe("vkGetImageSubresourceLayout-mipLevel-01716")(layout(vk.ImageSubresource(1, 1)))
recipe("vkGetImageSubresourceLayout-arrayLayer-01717")(layout(vk.ImageSubresource(1, 0, 1.0)))
recipe("vkGetImageSubresourceLayout-format-08886")(layout(vk.ImageSubresource(vk.ImageAspectFlagBits.PLANE_0)))
recipe("vkGetImageSubresourceLayout-format-04464")(layout(vk.ImageSubresource(vk.ImageAspectFlagBits.DEPTH)))

# Handles.


def _get_win32(world: World, exported: int, *, again: bool = False, **asked: Any) -> set[str]:
    memory = world.memory(world.host, vk.ExportMemoryAllocateInfo(exported) if exported else None)
    info = vk.MemoryGetWin32HandleInfoKHR(**{"memory": memory, "handle_type": T.OPAQUE_WIN32, **asked})
    if again:
        world.keep(world.host.get_memory_win32_handle(info))
    return broken_by(lambda: world.host.get_memory_win32_handle(info))


def _get_fd(world: World, exported: int, **asked: Any) -> set[str]:
    memory = world.memory(world.host, vk.ExportMemoryAllocateInfo(exported) if exported else None)
    info = vk.MemoryGetFdInfoKHR(**{"memory": memory, "handle_type": T.OPAQUE_FD, **asked})
    return broken_by(lambda: world.host.get_memory_fd(info))


_GET, _GET_FD = "VkMemoryGetWin32HandleInfoKHR", "VkMemoryGetFdInfoKHR"
_CHAINED = vk.ExportMemoryAllocateInfo(0)
_NT = int(T.OPAQUE_WIN32)
recipe(f"{_GET}-handleType-00662")(lambda world: _get_win32(world, 0))
recipe(f"{_GET}-handleType-00663")(lambda world: _get_win32(world, _NT, again=True))
recipe(f"{_GET}-handleType-00664")(lambda world: _get_win32(world, _NT, handle_type=T.OPAQUE_FD))
recipe(f"{_GET}-pNext-pNext")(lambda world: _get_win32(world, _NT, p_next=_CHAINED))
recipe(f"{_GET}-handleType-parameter")(lambda world: _get_win32(world, _NT, handle_type=0))
recipe(f"{_GET_FD}-handleType-00671")(lambda world: _get_fd(world, 0))
recipe(f"{_GET_FD}-handleType-00672")(lambda world: _get_fd(world, _NT, handle_type=T.OPAQUE_WIN32))
recipe(f"{_GET_FD}-pNext-pNext")(lambda world: _get_fd(world, _NT, p_next=_CHAINED))
recipe(f"{_GET_FD}-handleType-parameter")(lambda world: _get_fd(world, _NT, handle_type=0))
_WRONG: Any = vk.MemoryAllocateInfo()
recipe("vkGetMemoryWin32HandleKHR-pGetWin32HandleInfo-parameter")(
    lambda world: broken_by(lambda: world.host.get_memory_win32_handle(_WRONG))
)
recipe("vkGetMemoryFdKHR-pGetFdInfo-parameter")(lambda world: broken_by(lambda: world.host.get_memory_fd(_WRONG)))

# Allocating and importing.


def allocate(device: extmem.Device, chain: Any = None, size: int = SIZE, index: int = 0) -> set[str]:
    return broken_by(lambda: device.allocate_memory(vk.MemoryAllocateInfo(size, index, chain)))


@recipe("VkMemoryAllocateInfo-allocationSize-01743")
def _win32_size(world: World) -> set[str]:
    made = world.memory(world.host, vk.ExportMemoryAllocateInfo(T.OPAQUE_WIN32))
    handle = world.keep(made.export_handle(T.OPAQUE_WIN32))
    return allocate(world.host, vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32, handle), SIZE * 2)


@recipe("VkImportMemoryWin32HandleInfoKHR-handleType-09861")
def _not_imported(world: World) -> set[str]:
    made = world.memory(world.host, vk.ExportMemoryAllocateInfo(T.OPAQUE_WIN32))
    handle = world.keep(made.export_handle(T.OPAQUE_WIN32))
    return allocate(world.gpu(external=()), vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32, handle))


@recipe("VkImportMemoryWin32HandleInfoKHR-handle-00659")
def _another_device(world: World) -> set[str]:
    made = world.memory(world.host, vk.ExportMemoryAllocateInfo(T.OPAQUE_WIN32))
    handle = world.keep(made.export_handle(T.OPAQUE_WIN32))
    return allocate(world.gpu(), vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32, handle))


recipe("VkImportMemoryWin32HandleInfoKHR-handle-01518")(_another_device)


@recipe("VkImportMemoryWin32HandleInfoKHR-name-01519")
def _another_device_by_name(world: World) -> set[str]:
    named = vk.ExportMemoryWin32HandleInfoKHR(name="raising")
    world.memory(world.host, vk.ExportMemoryAllocateInfo(T.OPAQUE_WIN32, named))
    return allocate(world.gpu(), vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32, None, "raising"))


def _alike(kind: Kind, by: Literal["handle", "fd"]) -> Recipe:
    """An import dedicated to another image or buffer than the exporter's."""

    def run(world: World) -> set[str]:
        types = int(T.OPAQUE_WIN32 | T.OPAQUE_FD) if HAS_FDS and kind == "buffer" else int(SHARED)
        if by == "handle":
            types = int(T.OPAQUE_WIN32)
        made = world.dedicated(world.host, world.resource(world.host, kind, types), types)
        other: Any = {"usage": 1}
        mine = world.resource(world.host, kind, types, **other)
        source: Any
        if by == "handle":
            source = vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32, world.keep(made.export_handle(T.OPAQUE_WIN32)))
        else:
            source = vk.ImportMemoryFdInfoKHR(T.OPAQUE_FD, world.keep(made.export_handle(T.OPAQUE_FD)))
        return allocate(world.host, dedicate(mine, source), made.size)

    return run


_DEDICATED = "VkMemoryDedicatedAllocateInfo"
recipe(f"{_DEDICATED}-image-01876")(_alike("image", "handle"))
recipe(f"{_DEDICATED}-buffer-01877")(_alike("buffer", "handle"))
recipe(f"{_DEDICATED}-image-01878")(_alike("image", "fd"))
recipe(f"{_DEDICATED}-buffer-01879")(_alike("buffer", "fd"))
recipe(f"{_DEDICATED}-image-02964")(
    lambda world: allocate(world.host, dedicate(world.resource(world.host, "image")), 64)
)
recipe(f"{_DEDICATED}-buffer-02965")(
    lambda world: allocate(world.host, dedicate(world.resource(world.host, "buffer")), 64)
)


def _sparse_dedicated(kind: Kind) -> Recipe:
    def run(world: World) -> set[str]:
        device = world.gpu(fake_vulkan.Manners(takes_sparse=True))
        device.check = "off"
        made = world.resource(device, kind, flags=vk.BufferCreateFlagBits.SPARSE_BINDING)
        device.check = "raise"
        return allocate(device, dedicate(made))

    return run


recipe(f"{_DEDICATED}-image-01434")(_sparse_dedicated("image"))
recipe(f"{_DEDICATED}-buffer-01436")(_sparse_dedicated("buffer"))


def _destroyed(kind: Kind) -> Recipe:
    def run(world: World) -> set[str]:
        made = world.resource(world.host, kind)
        made.close()
        return allocate(world.host, dedicate(made))

    return run


recipe(f"{_DEDICATED}-image-parameter")(_destroyed("image"))
recipe(f"{_DEDICATED}-buffer-parameter")(_destroyed("buffer"))


@recipe(f"{_DEDICATED}-commonparent")
def _dedicated_to_another_device(world: World) -> set[str]:
    return allocate(world.gpu(), dedicate(world.resource(world.host, "buffer")))


def _of_fd(**changes: Any) -> Recipe:
    """An fd of a scripted GPU, given to it with another size, or to another GPU with another driver."""

    def run(world: World) -> set[str]:
        device = world.gpu()
        made = world.memory(device, vk.ExportMemoryAllocateInfo(T.OPAQUE_FD))
        fd = world.keep(made.export_handle(T.OPAQUE_FD))
        if changes.get("elsewhere"):
            device = world.gpu(device_uuid=b"another gpu 0001", driver_uuid=b"another driver 1")
        return allocate(device, vk.ImportMemoryFdInfoKHR(T.OPAQUE_FD, fd), changes.get("size", SIZE))

    return run


recipe("VkMemoryAllocateInfo-allocationSize-01742")(_of_fd(size=SIZE * 2))
for _tail in ("fd-00668", "fd-01746", "fd-01520"):
    recipe(f"VkImportMemoryFdInfoKHR-{_tail}")(_of_fd(elsewhere=True))


@recipe("VkImportMemoryFdInfoKHR-handleType-09862")
def _fd_not_imported(world: World) -> set[str]:
    device = world.gpu()
    made = world.memory(device, vk.ExportMemoryAllocateInfo(T.OPAQUE_FD))
    fd = world.keep(made.export_handle(T.OPAQUE_FD))
    return allocate(world.gpu(external=()), vk.ImportMemoryFdInfoKHR(T.OPAQUE_FD, fd))


@recipe("VkMemoryAllocateInfo-pNext-00639")
def _export_dedicated_only(world: World) -> set[str]:
    device = world.gpu(external=fake_vulkan.shared(buffer="required", image="required"))
    return allocate(device, vk.ExportMemoryAllocateInfo(SHARED))


@recipe("vkAllocateMemory-pAllocateInfo-01713")
def _larger_than_the_heap(world: World) -> set[str]:
    return allocate(world.gpu(heaps=(1 << 16,)), size=1 << 17)


@recipe("vkAllocateMemory-maxMemoryAllocationCount-04101")
def _one_too_many(world: World) -> set[str]:
    device = world.gpu(max_allocations=1)
    world.memory(device)
    return allocate(device)


def _host_pointer(kind: int, offset: int = 0, **gpu: Any) -> Recipe:
    def run(world: World) -> set[str]:
        pages = mmap.mmap(-1, SIZE)
        at = ctypes.c_char.from_buffer(pages)
        try:
            chain = vk.ImportMemoryHostPointerInfoEXT(kind, ctypes.addressof(at) + offset)
            return allocate(world.gpu(**gpu) if gpu else world.host, chain)
        finally:
            del at
            pages.close()

    return run


recipe("VkImportMemoryHostPointerInfoEXT-handleType-01747")(_host_pointer(int(T.HOST_ALLOCATION), external=()))
recipe("VkImportMemoryHostPointerInfoEXT-handleType-parameter")(_host_pointer(3))


@recipe("VkMemoryAllocateInfo-None-00643")
def _mask_of_a_group(world: World) -> set[str]:
    """An fd of another binding, whose descriptor states that it was allocated on two devices of a group."""
    device = world.gpu()
    made = world.memory(device, vk.ExportMemoryAllocateInfo(T.OPAQUE_FD))
    fd = raw.fd_handle(os.dup(int(world.keep(made.export_handle(T.OPAQUE_FD)))))
    stated = msgspec.structs.replace(made.descriptor, device_mask=3)
    return broken_by(lambda: raw.import_payload(device, world.keep(fd), stated))


recipe("VkMemoryAllocateInfo-None-00644")(_of_fd(elsewhere=True))


@recipe("VkMemoryDedicatedAllocateInfo-image-01432")
def _dedicated_to_both(world: World) -> set[str]:
    image, buffer = world.resource(world.host, "image"), world.resource(world.host, "buffer")
    return allocate(world.host, vk.MemoryDedicatedAllocateInfo(image, buffer))


@recipe("VkMemoryAllocateInfo-pNext-02806")
def _dedicated_host_pointer(world: World) -> set[str]:
    pages = mmap.mmap(-1, SIZE)
    at = ctypes.c_char.from_buffer(pages)
    try:
        source = vk.ImportMemoryHostPointerInfoEXT(T.HOST_ALLOCATION, ctypes.addressof(at))
        return allocate(world.host, dedicate(world.resource(world.host, "buffer"), source))
    finally:
        del at
        pages.close()


def _driver(world: World) -> extmem.Device:
    try:
        device: extmem.Device = world.keep(extmem.open_device(kind="vulkan"))
    except extmem.UnsupportedError as error:
        pytest.skip(f"no Vulkan device here: {error}")
    return device


def _adopted(**wrong: int) -> Recipe:
    """A VkDevice of this machine's driver, adopted with a queue that it does not have."""

    def run(world: World) -> set[str]:
        theirs = raw.vk_handles(_driver(world))
        known: dict[str, int] = {"queue_family_index": 0, "queue_index": 0, **wrong}
        return broken_by(
            lambda: raw.adopt_device(theirs.instance, theirs.physical_device, theirs.device, extensions=[], **known)
        )

    return run


recipe("vkGetDeviceQueue-queueFamilyIndex-00384")(_adopted(queue_family_index=7))
recipe("vkGetDeviceQueue-queueIndex-00385")(_adopted(queue_index=9))
