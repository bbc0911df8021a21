"""PyTorch over host memory, and a build that has no CUDA. (Over a GPU's memory: tests/gpu.)"""

from __future__ import annotations

import gc
from typing import Any

import numpy
import pytest

import extmem
from extmem.memory import Device
from extmem.testing import fake_cuda

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")


def test_a_tensor_is_over_the_memory_itself(device: Device) -> None:
    with device.allocate((3, 4), "float32") as memory:
        tensor = memory.torch()
        assert tensor.shape == (3, 4) and tensor.dtype == torch.float32 and type(tensor) is torch.Tensor
        tensor += 2
        assert (memory.numpy() == 2).all()
        part = tensor[1:, ::2]
        del tensor
        gc.collect()
        with pytest.raises(extmem.LiveViewError):
            memory.close()
        del part
        gc.collect()


def test_dlpack_without_a_copy(device: Device) -> None:
    with device.allocate((4,), "int32") as memory:
        tensor = torch.from_dlpack(memory)
        tensor[:] = 5
        assert (memory.numpy() == 5).all()
        del tensor
        gc.collect()


WRITES = {
    "in place": lambda t: t.add_(1),
    "by an operator": lambda t: t.__iadd__(1),
    "by an index": lambda t: t.__setitem__(0, 1),
    "through a view": lambda t: t[0].fill_(1),
    "through views of views": lambda t: t.view(-1)[2:].reshape(5, 2).t().zero_(),
    "as an output": lambda t: torch.add(t, 1, out=t),
    "by a copy": lambda t: t.copy_(torch.ones(3, 4)),
    "after detach": lambda t: t.detach().mul_(2),
    "by a function": lambda t: torch.nn.functional.relu(t, inplace=True),
    "several at once": lambda t: torch._foreach_add_([t], 1),
}


@pytest.mark.parametrize("how", WRITES)
def test_a_read_only_tensor_is_not_written(how: str, device: Device, name: str) -> None:
    with device.allocate((3, 4), "float32", name=name, access=extmem.Access.READ) as memory:
        memory.numpy()[:] = 7
        with device.open(name) as other:
            assert other.read_only
            tensor = other.torch()
            with pytest.raises(PermissionError, match=r"read-only here; ask for Access\.READ_WRITE"):
                WRITES[how](tensor)
            del tensor
            gc.collect()
        assert (memory.numpy() == 7).all()


def test_a_read_only_tensor_is_read_like_any(device: Device, name: str) -> None:
    with device.allocate((3, 4), "float32", name=name, access=extmem.Access.READ) as memory:
        memory.numpy()[:] = numpy.arange(12).reshape(3, 4)
        with device.open(name) as other:
            tensor = other.torch()
            assert float(tensor.sum()) == 66 and (tensor + 1).max().item() == 12
            changed = tensor.clone()
            changed[0] = 9
            made = torch.nn.functional.conv2d(tensor[None, None], torch.ones(1, 1, 2, 2))
            assert type(made) is torch.Tensor and made.shape == (1, 1, 2, 3)
            assert type(changed) is torch.Tensor
            del tensor, changed, made
            gc.collect()


def test_a_build_without_cuda_says_so() -> None:
    if torch.version.cuda is not None:
        pytest.skip("PyTorch is not installed without CUDA")
    fake = fake_cuda.FakeCuda()
    with fake_cuda.installed(fake), extmem.open_device(kind="cuda") as cuda, cuda.allocate((4,)) as memory:
        with pytest.raises(extmem.UnsupportedError, match="is without CUDA; install one with it"):
            memory.torch()
        gc.collect()
    assert not fake.misuses and not fake.alive()
