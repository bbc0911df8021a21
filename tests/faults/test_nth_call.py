"""Every public operation with its n-th call failing, for every n: a clear error, nothing left, the rest intact."""

from __future__ import annotations

import contextlib
import errno
import itertools
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

import extmem
from extmem import vk
from extmem.api import Device
from extmem.devices.host.backend import HostBackend
from extmem.testing import faults
from tests import systems
from tests.behaviours.steps import FD, KMT, SIZE, W32, by_name, export, fd, get, import_fd, import_win32, kmt, nt, put

_names = itertools.count()
FDS = systems.HERE == "linux"
TYPES = W32 | FD if FDS else W32


class World:
    """What the caller holds before the operation: one object of each type, all of which must survive every failure."""

    def __init__(self, device: Device, stack: contextlib.ExitStack) -> None:
        keep = stack.enter_context
        self.device = device
        self.name = f"faults {next(_names)}"
        self.memory = keep(export(device, name=self.name, types=TYPES))
        put(self.memory, b"kept")
        self.handle = keep(nt(device, self.memory))
        if FDS:
            self.fd = keep(fd(device, self.memory))
        self.numbered = keep(export(device, types=KMT))
        self.number = kmt(device, self.numbered)

    def check(self) -> None:
        """Check that all of it is open and usable."""
        with import_win32(self.device, self.handle) as a, by_name(self.device, self.name) as b:
            assert get(a) == get(b) == b"kept"
        if FDS:
            with import_fd(self.device, self.fd.duplicate()) as c:
                assert get(c) == b"kept"
        import_win32(self.device, self.number, kind=KMT).close()


def _handle(world: World) -> Any:
    """Operations of fds."""
    return fd(world.device, world.memory) if FDS else world.memory.export_handle(W32)


@pytest.fixture
def world(device: Device) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        yield World(device, stack)


def _buffer(device: Device) -> Any:
    return device.create_buffer(
        vk.BufferCreateInfo(
            size=SIZE, usage=vk.BufferUsageFlagBits.TRANSFER_SRC, p_next=vk.ExternalMemoryBufferCreateInfo(W32)
        )
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
            usage=vk.ImageUsageFlagBits.TRANSFER_SRC,
            p_next=vk.ExternalMemoryImageCreateInfo(W32),
        )
    )


def _dedicated(device: Device) -> None:
    with _buffer(device) as buffer:
        chain = vk.ExportMemoryAllocateInfo(W32, vk.MemoryDedicatedAllocateInfo(None, buffer))
        with device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, chain)) as memory:
            device.bind_buffer_memory(buffer, memory)
            with nt(device, memory) as handle, _buffer(device) as other:
                chain2 = vk.ImportMemoryWin32HandleInfoKHR(
                    W32, handle, None, vk.MemoryDedicatedAllocateInfo(None, other)
                )
                with device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, chain2)) as imported:
                    device.bind_buffer_memory(other, imported)


def _map(memory: extmem.DeviceMemory) -> None:
    with memory:
        memory.map().release()
        assert memory.numpy().size


def _import_fd(world: World, device: Device) -> None:
    with world.fd.duplicate() as copy:
        import_fd(device, copy).close()


def _pickled(memory: extmem.DeviceMemory) -> None:
    with memory:
        data = pickle.dumps(memory)
        try:
            with pickle.loads(data) as arrived:  # raises the error for which it was not received
                arrived.fill(1)
        except (extmem.ExtmemError, OSError):
            if not FDS:  # the sender itself keeps what was not claimed, because it can still be claimed
                with contextlib.suppress(extmem.InvalidHandleError):
                    pickle.loads(data).close()
            raise


def _reshare(world: World, device: Device) -> None:
    export_info = vk.ExportMemoryAllocateInfo(W32 | FD)
    source = vk.ImportMemoryWin32HandleInfoKHR(W32, world.handle, None, export_info)
    with device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, source)) as memory:
        nt(device, memory).close()
        fd(device, memory).close()


OF_FDS = {"export fd", "get an fd", "import an fd", "export what was imported"}
"""Windows has no fds, and a section that was imported is not exported again."""
OPERATIONS: dict[str, Callable[[World, Device], object]] = {
    "allocate": lambda w, d: d.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0)).close(),
    "allocate an array": lambda w, d: _map(d.allocate((8, 8), "float32", name=f"{w.name} array")),
    "export NT, named": lambda w, d: export(d, name=f"{w.name} other").close(),
    "export KMT": lambda w, d: export(d, types=KMT).close(),
    "export fd": lambda w, d: export(d, types=FD).close(),
    "get NT handles": lambda w, d: [w.memory.export_handle(W32).close() for _ in range(2)],
    "get an fd": lambda w, d: fd(w.device, w.memory).close(),
    "import by name": lambda w, d: by_name(d, w.name).close(),
    "import by handle": lambda w, d: import_win32(d, w.handle).close(),
    "import by number": lambda w, d: import_win32(d, w.number, kind=KMT).close(),
    "import an fd": _import_fd,
    "export what was imported": _reshare,
    "dedicated, bound, imported, bound": lambda w, d: _dedicated(d),
    "image": lambda w, d: _image(d).close(),
    "map": lambda w, d: _map(export(d)),
    "open by name": lambda w, d: d.open(w.name).close(),
    "open a handle": lambda w, d: d.open(w.handle).close(),
    "a handle by name": lambda w, d: extmem.open_handle(w.name).close(),
    "duplicate": lambda w, d: w.handle.duplicate(access=0x8000_0000, inherit=True).close(),
    "handle information": lambda w, d: (
        w.handle.info,
        w.handle.same_object(w.handle),
        w.handle.set_info(inherit=False),
    ),
    "pickle": lambda w, d: _pickled(export(d)),
}
NAMES = [systems.on_linux(name) if name in OF_FDS else name for name in OPERATIONS]


