"""`read(out=…)` into tensors, of types that NumPy lacks too."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from extmem.api import Device

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")
SHAPE = (4, 3)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e4m3fn", "complex64", "bool"])
def test_the_elements_are_those_of_the_payload(dtype: str, order: str, device: Device) -> None:
    values = (torch.arange(12).reshape(SHAPE) % 2).to(getattr(torch, dtype))
    with device.allocate(SHAPE, dtype, order=order) as memory:
        memory.write(values)
        out = torch.zeros(SHAPE, dtype=getattr(torch, dtype))
        assert memory.read(out) is out
        assert (out.view(torch.uint8) == values.view(torch.uint8)).all()


def test_bytes_scalars_and_gradients(device: Device) -> None:
    with device.allocate(SHAPE, "float32") as memory:
        memory.write(numpy.ones(SHAPE, "float32"))
        octets = torch.zeros(48, dtype=torch.uint8)
        assert bytes(memory.read(octets).numpy()) == memory.tobytes()
        assert memory.read(torch.zeros(SHAPE, requires_grad=True)).sum().item() == 12
    with device.allocate((), "float32") as memory:
        memory.write(numpy.float32(2.5))
        assert memory.read(torch.zeros(())).item() == 2.5


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (lambda: torch.zeros((4, 6))[:, ::2], ValueError, "contiguous"),
        (lambda: torch.zeros(SHAPE, device="meta"), TypeError, "meta"),
        (lambda: torch.zeros(SHAPE, dtype=torch.float16), TypeError, "float16 and the payload holds float32"),
        (lambda: torch.zeros(12), ValueError, "pass an array of that shape"),
    ],
)
def test_what_is_refused(out: Any, error: type[Exception], message: str, device: Device) -> None:
    with device.allocate(SHAPE, "float32") as memory, pytest.raises(error, match=message):
        memory.read(out())
