"""`CudaSync`: semaphores and fences of the CUDA device, and what its streams do with them. A part of the backend.

How this works. CUDA imports semaphores, and makes none that others can import. So a timeline of this device is a page
of the host (`semaphores`), a fence is the host's, and streams wait for both kinds of timelines (`stream_order`). The
device's own submissions use the default stream: its waits and signals are enqueued with the commands, and the call
returns. A fence is signaled by a thread that waits for the end of the submission (cuEventSynchronize).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, cast

from extmem import vk
from extmem.devices.cuda.commands import CudaRecorder
from extmem.devices.cuda.external_semaphores import import_semaphore
from extmem.devices.cuda.graph_nodes import GraphNodes
from extmem.devices.cuda.handle_types import WIN32_IS_NATIVE
from extmem.devices.cuda.owners import Undo
from extmem.devices.cuda.semaphores import CudaSemaphore, native_semaphore
from extmem.devices.cuda.stream_semaphores import StreamSemaphore
from extmem.devices.cuda.sync_check import examine
from extmem.devices.cuda.sync_parts import SyncParts
from extmem.devices.host import sync as host
from extmem.devices.sync import Batch, FenceSpec, NativeFence, NativeSemaphore, SemaphoreSpec, SyncSource
from extmem.errors import HandleStateError, UnsupportedError
from extmem.owning import Uses
from extmem.vk.handle_types import SEMAPHORE_D3D12_FENCE, SEMAPHORE_OPAQUE_TYPES, SEMAPHORE_OPAQUE_WIN32_KMT

if TYPE_CHECKING:
    from extmem.devices.backend import Allocation
    from extmem.devices.cuda.logical import LogicalDevice
    from extmem.devices.cuda.memory import CudaAllocation
    from extmem.devices.cuda.stream_order import Marked
    from extmem.devices.cuda.submission import Submissions
    from extmem.devices.host.event_fence import HostFence

__all__ = ["CudaSync"]

_Pairs = Sequence[tuple[CudaSemaphore, int]]
_Feature = vk.ExternalSemaphoreFeatureFlagBits
_Type = vk.ExternalSemaphoreHandleTypeFlagBits


class CudaSync(SyncParts):
    """The semaphores and fences of one device."""

    def __init__(self, device: LogicalDevice, submissions: Submissions) -> None:
        super().__init__(device)
        self._submissions = submissions

    @cached_property
    def graph_nodes(self) -> GraphNodes:
        """The waits and signals as nodes of graphs."""
        return GraphNodes(self.device)

    # Semaphores and fences.

    def create_semaphore(self, spec: SemaphoreSpec) -> CudaSemaphore:
        """See `SyncBackend`. A binary semaphore has no payload before an import: CUDA makes none."""
        self.device.check_open()
        self.work_off()
        return CudaSemaphore(self, spec)

    def create_fence(self, spec: FenceSpec) -> NativeFence:
        """See `SyncBackend`."""
        self.device.check_open()
        return host.create_fence(spec)

    def semaphore_properties(self, info: vk.PhysicalDeviceExternalSemaphoreInfo) -> vk.ExternalSemaphoreProperties:
        """See `SyncBackend`: timelines are the host's, and both kinds of a driver's semaphores are imported."""
        chained = vk.find(info, vk.SemaphoreTypeCreateInfo)
        timeline = chained is not None and chained.semaphore_type == vk.SemaphoreType.TIMELINE
        if timeline and info.handle_type & SEMAPHORE_OPAQUE_TYPES:
            return host.semaphore_properties(info)
        known = SEMAPHORE_OPAQUE_TYPES | (SEMAPHORE_D3D12_FENCE if WIN32_IS_NATIVE else 0)
        no_timeline = SEMAPHORE_OPAQUE_WIN32_KMT if WIN32_IS_NATIVE else 0
        if not info.handle_type & (known & ~no_timeline if timeline else known):
            return vk.ExternalSemaphoreProperties()
        return vk.ExternalSemaphoreProperties(
            export_from_imported_handle_types=_Type(0),
            compatible_handle_types=_Type(int(info.handle_type)),
            external_semaphore_features=_Feature.IMPORTABLE,
        )

    fence_properties = staticmethod(host.fence_properties)
    examine = staticmethod(examine)

    def wait_semaphores(
        self, waits: Sequence[tuple[NativeSemaphore, int]], *, any_of: bool = False, timeout_ns: int = 0
    ) -> bool:
        """See `SyncBackend`. The host waits for pages."""
        timelines = [(native_semaphore(semaphore).host, value) for semaphore, value in waits]
        return host.wait_semaphores(timelines, any_of=any_of, timeout_ns=timeout_ns)

    wait_fences = staticmethod(host.wait_fences)

    # Streams.

    def stream_wait(self, stream: int, waits: Sequence[tuple[NativeSemaphore, int]]) -> None:
        """See `OrdersStreams`."""
        self.streams.wait(stream, [(one.on_streams(), value) for one, value in cast("_Pairs", waits)])

    def stream_signal(self, stream: int, signals: Sequence[tuple[NativeSemaphore, int]]) -> None:
        """See `OrdersStreams`."""
        self.streams.signal(stream, [(one.on_streams(), value) for one, value in cast("_Pairs", signals)])

    def hold_until_done(self, stream: int, allocation: Allocation) -> None:
        """See `OrdersStreams`. What earlier work has used is released first, if that work is done."""
        self.work_off()
        with Uses(cast("CudaAllocation", allocation)) as uses, self.device.gpu.current:
            self.streams.hold(stream, uses)

    def import_by_name(self, name: str, source: SyncSource) -> StreamSemaphore:
        """Import a semaphore by CUDA's name of its type, for streams. The caller closes it.

        source: borrowed. Errors: DriverError; UnsupportedError for a type that CUDA does not import.
        """
        device, undo = self.device, Undo()
        device.check_open()
        self.work_off()
        with device.gpu.current:
            try:
                external = int(import_semaphore(device, name, source, undo))
                return StreamSemaphore(device, self.streams.calls, undo, external=external, kind=name)
            except BaseException:
                device.gpu.undo(undo)
                raise

    def add_graph_wait(
        self, graph: int, waits: Sequence[tuple[NativeSemaphore, int]], dependencies: Sequence[int] = ()
    ) -> int:
        """See `OrdersStreams`."""
        self.device.check_open()
        pairs = [(native_semaphore(one).on_streams(), value) for one, value in waits]
        return self.graph_nodes.add_wait(graph, pairs, dependencies)

    def add_graph_signal(
        self, graph: int, signals: Sequence[tuple[NativeSemaphore, int]], dependencies: Sequence[int] = ()
    ) -> int:
        """See `OrdersStreams`."""
        self.device.check_open()
        pairs = [(native_semaphore(one).on_streams(), value) for one, value in signals]
        return self.graph_nodes.add_signal(graph, pairs, dependencies)

    # Submissions.

    def submit_batches(
        self, batches: Sequence[Batch], fence: NativeFence | None, uses: Uses, *, wait: bool = False
    ) -> None:
        """See `SyncBackend`. The batches use the default stream."""
        device, streams = self.device, self.streams
        device.check_open()
        self.work_off()
        for batch in batches:
            if batch.command_buffers or batch.chain:
                what = "command buffers" if batch.command_buffers else type(batch.chain[0]).__name__
                raise UnsupportedError(
                    f"vkQueueSubmit: {what} are given, and {device.name} by CUDA has streams, and no queue; record "
                    "the commands by device.commands(), or submit them on the Vulkan device",
                    requires_one_of=["a Vulkan device"],
                )
        last = cast("HostFence | None", fence)
        if last is not None:
            last.check_right()
        with device.gpu.current:
            try:
                for batch in batches:
                    if batch.waits:
                        self.stream_wait(0, [(one.semaphore, one.value) for one in batch.waits])
                    if batch.record is not None:
                        batch.record(CudaRecorder(device))
                    if batch.signals:
                        self.stream_signal(0, [(one.semaphore, one.value) for one in batch.signals])
            finally:
                marked = streams.hold(0, uses)
        if last is not None:
            threading.Thread(target=self._signal_fence, args=(marked, last), daemon=True).start()
        if wait:
            with device.gpu.current:
                self._submissions.finish()
            streams.finish()

    def _signal_fence(self, marked: Marked, fence: HostFence) -> None:
        """Signal a fence when the work is done, in a thread of its own."""
        # Another thread that has found the work done has destroyed the event.
        with contextlib.suppress(HandleStateError), self.device.gpu.current, marked.use():
            self.device.module.cuEventSynchronize(marked.event)
        fence.submit_signal()
