"""Submission of commands: recorded, submitted to the device's queue, and waited for.

How this works. One queue, one command buffer and one fence serve a device. They are made at the first use, and used
under a lock. Memory that is shared with other processes belongs to VK_QUEUE_FAMILY_EXTERNAL while it is not used: each
use acquires it first and releases it at the end (queue family ownership transfers), so that what the device cached is
written back and what other processes wrote is visible.

Each submission is waited for, in short waits: signal handlers run between two, and an exception of one ends the wait.
So does a minute without an end. The commands may still run then, and nothing that they use may be released: it is held,
with the device, until a later call finds that they are done. What still runs when the process ends is left to the
system: a driver that is to destroy what a queue uses may wait for that without an end.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Sequence
from itertools import starmap
from typing import TYPE_CHECKING, Any, Final

from extmem import vk
from extmem.devices.vulkan.commands import VulkanRecorder
from extmem.devices.vulkan.owners import VkObject
from extmem.errors import DriverError
from extmem.owning import Lock, Step, Uses, do_last, late_imports
from extmem.vk.abi import ffi

if TYPE_CHECKING:
    from extmem.devices.vulkan.logical import LogicalDevice
    from extmem.devices.vulkan.memory import QueueOwner, VulkanAllocation
    from extmem.devices.vulkan.transfer_buffers import TransferBuffers

__all__ = ["Submissions"]

_SLICE_NS = 50_000_000
"""Nanoseconds of one wait: signal handlers run between two."""
_PATIENCE_S = 60.0
"""Seconds that commands may take: the library's copies and fills, and a program's."""
_TRIES = 4
_TIMEOUT = int(vk.Result.TIMEOUT)
_LOST = int(vk.Result.ERROR_DEVICE_LOST)
_S = vk.StructureType
_Access = vk.AccessFlagBits
_Stage = vk.PipelineStageFlagBits
_EXTERNAL = int(vk.QUEUE_FAMILY_EXTERNAL)
_MOVES = _Access.TRANSFER_READ | _Access.TRANSFER_WRITE
_HOST = _Access.HOST_READ | _Access.HOST_WRITE
_running_submissions: Final[set[Submissions]] = set()
"""Those with submitted commands that may still run. Each is kept alive here, with all that these use."""


class Submissions:
    """The queue of a device, with its command buffer and fence. Ownership: everything is released by `close`."""

    def __init__(self, device: LogicalDevice, buffers: TransferBuffers, drain: Callable[[], None]) -> None:
        """drain: waits for batches that were submitted and not waited for (`sync_submission`)."""
        self._device = device
        self._drain = drain
        self._buffers = buffers
        self._commands = device.commands
        self.lock = Lock(reentrant=True)
        """Held while commands are recorded, submitted and waited for."""
        self._pool: VkObject | None = None
        self._fence: VkObject | None = None
        self._signaled = False
        """Whether the fence has to be reset."""
        self._buffer: list[Step] = []
        """The call that frees the command buffer, which its last argument contains; empty before one is allocated."""
        self._submitted: list[int] = []
        """The VkResult of a submission whose end was not seen. It is recorded when the call returns."""
        self._running = Uses()
        """What such a submission uses, held."""
        self._owners: list[tuple[VulkanAllocation, QueueOwner]] = []
        """The owners of what it uses, once it is submitted, in the order of its barriers."""
        self._patience = _PATIENCE_S
        """Seconds that a wait may take; 0 once one took too long, so that calls only check whether it is done."""
        self._queue = ffi.cast("VkQueue", device.queue)

    def run(
        self,
        record: Callable[[VulkanRecorder], None],
        used: Sequence[VulkanAllocation] = (),
        uses: Uses | None = None,
        owners: Sequence[tuple[VulkanAllocation, QueueOwner]] = (),
    ) -> None:
        """Record, submit, wait. used: memory that is acquired before and released after, unless it is held.

        uses: what else the commands use. It is not freed before the device is done, also if an exception ends the wait.
        owners: the owners of memory afterwards, by barriers of `record`.
        """
        self._drain()
        with self.lock:
            self._finish()
            shared = [a for a in used if a.handle_types and a.owner != "held"]
            try:
                for allocation in used:
                    self._running.add(allocation.keeper)
                    self._running.add(self._buffers.buffer_of(allocation).keeper)
                if uses is not None:
                    self._running.add_all(uses)
                recorder = VulkanRecorder(self._commands, self._begin())
                self._transfer_ownership(recorder, [a for a in shared if a.owner == "external"], acquire=True)
                record(recorder)
                self._transfer_ownership(recorder, shared, acquire=False)
                self._owners = [*((allocation, "external") for allocation in shared), *owners]
                self._submit()
            except BaseException:
                if not self._submitted:
                    _running_submissions.discard(self)
                    if self._buffer:  # its recording failed; the next submission begins another one
                        do_last(self._buffer)
                    self._running.end()
                raise
            self._finish()

    def _transfer_ownership(
        self, recorder: VulkanRecorder, allocations: list[VulkanAllocation], *, acquire: bool
    ) -> None:
        """Record transfers of ownership from or to VK_QUEUE_FAMILY_EXTERNAL, and barriers with the host."""
        ours = self._device.queue_family
        sides = (_EXTERNAL, ours) if acquire else (ours, _EXTERNAL)
        nothing = _Access(0)
        barriers = [
            vk.BufferMemoryBarrier(
                nothing if acquire else _MOVES,
                _MOVES if acquire else nothing,
                *sides,
                self._buffers.buffer_of(allocation).live,
                0,
                int(vk.WHOLE_SIZE),
            )
            for allocation in allocations
        ]
        memory = vk.MemoryBarrier(_HOST, _MOVES) if acquire else vk.MemoryBarrier(_MOVES, _HOST)
        before = _Stage.TOP_OF_PIPE | _Stage.HOST if acquire else _Stage.TRANSFER
        after = _Stage.TRANSFER if acquire else _Stage.BOTTOM_OF_PIPE | _Stage.HOST
        recorder.barrier(int(before), int(after), [memory], barriers)

    def _begin(self) -> Any:
        device, vulkan = self._device, self._commands
        if self._pool is None:
            reset = int(vk.CommandPoolCreateFlagBits.RESET_COMMAND_BUFFER)
            info = ffi.new(
                "VkCommandPoolCreateInfo *", (int(_S.COMMAND_POOL_CREATE_INFO), ffi.NULL, reset, device.queue_family)
            )
            self._pool = self._made(
                vulkan.vkCreateCommandPool, info, vulkan.vkDestroyCommandPool, "vkCreateCommandPool"
            )
        if self._fence is None:
            fence = ffi.new("VkFenceCreateInfo *", (int(_S.FENCE_CREATE_INFO),))
            self._fence = self._made(vulkan.vkCreateFence, fence, vulkan.vkDestroyFence, "vkCreateFence")
        if not self._buffer:
            request = ffi.new(
                "VkCommandBufferAllocateInfo *", (int(_S.COMMAND_BUFFER_ALLOCATE_INFO), ffi.NULL, self._pool.raw, 0, 1)
            )
            made = ffi.new("VkCommandBuffer *")
            device.check(vulkan.vkAllocateCommandBuffers(device.handle, request, made), "vkAllocateCommandBuffers")
            self._buffer.append((vulkan.vkFreeCommandBuffers, device.handle, self._pool.raw, 1, made))
        begin = ffi.new(
            "VkCommandBufferBeginInfo *",
            (int(_S.COMMAND_BUFFER_BEGIN_INFO), ffi.NULL, int(vk.CommandBufferUsageFlagBits.ONE_TIME_SUBMIT)),
        )
        buffer = self._buffer[0][-1][0]
        device.check(vulkan.vkBeginCommandBuffer(buffer, begin), "vkBeginCommandBuffer")
        return buffer

    def _made(self, command: Any, info: Any, destroy: Any, name: str) -> VkObject:
        device, made, owner = self._device, ffi.new("uint64_t *"), VkObject(self._device.owner)
        making = owner.make(command, (device.handle, info, ffi.NULL, made), made, destroy)
        device.check(making.result, name)
        return owner

    def _submit(self) -> None:
        device, vulkan, fence, buffers = self._device, self._commands, self._raw_fence, self._buffer[0][-1]
        device.check(vulkan.vkEndCommandBuffer(buffers[0]), "vkEndCommandBuffer")
        info = ffi.new(
            "VkSubmitInfo *", {"sType": int(_S.SUBMIT_INFO), "commandBufferCount": 1, "pCommandBuffers": buffers}
        )
        if self._signaled:
            device.check(vulkan.vkResetFences(device.handle, 1, ffi.new("uint64_t *", fence)), "vkResetFences")
            self._signaled = False
        _running_submissions.add(self)
        with device.queue_lock:
            self._submitted.extend(starmap(vulkan.vkQueueSubmit, ((self._queue, 1, info, fence),)))
        result = self._submitted[0]
        if result:
            self._submitted.clear()
            device.check(result, "vkQueueSubmit")

    @property
    def _raw_fence(self) -> int:
        return self._fence.raw if self._fence is not None else 0

    def _finish(self) -> None:
        """Wait for what was submitted, if anything was.

        While it may run, nothing that it uses may be released: so a failed wait is tried again. A lost device runs
        nothing any more. Signal handlers run meanwhile; what they raise ends the wait, not the commands.
        Errors: DriverError, also for commands that do not end within `_PATIENCE_S`; OutOfMemoryError.
        """
        if not self._submitted:
            return
        if self._submitted[0]:  # it was refused, and an exception came before `_submit` had recorded that
            self._settle()
            return
        # The commands run, whether or not their end is seen. If an exception came before this, it is done at the next
        # call, before an owner is read.
        for allocation, owner in self._owners:
            allocation.owner = owner
        fence, result, failures = ffi.new("uint64_t *", self._raw_fence), _TIMEOUT, 0
        until, wait = time.monotonic() + self._patience, _SLICE_NS if self._patience else 0
        while result not in (0, _LOST) and failures < _TRIES:
            result = self._commands.vkWaitForFences(self._device.handle, 1, fence, 1, wait)
            failures += result not in (0, _LOST, _TIMEOUT)
            if time.monotonic() >= until:
                break
        if result == _TIMEOUT:
            self._patience = 0.0
            raise DriverError(
                f"vkWaitForFences on {self._device.name}: commands that were submitted do not end (the wait was "
                f"{_PATIENCE_S:.0f} seconds at first); what they use is held until they do. Try again later; if the "
                "device hangs, end this process",
                result=result,
                command="vkWaitForFences",
                devices=[self._device.name],
            )
        if result in (0, _LOST):
            self._signaled = True
            self._patience = _PATIENCE_S
            self._settle()
        self._device.check(result, "vkWaitForFences", "what was just submitted")

    def _settle(self) -> None:
        """Release what the submission used: it is done."""
        self._owners = []
        self._submitted.clear()
        self._running.end()
        _running_submissions.discard(self)

    def finish(self) -> None:
        """Wait for what was submitted, if anything was. A lost device runs nothing any more. Errors: as `_finish`."""
        with self.lock:
            try:
                self._finish()
            except DriverError:
                if self._submitted:
                    raise

    def close(self) -> None:
        """Release everything, when what was submitted is done. Safe to repeat, also after an exception.

        Errors: as `finish`, for commands that may still run: nothing was released then.
        """
        with self.lock:
            self.finish()
            self._buffer.clear()  # it ends with its pool
            for made in (self._fence, self._pool):
                if made is not None:
                    made.settle()
            self._fence = self._pool = None
            self._signaled = False


@atexit.register
def _keep_running_submissions() -> None:
    """Keep what still runs when the process ends, so that it is never released."""
    for submissions in list(_running_submissions):
        with late_imports():
            import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(submissions))  # never lost, so never released
