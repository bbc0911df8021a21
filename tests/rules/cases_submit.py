"""Cases: submissions."""

from __future__ import annotations

from typing import Any

from extmem import vk
from extmem.rules import BatchFacts, Unsubmitted
from tests.rules.submit_world import (
    CLOSED,
    COMPUTE,
    ELSEWHERE,
    LIMIT,
    OTHER_QUEUE,
    PAIR,
    QUEUE,
    SEMAPHORE,
    at,
    batch2,
    binary,
    fence,
    semaphore,
    signals,
    signals2,
    submit,
    submit2,
    timeline,
    waits,
    waits2,
)
from tests.rules.world import case

INFO, INFO2, ONE = "VkSubmitInfo", "VkSubmitInfo2", "VkSemaphoreSubmitInfo"
TIMELINE, D3D12, GROUP = "VkTimelineSemaphoreSubmitInfo", "VkD3D12FenceSubmitInfoKHR", "VkDeviceGroupSubmitInfo"
READY = binary(signaled=True)
MISSING = (Unsubmitted("the timeline 'input'", 7),)

# The fence, the queue and the arguments.
for command, send in (("vkQueueSubmit", submit), ("vkQueueSubmit2", submit2)):
    info: Any = vk.SubmitInfo if send is submit else vk.SubmitInfo2
    signaled, pending = ("04894", "04895") if send is submit2 else ("00063", "00064")
    case(
        f"{command}-fence-{signaled}",
        lambda send=send: send(known=fence(signaled=True)),
        lambda send=send: send(known=fence(signaled=None)),
    )
    case(
        f"{command}-fence-{pending}",
        lambda send=send: send(known=fence(pending=True)),
        lambda send=send: send(known=fence()),
    )
    case(f"{command}-queue-parameter", lambda send=send: send(device=CLOSED), lambda send=send: send())
    case(
        f"{command}-fence-parameter",
        lambda send=send: send(known=fence(alive=False)),
        lambda send=send: send(known=fence()),
    )
    case(
        f"{command}-commonparent",
        lambda send=send: send(known=fence(device_identity=ELSEWHERE)),
        lambda send=send: send(known=fence()),
    )
    case(
        f"{command}-pSubmits-parameter",
        lambda send=send, info=info: send(info(), "a batch"),
        lambda send=send, info=info: send(info(), info()),
    )

# Binary semaphores.
case(
    "vkQueueSubmit-pSignalSemaphores-00067",
    lambda: signals(READY),
    lambda: signals(binary(signaled=None)),
)
case(
    "vkQueueSubmit2-semaphore-03868",
    lambda: signals2(READY),
    lambda: signals2(binary()),
)
case(
    "vkQueueSubmit-pWaitSemaphores-00068",
    lambda: waits(binary(signaled=True, waiting_queue=OTHER_QUEUE)),
    lambda: waits(binary(signaled=True, waiting_queue=QUEUE)),
)
case(
    "vkQueueSubmit2-semaphore-03871",
    lambda: waits2(binary(signaled=True, waiting_queue=OTHER_QUEUE)),
    lambda: waits2(READY),
)
case("vkQueueSubmit-pWaitSemaphores-03238", lambda: waits(binary()), lambda: waits(binary(signaled=None)))
case(
    "vkQueueSubmit2-semaphore-03873",
    lambda: waits2(binary(signaled=True, unsubmitted=MISSING)),
    lambda: waits2(READY),
)

