"""Every element type in every framework that is installed: the memory itself, or a refusal with a view that works."""

from __future__ import annotations

import sys
from typing import Any

import pytest

import extmem
from extmem.api import Device
from extmem.interop import element_types
from extmem.sharing.elements import FOREIGN, element_type
from extmem.sharing.layout import ArrayLayout
from tests import cuda_bed
from tests.element_results import FRAMEWORKS, MODULES, SHAPE, TEXTS, fill, result
from tests.frameworks import param

numpy = pytest.importorskip("numpy", reason="NumPy is not installed")


def _address(memory: extmem.DeviceMemory) -> int:
    return int(numpy.frombuffer(memory.map(), "uint8").ctypes.data)


@pytest.mark.parametrize("framework", ["numpy", param("torch"), param("jax")])
@pytest.mark.parametrize("kind", ["host", "vulkan"])
def test_every_type_is_the_memory_itself_or_refused(kind: str, framework: str, request: pytest.FixtureRequest) -> None:
    if not MODULES[framework]:  # NumPy counts with ml_dtypes; tests/frameworks.py skips the others
        pytest.skip("ml_dtypes is not installed")
    device: Device = request.getfixturevalue("device" if kind == "host" else "vulkan_device")
    answers = {}
    for text in TEXTS:
        with device.allocate(SHAPE, text) as memory:
            octets = fill(memory)
            assert memory.tobytes()[: memory.nbytes] == octets
            answers[text] = result(memory, framework, octets, _address(memory))
    assert answers["float32"] == "" and answers["bfloat16"] == ""
    assert answers["int4_packed"] and answers[f"{FOREIGN}bfloat16"]
    assert (answers["datetime64[ns]"] == "") is (framework == "numpy")
    # Neither is another: PyTorch lacks one of them, and no framework gets packed elements as padded ones.
    assert (answers["float8_e4m3"] == "") is (framework != "torch") and answers["float8_e4m3fn"] == ""


@pytest.mark.parametrize("kind", ["cuda", "vulkan"])
def test_every_type_on_a_gpu_is_its_bytes_or_refused(kind: str) -> None:
    """The scripted driver's device memory is the host's, at the same address."""
    with cuda_bed.both(), extmem.open_device(kind=kind) as gpu:
        for text in TEXTS:
            element = element_type(text)
            with gpu.allocate(SHAPE, text) as memory:
                octets = fill(memory)
                assert memory.tobytes() == octets and memory.dtype == text
                array = memory.device_array()
                if element.itemsize in (1, 2, 4, 8) or element.packed:
                    interface = array.carrier.__cuda_array_interface__
                    seen = {key: interface[key] for key in ("shape", "typestr", "data", "strides")} | {"version": 3}
                    holder = type("Seen", (), {"__array_interface__": seen})()
                    assert numpy.asarray(holder).tobytes() == octets
                    del holder, seen, interface
                plain = element_types.in_numpy(element) or element.kind in ("datetime", "timedelta", "bytes", "void")
                plain = plain or element.text in ("float128", "complex256") or element.kind == "str"
                if plain and element.native:
                    assert array.__cuda_array_interface__["shape"] == SHAPE
                else:
                    with pytest.raises(AttributeError, match="no element type"):
                        _ = array.__cuda_array_interface__
                del array


