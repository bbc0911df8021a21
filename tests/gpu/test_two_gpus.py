"""Two GPUs in one machine: memory of one is refused on the other, which the error names; frameworks get the right GPU.

These tests run where there are two; EXTMEM_EXPECT=two-gpus makes a skip a failure.
"""

from __future__ import annotations

import gc
import uuid
from collections.abc import Iterator
from typing import Any

import numpy
import pytest

import extmem
from extmem import vk
from extmem.api import Device
from extmem.devices.cuda import all_gpus

FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
W32 = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32


@pytest.fixture
def both(cuda: Device) -> Iterator[tuple[Device, Device]]:
    """The CUDA devices of the first two GPUs."""
    gpus = all_gpus()
    if len(gpus) < 2:
        pytest.skip(f"only one CUDA device here: {gpus[0].name}")
    one, two = (extmem.open_device(kind="cuda", uuid=gpu.identity.device_uuid) for gpu in gpus[:2])
    with one, two:
        yield one, two


def refused(memory: Any, there: Device, name: str) -> None:
    """By name, by NT handle and by fd: the error names both GPUs, and the handles still belong to the caller."""
    named = [uuid_of.hex() for uuid_of in (memory.descriptor.device_uuid, there.uuid)]
    handles = [memory.export_handle(kind) for kind in (W32, FD)]
    for source in (name, *handles):
        with pytest.raises(extmem.ExtmemError) as caught:
            there.open(source)
        assert all(one in str(caught.value) for one in named), str(caught.value)
    for handle in handles:
        assert not handle.closed
        handle.close()


@pytest.mark.parametrize("maker", ["cuda", "vulkan"])
def test_a_payload_of_one_is_refused_on_the_other(maker: str, both: tuple[Device, Device], name: str) -> None:
    for here, there in (both, both[::-1]):
        made = extmem.open_device(kind=maker, uuid=uuid.UUID(bytes=here.uuid))
        with made, made.allocate((1 << 20,), name=name) as memory:
            refused(memory, there, name)
            with here.open(name) as other:
                other.fill(3)
                assert set(memory.read_bytes(0, 16)) == {3}


def test_a_tensor_is_on_the_payloads_gpu_whichever_is_current(torch: Any, both: tuple[Device, Device]) -> None:
    for number, device in enumerate(both):
        for current in (0, 1):
            with device.allocate((1 << 20,), "float32") as memory, torch.cuda.device(current):
                memory.write(numpy.arange(1 << 20, dtype="float32"))
                assert torch.cuda.current_device() == current
                tensor = memory.torch()
                assert tensor.device.index == number and torch.cuda.current_device() == current
                tensor += 1
                torch.cuda.synchronize(number)
                assert (memory.read() == numpy.arange(1, (1 << 20) + 1)).all()
                assert torch.cuda.current_device() == current
                del tensor
                gc.collect()
