from __future__ import annotations

from collections.abc import Iterator

import pytest

import extmem
from extmem.memory import Device
from extmem.testing import fake_cuda, fake_vulkan, leaks


@pytest.fixture
def fake() -> Iterator[fake_cuda.FakeCuda]:
    """A fake CUDA driver, and the same GPU's fake Vulkan driver; both must be empty and well used at the end."""
    made, vulkan = fake_cuda.FakeCuda(), fake_vulkan.FakeVulkan([fake_vulkan.DISCRETE])
    with leaks.no_leaks(), fake_cuda.installed(made), fake_vulkan.installed(vulkan):
        yield made
    found = [str(misuse) for misuse in (*made.misuses, *vulkan.misuses)]
    assert not found
    assert not made.alive() and not vulkan.alive()


@pytest.fixture
def cuda(fake: fake_cuda.FakeCuda) -> Iterator[Device]:
    with extmem.open_device(kind="cuda") as opened:
        yield opened


@pytest.fixture
def vulkan(fake: fake_cuda.FakeCuda) -> Iterator[Device]:
    """The same GPU's Vulkan device."""
    with extmem.open_device(kind="vulkan") as opened:
        yield opened
