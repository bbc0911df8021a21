"""`CudaSemaphore`: a semaphore that other code shares by a handle, for streams, by CUDA's name of its type."""

from __future__ import annotations

from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from extmem.arguments import CheckedWhenMade
from extmem.core import sync_operations
from extmem.core.sync_object import SemaphoreObject
from extmem.errors import UnsupportedError
from extmem.interop.streams import stream_address
from extmem.owning import Uses, late_imports
from extmem.vk.handle_types import NO_SEMAPHORE_TYPES, OPAQUE_FD

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.core.sync_record import SemaphoreRecord
    from extmem.devices.cuda.sync import CudaSync

__all__ = ["CudaSemaphore", "StreamTimeline", "import_by_name", "stream_timeline"]

_INFINITE_MS = 0xFFFF_FFFF


class CudaSemaphore(CheckedWhenMade):
    """A semaphore of another API on a CUDA device, made by `extmem.raw.cuda_semaphore`. Ownership: until `close`.

    It is for types that Vulkan's handle types do not name: fences and keyed mutexes of Direct3D 11. Neither the host
    nor this object knows its value. Close it before the device.
    """

    __slots__ = ("_native", "_streams")
    _made_by = "extmem.raw.cuda_semaphore(…)"

    @classmethod
    def _is_from_library(cls, given: tuple[Any, ...]) -> bool:
        return len(given) == 2 and hasattr(given[1], "closing")

    def __init__(self, streams: Any, native: Any) -> None:
        """streams: the device's `Streams`. native: the `StreamSemaphore`, which this object owns."""
        self._streams = streams
        self._native = native

    def wait(self, stream: object, value: int = 0, timeout_ms: int = _INFINITE_MS) -> None:
        """Make later work of the stream wait until the value is reached; acquire a keyed mutex with this key.

        stream: as for `DeviceMemory.access`. value: of a fence or timeline, or a key; ignored for binary semaphores.
        timeout_ms: of a keyed mutex, in milliseconds; without end by default. When it has passed, the stream fails with
            CUDA_ERROR_TIMEOUT.
        Errors: DriverError; HandleStateError once closed; TypeError.
        """
        self._streams.wait(stream_address(stream), ((self._native, value),), timeout_ms)

    def signal(self, stream: object, value: int = 0) -> None:
        """Signal the value when earlier work of the stream is done; release a keyed mutex with this key. As `wait`."""
        self._streams.signal(stream_address(stream), ((self._native, value),))

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        closing: bool = self._native.closing
        return closing

    def close(self) -> None:
        """Destroy it (cuDestroyExternalSemaphore), once no stream uses it. Safe to call twice."""
        self._streams.finish()
        self._native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class StreamTimeline(CheckedWhenMade):
    """A timeline for streams of a CUDA device, made by `extmem.raw.stream_timeline`. It owns nothing.

    Its calls give waits and signals to a stream, and do nothing else: for programs that make thousands of them a
    second. It can be used as long as the timeline is open.
    """

    __slots__ = ("_native", "_record", "_semaphore", "_streams", "_timeline")
    _made_by = "extmem.raw.stream_timeline(…)"
    _made_of = SemaphoreObject

    def __init__(self, timeline: SemaphoreObject, record: SemaphoreRecord, streams: Any) -> None:
        """record: of the timeline's payload on the device. streams: the device's `Streams`."""
        self._timeline = timeline
        self._record = record
        self._native: Any = record.native
        self._semaphore: Any = None
        """What streams use of the payload, once one has: `_found` finds it."""
        self._streams = streams

    def _found(self) -> Any:
        semaphore = self._semaphore
        if semaphore is None or semaphore.closing:  # closed, or replaced by an import
            semaphore = self._semaphore = self._native.on_streams()
        return semaphore

    def wait(self, stream: object, value: int) -> None:
        """Make later work of the stream wait until the value is reached. Returns at once.

        stream: as for `DeviceMemory.access`. Errors: HandleStateError once the timeline is closed; DriverError;
        TypeError.
        """
        if type(stream) is not int:
            stream = stream_address(stream)
        semaphore = self._semaphore
        if semaphore is not None and not semaphore.closing:
            lane = semaphore.lanes.get((stream, get_ident()))
            if lane is not None and lane.wait_program is not None:
                self._streams.wait_for_one(semaphore, lane, lane.wait_program, value)
                return
        with self._record.use():
            self._streams.wait(stream, ((self._found(), value),))

    def signal(self, stream: object, value: int) -> None:
        """Signal the value when earlier work of the stream is done, and wake who waits for it. Returns at once.

        Errors: AccessDeniedError without the right to signal; as `wait`.
        """
        if type(stream) is not int:
            stream = stream_address(stream)
        semaphore = self._semaphore
        if semaphore is not None and not semaphore.closing:
            lane = semaphore.lanes.get((stream, get_ident()))
            if lane is not None and lane.signal_program is not None:
                self._streams.signal_one(semaphore, lane, lane.signal_program, value)
                return
        with self._record.use():
            self._streams.signal(stream, ((self._found(), value),))


def stream_timeline(device: DeviceState, timeline: SemaphoreObject) -> StreamTimeline:
    """`extmem.raw.stream_timeline`."""
    with Uses(device) as uses:
        record = uses.add(timeline.record)
        mine = sync_operations.stream_order.on_device(record, device, uses)
        return StreamTimeline(timeline, mine, _sync_of(device).streams)


def _sync_of(device: DeviceState) -> CudaSync:
    sync: CudaSync | None = getattr(device.backend, "sync", None) if device.kind == "cuda" else None
    if sync is None:
        raise UnsupportedError(
            f"{device.name} ({device.kind}) is no CUDA device; open the GPU with kind='cuda'",
            requires_one_of=["a CUDA device"],
        )
    return sync


def import_by_name(
    device: DeviceState, kind: str, handle: int | str, uuid: bytes | None, luid: bytes | None
) -> CudaSemaphore:
    """`extmem.raw.cuda_semaphore`."""
    with late_imports():
        from extmem.devices.sync import SyncSource
        from extmem.devices.types import ExaminedFd

    with device.use():
        sync = _sync_of(device)
        name = handle if isinstance(handle, str) else None
        number = 0 if isinstance(handle, str) else int(handle)
        examined = ExaminedFd(number, OPAQUE_FD, "other") if kind.endswith("_FD") else None
        source = SyncSource(NO_SEMAPHORE_TYPES, fd=examined, handle=number, name=name, device_uuid=uuid, luid=luid)
        return CudaSemaphore(sync.streams, sync.import_by_name(kind, source))
