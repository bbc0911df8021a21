"""`SyncMembers`: the members of `SyncBackend` and `OrdersStreams` of a `CudaBackend`.

Their modules are imported by the first call: a program that uses memory alone loads none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from extmem.owning import Lock, late_imports

if TYPE_CHECKING:
    from extmem import vk
    from extmem.devices.backend import Allocation
    from extmem.devices.cuda.logical import LogicalDevice
    from extmem.devices.cuda.submission import Submissions
    from extmem.devices.cuda.sync import CudaSync
    from extmem.devices.sync import Batch, FenceSpec, NativeFence, NativeSemaphore, SemaphoreSpec
    from extmem.devices.types import ExaminedFd
    from extmem.owning import Uses
    from extmem.vk.handle_types import SyncHandleType

__all__ = ["SyncMembers"]


class SyncMembers:
    """See the module, and the two protocols."""

    max_timeline_difference = (1 << 63) - 1
    """Streams compare 64-bit words cyclically (CU_STREAM_WAIT_VALUE_GEQ)."""
    timelines = fences = "host"
    """CUDA makes no semaphores: a timeline is a page of the host, for which streams wait."""

    def __init__(self, device: LogicalDevice, submissions: Submissions) -> None:
        self._parts = device, submissions
        self._making_sync = Lock()
        self._sync_or_none: CudaSync | None = None

    @property
    def sync(self) -> CudaSync:
        """The device's semaphores and fences."""
        found = self._sync_or_none
        if found is None:
            with late_imports():
                from extmem.devices.cuda.sync import CudaSync

            with self._making_sync:
                found = self._sync_or_none
                if found is None:
                    found = self._sync_or_none = CudaSync(*self._parts)
        return found

    def external_semaphore_properties(
        self, info: vk.PhysicalDeviceExternalSemaphoreInfo
    ) -> vk.ExternalSemaphoreProperties:
        return self.sync.semaphore_properties(info)

    def external_fence_properties(self, info: vk.PhysicalDeviceExternalFenceInfo) -> vk.ExternalFenceProperties:
        return self.sync.fence_properties(info)

    def create_semaphore(self, spec: SemaphoreSpec) -> NativeSemaphore:
        return self.sync.create_semaphore(spec)

    def create_fence(self, spec: FenceSpec) -> NativeFence:
        return self.sync.create_fence(spec)

    def examine_sync_fd(
        self,
        fd: int,
        handle_type: SyncHandleType,
        *,
        fence: bool = False,
        timeline: bool = False,
        trusted: bool = False,
    ) -> ExaminedFd:
        return self.sync.examine(fd, handle_type, fence=fence, timeline=timeline, trusted=trusted)

    def wait_semaphores(
        self, waits: Sequence[tuple[NativeSemaphore, int]], *, any_of: bool = False, timeout_ns: int = 0
    ) -> bool:
        return self.sync.wait_semaphores(waits, any_of=any_of, timeout_ns=timeout_ns)

    def wait_fences(self, fences: Sequence[NativeFence], *, any_of: bool = False, timeout_ns: int = 0) -> bool:
        return self.sync.wait_fences(fences, any_of=any_of, timeout_ns=timeout_ns)

    def submit_batches(
        self, batches: Sequence[Batch], fence: NativeFence | None, uses: Uses, *, wait: bool = False
    ) -> None:
        self.sync.submit_batches(batches, fence, uses, wait=wait)

    def stream_wait(self, stream: int, waits: Sequence[tuple[NativeSemaphore, int]]) -> None:
        self.sync.stream_wait(stream, waits)

    def stream_signal(self, stream: int, signals: Sequence[tuple[NativeSemaphore, int]]) -> None:
        self.sync.stream_signal(stream, signals)

    def hold_until_done(self, stream: int, allocation: Allocation) -> None:
        self.sync.hold_until_done(stream, allocation)

    def add_graph_wait(
        self, graph: int, waits: Sequence[tuple[NativeSemaphore, int]], dependencies: Sequence[int] = ()
    ) -> int:
        return self.sync.add_graph_wait(graph, waits, dependencies)

    def add_graph_signal(
        self, graph: int, signals: Sequence[tuple[NativeSemaphore, int]], dependencies: Sequence[int] = ()
    ) -> int:
        return self.sync.add_graph_signal(graph, signals, dependencies)

    def finish_sync(self) -> None:
        """Release what no stream uses any more, if there is anything."""
        if self._sync_or_none is not None:
            self._sync_or_none.work_off()

    def close_sync(self) -> None:
        """Release what belongs to the device. Safe to call twice."""
        if self._sync_or_none is not None:
            self._sync_or_none.close()
