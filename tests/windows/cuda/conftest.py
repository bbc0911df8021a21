"""A scripted CUDA driver with NT handles, and the same GPU's Vulkan driver, which record their calls."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import extmem
from extmem.api import Device
from extmem.testing import fake_cuda, fake_vulkan
from tests import cuda_bed


@pytest.fixture
def machine(nothing_left: None) -> Iterator[tuple[fake_cuda.FakeCuda, fake_vulkan.FakeVulkan]]:
    """A GPU with both drivers. At the end they must have no living objects and no misuses."""
    with cuda_bed.both() as made:
        yield made


@pytest.fixture
def fake(machine: tuple[fake_cuda.FakeCuda, fake_vulkan.FakeVulkan]) -> fake_cuda.FakeCuda:
    """The CUDA driver."""
    return machine[0]


@pytest.fixture
def other_api(machine: tuple[fake_cuda.FakeCuda, fake_vulkan.FakeVulkan]) -> fake_vulkan.FakeVulkan:
    """The Vulkan driver."""
    return machine[1]


@pytest.fixture
def cuda(fake: fake_cuda.FakeCuda) -> Iterator[Device]:
    """The GPU's CUDA device."""
    with extmem.open_device(kind="cuda") as opened:
        yield opened


@pytest.fixture
def vulkan(fake: fake_cuda.FakeCuda) -> Iterator[Device]:
    """The same GPU's Vulkan device."""
    with extmem.open_device(kind="vulkan") as opened:
        yield opened
