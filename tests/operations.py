"""Every public operation, found in the public classes themselves, with a way to call it.

How this works. An operation is a public method or property of a class below, or one of Python's own protocols
(`np.asarray`, DLPack, pickle, `with`). An operation that is added to the library is in the list without an edit: it is
called without arguments, or a test fails and names it, because `CALLS` has no entry for it. The result of an operation
is checked by its content (tests/tagged_payloads.py). Members that are meant for the library itself are omitted
(scripts/public_members.py).
"""

from __future__ import annotations

import contextlib
import inspect
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeAlias

import numpy as np

import extmem
from extmem import vk
from extmem.api import Buffer, Device, DeviceMemory, Image
from extmem.api.arrays import NamedArrays
from extmem.api.commands import Commands
from extmem.api.slices import MemorySlice
from extmem.errors import ExtmemError, HandleStateError, LiveViewError, UnsupportedError
from extmem.handles import FdHandle, KmtHandle, NtHandle
from scripts.public_members import public_members
from tests import channel_operations, command_operations, sharing_operations, sync_operations
from tests.sync_operations import Fence, Semaphore, Timeline
from tests.tagged_payloads import FD, KMT, NT, SIZE, HandleType, World, WrongByteError

__all__ = ["ALLOWED", "CLASSES", "OF_THE_HOST", "Case", "LacksError", "Scene", "Operation", "case", "operations_of"]


class LacksError(UnsupportedError):
    """The device of this machine does not share in the way that the operation needs; the library was not called."""


ALLOWED: tuple[type[Exception], ...] = (HandleStateError, LiveViewError, UnsupportedError)
"""What an operation may raise on an object that another thread is closing, or on a device that does not support it."""
_COLOR = vk.ImageAspectFlagBits.COLOR
_Layout = vk.ImageLayout
_PICTURE = vk.ImageCreateInfo(
    image_type=vk.ImageType.TYPE_2D,
    format=vk.Format.R8_UNORM,
    extent=vk.Extent3D(16, 16, 1),
    mip_levels=1,
    array_layers=1,
    samples=vk.SampleCountFlagBits.COUNT_1,
    tiling=vk.ImageTiling.LINEAR,
    usage=vk.ImageUsageFlagBits.TRANSFER_SRC | vk.ImageUsageFlagBits.TRANSFER_DST,
)
_names = count(1)


@dataclass
class Scene:
    """One object, on which operations are called, and the objects that belong to it."""

    world: World
    thing: Any
    tag: int
    keep: list[Any] = field(default_factory=list)
    """The objects that it needs, which are released after it."""

    def end(self) -> None:
        """Release the object, and then those that belong to it."""
        for thing in (self.thing, *reversed(self.keep)):
            if isinstance(thing, Commands):
                with contextlib.suppress(*ALLOWED):  # what was recorded may be more than the device supports
                    thing.__exit__(None, None, None)
            else:
                channel_operations.close(thing)


Operation: TypeAlias = Callable[[Scene], Any]


@dataclass(frozen=True)
class Case:
    """A public class, and how an object of it is made."""

    kind: type
    make: Callable[[World], Scene]
    protocols: tuple[tuple[str, Operation], ...] = ()
    closing: str = "close"
    """The operation that closes it."""
    ending: frozenset[str] = frozenset({"close", "take"})
    """Operations after which it need not be open any more, though they were interrupted."""
    probe: Operation | None = None
    """An operation that succeeds while it is open and intact."""

    @property
    def name(self) -> str:
        """The name of the class."""
        return self.kind.__name__


# Functions that make an object.


def _memory(world: World) -> Scene:
    tag = world.tag()
    return Scene(
        world,
        world.memory(tag, name=f"operations {os.getpid()} {next(_names)}" if world.handle_types & NT else None),
        tag,
    )


def _scene(make: Callable[[World], Any]) -> Callable[[World], Scene]:
    return lambda world: Scene(world, *make(world))


def _nt_handle(world: World) -> Scene:
    tag = world.tag()
    with world.memory(tag, handle_types=int(NT)) as memory:
        return Scene(world, memory.export_handle(NT), tag)


def _fd_handle(world: World) -> Scene:
    tag = world.tag()
    with world.memory(tag, handle_types=int(FD)) as memory:
        return Scene(world, memory.export_handle(FD), tag)


def _kmt_handle(world: World) -> Scene:
    tag = world.tag()
    memory = world.memory(tag, handle_types=int(KMT))
    return Scene(world, memory.export_handle(KMT), tag, [memory])


