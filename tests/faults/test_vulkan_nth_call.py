"""Every public operation on a Vulkan device with its n-th driver call failing: a clear error, nothing left behind."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import extmem
from extmem import raw, vk
from extmem.api import Device
from extmem.testing import fake_vulkan, faults
from tests import systems
from tests.behaviours.steps import FD, KMT, SIZE, W32, by_name, export, fd, import_fd, import_win32, kmt, nt

_names = itertools.count()
FDS = systems.HERE == "linux"
TYPES = W32 | FD if FDS else W32
_Property = vk.MemoryPropertyFlagBits
GPU = dataclasses.replace(
    fake_vulkan.NON_COHERENT,
    # The first memory type is used for everything here, so that flushing is needed; the staging buffer has the second.
    memory_types=(
        fake_vulkan.MemoryType(int(_Property.DEVICE_LOCAL | _Property.HOST_VISIBLE)),
        fake_vulkan.MemoryType(int(_Property.HOST_VISIBLE | _Property.HOST_COHERENT | _Property.HOST_CACHED)),
    ),
)
LOST, NO_MEMORY = vk.Result.ERROR_DEVICE_LOST, vk.Result.ERROR_OUT_OF_DEVICE_MEMORY
OFTEN = 64
"""A number of calls that no operation reaches."""


def opened() -> Device:
    return extmem.open_device(kind="vulkan")


@pytest.fixture(scope="module")
def fake() -> Iterator[fake_vulkan.FakeVulkan]:
    made = fake_vulkan.FakeVulkan([GPU])
    with fake_vulkan.installed(made):
        yield made
    assert not made.misuses and not made.alive()


class World:
    """What the caller holds before the operation: one object of each type, all of which must survive every failure."""

    def __init__(self, fake: fake_vulkan.FakeVulkan, stack: contextlib.ExitStack) -> None:
        keep = stack.enter_context
        self.fake = fake
        self.device = keep(opened())
        self.name = f"vulkan faults {next(_names)}"
        self.memory = keep(export(self.device, name=self.name, types=TYPES))
        self.memory.write(b"kept" * (SIZE // 4))
        self.handle = keep(nt(self.device, self.memory))
        if FDS:
            self.fd = keep(fd(self.device, self.memory))
        self.numbered = keep(export(self.device, types=KMT))
        self.number = kmt(self.device, self.numbered)
        self.host = keep(extmem.open_device(kind="host"))
        self.hosted = keep(self.host.allocate(SIZE))
        self.hosted_handle = keep(self.hosted.export_handle(W32))
        self.high_level = keep(self.device.allocate((SIZE,), name=f"{self.name} high-level"))
        # Devices and memory make some things once and keep them: these exist before anything is counted.
        assert self.hosted.read().size == SIZE
        if FDS:
            import_fd(self.device, raw.fd_handle(self.fd.duplicate().take())).close()
        self.before = fake.alive()

    def check(self) -> None:
        """Check that all of it is open and usable, that the driver holds what it held, and that there was no misuse."""
        for made in (by_name(self.device, self.name), import_win32(self.device, self.handle)):
            with made:
                assert bytes(made.read()[:4]) == b"kept"
        import_win32(self.device, self.number, kind=KMT).close()
        if FDS:
            import_fd(self.device, self.fd.duplicate()).close()
        assert not self.hosted_handle.closed and not self.high_level.closed
        assert self.fake.alive() == self.before
        assert not self.fake.misuses, [str(misuse) for misuse in self.fake.misuses]


@pytest.fixture
def world(fake: fake_vulkan.FakeVulkan) -> Iterator[World]:
    fake.misuses.clear()
    with contextlib.ExitStack() as stack:
        yield World(fake, stack)


def _buffer(device: Device) -> Any:
    usage = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST
    return device.create_buffer(
        vk.BufferCreateInfo(size=SIZE, usage=usage, p_next=vk.ExternalMemoryBufferCreateInfo(W32))
    )


def _image(device: Device) -> Any:
    return device.create_image(
        vk.ImageCreateInfo(
            image_type=vk.ImageType.TYPE_2D,
            format=vk.Format.R8G8B8A8_UNORM,
            extent=vk.Extent3D(16, 16, 1),
            mip_levels=1,
            array_layers=1,
            samples=vk.SampleCountFlagBits.COUNT_1,
            tiling=vk.ImageTiling.LINEAR,
            usage=vk.ImageUsageFlagBits.TRANSFER_SRC,
            p_next=vk.ExternalMemoryImageCreateInfo(W32),
        )
    )


def _layout(device: Device) -> None:
    with _image(device) as image:
        image.subresource_layout(vk.ImageSubresource(vk.ImageAspectFlagBits.COLOR, 0, 0))


def _dedicated(device: Device, make: Callable[[Device], Any], of: Callable[[Any], dict[str, Any]]) -> None:
    bind = {"buffer": device.bind_buffer_memory, "image": device.bind_image_memory}
    with make(device) as resource:
        size, kind = resource.requirements.size, next(iter(of(resource)))
        chain = vk.ExportMemoryAllocateInfo(W32, vk.MemoryDedicatedAllocateInfo(**of(resource)))
        with device.allocate_memory(vk.MemoryAllocateInfo(size, 0, chain)) as memory:
            bind[kind](resource, memory)
            with nt(device, memory) as handle, make(device) as other:
                source = vk.ImportMemoryWin32HandleInfoKHR(
                    W32, handle, None, vk.MemoryDedicatedAllocateInfo(**of(other))
                )
                with device.allocate_memory(vk.MemoryAllocateInfo(size, 0, source)) as imported:
                    bind[kind](other, imported)


def _moved(device: Device) -> None:
    with export(device) as memory:
        memory.write(b"abcd" * 16)
        memory.fill(7)
        assert memory.read()[0] == 7


def _mapped(device: Device) -> None:
    with export(device) as memory:
        with memory.map() as view:
            view[:4] = b"told"
        memory.flush()
        memory.invalidate()


def _allocate_array(device: Device, dedicated: bool) -> None:
    with device.allocate((16, 16), "float32", dedicated=dedicated) as memory:
        memory.export_handle(W32).close()
        if FDS:
            memory.export_handle(FD).close()


def _import_bare_fd(world: World, device: Device) -> None:
    with raw.fd_handle(world.fd.duplicate().take()) as undescribed:
        import_fd(device, undescribed).close()


def _bridged(world: World, device: Device) -> None:
    with device.open(world.hosted_handle) as memory:
        memory.fill(3)
        assert world.hosted.read()[0] == 3


def _known(world: World, device: Device) -> None:
    with world.fd.duplicate() as copy:
        import_fd(device, copy).close()


def _opened_fd(world: World, device: Device) -> None:
    with world.fd.duplicate() as copy:
        device.open(copy).close()


OPERATIONS: dict[str, Callable[[World, Device], object]] = {
    "open a device": lambda w, d: opened().close(),
    "create a buffer": lambda w, d: _buffer(d).close(),
    "create an image": lambda w, d: _image(d).close(),
    "where texels lie": lambda w, d: _layout(d),
    "allocate": lambda w, d: d.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0)).close(),
    "allocate an array": lambda w, d: _allocate_array(d, False),
    "allocate an array alone": lambda w, d: _allocate_array(d, True),
    "write, fill and read": lambda w, d: _moved(d),
    "map, flush and invalidate": lambda w, d: _mapped(d),
    "export NT, named": lambda w, d: export(d, name=f"{w.name} other").close(),
    "export KMT": lambda w, d: export(d, types=KMT).close(),
    "export fd": lambda w, d: export(d, types=FD).close(),
    "get an fd": lambda w, d: fd(w.device, w.memory).close(),
    "import by name": lambda w, d: by_name(d, w.name).close(),
    "import by handle": lambda w, d: import_win32(d, w.handle).close(),
    "import by number": lambda w, d: import_win32(d, w.number, kind=KMT).close(),
    "import our fd": _known,
    "import a raw fd": _import_bare_fd,
    "open by name": lambda w, d: d.open(f"{w.name} high-level").close(),
    "open an fd": _opened_fd,
    "open a host payload": _bridged,
    "dedicated buffer, bound, imported, bound": lambda w, d: _dedicated(d, _buffer, lambda r: {"buffer": r}),
    "dedicated image, bound, imported, bound": lambda w, d: _dedicated(d, _image, lambda r: {"image": r}),
}


OF_FDS = {"export fd", "get an fd", "import our fd", "import a raw fd", "open an fd"}


def names(*without: str) -> list[Any]:
    """The operations of this system."""
    return [systems.on_linux(n) if n in OF_FDS else n for n in OPERATIONS if n not in without]


def run_each(world: World, operation: Callable[[World, Device], object], result: vk.Result) -> list[str]:
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
            assert result.name in str(error)
            raise

    return faults.fail_each(run, arm, check=world.check, allowed=(extmem.ExtmemError,), limit=OFTEN)


@pytest.mark.parametrize("operation", names())
def test_out_of_memory_at_every_call(operation: str, world: World) -> None:
    assert run_each(world, OPERATIONS[operation], NO_MEMORY)


@pytest.mark.parametrize("operation", names("get an fd"))
def test_the_device_is_lost_at_every_call(operation: str, world: World) -> None:
    """Return the operations without those that need the caller's own device, which must not be lost."""
    assert run_each(world, OPERATIONS[operation], LOST)