# Values of timelines.
case(
    f"{INFO}-pWaitSemaphores-03239",
    lambda: waits(timeline()),
    lambda: waits(timeline(), chain=(at(11),)),
)
case(
    f"{INFO}-pNext-03240",
    lambda: waits(timeline(), chain=(at(),)),
    lambda: waits(READY, chain=(at(),)),
)
case(
    f"{INFO}-pNext-03241",
    lambda: signals(timeline(), chain=(at(11, 12, signal=True),)),
    lambda: signals(timeline(), chain=(at(11, signal=True),)),
)
case(
    f"{INFO}-pSignalSemaphores-03242",
    lambda: signals(timeline(), chain=(at(10, signal=True),)),
    lambda: signals(timeline(), chain=(at(11, signal=True),)),
)
case(
    f"{INFO2}-semaphore-03882",
    lambda: signals2(timeline(pending_signals=((QUEUE, 20),)), 15),
    lambda: signals2(timeline(pending_signals=((OTHER_QUEUE, 20),)), 15),
)
case(
    f"{INFO}-pWaitSemaphores-03243",
    lambda: waits(timeline(), chain=(at(10 + LIMIT + 1),)),
    lambda: waits(timeline(), chain=(at(10 + LIMIT),)),
)
case(
    f"{INFO2}-semaphore-03884",
    lambda: waits2(timeline(pending_waits=((OTHER_QUEUE, 11 + LIMIT),)), 10),
    lambda: waits2(timeline(pending_waits=((OTHER_QUEUE, 10 + LIMIT),)), 10),
)
case(
    f"{INFO}-pSignalSemaphores-03244",
    lambda: signals(timeline(), chain=(at(10 + LIMIT + 1, signal=True),)),
    lambda: signals(timeline(), chain=(at(10 + LIMIT, signal=True),)),
)
case(
    f"{INFO2}-semaphore-03883",
    lambda: signals2(timeline(pending_signals=((OTHER_QUEUE, 1 << 40),)), 11),
    lambda: signals2(timeline(pending_signals=((OTHER_QUEUE, 1 << 30),)), 11),
)
case(
    f"{INFO2}-semaphore-03881",
    lambda: batch2(
        BatchFacts((timeline(),), (timeline(),)),
        wait_semaphore_infos=[semaphore(12)],
        signal_semaphore_infos=[semaphore(12)],
    ),
    lambda: batch2(
        BatchFacts((timeline(),), (timeline(),)),
        wait_semaphore_infos=[semaphore(12)],
        signal_semaphore_infos=[semaphore(13)],
    ),
)

# Arrays and chains of a batch.
case(
    f"{D3D12}-waitSemaphoreValuesCount-00079",
    lambda: waits(READY, chain=(vk.D3D12FenceSubmitInfoKHR((1, 2), ()),)),
    lambda: waits(READY, chain=(vk.D3D12FenceSubmitInfoKHR((1,), ()),)),
)
case(
    f"{D3D12}-signalSemaphoreValuesCount-00080",
    lambda: signals(binary(), chain=(vk.D3D12FenceSubmitInfoKHR((), ()),)),
    lambda: signals(binary(), chain=(vk.D3D12FenceSubmitInfoKHR((), (1,)),)),
)
for struct, node in ((TIMELINE, vk.TimelineSemaphoreSubmitInfo), (D3D12, vk.D3D12FenceSubmitInfoKHR)):
    made: Any = node
    case(
        f"{struct}-pWaitSemaphoreValues-parameter",
        lambda made=made: waits(READY, chain=(made((-1,), ()),)),
        lambda made=made: waits(READY, chain=(made((1,), ()),)),
    )
    case(
        f"{struct}-pSignalSemaphoreValues-parameter",
        lambda made=made: signals(binary(), chain=(made((), "1"),)),
        lambda made=made: signals(binary(), chain=(made((), (1,)),)),
    )
case(
    f"{GROUP}-waitSemaphoreCount-00082",
    lambda: waits(READY, chain=(vk.DeviceGroupSubmitInfo((), (), ()),)),
    lambda: waits(READY, chain=(vk.DeviceGroupSubmitInfo((0,), (), ()),)),
)
case(
    f"{GROUP}-signalSemaphoreCount-00084",
    lambda: signals(binary(), chain=(vk.DeviceGroupSubmitInfo((), (), (0, 0)),)),
    lambda: signals(binary(), chain=(vk.DeviceGroupSubmitInfo((), (), (0,)),)),
)
case(
    f"{GROUP}-pWaitSemaphoreDeviceIndices-00085",
    lambda: waits(READY, chain=(vk.DeviceGroupSubmitInfo((2,), (), ()),), device=PAIR),
    lambda: waits(READY, chain=(vk.DeviceGroupSubmitInfo((1,), (), ()),), device=PAIR),
)
case(
    f"{GROUP}-pWaitSemaphoreDeviceIndices-parameter",
    lambda: waits(READY, chain=(vk.DeviceGroupSubmitInfo(("0",), (), ()),)),  # type: ignore[arg-type]  # wrong
    lambda: waits(READY, chain=(vk.DeviceGroupSubmitInfo((0,), (), ()),)),
)
case(
    f"{GROUP}-pCommandBufferDeviceMasks-parameter",
    lambda: waits(chain=(vk.DeviceGroupSubmitInfo((), 1, ()),)),  # type: ignore[arg-type]  # wrong on purpose
    lambda: waits(chain=(vk.DeviceGroupSubmitInfo((), (1,), ()),)),
)
case(
    f"{GROUP}-pSignalSemaphoreDeviceIndices-parameter",
    lambda: signals(binary(), chain=(vk.DeviceGroupSubmitInfo((), (), (-1,)),)),
    lambda: signals(binary(), chain=(vk.DeviceGroupSubmitInfo((), (), (0,)),)),
)
case(
    f"{INFO}-pNext-pNext",
    lambda: waits(chain=(vk.ExportSemaphoreCreateInfo(),)),
    lambda: waits(chain=(at(),)),
)
case(f"{INFO}-sType-unique", lambda: waits(chain=(at(), at())), lambda: waits(chain=(at(),)))
case(
    f"{INFO2}-pNext-pNext",
    lambda: batch2(chain=(vk.D3D12FenceSubmitInfoKHR(),)),
    lambda: batch2(chain=(vk.Win32KeyedMutexAcquireReleaseInfoKHR(),)),
)
case(
    f"{INFO2}-sType-unique",
    lambda: batch2(chain=(vk.Win32KeyedMutexAcquireReleaseInfoKHR(), vk.Win32KeyedMutexAcquireReleaseInfoKHR())),
    lambda: batch2(chain=(vk.Win32KeyedMutexAcquireReleaseInfoKHR(),)),
)
case(f"{INFO2}-flags-parameter", lambda: batch2(flags=1 << 30), lambda: batch2(flags=1))

