"""Semaphores of Vulkan and Direct3D on CUDA's streams: by handle, number and name, as the descriptor states."""

from __future__ import annotations

from typing import Any

import pytest

import extmem
from extmem import errors
from extmem.api import Device
from extmem.testing import fake_cuda, fake_vulkan
from extmem.testing.children import Peer
from extmem.testing.fake_vulkan.sync_win32 import make_d3d12_fence
from extmem.testing.waiting import DEADLINE
from tests.windows.sync_steps import create, handle_of, import_into, signal

STREAM = 0x5000
OPAQUE, KMT, D3D12 = 0x2, 0x4, 0x8
PEER = """
import extmem
from tests import cuda_bed
from tests.windows.sync_steps import *
both = cuda_bed.both()
fakes = both.__enter__()
cuda = extmem.open_device(kind="cuda")
None
"""


def on_stream(item: Any) -> Any:
    return item.record.native


def finished(cuda: Device) -> None:
    cuda.backend.finish_submitted()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("bit", "number"), [(OPAQUE, 2), (KMT, 3)], ids=["handle", "number"])
def test_S52_a_binary_semaphore_of_vulkan(
    bit: int, number: int, cuda: Device, vulkan: Device, fake: fake_cuda.FakeCuda
) -> None:
    with create(vulkan, "binary", types=bit) as made, handle_of(vulkan, made, bit) as handle:
        with import_into(cuda, "binary", handle, bit=bit) as other:
            assert fake.semaphore_imports == [number]
            backend: Any = cuda.backend
            with cuda.timeline() as after:
                backend.stream_wait(STREAM, [(on_stream(other), 0)])
                backend.stream_signal(STREAM, [(on_stream(after), 1)])
                assert after.value == 0
                signal(vulkan, made)
                after.wait(1, timeout=DEADLINE)
                finished(cuda)
        assert handle.closed is False


def test_S52_a_timeline_of_vulkan_is_signaled_for_streams_queues_and_hosts(
    cuda: Device, vulkan: Device, fake: fake_cuda.FakeCuda, name: str
) -> None:
    with vulkan.timeline(name=name) as made, extmem.open_timeline(name, device=cuda) as other:
        assert fake.semaphore_imports == [10]
        backend: Any = cuda.backend
        backend.stream_wait(STREAM, [(on_stream(other), 1)])
        backend.stream_signal(STREAM, [(on_stream(other), 2)])
        assert made.value == other.value == 0
        with vulkan.commands(signal=(made, 1)):
            pass
        made.wait(2, timeout=DEADLINE)
        other.wait(2, timeout=DEADLINE)
        other.signal(3)
        assert made.value == 3
        finished(cuda)


def test_a_fence_of_direct3d_has_values(
    cuda: Device, fake: fake_cuda.FakeCuda, other_api: fake_vulkan.FakeVulkan
) -> None:
    made = make_d3d12_fence(other_api, 5)
    try:
        with import_into(cuda, "timeline", made.fd, bit=D3D12) as fence:
            assert fake.semaphore_imports == [4]
            backend: Any = cuda.backend
            backend.stream_wait(STREAM, [(on_stream(fence), 5)])
            backend.stream_signal(STREAM, [(on_stream(fence), 7)])
            assert made.number == 7
            with pytest.raises(errors.UnsupportedError, match="no host wait"):
                on_stream(fence).counter()
            finished(cuda)
    finally:
        made.close()


def test_a_stream_of_another_process_wakes_this_host(cuda: Device, vulkan: Device, peer: Peer, name: str) -> None:
    peer(PEER)
    with vulkan.timeline(name=name) as made, cuda.timeline(name=f"{name} of cuda") as own:
        for one, called in ((made, name), (own, f"{name} of cuda")):
            peer("other = extmem.open_timeline(called, device=cuda)", called=called)
            peer("cuda.backend.stream_wait(0x5000, [(other.record.native, 1)])")
            peer("cuda.backend.stream_signal(0x5000, [(other.record.native, 2)])")
            assert one.value == 0
            one.signal(1)
            one.wait(2, timeout=DEADLINE)
            peer("cuda.backend.finish_submitted()\nother.close()")
    peer("cuda.close()\nboth.__exit__(None, None, None)")