def _buffer(world: World) -> Scene:
    tag = world.tag()
    memory = world.memory(tag)
    return Scene(world, memory.buffer(), tag, [memory])


def _image(world: World) -> Scene:
    return Scene(world, world.device.create_image(_PICTURE), 0)


def _device(world: World) -> Scene:
    tag = world.tag()
    made = extmem.open_device(kind=world.device.kind)
    memory = world.memory(tag, name=f"operations {os.getpid()} {next(_names)}" if world.handle_types & NT else None)
    return Scene(world, made, tag, [memory])


def _commands(world: World) -> Scene:
    scene = _buffer(world)
    other = _buffer(world)
    picture, memory = _bound_image(world.device)
    with world.device.commands() as before:
        before.change_layout(picture, _Layout.UNDEFINED, _Layout.GENERAL)
    commands = world.device.commands()
    commands.__enter__()
    return Scene(world, commands, scene.tag, [memory, picture, *scene.keep, *other.keep, scene.thing, other.thing])


def _bound_image(device: Device) -> tuple[Image, DeviceMemory]:
    image = device.create_image(_PICTURE)
    memory = device.allocate_memory(vk.MemoryAllocateInfo(image.requirements.size, _first(image)))
    device.bind_image_memory(image, memory)
    with device.commands() as commands:  # the layout that the operations of Commands use by default
        commands.change_layout(image, _Layout.UNDEFINED, _Layout.GENERAL)
    return image, memory


# Functions that call an operation with arguments, by class and operation.


def _source(scene: Scene) -> DeviceMemory:
    return next(thing for thing in scene.keep if isinstance(thing, DeviceMemory))


def _opened(scene: Scene) -> DeviceMemory:
    name = _source(scene).name
    if name is None:
        raise LacksError("this device shares by no name")
    opened: DeviceMemory = scene.thing.open(name)
    return opened


def _info(size: int = SIZE) -> vk.BufferCreateInfo:
    usage = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST
    return vk.BufferCreateInfo(size=size, usage=usage)


def _made(made: Any) -> None:
    made.close()


def _bound(scene: Scene) -> None:
    device: Device = scene.thing
    with device.create_buffer(_info()) as buffer:
        # This uses no ExitStack: its frame and the traceback of an exception would reference each other.
        with device.allocate_memory(vk.MemoryAllocateInfo(buffer.requirements.size, _first(buffer))) as memory:
            device.bind_buffer_memory(buffer, memory)


def _first(resource: Buffer | Image) -> int:
    bits = resource.requirements.memory_type_bits
    return (bits & -bits).bit_length() - 1


def _taken(scene: Scene) -> tuple[int, Any]:
    return scene.thing.take(), scene.thing


def _accessed(scene: Scene) -> None:
    with scene.thing.access(queue=scene.world.device.kind == "vulkan"):
        pass


def _same(scene: Scene) -> None:
    with scene.thing.duplicate() as other:
        if not other.same_object(scene.thing):
            raise WrongByteError(f"{scene.thing!r} and its duplicate are not one object")


def _read_fd(scene: Scene) -> bytes | None:
    """Get the fd. It is borrowed and valid until the handle is closed, so nothing is read through it here."""
    scene.thing.fileno()
    return None


def _pickled(scene: Scene) -> Any:
    return pickle.loads(pickle.dumps(scene.thing))  # it was pickled in this line


def _handle_of(scene: Scene) -> Any:
    if not scene.world.handle_types:
        raise LacksError("this device exports no memory")
    return scene.thing.export_handle()


def _entered(scene: Scene) -> None:
    scene.thing.__enter__()