def test_dlpack_has_the_element_type_and_whether_it_is_padded(device: Device) -> None:
    """The structure in the capsule, as another consumer reads it."""
    import ctypes

    from extmem.interop import capsules

    for text in TEXTS:
        element = element_type(text)
        with device.allocate(SHAPE, text) as memory:
            octets = fill(memory)
            if element.dlpack is None:
                with pytest.raises(BufferError, match="DLPack has no element type"):
                    memory.__dlpack__(max_version=(1, 1))
                continue
            if element.padded:
                with pytest.raises(BufferError, match=r"DLPack before 1\.1 has no flag"):
                    memory.__dlpack__(max_version=(1, 0))
            capsule = memory.__dlpack__(max_version=(1, 1))
            name = capsules._name_of(capsule)
            assert name == b"dltensor_versioned"
            found = capsules._Versioned.from_address(capsules._pointer_of(capsule, name))
            tensor = found.tensor
            assert (tensor.code, tensor.bits, tensor.lanes) == element.dlpack
            assert bool(found.flags & 4) is element.padded
            assert tuple(tensor.shape[axis] for axis in range(tensor.ndim)) == SHAPE
            # Some versions of NumPy give no strides for elements in row-major order.
            assert not tensor.strides or tuple(tensor.strides[:2]) == (SHAPE[1], 1)
            assert ctypes.string_at(tensor.data + tensor.byte_offset, len(octets)) == octets
            del capsule, found, tensor


@pytest.mark.slow("imports PyTorch")
def test_tensors_without_elements_axes_and_with_negative_strides(device: Device) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for shape in ((), (0, 3), (3, 0)):
        for text in ("float32", "bfloat16"):
            with device.allocate(shape, text) as memory:
                tensor = memory.torch()
                assert tuple(tensor.shape) == shape and str(tensor.dtype) == f"torch.{text}"
                assert tuple(torch.from_dlpack(memory).shape) == shape
                del tensor
    with device.allocate(4, "bfloat16") as memory:
        with pytest.raises(ValueError, match="no negative strides"):
            memory.torch(strides=(-2,), offset=6)
        assert memory.torch(shape=(1,), strides=(-2,)).shape == (1,)


@pytest.mark.slow("imports JAX")
@pytest.mark.framework("jax")
def test_jax_arrays_without_elements_and_axes(device: Device) -> None:
    for shape in ((), (0, 3), (3, 0)):
        with device.allocate(shape, "bfloat16") as memory:
            array = memory.jax()
            assert array.shape == shape and str(array.dtype) == "bfloat16"
            del array


