"""PyTorch, CuPy and JAX on memory of Vulkan, CUDA and the host, on a real GPU: the memory itself is checked there."""

from __future__ import annotations

import gc
from typing import Any

import numpy
import pytest

import extmem
from extmem.api import Device
from extmem.interop.element_types import NUMPY_NAMES
from extmem.sharing.elements import element_type
from extmem.testing.children import Peer
from scripts import element_types
from tests.element_results import MODULES, ON_GPU, SHAPE, TEXTS, fill, results
from tests.gpu.conftest import FRAMEWORKS, framework


@pytest.fixture(params=["cuda", "vulkan"])
def gpu(request: pytest.FixtureRequest, cuda: Device, vulkan: Device) -> Device:
    return {"cuda": cuda, "vulkan": vulkan}[request.param]


def test_a_tensor_is_the_memory_itself(torch: Any, gpu: Device) -> None:
    with gpu.allocate((64, 64), "float32") as memory:
        memory.fill(0)
        tensor = memory.torch()
        assert tensor.is_cuda and tensor.shape == (64, 64) and tensor.dtype == torch.float32
        tensor += torch.arange(64, device="cuda")
        torch.cuda.synchronize()
        assert (memory.read() == numpy.arange(64)).all()
        part = tensor[1:, ::2]
        del tensor
        gc.collect()
        with pytest.raises(extmem.LiveViewError):
            memory.close()
        del part
        gc.collect()


@pytest.mark.parametrize("dtype", sorted(NUMPY_NAMES))
def test_every_type(dtype: str, torch: Any, gpu: Device) -> None:
    with gpu.allocate((8,), dtype) as memory:
        data = numpy.arange(8).astype(dtype)
        memory.write(data)
        tensor = memory.torch()
        assert (tensor.cpu().numpy() == data).all()
        del tensor
        gc.collect()


def test_types_that_numpy_lacks_are_the_memory_itself(torch: Any, gpu: Device) -> None:
    for text in TEXTS:
        element = element_type(text)
        with gpu.allocate(SHAPE, text) as memory:
            octets = fill(memory)
            try:
                tensor = memory.torch()
            except extmem.UnsupportedError as error:
                assert element.text in str(error) or element.fields
                continue
            assert tensor.is_cuda
            assert tensor.reshape(-1).view(torch.uint8).cpu().numpy().tobytes() == octets, text
            if text != "float4_e2m1fn_packed":
                assert str(tensor.dtype) == f"torch.{text}"
            del tensor
    with gpu.allocate(4, "bfloat16") as memory:
        tensor = memory.torch()
        tensor += 1.5
        torch.cuda.synchronize()
        assert memory.tobytes() == b"\xc0\x3f" * 4
        del tensor


def test_jax_has_the_small_floats_too(gpu: Device) -> None:
    jax = framework("jax")
    for text in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        with gpu.allocate((8,), text) as memory:
            octets = fill(memory)
            array = memory.jax()
            assert str(array.dtype) == text and bytes(numpy.asarray(array).tobytes()) == octets
            del array
            gc.collect()
    assert jax is not None


def test_strides_offset_and_other_types(torch: Any, gpu: Device) -> None:
    with gpu.allocate((8, 8), "float32") as memory:
        memory.write(numpy.arange(64, dtype="float32").reshape(8, 8))
        turned = memory.torch(strides=(4, 32))
        assert (turned.cpu().numpy() == numpy.arange(64).reshape(8, 8).T).all()
        rest = memory.torch("int32", offset=128)
        assert rest.numel() == 32
        del turned, rest
        gc.collect()


def test_in_another_process(torch: Any, gpu: Device, peer: Peer, name: str) -> None:
    with gpu.allocate((16,), "float32", name=name) as memory:
        memory.fill(0)
        peer("import torch\nother = extmem.open(name)\ntensor = other.torch()", name=name)
        peer("tensor += 2\ntorch.cuda.synchronize()")
        assert (memory.read() == 2).all()
        assert peer("type(other.device).__name__, tensor.is_cuda") == ("Device", True)


def test_memory_for_reading_is_not_written(torch: Any, cuda: Device, name: str) -> None:
    with cuda.allocate((8, 8), "float32", name=name, access=extmem.Access.READ) as memory:
        memory.fill(0)
        with cuda.open(name) as other:
            tensor = other.torch()
            for write in (lambda t: t.fill_(1), lambda t: t[0].add_(1), lambda t: torch.add(t, 1, out=t)):
                with pytest.raises(PermissionError):
                    write(tensor)
            made = torch.nn.functional.conv2d(tensor[None, None], torch.ones(1, 1, 3, 3, device="cuda"))
            assert type(made) is torch.Tensor and not made.any()
            del tensor, made
            gc.collect()
        assert not memory.read().any()


def test_a_host_payload_on_the_gpu(torch: Any, cuda: Device, host: Device, name: str) -> None:
    with host.allocate((1024,), "float32", name=name) as memory:
        memory.numpy()[:] = 4
        with cuda.open(name) as other:
            tensor = other.torch()
            assert tensor.is_cuda
            tensor += 1
            torch.cuda.synchronize()
            assert (memory.numpy() == 5).all()
            del tensor
            gc.collect()


def test_dlpack_and_the_array_interface_of_the_memory_itself(torch: Any, gpu: Device) -> None:
    with gpu.allocate((8,), "float32") as memory:
        memory.fill(0)
        one, two = torch.from_dlpack(memory), torch.as_tensor(memory, device="cuda")
        one += 1
        two += 1
        torch.cuda.synchronize()
        assert (memory.read() == 2).all() and one.data_ptr() == two.data_ptr()
        del one, two
        gc.collect()


def test_cupy(gpu: Device) -> None:
    cupy = framework("cupy")
    with gpu.allocate((8,), "float32") as memory:
        memory.fill(0)
        array = memory.cupy()
        array += 3
        cupy.cuda.get_current_stream().synchronize()
        assert (memory.read() == 3).all()
        assert cupy.from_dlpack(memory).data.ptr == array.data.ptr
        with pytest.raises(extmem.LiveViewError):
            memory.close()
        del array
        gc.collect()


def test_jax(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    framework("jax")
    with gpu.allocate((8,), "float32") as memory:
        memory.write(numpy.arange(8, dtype="float32"))
        array = memory.jax()
        assert float(array.sum()) == 28
        del array
        gc.collect()


def test_memory_of_a_framework_is_refused_with_the_remedy(torch: Any, cuda: Device) -> None:
    tensor = torch.empty(1 << 20, dtype=torch.uint8, device="cuda")
    with pytest.raises(extmem.UnsupportedError, match="allocate it through extmem"):
        extmem.raw.adopt_cuda(cuda, tensor.data_ptr(), tensor.numel())


@pytest.mark.parametrize("name", ON_GPU)
def test_the_results_are_those_of_the_page(name: str, gpu: Device) -> None:
    """`python -m scripts.element_types gpu FILE` writes them; another version may have more types."""
    if not MODULES[name]:
        pytest.skip(f"{FRAMEWORKS[name]} is not installed")
    written = element_types.read_gpu_results()
    found = results(gpu, name)
    assert found["float32"] == "" and any(found.values())
    if written is not None and name in written["cells"].get(gpu.kind, {}):
        column = written["cells"][gpu.kind][name]
        assert [text for text, cell in found.items() if cell and column.get(text) == "yes"] == []