CALLS: dict[tuple[type, str], Operation] = {
    (DeviceMemory, "write"): lambda s: s.thing.write(bytes([s.tag]) * SIZE),
    (DeviceMemory, "fill"): lambda s: s.thing.fill(s.tag),
    (DeviceMemory, "access"): _accessed,
    (DeviceMemory, "export_handle"): _handle_of,
    (Device, "allocate"): lambda s: _made(s.thing.allocate(SIZE)),
    (Device, "allocate_memory"): lambda s: _made(s.thing.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0))),
    (Device, "open"): _opened,
    (Device, "create_buffer"): lambda s: _made(s.thing.create_buffer(_info())),
    (Device, "uuid"): lambda s: s.thing.uuid.hex(),
    (Device, "create_image"): lambda s: _made(s.thing.create_image(_PICTURE)),
    (Device, "bind_buffer_memory"): _bound,
    (Device, "bind_buffer_memory2"): lambda s: s.thing.bind_buffer_memory2([]),
    (Device, "bind_image_memory"): lambda s: s.thing.bind_image_memory2([]),
    (Device, "bind_image_memory2"): lambda s: s.thing.bind_image_memory2([]),
    (Device, "free_memory"): lambda s: s.thing.free_memory(s.thing.allocate(SIZE)),
    (Device, "flush_mapped_memory_ranges"): lambda s: s.thing.flush_mapped_memory_ranges([]),
    (Device, "invalidate_mapped_memory_ranges"): lambda s: s.thing.invalidate_mapped_memory_ranges([]),
    (Device, "get_memory_fd"): lambda s: _exported(s, FD),
    (Device, "get_memory_win32_handle"): lambda s: _exported(s, NT),
    (Device, "transfer_capability"): lambda s: s.thing.transfer_capability(int(FD)),
    (Device, "get_physical_device_external_buffer_properties"): lambda s: (
        s.thing.get_physical_device_external_buffer_properties(
            vk.PhysicalDeviceExternalBufferInfo(usage=_info().usage, handle_type=FD)
        )
    ),
    (Device, "get_physical_device_image_format_properties2"): lambda s: (
        s.thing.get_physical_device_image_format_properties2(
            vk.PhysicalDeviceImageFormatInfo2(
                vk.Format.R8_UNORM, vk.ImageType.TYPE_2D, vk.ImageTiling.LINEAR, vk.ImageUsageFlagBits.TRANSFER_DST
            )
        )
    ),
    (Device, "get_physical_device_format_properties2"): lambda s: s.thing.get_physical_device_format_properties2(
        vk.Format.R8_UNORM
    ),
    (Device, "get_image_drm_format_modifier_properties"): lambda s: _refused(lambda: _modifier_of(s)),
    (Device, "get_memory_fd_properties"): lambda s: _refused(
        lambda: s.thing.get_memory_fd_properties(HandleType.DMA_BUF_EXT, 0)
    ),
    (Device, "get_memory_win32_handle_properties"): lambda s: _refused(
        lambda: s.thing.get_memory_win32_handle_properties(HandleType.D3D11_TEXTURE, 4)
    ),
    (Device, "get_memory_host_pointer_properties"): lambda s: _refused(
        lambda: s.thing.get_memory_host_pointer_properties(HandleType.HOST_ALLOCATION_EXT, 4096)
    ),
    (NtHandle, "same_object"): _same,
    (NtHandle, "take"): _taken,
    (FdHandle, "same_object"): _same,
    (FdHandle, "take"): _taken,
    (FdHandle, "fileno"): _read_fd,
    (KmtHandle, "take"): _taken,
    (Image, "subresource_layout"): lambda s: s.thing.subresource_layout(vk.ImageSubresource(_COLOR, 0, 0)),
    **command_operations.CALLS,
    **sync_operations.build(Device),
    **channel_operations.CALLS,
}


def _exported(scene: Scene, kind: HandleType) -> Any:
    if not scene.world.handle_types & kind:
        raise LacksError(f"this device does not export {kind!r}")
    with scene.thing.allocate(SIZE, handle_types=int(kind)) as memory:
        memory.fill(scene.tag)
        if kind == FD:
            return scene.thing.get_memory_fd(vk.MemoryGetFdInfoKHR(memory, kind))
        return scene.thing.get_memory_win32_handle(vk.MemoryGetWin32HandleInfoKHR(memory, kind))


def _modifier_of(s: Scene) -> object:
    with s.thing.create_image(_PICTURE) as image:
        return s.thing.get_image_drm_format_modifier_properties(image)


def _refused(call: Callable[[], object]) -> None:
    """Call what the library must refuse, because its argument does not exist. Errors: HandleStateError of a closed
    device.
    """
    try:
        call()
    except HandleStateError:
        raise
    except ExtmemError:
        pass


_MEMORY_PROTOCOLS: tuple[tuple[str, Operation], ...] = (
    ("np.asarray", lambda s: np.asarray(s.thing)),
    ("np.from_dlpack", lambda s: np.from_dlpack(s.thing, device="cpu")),
    ("pickle", _pickled),
    ("with", _entered),
    ("repr", lambda s: repr(s.thing)),
    *sharing_operations.OF_MEMORY,
)
_HANDLE_PROTOCOLS: tuple[tuple[str, Operation], ...] = (
    ("pickle", _pickled),
    ("with", _entered),
    ("repr", lambda s: repr(s.thing)),
    ("open", lambda s: s.world.device.open(s.thing)),
)


def _named(scene: Scene) -> None:
    scene.thing.allocate(SIZE, name=f"operations {os.getpid()} {next(_names)}").close()