@pytest.mark.slow("imports PyTorch")
def test_a_read_only_tensor_of_a_type_that_numpy_lacks(device: Device, name: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    with device.allocate(4, "bfloat16", name=name, access=extmem.Access.READ) as memory:
        memory.write(torch.tensor([1, 2, 3, 4], dtype=torch.bfloat16))
        with extmem.open(name) as other:
            tensor = other.torch()
            assert tensor.dtype == torch.bfloat16 and tensor.tolist() == [1, 2, 3, 4]
            with pytest.raises(PermissionError):
                tensor += 1
            assert tensor.__dlpack__(max_version=(1, 0)) is not None
            with pytest.raises(BufferError):
                other.__dlpack__()
            del tensor


def test_capsules_of_a_gpu_have_the_element_type() -> None:
    import ctypes

    from extmem.interop import capsules

    with cuda_bed.both(), extmem.open_device(kind="cuda") as gpu:
        for text in TEXTS:
            element = element_type(text)
            with gpu.allocate(SHAPE, text) as memory:
                octets = fill(memory)
                array = memory.device_array()
                if element.dlpack is None:
                    with pytest.raises(BufferError, match="DLPack has no element type"):
                        array.capsule((1, 1))
                else:
                    capsule = array.capsule((1, 1))
                    found = capsules._Versioned.from_address(capsules._pointer_of(capsule, b"dltensor_versioned"))
                    tensor = found.tensor
                    assert (tensor.code, tensor.bits, tensor.lanes) == element.dlpack
                    assert (tensor.device_type, tensor.device_id) == array.__dlpack_device__() == (2, 0)
                    assert [tensor.shape[axis] for axis in range(tensor.ndim)] == list(SHAPE)
                    assert ctypes.string_at(tensor.data, len(octets)) == octets
                    plain = array.carrier.capsule((1, 1))
                    carried = capsules._Versioned.from_address(capsules._pointer_of(plain, b"dltensor_versioned"))
                    if not element_types.in_numpy(element):
                        assert (carried.tensor.code, carried.tensor.bits) in ((1, 8), (1, 16), (1, 32))
                    del capsule, plain, found, tensor, carried
                del array


def test_packed_rows_that_share_a_byte_are_not_exchanged(device: Device) -> None:
    with device.allocate((2, 3), "int4_packed") as memory:
        assert (memory.nbytes, memory.size, memory.strides) == (3, 3, (12, 4))
        with pytest.raises(BufferError, match="rows that do not begin at a byte"):
            memory.__dlpack__(max_version=(1, 1))
        assert memory.numpy("uint8").tolist() == [0, 0, 0]


def test_the_array_interface_is_exact_or_absent(device: Device) -> None:
    for text in TEXTS:
        element = element_type(text)
        with device.allocate(SHAPE, text) as memory:
            fill(memory)
            if element.name in ("float128", "complex256") and element.name not in numpy.sctypeDict:
                continue  # NumPy has it on some systems
            if hasattr(memory, "__array_interface__"):
                array = numpy.asarray(memory)
                assert array.dtype == element_types.numpy_dtype(element) and array.shape == SHAPE
                del array
            else:
                assert element.packed or element.padded or "float" in element.name or "bcomplex" in element.name or (
                    element.text == "complex32"
                )  # fmt: skip
                with pytest.raises(AttributeError, match="the array interface has no element type"):
                    _ = memory.__array_interface__


def test_without_ml_dtypes_the_error_has_the_view(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    element_types._numpy_dtype.cache_clear()
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with device.allocate(4, "bfloat16") as memory:
        with pytest.raises(extmem.UnsupportedError, match=r"pip install ml_dtypes, or use memory.numpy\('int16'"):
            memory.numpy()
        with pytest.raises(extmem.UnsupportedError, match="ml_dtypes is not installed"):
            memory.read()
        memory.write(b"\1\2" * 4)
        assert memory.numpy("int16", memory.shape).tolist() == [0x201] * 4
    element_types._numpy_dtype.cache_clear()


def test_carriers_keep_the_layout() -> None:
    half = ArrayLayout((2, 3), "bfloat16", (2, 4), 8)
    assert element_types.carried(half) == ArrayLayout((2, 3), "uint16", (2, 4), 8)
    plain = ArrayLayout((2,), "float32", (4,))
    assert element_types.carried(plain) is plain
    packed = ArrayLayout((2, 4), "float6_e2m3fn_packed", (24, 6), 3)
    assert element_types.carried(packed) == ArrayLayout((2, 3), "uint8", (3, 1), 3)
    for shape, strides in (((2, 2), (12, 6)), ((), ()), ((2, 4), (32, 6))):
        with pytest.raises(ValueError, match="begin at a byte"):
            element_types.carried(ArrayLayout(shape, "float6_e2m3fn_packed", strides))


def test_frameworks_are_those_of_the_results() -> None:
    assert set(FRAMEWORKS) | {"read", "dlpack", "pyarrow"} == set(MODULES)


def test_cupy_gets_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for CuPy: what it is asked for."""
    from types import SimpleNamespace

    asked: list[Any] = []

    class Made:
        def view(self, dtype: Any) -> Any:
            asked.append(dtype)
            return self

    def asarray(array: Any) -> Made:
        asked.append(array.dtype)
        return Made()

    import contextlib

    cuda = SimpleNamespace(Device=lambda ordinal: contextlib.nullcontext())
    for version, accepted in (("14.1", False), ("15.0.0a1", True)):
        monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(__version__=version, asarray=asarray, cuda=cuda))
        with cuda_bed.both(), extmem.open_device(kind="cuda") as gpu, gpu.allocate(4, "bfloat16") as memory:
            asked.clear()
            if accepted and MODULES["numpy"]:
                memory.cupy()
                assert asked == ["uint16", element_types.numpy_dtype(element_type("bfloat16"))]
            elif not accepted:
                with pytest.raises(extmem.UnsupportedError, match=r"CuPy 14\.1 has no .* bfloat16; memory.cupy"):
                    memory.cupy()
            asked.clear()
            memory.cupy("float32", 2)
            assert asked == ["float32"]