@pytest.mark.parametrize("operation", NAMES)
def test_every_driver_call(operation: str, world: World) -> None:
    def run(arm: list[Device]) -> object:
        return OPERATIONS[operation](world, arm[0])

    box: list[Device] = []

    @contextlib.contextmanager
    def arm(countdown: faults.Countdown) -> Iterator[None]:
        real = HostBackend()
        # The rules query the device too; what they have queried already does not change.
        armed = Device(faults.failing_backend(real, faults.Countdown(0)))
        armed.backend = faults.failing_backend(real, countdown)
        box[:] = [armed]
        yield

    failed = faults.fail_each(partial(run, box), arm, check=world.check)
    if operation in ("allocate", "export NT, named", "import by name", "import by handle", "map"):
        assert failed


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOMEM])
@pytest.mark.parametrize("operation", NAMES)
def test_every_system_call(operation: str, code: int, world: World) -> None:
    with extmem.open_device() as device:
        failed = faults.fail_each(
            lambda: OPERATIONS[operation](world, device),
            lambda countdown: faults.failing_system_calls(countdown, code),
            check=world.check,
            allowed=(extmem.ExtmemError, OSError),
        )
    if operation in ("allocate", "get an fd", "import an fd"):
        assert failed


QUICK = {"open by name", "export NT, named", "pickle"}


@pytest.mark.linux_only("Windows has no broker")
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    "operation",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow("starts a broker for each request"))
        for name in OPERATIONS
    ],
)
def test_the_broker_is_killed_at_every_request(operation: str, moment: Any, world: World) -> None:
    """The client announces what it holds to the next broker, and the operation succeeds."""

    def noticed(error: BaseException) -> None:
        raise AssertionError("the operation should have outlived the broker") from error

    def run() -> None:
        try:
            OPERATIONS[operation](world, world.device)
        except extmem.ExtmemError as error:
            noticed(error)

    failed = faults.fail_each(run, lambda countdown: faults.killing_broker(countdown, moment), check=world.check)
    if operation not in ("allocate", "export fd", "get an fd", "import an fd", "image"):
        assert failed


@pytest.mark.windows_only("Linux's broker is killed above")
def test_there_is_no_broker_to_kill() -> None:
    with pytest.raises(extmem.UnsupportedError, match="no broker"):
        faults.killing_broker(faults.Countdown(1))


def test_a_planted_leak_is_caught(world: World) -> None:
    """The loop finds faults: here an operation that leaks when its second driver call fails."""
    spare = []

    def leaky() -> None:
        memory = world.device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0))
        try:
            _handle(world).close()
        except (extmem.ExtmemError, OSError):
            spare.append(memory)
            raise
        memory.close()

    from extmem.testing import leaks

    with pytest.MonkeyPatch.context() as patch, pytest.raises(leaks.LeakError):
        patch.setattr(leaks, "PATIENCE", 0.2)
        faults.fail_each(leaky, faults.failing_system_calls)
    for memory in spare:
        memory.close()


def test_a_planted_swallowed_handle_is_caught(world: World) -> None:
    """And one that closes the caller's handle when it fails."""
    victim = world.handle.duplicate()

    def greedy() -> None:
        try:
            import_win32(world.device, victim, size=SIZE).close()
        except (extmem.ExtmemError, OSError):
            victim.close()
            raise

    def check() -> None:
        assert not victim.closed, "the caller's handle was closed"

    with pytest.raises(AssertionError, match="the caller's handle"):
        box = [Device(HostBackend())]

        @contextlib.contextmanager
        def arm(countdown: faults.Countdown) -> Iterator[None]:
            real, world.device.backend = world.device.backend, faults.failing_backend(box[0].backend, countdown)
            try:
                yield
            finally:
                world.device.backend = real

        faults.fail_each(greedy, arm, check=check)
    victim.close()


def test_an_endless_operation_is_found_out(world: World) -> None:
    def stubborn() -> None:
        for _ in range(50):
            with contextlib.suppress(OSError, extmem.ExtmemError):
                _handle(world).close()

    with pytest.raises(AssertionError, match="still makes calls"):
        faults.fail_each(stubborn, faults.failing_system_calls, limit=3)
