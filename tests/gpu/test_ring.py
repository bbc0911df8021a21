"""Long copies to and from a GPU: every byte, whatever the size, the source and the threads."""

from __future__ import annotations

import threading
from typing import Any

import numpy
import pytest

from extmem.api import Device
from extmem.devices.copy_threads import copy_threads
from extmem.devices.cuda.pinned_ring import SLOT_SIZE, SLOTS
from tests.gpu.ring_measures import measure

MIB = 1 << 20
SIZES = [MIB - 1, MIB, MIB + 1, SLOT_SIZE, SLOTS * SLOT_SIZE + 3, 3 * SLOTS * SLOT_SIZE - 1]


def octets(size: int, seed: int = 0) -> Any:
    return numpy.random.default_rng(seed).integers(0, 256, size, "uint8")


@pytest.fixture(params=["cuda", "vulkan"])
def gpu(request: pytest.FixtureRequest, cuda: Device, vulkan: Device) -> Device:
    return {"cuda": cuda, "vulkan": vulkan}[request.param]


@pytest.mark.parametrize("size", SIZES)
def test_every_byte_arrives(size: int, gpu: Device, nothing_left: None) -> None:
    data, out = octets(size), numpy.empty(size, "uint8")
    with gpu.allocate(size) as memory:
        memory.write(data)
        assert (memory.read() == data).all()
        assert (memory.read(out) == data).all()
        if size > 2 * MIB:
            part = octets(size - MIB - 77, 1)
            memory.write(part, offset=77)
            assert (memory.read()[77 : 77 + part.nbytes] == part).all()


def test_pinned_and_registered_memory_of_the_host(torch: Any, cuda: Device, host: Device) -> None:
    size = 64 * MIB
    data = octets(size)
    pinned = torch.from_numpy(data).pin_memory()
    with cuda.allocate(size) as memory, host.allocate(size) as source:
        memory.write(pinned)
        out = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        assert (memory.read(out).numpy() == data).all()
        source.write(data[::-1].copy())
        with source.export_handle() as handle, cuda.open(handle) as registered:
            view = registered.map()
            memory.write(view)
            del view
        assert (memory.read() == data[::-1]).all()


def test_threads_take_turns_and_kernels_run_meanwhile(torch: Any, cuda: Device) -> None:
    size, wrong = 48 * MIB + 5, []

    def copy(seed: int) -> None:
        data = octets(size, seed)
        with cuda.allocate(size) as memory:
            for _ in range(4):
                memory.write(data)
                if not (memory.read() == data).all():
                    wrong.append(seed)

    busy = torch.ones((2048, 2048), device="cuda")
    threads = [threading.Thread(target=copy, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        busy = (busy @ busy).clamp(0, 1)
        torch.cuda.synchronize()
    assert not wrong


def test_an_exception_of_progress_leaves_the_ring_as_it_was(cuda: Device) -> None:
    size = 192 * MIB
    data = octets(size)

    def stop(done: int, whole: int) -> None:
        assert whole == size
        raise KeyError(done)

    with cuda.allocate(size) as memory:
        memory.fill(0)
        with pytest.raises(KeyError) as stopped:
            memory.write(data, progress=stop)
        done = stopped.value.args[0]
        found = memory.read()
        assert (found[:done] == data[:done]).all() and not found[done:].any()
        memory.write(data)
        assert (memory.read() == data).all()


def test_the_ring_is_released_and_made_again(cuda: Device) -> None:
    data = octets(32 * MIB)
    with cuda.allocate(data.nbytes) as memory:
        memory.write(data)
        copy_threads.stop()
        assert not any(thread.name == "extmem-copy" for thread in threading.enumerate())
        assert (memory.read() == data).all()


def test_a_tensor_of_a_vulkan_payload_needs_no_vulkan_device(torch: Any, vulkan: Device, name: str, peer: Any) -> None:
    with vulkan.allocate((1024,), "float32", name=name) as memory:
        memory.write(numpy.arange(1024, dtype="float32"))
        maps = peer(
            "import torch, extmem\n"
            "memory = extmem.open(name)\n"
            "tensor = memory.torch()\n"
            "tensor += 1\n"
            "torch.cuda.synchronize()\n"
            "del tensor\n"
            "memory.close()\n"
            "'libvulkan' in open('/proc/self/maps').read()",
            name=name,
            deadline=300.0,
        )
        assert maps in (False, "False")
        assert (memory.read() == numpy.arange(1, 1025, dtype="float32")).all()


def test_the_measures_can_be_made(torch: Any) -> None:
    found = measure(torch, 256 * MIB)
    print(found)
    assert found["contents"] and all(value > 0 for name, value in found.items() if "/" in name)
