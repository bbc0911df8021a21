"""Functions that start CUDA, tell of its GPUs, and handle contexts."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from extmem.testing.fake_cuda.machine import NO_DEVICE, Refusal
from extmem.testing.fake_cuda.sharing import POSIX

if TYPE_CHECKING:
    from extmem.testing.fake_cuda.machine import FakeCuda

__all__: list[str] = []

_VERSION = 13_000
_NOT_SUPPORTED = 801
_NODE_MASK = 1
_GET_LUID = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)


def cuInit(fake: FakeCuda, flags: int) -> None:
    """Fails without a GPU, as the real one."""
    if not fake.gpus:
        raise Refusal(NO_DEVICE)
    fake.initialized = True


def cuDriverGetVersion(fake: FakeCuda) -> tuple[int]:
    """CUDA 13.0."""
    return (_VERSION,)


def cuDeviceGetCount(fake: FakeCuda) -> tuple[int]:
    """All GPUs."""
    return (len(fake.gpus),)


def cuDeviceGet(fake: FakeCuda, ordinal: int) -> tuple[Any]:
    """A device is its ordinal."""
    if not 0 <= ordinal < len(fake.gpus):
        raise fake.wrong(f"there is no device {ordinal}")
    return (fake.module.CUdevice(ordinal),)


def cuDeviceGetName(fake: FakeCuda, room: int, device: Any) -> tuple[bytes]:
    """NUL-terminated, with what was in the room behind it."""
    return (fake.gpus[int(device)].name.encode()[: room - 1].ljust(room, b"\0"),)


def cuDeviceGetUuid(fake: FakeCuda, device: Any) -> tuple[Any]:
    """A CUuuid."""

    class Uuid:
        bytes = fake.gpus[int(device)].uuid

    return (Uuid(),)


def cuDeviceGetLuid(fake: FakeCuda, device: Any) -> tuple[bytes, int]:
    """Windows's alone. As cuda-bindings gives it: cut at its first zero byte."""
    if POSIX:
        raise Refusal(_NOT_SUPPORTED)
    return (fake.gpus[int(device)].luid.partition(b"\0")[0], _NODE_MASK)


def cuGetProcAddress(fake: FakeCuda, symbol: bytes, version: int, flags: int) -> tuple[int, Any]:
    """The driver's own cuDeviceGetLuid, which fills in 8 bytes."""
    name = symbol.decode()
    if name != "cuDeviceGetLuid" or flags:
        raise fake.wrong(f"the address of {name} is asked for, flags {flags}")

    def get_luid(luid: int, mask: int, device: int) -> int:
        if POSIX:
            return _NOT_SUPPORTED
        ctypes.memmove(luid, fake.gpus[device].luid, 8)
        ctypes.c_uint.from_address(mask).value = _NODE_MASK
        return 0

    made = fake.callbacks.setdefault(name, _GET_LUID(get_luid))
    return ctypes.cast(made, ctypes.c_void_p).value or 0, fake.module.CUdriverProcAddressQueryResult(0)


def cuDeviceTotalMem(fake: FakeCuda, device: Any) -> tuple[int]:
    """Bytes."""
    return (fake.gpus[int(device)].memory,)


def cuDeviceGetAttribute(fake: FakeCuda, attribute: Any, device: Any) -> tuple[int]:
    """What the CUDA device asks about; another attribute is a misuse."""
    gpu = fake.gpus[int(device)]
    answers = {
        "CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED": gpu.virtual_memory,
        "CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED": gpu.shares and POSIX,
        "CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_WIN32_HANDLE_SUPPORTED": gpu.shares and not POSIX,
        "CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY": gpu.maps_host,
        "CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED": gpu.registers_read_only,
    }
    known = fake.module.CUdevice_attribute
    for name, answer in answers.items():
        if attribute == getattr(known, name):
            return (int(answer),)
    raise fake.wrong(f"the fake does not know attribute {attribute}")


def cuDevicePrimaryCtxRetain(fake: FakeCuda, device: Any) -> tuple[Any]:
    """Counted."""
    context = fake.contexts[int(device)]
    context.retained += 1
    return (fake.module.CUcontext(context.handle),)


def cuDevicePrimaryCtxRelease(fake: FakeCuda, device: Any) -> None:
    """What lives on it must be gone by then, and it must not be current."""
    context = fake.contexts[int(device)]
    if not context.retained:
        raise fake.wrong(f"the context of device {context.ordinal} is released more often than retained")
    context.retained -= 1
    if not context.retained and context.ordinal in fake.stack:
        raise fake.wrong(f"the context of device {context.ordinal} is released while it is current")


def cuCtxPushCurrent(fake: FakeCuda, context: Any) -> None:
    """One of the primary contexts."""
    for known in fake.contexts:
        if known.handle == int(context) and known.retained:
            fake.stack.append(known.ordinal)
            return
    raise fake.wrong(f"{int(context):#x} is no retained context")


def cuCtxPopCurrent(fake: FakeCuda) -> tuple[Any]:
    """The one that was current."""
    if not fake.stack:
        raise fake.wrong("no context is current")
    return (fake.module.CUcontext(fake.contexts[fake.stack.pop()].handle),)


def cuCtxGetCurrent(fake: FakeCuda) -> tuple[Any]:
    """NULL where none is."""
    return (fake.module.CUcontext(fake.contexts[fake.stack[-1]].handle if fake.stack else 0),)


def cuStreamQuery(fake: FakeCuda, stream: Any) -> None:
    """Everything is done."""
    fake.current()


def cuStreamSynchronize(fake: FakeCuda, stream: Any) -> None:
    """Everything is done when it is asked for."""
    fake.current()
