"""GPUs for the tests of channels whose slots are on one: scripted drivers of CUDA and Vulkan, for the same GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import extmem
from extmem.api import Device
from extmem.core import shared_devices
from extmem.testing import fake_cuda
from tests import cuda_bed
from tests.gpu_frames import Streams, streams_of


@pytest.fixture
def fake() -> Iterator[fake_cuda.FakeCuda]:
    """Both scripted drivers; at the end neither may have objects or misuses."""
    with cuda_bed.both() as (made, _), shared_devices.fresh_devices():
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


@pytest.fixture
def streams(cuda: Device) -> Iterator[Streams]:
    with streams_of(cuda) as made:
        yield made