# Fields of the structs.
case(
    f"{INFO}-pWaitSemaphores-parameter",
    lambda: waits(binary(signaled=True, alive=False)),
    lambda: waits(READY),
)
case(
    f"{INFO}-pSignalSemaphores-parameter",
    lambda: submit(vk.SubmitInfo(signal_semaphores=[None])),
    lambda: submit(vk.SubmitInfo(signal_semaphores=[SEMAPHORE])),
)
case(
    f"{INFO}-pCommandBuffers-parameter",
    lambda: submit(vk.SubmitInfo(command_buffers=0xC0)),  # type: ignore[arg-type]  # wrong on purpose
    lambda: submit(vk.SubmitInfo(command_buffers=[0xC0])),
)
case(
    f"{INFO}-pWaitDstStageMask-parameter",
    lambda: waits(READY, wait_dst_stage_mask=()),
    lambda: waits(READY, wait_dst_stage_mask=(COMPUTE,)),
)
case(
    f"{INFO}-commonparent",
    lambda: signals(binary(device_identity=ELSEWHERE)),
    lambda: signals(binary(device_identity=0)),
)
case(
    f"{INFO2}-pWaitSemaphoreInfos-parameter",
    lambda: batch2(wait_semaphore_infos=[semaphore(-1)]),
    lambda: batch2(wait_semaphore_infos=[semaphore()]),
)
case(
    f"{INFO2}-pSignalSemaphoreInfos-parameter",
    lambda: batch2(signal_semaphore_infos=SEMAPHORE),
    lambda: batch2(signal_semaphore_infos=[semaphore(1)]),
)
case(
    f"{INFO2}-pCommandBufferInfos-parameter",
    lambda: batch2(command_buffer_infos=[vk.CommandBufferSubmitInfo(0xC0, -1)]),
    lambda: batch2(command_buffer_infos=[vk.CommandBufferSubmitInfo(0xC0)]),
)
case(
    "VkCommandBufferSubmitInfo-commandBuffer-parameter",
    lambda: batch2(command_buffer_infos=[vk.CommandBufferSubmitInfo(None)]),
    lambda: batch2(command_buffer_infos=[vk.CommandBufferSubmitInfo(0xC0)]),
)
case(
    f"{ONE}-semaphore-parameter",
    lambda: signals2(None, semaphore=None),
    lambda: signals2(None),
)
case(f"{ONE}-pNext-pNext", lambda: waits2(READY, p_next=at()), lambda: waits2(READY, p_next=None))
case(f"{ONE}-stageMask-parameter", lambda: waits2(READY, stage_mask=1 << 62), lambda: waits2(READY, stage_mask=1))
case(f"{ONE}-device-03888", lambda: waits2(READY, device_index=1), lambda: waits2(READY, device_index=0))
case(
    f"{ONE}-device-03889",
    lambda: signals2(binary(), device=PAIR, device_index=2),
    lambda: signals2(binary(), device=PAIR, device_index=1),
)
