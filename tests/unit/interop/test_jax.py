"""JAX on host memory. (On a GPU's memory: tests/gpu.)"""

from __future__ import annotations

import gc
from typing import Any

import numpy
import pytest

import extmem
from extmem.api import Device

jax: Any = pytest.importorskip("jax", reason="JAX is not installed")


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8", "bool", "float16", "complex64"])
def test_a_jax_array_is_over_the_memory_itself(device: Device, dtype: str) -> None:
    with device.allocate((3, 4), dtype) as memory:
        array = memory.jax()
        assert array.shape == (3, 4) and str(array.dtype) == dtype
        memory.numpy()[1, 2] = 1
        assert array[1, 2] == 1
        with pytest.raises(extmem.LiveViewError):
            memory.close()
        del array
        gc.collect()


def test_a_part_with_an_alignment_that_jax_accepts(device: Device) -> None:
    with device.allocate(256) as memory:
        memory.numpy()[64] = 7
        array = memory.jax("uint8", (4,), offset=64)
        assert array.tolist() == [7, 0, 0, 0]
        with pytest.raises(extmem.UnsupportedError, match="without a copy: .*aligned"):
            memory.jax("uint8", (4,), offset=8)
        del array
        gc.collect()


@pytest.mark.parametrize("dtype", ["float64", "int64", "uint64", "complex128"])
def test_types_that_jax_halves_are_refused(device: Device, dtype: str) -> None:
    """JAX reports no copy, and converts 64 bits to 32."""
    with device.allocate(4, dtype) as memory:
        with pytest.raises(extmem.UnsupportedError, match="jax_enable_x64"):
            memory.jax()
        gc.collect()
        with jax.enable_x64(True):
            array = memory.jax()
            memory.numpy()[1] = 3
            assert str(array.dtype) == dtype and array[1] == 3
            del array
        gc.collect()


def test_read_only_memory_is_copied_by_the_program(device: Device, name: str) -> None:
    with device.allocate(4, "float32", name=name, access=extmem.Access.READ), extmem.open(name) as memory:
        with pytest.raises(extmem.UnsupportedError, match=r"jax\.numpy\.array\(memory\.numpy\(\)\)"):
            memory.jax()
        assert jax.numpy.array(memory.numpy()).tolist() == [0] * 4
        gc.collect()


def test_jax_takes_it_by_itself(device: Device) -> None:
    with device.allocate(4, "float32") as memory:
        array = jax.dlpack.from_dlpack(memory)
        memory.write(numpy.ones(4, "float32"))
        assert array.tolist() == [1] * 4
        del array
        gc.collect()


@pytest.mark.linux_only("Windows cannot keep writers out")
def test_frozen_memory_needs_no_copy(device: Device) -> None:
    with device.allocate((4, 4), "float32") as memory:
        memory.write(numpy.arange(16, dtype="float32").reshape(4, 4))
        memory.freeze()
        array = memory.jax()
        whole = memory.map()
        assert array.unsafe_buffer_pointer() == numpy.frombuffer(whole, "u1").ctypes.data
        assert array.tolist() == numpy.arange(16).reshape(4, 4).tolist()
        # JAX may reuse the memory of an array that is donated. That of others it does not write to.
        added = jax.jit(lambda x: x + 1, donate_argnums=0)(array)
        assert added[0, 0] == 1 and memory.numpy()[0, 0] == 0
        assert not numpy.asarray(memory.jax()).flags.writeable
        del array, added, whole


@pytest.mark.linux_only("Windows cannot keep writers out")
def test_named_arrays_that_are_frozen_need_no_copy() -> None:
    with extmem.share({"w": numpy.ones((2, 2), "float32"), "b": numpy.zeros(2, "float32")}) as memory:
        memory.freeze()
        views = memory.jax()
        assert views["w"].tolist() == [[1, 1], [1, 1]] and views["b"].tolist() == [0, 0]
        del views
