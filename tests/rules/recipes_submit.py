"""Hand-written calls that raise a rule: submissions, and operations of the host on timelines and fences."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from extmem import vk
from extmem.testing import fake_vulkan
from tests.rules.raising import broken_by
from tests.rules.recipes_world import World, recipe

__all__: list[str] = []

STAGE = vk.PipelineStageFlagBits.ALL_COMMANDS
FAR = 1 << 62


class Gpu:
    """A scripted GPU with semaphores and a fence. `gate` holds up work that waits for it until the end."""

    def __init__(self, world: World, **fields: Any) -> None:
        self.device: Any = world.gpu(**{"extensions": fake_vulkan.INTEGRATED.extensions, **fields})
        self.binary: Any = world.keep(self.device.create_semaphore(vk.SemaphoreCreateInfo()))
        self.line: Any = world.keep(self.device.timeline())
        self.gate: Any = world.keep(self.device.timeline())
        self.fence: Any = world.keep(self.device.fence())

    def submit(self, waits: Any = (), signals: Any = (), chain: Any = None, fence: Any = None, **fields: Any) -> None:
        """Submit one batch. A pair (timeline, value) or a binary semaphore each."""
        pairs = [[one if isinstance(one, tuple) else (one, 0) for one in each] for each in (waits, signals)]
        waited, signaled = ([one for one, _ in each] for each in pairs)
        values = vk.TimelineSemaphoreSubmitInfo(*([value for _, value in each] for each in pairs))
        given: dict[str, Any] = {
            "wait_semaphores": waited,
            "wait_dst_stage_mask": [STAGE] * len(waited),
            "signal_semaphores": signaled,
            "p_next": chain or values,
        }
        self.device.queue_submit([vk.SubmitInfo(**{**given, **fields})], fence)

    def submit2(self, waits: Any = (), signals: Any = (), fence: Any = None, one: Any = None, **fields: Any) -> None:
        """Submit one batch by vkQueueSubmit2. `one`: fields of each semaphore."""
        infos = [
            [
                vk.SemaphoreSubmitInfo(*(each if isinstance(each, tuple) else (each, 0)), **(one or {}))
                for each in semaphores
            ]
            for semaphores in (waits, signals)
        ]
        given: dict[str, Any] = {"wait_semaphore_infos": infos[0], "signal_semaphore_infos": infos[1]}
        self.device.queue_submit2([vk.SubmitInfo2(**{**given, **fields})], fence)

    @contextlib.contextmanager
    def held_up(self, signals: Any = (), fence: Any = None) -> Iterator[None]:
        """Submit a batch that stays unfinished for the time of the block."""
        self.submit([(self.gate, 1)], signals, fence=fence)
        try:
            yield
        finally:
            self.gate.signal(1)
            self.device.wait_semaphores(vk.SemaphoreWaitInfo(0, [self.gate], [1]), 10**10)


def on_gpu(*vuids: str) -> Callable[[Callable[[Gpu], Any]], None]:
    """Enter a call on the scripted GPU that breaks the rules."""

    def enter(call: Callable[[Gpu], Any]) -> None:
        def put(world: World) -> set[str]:
            gpu = Gpu(world)
            return broken_by(lambda: call(gpu))

        recipe(*vuids)(put)

    return enter


def both(first: str, second: str) -> Callable[[Callable[[Gpu, Callable[..., None]], Any]], None]:
    """Enter a call with either command: it gets the method that submits by it."""

    def enter(call: Callable[[Gpu, Callable[..., None]], Any]) -> None:
        on_gpu(first)(lambda gpu: call(gpu, gpu.submit))
        on_gpu(second)(lambda gpu: call(gpu, gpu.submit2))

    return enter


def pending(gpu: Gpu, call: Callable[[], Any], **held: Any) -> None:
    with gpu.held_up(**held):
        call()


# Binary semaphores, fences and values.

both("vkQueueSubmit-pWaitSemaphores-03238", "vkQueueSubmit2-semaphore-03873")(
    lambda gpu, submit: submit([gpu.binary]),
)


@both("vkQueueSubmit-pSignalSemaphores-00067", "vkQueueSubmit2-semaphore-03868")
def _signaled_twice(gpu: Gpu, submit: Callable[..., None]) -> None:
    submit(signals=[gpu.binary])
    submit(signals=[gpu.binary])


@both("vkQueueSubmit-fence-00063", "vkQueueSubmit2-fence-04894")
def _signaled_fence(gpu: Gpu, submit: Callable[..., None]) -> None:
    submit(fence=gpu.fence)
    gpu.fence.wait(10)
    submit(fence=gpu.fence)


both("vkQueueSubmit-fence-00064", "vkQueueSubmit2-fence-04895")(
    lambda gpu, submit: pending(gpu, lambda: submit(fence=gpu.fence), fence=gpu.fence)
)
on_gpu("vkResetFences-pFences-01123")(
    lambda gpu: pending(gpu, lambda: gpu.device.reset_fences([gpu.fence]), fence=gpu.fence)
)
on_gpu("vkDestroyFence-fence-01120")(
    lambda gpu: pending(gpu, lambda: gpu.device.destroy_fence(gpu.fence), fence=gpu.fence)
)
on_gpu("vkDestroySemaphore-semaphore-05149")(
    lambda gpu: pending(gpu, lambda: gpu.device.destroy_semaphore(gpu.line), signals=[(gpu.line, 5)])
)
on_gpu("VkSemaphoreSignalInfo-value-03259")(
    lambda gpu: pending(gpu, lambda: gpu.line.signal(5), signals=[(gpu.line, 5)])
)


@both("VkSubmitInfo-pSignalSemaphores-03242", "VkSubmitInfo2-semaphore-03882")
def _value_not_greater(gpu: Gpu, submit: Callable[..., None]) -> None:
    gpu.line.signal(3)
    submit(signals=[(gpu.line, 3)])


both("VkSubmitInfo-pWaitSemaphores-03243", "VkSubmitInfo2-semaphore-03884")(
    lambda gpu, submit: submit([(gpu.line, FAR)]),
)
both("VkSubmitInfo-pSignalSemaphores-03244", "VkSubmitInfo2-semaphore-03883")(
    lambda gpu, submit: submit(signals=[(gpu.line, FAR)]),
)
on_gpu("VkSubmitInfo2-semaphore-03881")(lambda gpu: gpu.submit2([(gpu.line, 4)], [(gpu.line, 4)]))
on_gpu("VkSubmitInfo-pWaitSemaphores-03239")(
    lambda gpu: gpu.submit(signals=[(gpu.line, 4)], chain=vk.DeviceGroupSubmitInfo((), (), (0,)))
)


# Arrays and chains.


def with_chain(vuid: str, chain: Callable[[], Any], **fields: Any) -> None:
    on_gpu(vuid)(lambda gpu: gpu.submit(signals=[(gpu.line, 4)], chain=chain(), **fields))


TIMELINE, D3D12, GROUP = vk.TimelineSemaphoreSubmitInfo, vk.D3D12FenceSubmitInfoKHR, vk.DeviceGroupSubmitInfo
with_chain("VkSubmitInfo-pNext-03241", lambda: TIMELINE((), (4, 5)))
on_gpu("VkSubmitInfo-pNext-03240")(lambda gpu: gpu.submit([(gpu.line, 0)], chain=TIMELINE((), ())))
with_chain("VkD3D12FenceSubmitInfoKHR-signalSemaphoreValuesCount-00080", lambda: D3D12((), ()))
with_chain("VkD3D12FenceSubmitInfoKHR-waitSemaphoreValuesCount-00079", lambda: D3D12((1,), (1,)))
with_chain("VkD3D12FenceSubmitInfoKHR-pWaitSemaphoreValues-parameter", lambda: D3D12((-1,), ()))
with_chain("VkD3D12FenceSubmitInfoKHR-pSignalSemaphoreValues-parameter", lambda: D3D12((), (-1,)))
with_chain("VkTimelineSemaphoreSubmitInfo-pWaitSemaphoreValues-parameter", lambda: TIMELINE((-1,), ()))
with_chain("VkTimelineSemaphoreSubmitInfo-pSignalSemaphoreValues-parameter", lambda: TIMELINE((), (-1,)))
with_chain("VkDeviceGroupSubmitInfo-waitSemaphoreCount-00082", lambda: GROUP((0,), (), (0,)))
with_chain("VkDeviceGroupSubmitInfo-signalSemaphoreCount-00084", lambda: GROUP((), (), ()))
with_chain("VkDeviceGroupSubmitInfo-pWaitSemaphoreDeviceIndices-00085", lambda: GROUP((), (), (1,)))
with_chain("VkDeviceGroupSubmitInfo-pWaitSemaphoreDeviceIndices-parameter", lambda: GROUP((-1,), (), (0,)))
with_chain("VkDeviceGroupSubmitInfo-pCommandBufferDeviceMasks-parameter", lambda: GROUP((), (-1,), (0,)))
with_chain("VkDeviceGroupSubmitInfo-pSignalSemaphoreDeviceIndices-parameter", lambda: GROUP((), (), (-1,)))
with_chain("VkSubmitInfo-pNext-pNext", lambda: vk.ExportSemaphoreCreateInfo())
with_chain("VkSubmitInfo-sType-unique", lambda: TIMELINE((), (4,), TIMELINE((), (4,))))
on_gpu("VkSubmitInfo2-pNext-pNext")(lambda gpu: gpu.submit2(p_next=D3D12()))
MUTEX = vk.Win32KeyedMutexAcquireReleaseInfoKHR


def mutex(vuid: str, keys: Any = (0,), timeouts: Any = (0,), released: Any = (1,), *, other: bool = False) -> None:
    """Acquire and release the keyed mutex of memory that has none; of memory of another device, if `other`."""

    def put(world: World) -> set[str]:
        gpu = Gpu(world)
        memory = [world.memory(world.gpu() if other else gpu.device)]
        return broken_by(lambda: gpu.submit(chain=MUTEX(memory, keys, timeouts, memory, released)))

    recipe(f"VkWin32KeyedMutexAcquireReleaseInfoKHR-{vuid}")(put)


mutex("pAcquireSyncs-00081")
mutex("pAcquireKeys-parameter", keys=())
mutex("pAcquireTimeouts-parameter", timeouts=(0, 0))
mutex("pReleaseKeys-parameter", released=(-1,))
mutex("commonparent", other=True)
on_gpu("VkSubmitInfo2-sType-unique")(lambda gpu: gpu.submit2(p_next=MUTEX(p_next=MUTEX())))
on_gpu("VkSubmitInfo2-flags-parameter")(lambda gpu: gpu.submit2(flags=1 << 30))
on_gpu("VkSemaphoreSubmitInfo-pNext-pNext")(lambda gpu: gpu.submit2([(gpu.line, 0)], one={"p_next": TIMELINE()}))
on_gpu("VkSemaphoreSubmitInfo-stageMask-parameter")(
    lambda gpu: gpu.submit2([(gpu.line, 0)], one={"stage_mask": 1 << 62})
)
on_gpu("VkSemaphoreSubmitInfo-device-03888")(lambda gpu: gpu.submit2([(gpu.line, 0)], one={"device_index": 1}))
on_gpu("VkSubmitInfo-pWaitDstStageMask-parameter")(
    lambda gpu: gpu.submit([(gpu.line, 0)], wait_dst_stage_mask=()),
)

# The host.


def wait(vuid: str, make: Callable[[Gpu], vk.SemaphoreWaitInfo]) -> None:
    on_gpu(vuid)(lambda gpu: gpu.device.wait_semaphores(make(gpu), 0))


def signal(vuid: str, make: Callable[[Gpu], vk.SemaphoreSignalInfo]) -> None:
    on_gpu(vuid)(lambda gpu: gpu.device.signal_semaphore(make(gpu)))


WAIT, SIGNAL = vk.SemaphoreWaitInfo, vk.SemaphoreSignalInfo
wait("VkSemaphoreWaitInfo-pSemaphores-03256", lambda gpu: WAIT(0, [gpu.binary], [1]))
wait("VkSemaphoreWaitInfo-pNext-pNext", lambda gpu: WAIT(0, [gpu.line], [0], TIMELINE()))
wait("VkSemaphoreWaitInfo-flags-parameter", lambda gpu: WAIT(2, [gpu.line], [0]))
wait("VkSemaphoreWaitInfo-pValues-parameter", lambda gpu: WAIT(0, [gpu.line], []))
wait("VkSemaphoreWaitInfo-semaphoreCount-arraylength", lambda _: WAIT(0, [], []))
on_gpu("vkWaitSemaphores-pWaitInfo-parameter")(lambda gpu: gpu.device.wait_semaphores(7, 0))
signal("VkSemaphoreSignalInfo-semaphore-03257", lambda gpu: SIGNAL(gpu.binary, 1))
signal("VkSemaphoreSignalInfo-value-03258", lambda gpu: SIGNAL(gpu.line, 0))
signal("VkSemaphoreSignalInfo-value-03260", lambda gpu: SIGNAL(gpu.line, FAR))
signal("VkSemaphoreSignalInfo-pNext-pNext", lambda gpu: SIGNAL(gpu.line, 1, TIMELINE()))
on_gpu("vkSignalSemaphore-pSignalInfo-parameter")(lambda gpu: gpu.device.signal_semaphore(7))
on_gpu("vkGetSemaphoreCounterValue-semaphore-03255")(lambda gpu: gpu.device.get_semaphore_counter_value(gpu.binary))
on_gpu("vkWaitForFences-fenceCount-arraylength")(lambda gpu: gpu.device.wait_for_fences([], 0))
on_gpu("vkResetFences-fenceCount-arraylength")(lambda gpu: gpu.device.reset_fences([]))
