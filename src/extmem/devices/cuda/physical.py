"""`Gpu`: a GPU as CUDA reports it in this process, and its primary context."""

from __future__ import annotations

import ctypes
from collections import deque
from functools import cached_property
from itertools import starmap
from types import TracebackType
from typing import TYPE_CHECKING, Any

from extmem.devices.cuda.handle_types import CAPABILITY, WIN32_IS_NATIVE
from extmem.devices.cuda.owners import Undo, take, undo_all
from extmem.devices.cuda.results import check, value_of
from extmem.devices.types import DeviceIdentity
from extmem.errors import UnsupportedError
from extmem.owning import Held, Lock, Owner, cleanup_thread, late_imports

if TYPE_CHECKING:
    from extmem.devices.cuda.host_registration import Registrations
    from extmem.devices.cuda.pinned_ring import PinnedRing
    from extmem.owning import Step

__all__ = ["RANK", "Gpu", "look"]

RANK = 15
"""After a discrete GPU's Vulkan device, which has more capabilities; before every other device."""
_NAME_ROOM = 256
_TRIES = 3
_LUID_SINCE = 10_000
_GET_LUID = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
"""cuDeviceGetLuid(char *luid, unsigned int *deviceNodeMask, CUdevice dev), since CUDA 10.0."""
_WANTED = {
    "CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED": "virtual_memory",
    "CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED": "posix_fd",
    "CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_WIN32_HANDLE_SUPPORTED": "win32_handle",
    "CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY": "maps_host",
    "CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED": "registers_read_only",
}


def look(module: Any) -> list[Gpu]:
    """Start CUDA and list its GPUs. Errors: UnsupportedError without a driver library or a GPU; DriverError."""
    try:
        (result,) = module.cuInit(0)
    except (RuntimeError, OSError) as error:  # cuda-bindings found no libcuda, or one without what it needs
        raise UnsupportedError(
            f"the CUDA driver library is not here ({error}); install NVIDIA's driver for the GPU",
            requires_one_of=["the NVIDIA driver (libcuda.so.1, nvcuda.dll)"],
        ) from error
    check(result, "cuInit")
    version = value_of(module.cuDriverGetVersion(), "cuDriverGetVersion")
    count = value_of(module.cuDeviceGetCount(), "cuDeviceGetCount")
    return [Gpu(module, ordinal, int(version)) for ordinal in range(int(count))]


