"""Every public operation on a CUDA device with its n-th driver call failing: a clear error, nothing left behind."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import extmem
from extmem import raw, vk
from extmem.api import Device
from extmem.sharing.descriptor import Descriptor
from extmem.testing import fake_cuda, faults
from tests import cuda_bed
from tests.behaviours.steps import FD, KMT, W32

_names = itertools.count()
SIZE = 100_000
NO_MEMORY, UNKNOWN, CONTEXT_GONE = 2, 999, 201
OFTEN = 64
"""A number of calls that no operation reaches."""


def opened() -> Device:
    return extmem.open_device(kind="cuda")


@pytest.fixture(scope="module")
def fake() -> Iterator[fake_cuda.FakeCuda]:
    with cuda_bed.both() as (made, _):
        yield made


class World:
    """What the caller holds before the operation: one object of each type, all of which must survive every failure."""

    def __init__(self, fake: fake_cuda.FakeCuda, stack: contextlib.ExitStack) -> None:
        keep = stack.enter_context
        self.fake = fake
        self.name = f"cuda faults {next(_names)}"
        self.device = keep(opened())
        self.vulkan = keep(extmem.open_device(kind="vulkan"))
        self.host = keep(extmem.open_device(kind="host"))
        self.memory = keep(self.device.allocate(SIZE, name=self.name))
        self.handle = keep(self.memory.export_handle(W32))
        self.fd = keep(self.memory.export_handle(FD))
        self.numbered = keep(self.device.allocate(SIZE, handle_types=int(KMT)))
        self.rendered = keep(self.vulkan.allocate(SIZE, name=f"{self.name} rendered"))
        self.hosted = keep(self.host.allocate(SIZE, name=f"{self.name} hosted"))
        self.described = Descriptor.parse(self.fd.payload.descriptor)
        _array(self, self.device)  # opens the CUDA device that is used for all Vulkan memory of this GPU
        self.before = fake.alive()

    def check(self) -> None:
        """Check that all of it is open and usable, that the driver holds what it held, and that there was no misuse."""
        self.memory.fill(3)
        for source in (self.name, self.handle):
            with self.device.open(source) as other:
                assert set(other.read_bytes()) == {3}
        with self.fd.duplicate() as copy:
            self.device.open(copy).close()
        self.rendered.fill(4)
        with self.device.open(f"{self.name} rendered") as other:
            assert set(other.read_bytes()) == {4}
        assert self.fake.alive() == self.before and not self.fake.stack
        assert not self.fake.misuses, [str(misuse) for misuse in self.fake.misuses]


@pytest.fixture
def world(fake: fake_cuda.FakeCuda) -> Iterator[World]:
    fake.misuses.clear()
    with contextlib.ExitStack() as stack:
        yield World(fake, stack)


def _moved(device: Device) -> None:
    with device.allocate(SIZE) as memory:
        memory.write(b"abcd" * 16)
        memory.fill(7)
        assert memory.read()[0] == 7


def _commands(device: Device) -> None:
    with device.allocate(SIZE) as memory, device.commands() as commands:
        commands.fill_buffer(memory.buffer(), 7)


def _opened_fd(world: World, device: Device) -> None:
    with world.fd.duplicate() as copy:
        device.open(copy).close()
        assert copy.closed


def _stated(world: World, device: Device) -> None:
    fd = os.dup(int(world.fd))
    try:
        raw.import_payload(device, fd, world.described).close()
    except BaseException:
        os.close(fd)  # it is still open
        raise


def _image(world: World, device: Device) -> None:
    info = vk.ImageCreateInfo(
        image_type=vk.ImageType.TYPE_2D,
        format=vk.Format.R8G8B8A8_UNORM,
        extent=vk.Extent3D(16, 16, 1),
        mip_levels=1,
        array_layers=1,
        samples=vk.SampleCountFlagBits.COUNT_1,
        tiling=vk.ImageTiling.OPTIMAL,
        usage=vk.ImageUsageFlagBits.TRANSFER_SRC,
        p_next=vk.ExternalMemoryImageCreateInfo(W32),
    )
    with world.vulkan.create_image(info) as image:
        alone = vk.MemoryDedicatedAllocateInfo(image, None)
        chain = vk.ExportMemoryAllocateInfo(W32, alone)
        asked = vk.MemoryAllocateInfo(image.requirements.size, 0, chain)
        with world.vulkan.allocate_memory(asked) as memory, memory.export_handle(W32) as handle:
            device.open(handle).close()


def _adopted(world: World, device: Device) -> None:
    with raw.adopt_cuda(device, world.memory.device_array().pointer, SIZE) as memory:
        memory.export_handle(FD).close()


def _array(world: World, device: Device) -> None:
    with world.vulkan.allocate(SIZE) as memory:
        memory.device_array()


def _twice(world: World, device: Device) -> None:
    with device.open(f"{world.name} hosted") as one, opened() as again, again.open(f"{world.name} hosted") as two:
        one.fill(1)
        assert two.read()[0] == 1


STREAM = 0x5000


def _on_stream(device: Device, timeline: extmem.Timeline) -> None:
    backend: Any = device.backend
    try:
        with backend.device.gpu.current:
            backend.stream_wait(STREAM, [(timeline.record.native, 0)])
            backend.stream_signal(STREAM, [(timeline.record.native, 1)])
        timeline.wait(1, 10)
    finally:
        timeline.close()
        backend.finish_submitted()


def _rendered_timeline(world: World, device: Device) -> None:
    name = f"{world.name} timeline"
    with world.vulkan.timeline(name=name):
        _on_stream(device, extmem.open_timeline(name, device=device))


OPERATIONS: dict[str, Callable[[World, Device], object]] = {
    "open a device": lambda w, d: opened().close(),
    "allocate": lambda w, d: d.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0)).close(),
    "allocate an array": lambda w, d: d.allocate(SIZE).close(),
    "allocate, named": lambda w, d: d.allocate(SIZE, name=f"{w.name} other").close(),
    "allocate, by number": lambda w, d: d.allocate(SIZE, handle_types=int(KMT)).close(),
    "write, fill and read": lambda w, d: _moved(d),
    "commands": lambda w, d: _commands(d),
    "open by name": lambda w, d: d.open(w.name).close(),
    "open by handle": lambda w, d: d.open(w.handle).close(),
    "open by number": lambda w, d: d.open(w.numbered.export_handle(KMT)).close(),
    "open an fd": _opened_fd,
    "open a stated fd": _stated,
    "open Vulkan's": lambda w, d: d.open(f"{w.name} rendered").close(),
    "open Vulkan's image": _image,
    "open the host's": lambda w, d: d.open(f"{w.name} hosted").close(),
    "open the host's twice": _twice,
    "adopt": _adopted,
    "look at Vulkan's": _array,
    "a timeline on a stream": lambda w, d: _on_stream(d, d.timeline()),
    "Vulkan's timeline on a stream": _rendered_timeline,
}


def run_each(world: World, operation: Callable[[World, Device], object], result: int) -> list[str]:
    """Make each call fail with this result, on a device of its own, and return the names of the calls."""
    box: list[Any] = []

    @contextlib.contextmanager
    def arm(countdown: faults.Countdown) -> Iterator[None]:
        with opened() as device:
            box[:] = [device, countdown]
            with world.fake.failing(countdown, result):
                yield

    def run() -> None:
        device, countdown = box
        try:
            operation(world, device)
        except extmem.ExtmemError as error:
            assert countdown.failed in str(error), f"{error!r} does not name {countdown.failed}"
            assert f"({result})" in str(error)
            raise

    return faults.fail_each(run, arm, check=world.check, allowed=(extmem.ExtmemError,), limit=OFTEN)


@pytest.mark.parametrize("result", [NO_MEMORY, UNKNOWN, CONTEXT_GONE])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_call_may_fail(operation: str, result: int, world: World) -> None:
    failed = run_each(world, OPERATIONS[operation], result)
    assert failed or operation == "open a device"  # whose context is retained already


@pytest.mark.parametrize("result", [NO_MEMORY, UNKNOWN])
def test_every_call_of_the_first_device_may_fail(result: int) -> None:
    """Start CUDA, query its GPUs and retain a context, with none retained before."""

    def start() -> None:
        with extmem.open_device(kind="cuda"):
            pass

    @contextlib.contextmanager
    def arm(countdown: faults.Countdown) -> Iterator[None]:
        made = fake_cuda.FakeCuda()
        with fake_cuda.installed(made), made.failing(countdown, result):
            yield
        assert not made.alive()

    failed = faults.fail_each(start, arm, allowed=(extmem.ExtmemError,), limit=OFTEN)
    assert failed[0] == "cuInit" and failed[-1] == "cuDevicePrimaryCtxRetain"
