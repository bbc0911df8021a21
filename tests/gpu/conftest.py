"""A machine with an NVIDIA GPU: its CUDA device, its Vulkan device, the host. `make test-gpu` runs these tests.

Of PyTorch, CuPy and JAX those are tested that are installed; EXTMEM_EXPECT=torch,cupy,jax requires all three.
"""

from __future__ import annotations

import gc
import importlib
from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem.api import Device
from extmem.testing import leaks
from extmem.testing.waiting import wait_until


@pytest.fixture
def cuda() -> Iterator[Device]:
    """A CUDA device; the test is skipped where there is none."""
    try:
        opened = extmem.open_device(kind="cuda")
    except extmem.UnsupportedError as error:
        pytest.skip(f"no CUDA device here: {error}")
    with opened:
        yield opened


@pytest.fixture
def vulkan(cuda: Device) -> Iterator[Device]:
    """The same GPU's Vulkan device; the test is skipped where there is none."""
    try:
        opened = extmem.open_device(kind="vulkan", uuid=cuda.uuid)
    except extmem.UnsupportedError as error:
        pytest.skip(f"no Vulkan device here: {error}")
    with opened:
        yield opened


@pytest.fixture
def host() -> Iterator[Device]:
    with extmem.open_device(kind="host") as opened:
        yield opened


FRAMEWORKS = {"torch": "PyTorch", "cupy": "CuPy", "jax": "JAX"}


def framework(module: str) -> Any:
    """The framework; the test is skipped where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        pytest.skip(f"{FRAMEWORKS[module]} is not installed")


@pytest.fixture
def torch(cuda: Device) -> Iterator[Any]:
    """PyTorch, initialized; the test is skipped where it is not installed for this GPU."""
    found = framework("torch")
    if not found.cuda.is_available():
        pytest.skip("PyTorch is not installed for this GPU")
    found.zeros(1, device="cuda")  # its context and first pool exist before anything is counted
    yield found
    found.cuda.synchronize()


def free_memory(device: Device) -> int:
    """Return the free bytes of device memory."""
    backend: Any = device.backend
    with backend.device.gpu.current:
        result, free, _ = backend.device.module.cuMemGetInfo()
    assert not result
    return int(free)


PAGE_TABLES = 32 << 20
"""Bytes that the driver keeps after large memory was allocated."""


@pytest.fixture
def nothing_left(cuda: Device, request: pytest.FixtureRequest) -> Iterator[None]:
    """Check that device memory, fds and references are the same after the test as before."""
    devices = [cuda, *(request.getfixturevalue(name) for name in ("vulkan", "host") if name in request.fixturenames)]
    for device in devices:  # what drivers and devices make at their first use exists before anything is counted
        with device.allocate(4096) as memory:
            memory.fill(1)
            memory.read()
            with memory.export_handle() as handle, cuda.open(handle) as other:
                other.read()
            # The devices that extmem opens itself, and keeps, where a call names none.
            with memory.export_handle() as handle, extmem.open(handle) as other:
                other.read()
                if "torch" in request.fixturenames:
                    other.torch()
    gc.collect()
    before = free_memory(cuda)
    with leaks.no_leaks(everybody=True):
        yield
        gc.collect()
    # The driver releases the memory of a killed process a moment later.
    wait_until(
        lambda: before - free_memory(cuda) < PAGE_TABLES,
        lambda: f"{before - free_memory(cuda)} bytes of device memory to be given back",
    )