def _by_name(operation: Callable[[str], Any]) -> Operation:
    def call(scene: Scene) -> Any:
        name = _source(scene).name
        if name is None:
            raise LacksError("this device shares by no name")
        return operation(name)

    return call


_DEVICE_PROTOCOLS: tuple[tuple[str, Operation], ...] = (
    ("with", _entered),
    ("repr", lambda s: repr(s.thing)),
    ("allocate, named", _named),
    ("extmem.open", _by_name(extmem.open)),
    ("extmem.open_handle", _by_name(extmem.open_handle)),
    *sharing_operations.OF_DEVICES,
    *channel_operations.OF_DEVICES,
    ("extmem.open_device", lambda s: extmem.open_device(kind=s.thing.kind).close()),
)


def _copy(scene: Scene) -> Any:
    return scene.thing.duplicate()


_CASES = (
    Case(DeviceMemory, _memory, _MEMORY_PROTOCOLS, probe=lambda s: s.thing.read_bytes()),
    Case(MemorySlice, _scene(sharing_operations.part), sharing_operations.OF_PARTS, probe=lambda s: s.thing.read()),
    Case(
        NamedArrays,
        _scene(sharing_operations.named_arrays),
        sharing_operations.OF_NAMED_ARRAYS,
        probe=lambda s: s.thing["b.c"].read(),
    ),
    Case(NtHandle, _nt_handle, _HANDLE_PROTOCOLS, probe=_copy),
    Case(FdHandle, _fd_handle, _HANDLE_PROTOCOLS, probe=_copy),
    Case(KmtHandle, _kmt_handle, _HANDLE_PROTOCOLS, probe=_copy),
    Case(Device, _device, _DEVICE_PROTOCOLS, probe=lambda s: s.thing.allocate(SIZE).close()),
    Case(Buffer, _buffer, (("repr", lambda s: repr(s.thing)),)),
    Case(Image, _image, (("repr", lambda s: repr(s.thing)),)),
    Case(Timeline, lambda w: Scene(w, sync_operations.make_timeline(w.device), 0), sync_operations.OF_TIMELINES),
    Case(Semaphore, lambda w: Scene(w, sync_operations.make_semaphore(w.device), 0), sync_operations.PROTOCOLS),
    Case(Fence, lambda w: Scene(w, sync_operations.make_fence(w.device), 0), sync_operations.PROTOCOLS),
    *(Case(kind, _scene(make), *more) for kind, make, *more in channel_operations.CASES),
    Case(Commands, _commands, (("the block's end", lambda s: s.thing.__exit__(None, None, None)),), "the block's end"),
)
CLASSES = tuple(case.name for case in _CASES)
"""The names of the public classes whose operations these are."""
OF_THE_HOST = frozenset(kind.__name__ for kind, *_ in channel_operations.CASES)
"""Those whose objects are made on the host device alone."""


def case(world: World, kind: str) -> Case | None:
    """Return the class of this name; None where the device makes no such objects."""
    [found] = [case for case in _CASES if case.name == kind]
    need = {NtHandle: NT, FdHandle: FD, KmtHandle: KMT, NamedArrays: NT}
    if int(need.get(found.kind, 0)) & ~world.handle_types:
        return None
    if found.kind in (Semaphore, Timeline, Fence) and not sync_operations.has_semaphores(world.device):
        return None
    if found.name in OF_THE_HOST and not channel_operations.has_channels(world.device):
        return None
    if found.kind in (Image, Commands) and not _makes_images(world.device):
        return None
    return found


def _makes_images(device: Device) -> bool:
    try:
        device.create_image(_PICTURE).close()
    except UnsupportedError:
        return False
    return True


def operations_of(case: Case) -> dict[str, Operation]:
    """Return every operation of a class by its name. Errors: AssertionError for one without a way to call it."""
    found: dict[str, Operation] = dict(case.protocols)
    for name in public_members(case.kind):
        known = sharing_operations.call_of(case.kind, name, sharing_operations.CALLS, CALLS)
        if known is not None:
            found[name] = known
        elif not callable(getattr(case.kind, name)):
            found[name] = lambda scene, name=name: getattr(scene.thing, name)  # type: ignore[misc]
        else:
            needed = [
                parameter.name
                for parameter in list(inspect.signature(getattr(case.kind, name)).parameters.values())[1:]
                if parameter.default is parameter.empty
                and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
            ]
            assert not needed, (
                f"add an entry for {case.name}.{name} to CALLS in tests/operations.py: it takes {', '.join(needed)}"
            )
            found[name] = lambda scene, name=name: getattr(scene.thing, name)()  # type: ignore[misc]
    return found
