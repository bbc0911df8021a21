"""Functions that initialize CUDA, query its GPUs, and manage contexts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from extmem.testing.fake_cuda.machine import NO_DEVICE, Refusal
from extmem.testing.fake_cuda.sharing import POSIX

if TYPE_CHECKING:
    from extmem.testing.fake_cuda.machine import FakeCuda

__all__: list[str] = []

_VERSION = 13_000
_NOT_SUPPORTED = 801
_NODE_MASK = 1


def cuInit(fake: FakeCuda, flags: int) -> None:
    """Initialize CUDA. Fails without a GPU, like the real function."""
    if not fake.gpus:
        raise Refusal(NO_DEVICE)
    fake.initialized = True


def cuDriverGetVersion(fake: FakeCuda) -> tuple[int]:
    """Return the version of CUDA 13.0."""
    return (_VERSION,)


def cuDeviceGetCount(fake: FakeCuda) -> tuple[int]:
    """Return the number of GPUs."""
    return (len(fake.gpus),)


def cuDeviceGet(fake: FakeCuda, ordinal: int) -> tuple[Any]:
    """Return the device, which is its ordinal."""
    if not 0 <= ordinal < len(fake.gpus):
        raise fake.wrong(f"there is no device {ordinal}")
    return (fake.module.CUdevice(ordinal),)


def cuDeviceGetName(fake: FakeCuda, room: int, device: Any) -> tuple[bytes]:
    """Return the name, NUL-terminated and padded to the size of the buffer."""
    return (fake.gpus[int(device)].name.encode()[: room - 1].ljust(room, b"\0"),)


def cuDeviceGetUuid(fake: FakeCuda, device: Any) -> tuple[Any]:
    """Return a CUuuid."""

    class Uuid:
        bytes = fake.gpus[int(device)].uuid

    return (Uuid(),)


def cuDeviceGetLuid(fake: FakeCuda, device: Any) -> tuple[bytes, int]:
    """Return the LUID (Windows only). As by cuda-bindings, it is cut at its first zero byte."""
    if POSIX:
        raise Refusal(_NOT_SUPPORTED)
    return (fake.gpus[int(device)].luid.partition(b"\0")[0], _NODE_MASK)


def cuDeviceTotalMem(fake: FakeCuda, device: Any) -> tuple[int]:
    """Return the GPU's memory in bytes."""
    return (fake.gpus[int(device)].memory,)


def cuDeviceGetAttribute(fake: FakeCuda, attribute: Any, device: Any) -> tuple[int]:
    """Return an attribute that the CUDA device uses; any other is a misuse."""
    gpu = fake.gpus[int(device)]
    answers = {
        "CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED": gpu.virtual_memory,
        "CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED": gpu.shares and POSIX,
        "CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_WIN32_HANDLE_SUPPORTED": gpu.shares and not POSIX,
        "CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY": gpu.maps_host,
        "CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED": gpu.registers_read_only,
        "CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS": gpu.waits_for_words,
    }
    known = fake.module.CUdevice_attribute
    for name, answer in answers.items():
        if attribute == getattr(known, name):
            return (int(answer),)
    raise fake.wrong(f"the fake does not support attribute {attribute}")


def cuDevicePrimaryCtxRetain(fake: FakeCuda, device: Any) -> tuple[Any]:
    """Retain the primary context; each call needs a release."""
    context = fake.contexts[int(device)]
    context.retained += 1
    return (fake.module.CUcontext(context.handle),)


def cuDevicePrimaryCtxRelease(fake: FakeCuda, device: Any) -> None:
    """Release the primary context. After the last release it must not be current."""
    context = fake.contexts[int(device)]
    if not context.retained:
        raise fake.wrong(f"the context of device {context.ordinal} is released more often than retained")
    context.retained -= 1
    if not context.retained and context.ordinal in fake.stack:
        raise fake.wrong(f"the context of device {context.ordinal} is released while it is current")


def cuCtxPushCurrent(fake: FakeCuda, context: Any) -> None:
    """Make a retained primary context current."""
    for known in fake.contexts:
        if known.handle == int(context) and known.retained:
            fake.stack.append(known.ordinal)
            return
    raise fake.wrong(f"{int(context):#x} is not a retained context")


def cuCtxPopCurrent(fake: FakeCuda) -> tuple[Any]:
    """Return the context that was current."""
    if not fake.stack:
        raise fake.wrong("no context is current")
    return (fake.module.CUcontext(fake.contexts[fake.stack.pop()].handle),)


def cuCtxGetCurrent(fake: FakeCuda) -> tuple[Any]:
    """Return the current context; NULL where there is none."""
    return (fake.module.CUcontext(fake.contexts[fake.stack[-1]].handle if fake.stack else 0),)
