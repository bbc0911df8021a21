"""Payloads between Vulkan, CUDA and the host on a real GPU: the same bytes for both, in this process and in another."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

import msgspec
import numpy
import pytest

import extmem
from extmem import raw, vk
from extmem.api import Device
from extmem.sharing.descriptor import Descriptor
from extmem.testing.children import Peer
from tests.gpu.conftest import free_memory

FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
W32 = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32
SIZES = [4 << 10, 12_345, 1 << 20, 256 << 20, 4 << 30, 32 << 30]
EDGE = 4096


def each_sees_the_other(one: Any, other: Any) -> None:
    """Check both ends only: reading all of 32 GiB by the host takes too long."""
    for value, writer, reader in ((3, one, other), (4, other, one)):
        writer.fill(value)
        assert set(reader.read_bytes(0, min(EDGE, reader.size))) == {value}
        assert set(reader.read_bytes(max(0, reader.size - EDGE))) == {value}


@pytest.mark.parametrize("size", SIZES)
def test_vulkan_to_cuda(size: int, cuda: Device, vulkan: Device, name: str, nothing_left: None) -> None:
    with vulkan.allocate(size, name=name) as memory, cuda.open(name) as other:
        each_sees_the_other(memory, other)


@pytest.mark.parametrize("size", SIZES)
def test_cuda_to_vulkan(size: int, cuda: Device, vulkan: Device, name: str, nothing_left: None) -> None:
    with cuda.allocate(size, name=name) as memory, vulkan.open(name) as other:
        each_sees_the_other(memory, other)


@pytest.mark.parametrize("size", SIZES)
def test_cuda_to_cuda(size: int, cuda: Device, name: str, nothing_left: None) -> None:
    with cuda.allocate(size, name=name) as memory, cuda.open(name) as other:
        each_sees_the_other(memory, other)


@pytest.mark.parametrize("size", SIZES[:4])
def test_host_to_cuda(size: int, cuda: Device, host: Device, name: str, nothing_left: None) -> None:
    with host.allocate(size, name=name) as memory, cuda.open(name) as other:
        each_sees_the_other(memory, other)


@pytest.mark.parametrize("dedicated", [True, False])
@pytest.mark.parametrize("by", ["name", "handle", "fd"])
def test_dedicated_or_not_by_any_way(
    dedicated: bool, by: str, cuda: Device, vulkan: Device, name: str, nothing_left: None
) -> None:
    with vulkan.allocate(1 << 20, name=name, dedicated=dedicated) as memory:
        handle = memory.export_handle(FD if by == "fd" else W32)
        with handle, cuda.open(name if by == "name" else handle) as other:
            each_sees_the_other(memory, other)
            assert handle.closed == (by == "fd")


@pytest.mark.parametrize("maker", ["cuda", "vulkan", "host"])
@pytest.mark.parametrize("taker", ["cuda", "vulkan"])
def test_another_process(
    maker: str, taker: str, cuda: Device, vulkan: Device, host: Device, peer: Peer, name: str
) -> None:
    made = {"cuda": cuda, "vulkan": vulkan, "host": host}[maker]
    with made.allocate(1 << 16, name=name) as memory:
        memory.fill(5)
        peer("device = extmem.open_device(kind=kind)\nother = device.open(name)", kind=taker, name=name)
        assert peer("set(other.read_bytes())") == {5}
        peer("other.fill(6)")
        assert set(memory.read_bytes()) == {6}
    assert peer("set(other.read_bytes())") == {6}, "it keeps the payload"
    peer("other.close()\ndevice.close()")


@pytest.mark.parametrize("maker", ["cuda", "vulkan"])
def test_the_exporter_is_killed(maker: str, cuda: Device, vulkan: Device, peer: Peer, name: str) -> None:
    peer("device = extmem.open_device(kind=kind)\nmade = device.allocate(65536, name=name)", kind=maker, name=name)
    peer("made.fill(7)")
    with cuda.open(name) as other:
        peer.kill()
        assert set(other.read_bytes()) == {7}


@pytest.mark.parametrize("times", [1_000])
def test_a_thousand_imports_leave_nothing(
    times: int, cuda: Device, vulkan: Device, host: Device, name: str, nothing_left: None
) -> None:
    with (
        vulkan.allocate(1 << 20, name=f"{name} v"),
        cuda.allocate(1 << 20, name=f"{name} c"),
        host.allocate(1 << 20, name=f"{name} h"),
    ):
        for which in "vch":
            cuda.open(f"{name} {which}").close()
        before = free_memory(cuda), len(os.listdir("/proc/self/fd"))
        for _ in range(times):
            for which in "vch":
                cuda.open(f"{name} {which}").close()
        assert (free_memory(cuda), len(os.listdir("/proc/self/fd"))) == before


def test_an_importer_killed_half_way_leaves_nothing(cuda: Device, vulkan: Device, peer: Peer, name: str) -> None:
    with vulkan.allocate(64 << 20, name=name) as memory:
        free_memory(cuda)
        peer("device = extmem.open_device(kind='cuda')\nkept = [device.open(name)]", name=name)
        peer.start("for _ in range(100000): device.allocate(1 << 20)")
        os.kill(peer.pid, signal.SIGKILL)
        peer.kill()
        each_sees_the_other(memory, memory)
        with cuda.open(name) as other:
            each_sees_the_other(memory, other)


def test_an_image_becomes_an_array(cuda: Device, vulkan: Device, name: str, nothing_left: None) -> None:
    info = vk.ImageCreateInfo(
        image_type=vk.ImageType.TYPE_2D,
        format=vk.Format.R8G8B8A8_UNORM,
        extent=vk.Extent3D(64, 32, 1),
        mip_levels=1,
        array_layers=1,
        samples=vk.SampleCountFlagBits.COUNT_1,
        tiling=vk.ImageTiling.OPTIMAL,
        usage=vk.ImageUsageFlagBits.TRANSFER_SRC | vk.ImageUsageFlagBits.TRANSFER_DST,
        p_next=vk.ExternalMemoryImageCreateInfo(W32),
    )
    with vulkan.create_image(info) as image:
        bits = image.requirements.memory_type_bits
        chain = vk.ExportMemoryAllocateInfo(W32, vk.MemoryDedicatedAllocateInfo(image, None))
        asked = vk.MemoryAllocateInfo(image.requirements.size, (bits & -bits).bit_length() - 1, chain)
        with vulkan.allocate_memory(asked) as memory, memory.export_handle(W32) as handle, cuda.open(handle) as other:
            assert raw.cuda_array(other)


# Refusals.


def stated(memory: Any) -> tuple[int, Descriptor]:
    handle = memory.export_handle(FD)
    descriptor = Descriptor.parse(handle.payload.descriptor)
    return handle.take(), descriptor


def test_a_larger_size_is_refused_and_the_fd_survives(cuda: Device, vulkan: Device, nothing_left: None) -> None:
    with vulkan.allocate(1 << 20, dedicated=False) as memory:
        fd, descriptor = stated(memory)
        lie = msgspec.structs.replace(
            descriptor, allocation_size=descriptor.allocation_size + (1 << 21), payload_size=0
        )
        with pytest.raises(extmem.DriverError, match="cuExternalMemoryGetMappedBuffer"):
            raw.import_payload(cuda, fd, lie)
        with raw.import_payload(cuda, fd, descriptor) as other:
            each_sees_the_other(memory, other)


@pytest.mark.parametrize("what", ["/dev/null", "eventfd", "memory file", "socket"])
def test_what_is_no_payload_harms_nothing(what: str, cuda: Device, vulkan: Device, nothing_left: None) -> None:
    with vulkan.allocate(1 << 20, dedicated=False) as memory:
        real, descriptor = stated(memory)
        made = {
            "/dev/null": lambda: os.open("/dev/null", os.O_RDWR),
            "eventfd": lambda: os.eventfd(0),
            "memory file": lambda: os.memfd_create("no payload"),
            "socket": lambda: socket.socket().detach(),
        }
        fd = made[what]()
        with pytest.raises(extmem.ExtmemError):
            raw.import_payload(cuda, fd, descriptor)
        os.close(fd)
        with raw.import_payload(cuda, real, descriptor) as other:
            each_sees_the_other(memory, other)


def test_the_current_context_is_left_as_found(cuda: Device) -> None:
    module: Any = cuda.backend.device.module  # type: ignore[attr-defined]

    def current() -> int:
        return int(module.cuCtxGetCurrent()[1])

    before = current()
    with cuda.allocate(64) as memory:
        memory.write(numpy.arange(64, dtype="uint8"))
        assert (memory.read() == numpy.arange(64)).all() and current() == before