class Gpu:
    """A GPU. Its primary context is retained while devices of it are open. It has the registrations of host memory."""

    def __init__(self, module: Any, ordinal: int, version: int) -> None:
        self.module = module
        self.ordinal = ordinal
        """CUDA's number of it in this process, which frameworks use too."""
        number = f"CUDA device {ordinal}"
        self.device = value_of(module.cuDeviceGet(ordinal), "cuDeviceGet", number)
        raw_name = value_of(module.cuDeviceGetName(_NAME_ROOM, self.device), "cuDeviceGetName", number)
        self.name = bytes(raw_name).partition(b"\0")[0].decode("utf-8", "replace")
        uuid = value_of(module.cuDeviceGetUuid(self.device), "cuDeviceGetUuid", self.name)
        self.total_memory = int(value_of(module.cuDeviceTotalMem(self.device), "cuDeviceTotalMem", self.name))
        """Bytes."""
        luid, node_mask = self._luid()
        self.identity = DeviceIdentity(
            device_uuid=bytes(uuid.bytes),
            driver_uuid=bytes(16),
            luid=luid,
            node_mask=node_mask,
            device_name=self.name,
            driver_name="NVIDIA CUDA",
            driver_version=f"{version // 1000}.{version % 1000 // 10}",
        )
        self.can = {word: self.attribute(name) for name, word in _WANTED.items()}
        """Its attributes, by a short name for each (`_WANTED`)."""
        self.pool_allocator: Any = None
        """The allocator of frameworks (`PoolAllocator`), once there is one. It is not destroyed."""
        self._lock = Lock()
        self.context: Any = None
        """The primary context (CUcontext) while it is retained."""
        self.current = Current(module, None, self.name)
        self._ring: PinnedRing | None = None
        self._left: deque[tuple[Undo, memoryview, Held]] = deque()
        """The calls that release lost allocations, with a hold on their device each."""
        self._working = Lock(reentrant=True)
        """Held while resources are released: in their order, also if two threads release the same ones."""

    def _luid(self) -> tuple[bytes | None, int]:
        if not WIN32_IS_NATIVE:
            return None, 0
        # cuda-bindings returns the LUID as a C string, which ends at its first zero byte: the driver is called itself.
        result, address, _ = self.module.cuGetProcAddress(b"cuDeviceGetLuid", _LUID_SINCE, 0)
        if result or not address:
            return None, 0
        luid, mask = ctypes.create_string_buffer(8), ctypes.c_uint()
        failed = _GET_LUID(address)(ctypes.addressof(luid), ctypes.addressof(mask), int(self.device))
        return (None, 0) if failed else (luid.raw, mask.value)  # a device without graphics has none

    def attribute(self, name: str) -> int:
        """cuDeviceGetAttribute, by the name of the enumerator. Errors: DriverError."""
        answer = self.module.cuDeviceGetAttribute(getattr(self.module.CUdevice_attribute, name), self.device)
        return int(value_of(answer, "cuDeviceGetAttribute", self.name))

    @cached_property
    def registrations(self) -> Registrations:
        """Host payloads that are registered with this GPU."""
        with late_imports():
            from extmem.devices.cuda.host_registration import Registrations

        return Registrations(self.module, self.name, self.can)

    @property
    def ring(self) -> PinnedRing:
        """The pinned memory that long copies go through; made at the first use."""
        with late_imports():
            from extmem.devices.cuda.pinned_ring import PinnedRing

        with self._lock:
            if self._ring is None:
                self._ring = PinnedRing(self)
            return self._ring

    def release_ring(self, device: Held) -> None:
        """Release the ring, if this device made it."""
        if self._ring is not None:
            self._ring.release(device)

    @property
    def shares(self) -> bool:
        """Whether its memory can be exported by the handle type of this system."""
        return bool(self.can[CAPABILITY])

    # The primary context.

    def retain(self) -> Owner:
        """cuDevicePrimaryCtxRetain, which counts; the result owes the release. Errors: DriverError."""
        retained, undo = Owner(), Undo()
        step = (self.module.cuDevicePrimaryCtxRelease, self.device)
        answer = take(undo, step, self.module.cuDevicePrimaryCtxRetain, self.device)
        context = value_of(answer, "cuDevicePrimaryCtxRetain", self.name)
        retained.owe(undo)
        with self._lock:
            if self.context is None or int(context) != int(self.context):
                self.context = context
                self.current = Current(self.module, context, self.name)
        return retained

    def when_lost(self, undo: Undo, hold: memoryview, device: Held) -> tuple[Step, Step]:
        """The steps of an allocation that leave its undoing to the GPU if it is lost. `hold` keeps `device`."""
        return (self._left.append, (undo, hold, device)), cleanup_thread.step(self.undo_left)

    def undo_left(self) -> None:
        """Release lost allocations."""
        with self._working:
            while self._left:
                undo, hold, device = self._left[0]
                self.undo(undo)
                hold.release()
                if device.closing:
                    device.end()
                self._left.popleft()

    def undo(self, undo: Undo) -> None:
        """Release resources in the primary context. Never raises: with the context, everything in it is released."""
        with self._working:
            if not undo:
                return
            # It is tried without the context too: what fails then was released with it.
            for _ in range(_TRIES):
                result = self.current.push()
                if not result:
                    break
            try:
                undo_all(undo)
            finally:
                if not result:
                    self.current.pop()


class Current:
    """`with gpu.current:` the GPU's primary context is current; afterwards what was current before is again.

    One serves all threads: CUDA keeps the stack of contexts for each.
    """

    __slots__ = ("_arguments", "_name", "_push", "pop")

    def __init__(self, module: Any, context: Any, name: str) -> None:
        self._push, self.pop, self._arguments, self._name = (
            module.cuCtxPushCurrent,
            module.cuCtxPopCurrent,
            ((context,),),
            name,
        )

    def push(self) -> Any:
        """cuCtxPushCurrent; its CUresult. After an exception the context is not current."""
        results: list[Any] = []
        try:
            results.extend(starmap(self._push, self._arguments))  # one call: pushed and noted, or neither
        except BaseException:
            if results and not results[0][0]:
                self.pop()
            raise
        return results[0][0]

    def __enter__(self) -> None:
        check(self.push(), "cuCtxPushCurrent", self._name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pop()
