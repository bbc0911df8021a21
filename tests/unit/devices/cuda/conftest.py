from __future__ import annotations

from collections.abc import Iterator

import pytest

import extmem
from extmem.api import Device
from extmem.testing import fake_cuda, leaks
from tests import cuda_bed


@pytest.fixture
def fake() -> Iterator[fake_cuda.FakeCuda]:
    """A fake CUDA driver, and the same GPU's fake Vulkan driver; at the end neither may have objects or misuses."""
    with leaks.no_leaks(), cuda_bed.both() as (made, _):
        yield made


@pytest.fixture
def cuda(fake: fake_cuda.FakeCuda) -> Iterator[Device]:
    with extmem.open_device(kind="cuda") as opened:
        yield opened


@pytest.fixture
def vulkan(fake: fake_cuda.FakeCuda) -> Iterator[Device]:
    """The same GPU's Vulkan device."""
    with extmem.open_device(kind="vulkan") as opened:
        yield opened
