"""`write` of arrays of other packages: their own element types, tensors, and arrays that are not NumPy's."""

from __future__ import annotations

import pytest

from extmem.api import Device
from extmem.interop import octets_to_write

np = pytest.importorskip("numpy", reason="NumPy is not installed")


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn"])
def test_element_types_of_other_packages_are_named_and_cast(device: Device, name: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    data = np.array([1, 2, 3, 4], getattr(ml_dtypes, name))
    with device.allocate(4, "float32") as memory:
        with pytest.raises(TypeError, match=f"data is {name} and the payload holds float32"):
            memory.write(data)
        memory.write(data, cast=True)
        assert memory.read().tolist() == [1, 2, 3, 4]
    assert octets_to_write(data, None, offset=None, cast=False) == data.tobytes()


def test_tensors_are_arrays(device: Device) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    with device.allocate((2, 2), "float32") as memory:
        memory.write(torch.tensor([[1.0, 2], [3, 4]]).T)
        assert memory.read().tolist() == [[1, 3], [2, 4]]
        memory.write(torch.ones(2, 2, requires_grad=True))
        assert memory.read().tolist() == [[1, 1], [1, 1]]
        for tensor in (torch.ones(2, 2, dtype=torch.float64), torch.ones(2, 2, dtype=torch.bfloat16)):
            element = str(tensor.dtype).removeprefix("torch.")
            with pytest.raises(TypeError, match=f"data is {element} and the payload holds float32"):
                memory.write(tensor)
            memory.write(tensor * 3, cast=True)
            assert memory.read().tolist() == [[3, 3], [3, 3]]
        with pytest.raises(ValueError, match="reshape"):
            memory.write(torch.ones(4))
        with pytest.raises(TypeError, match="on meta"):
            memory.write(torch.ones(2, 2, device="meta"))
        with pytest.raises(TypeError, match="cannot be copied in row-major order"):
            memory.write(torch.ones(2, 2).to_sparse())
        memory.write(torch.tensor([0, 0, 128, 63], dtype=torch.uint8))
        assert memory.read()[0, 0] == 1
    bfloat16 = torch.tensor([1, 2], dtype=torch.bfloat16)
    assert octets_to_write(bfloat16, None, offset=None, cast=False) == bytes([128, 63, 0, 64])


def test_jax_arrays_are_arrays(device: Device) -> None:
    jnp = pytest.importorskip("jax.numpy", reason="JAX is not installed")
    with device.allocate(3, "float32") as memory:
        memory.write(jnp.array([1.0, 2, 3]))
        assert memory.read().tolist() == [1, 2, 3]
        with pytest.raises(TypeError, match="data is bfloat16 and the payload holds float32"):
            memory.write(jnp.array([4, 5, 6], jnp.bfloat16))
        memory.write(jnp.array([4, 5, 6], jnp.bfloat16), cast=True)
        assert memory.read().tolist() == [4, 5, 6]
