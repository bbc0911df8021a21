"""vkQueueSubmit, vkQueueSubmit2, and the submissions of the high-level API: rules, the tracked state, the device.

How this works. A submission is planned first: its structs become `Planned` batches of records, all of which are held.
`Submission` takes the facts of each batch at its turn, the rules decide, and the device gets the batches. The holds and
the tracked state end together, when the device is done: `_End` is held by the submission as everything else is, and
its release records that the batches are finished.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from extmem import rules, vk
from extmem.arguments import a_type, whole_number
from extmem.core import order_pairs, sync_facts
from extmem.core.memory_object import MemoryObject
from extmem.core.sync_arguments import check_device, record_of, sequence_of
from extmem.core.sync_record import FenceRecord, SemaphoreRecord
from extmem.core.sync_state import sync_states
from extmem.core.sync_submissions import Operations, Submission
from extmem.devices.sync import Batch, SemaphoreSignal, SemaphoreWait
from extmem.errors import DriverError, UnsupportedError
from extmem.owning import Held, Uses
from extmem.vk.struct_copies import copy_struct

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.devices.backend import Allocation, Recorder

__all__ = ["Order", "Planned", "joined", "order_of", "queue_submit", "queue_submit2", "submit", "submit_in_order"]

_ALL_COMMANDS = 0x10000
Operation = tuple[SemaphoreRecord, int, int]
"""A semaphore, the value, and the stages of a wait or a signal."""
_Check = Callable[[rules.SubmitFacts], list[rules.Violation]]


class Planned(msgspec.Struct, frozen=True):
    """One batch, with everything in it resolved and held."""

    waits: Sequence[Operation] = ()
    signals: Sequence[Operation] = ()
    record: Callable[[Recorder], None] | None = None
    command_buffers: Sequence[int] = ()
    owners: Sequence[tuple[Allocation, bool]] = ()
    chain: Sequence[Any] = ()
    mutexes: tuple[object, ...] = ()
    """Facts of the memories whose keyed mutexes it acquires and releases."""


class Order(msgspec.Struct, frozen=True):
    """What a block of commands waits for, and what it signals, held."""

    waits: Sequence[tuple[SemaphoreRecord, int]]
    signals: Sequence[tuple[SemaphoreRecord, int]]
    fence: FenceRecord | None


class _End(Held):
    """Its release, with the last hold of a submission, records the end of the batches."""

    def __init__(self, submission: Submission, records: Sequence[SemaphoreRecord], batches: Sequence[Batch]) -> None:
        super().__init__()
        self._submission = submission
        self._records = records
        self._batches = batches

    def give_back(self) -> None:
        """See `Held`."""
        for record in self._records:
            record.pending.discard(self)
        self._submission.finished(index for index, batch in enumerate(self._batches) if batch.abandoned)


def queue_submit(device: DeviceState, given: Sequence[vk.SubmitInfo], fence: object) -> None:
    """`Device.queue_submit`."""
    infos = _checked(device, given, vk.SubmitInfo, "vkQueueSubmit")
    with Uses(device) as uses:
        planned = [_plan(device, info, uses, f"submits[{index}]") for index, info in enumerate(infos)]
        target = _fence(device, fence, uses)
        _refuse_read_only(planned)
        submit(device, planned, target, uses, lambda facts: rules.check_queue_submit(infos, fence, facts))


def queue_submit2(device: DeviceState, given: Sequence[vk.SubmitInfo2], fence: object) -> None:
    """`Device.queue_submit2`."""
    infos = _checked(device, given, vk.SubmitInfo2, "vkQueueSubmit2")
    with Uses(device) as uses:
        planned = [_plan2(device, info, uses, f"submits[{index}]") for index, info in enumerate(infos)]
        target = _fence(device, fence, uses)
        _refuse_read_only(planned)
        submit(
            device,
            planned,
            target,
            uses,
            lambda facts: rules.check_queue_submit2(infos, fence, facts),
            command="vkQueueSubmit2",
        )


def order_of(device: DeviceState, wait: object, signal: object, fence: object, uses: Uses) -> Order:
    """Return the order of a block of commands. uses: hold what is in it.

    Errors: TypeError, ValueError; HandleStateError for what is closed or of another device; AccessDeniedError for a
    signal without the right.
    """
    waits, signals = (order_pairs.pairs(given, uses, what) for given, what in ((wait, "wait"), (signal, "signal")))
    for record, _ in waits:
        check_device(device, record)
    for record, _ in signals:
        check_device(device, record)
        record.check_writable()
    return Order(waits, signals, _fence(device, fence, uses))


def joined(order: Order, added: Order) -> Order:
    """Return an order with the waits and signals of both, and the fence of the first one."""
    return Order([*order.waits, *added.waits], [*order.signals, *added.signals], order.fence)


def submit_in_order(
    device: DeviceState,
    order: Order,
    record: Callable[[Recorder], None] | None,
    uses: Uses,
    owners: Sequence[tuple[Allocation, bool]],
    *,
    wait: bool,
) -> None:
    """Submit the commands of a block.

    wait: until they are done, unless the block signals something that tells of their end.
    """
    info = vk.SubmitInfo(
        wait_semaphores=[one.native.raw or 1 for one, _ in order.waits],
        wait_dst_stage_mask=[vk.PipelineStageFlagBits.ALL_COMMANDS] * len(order.waits),
        signal_semaphores=[one.native.raw or 1 for one, _ in order.signals],
        p_next=vk.TimelineSemaphoreSubmitInfo(
            [value for _, value in order.waits], [value for _, value in order.signals]
        ),
    )
    planned = Planned(
        [(one, value, _ALL_COMMANDS) for one, value in order.waits],
        [(one, value, _ALL_COMMANDS) for one, value in order.signals],
        record,
        owners=owners,
    )
    fence = order.fence.native.raw or 1 if order.fence is not None else None
    ends = bool(order.signals) or order.fence is not None
    submit(
        device,
        [planned],
        order.fence,
        uses,
        lambda facts: rules.check_queue_submit([info], fence, facts, well_formed=True),
        wait=wait and not ends,
    )


def submit(
    device: DeviceState,
    planned: Sequence[Planned],
    fence: FenceRecord | None,
    uses: Uses,
    check: _Check | None,
    *,
    command: str = "vkQueueSubmit",
    wait: bool = False,
) -> None:
    """Check the batches, and submit them. The caller holds everything in `uses`. wait: until they are done."""
    backend = sync_facts.sync_backend(device)
    queue = device.facts.identity
    operations = [Operations(_numbered(one.waits), _numbered(one.signals)) for one in planned]
    records = [record for one in planned for record, _, _ in (*one.waits, *one.signals)]
    submission = Submission(
        sync_states(),
        queue,
        operations,
        fence.state if fence is not None else 0,
        counters={record.state: record.native.counter() for record in records if record.timeline},
        fence_signaled=fence.native.status() if fence is not None else None,
    )
    if check is not None and device.check != "off":
        facts = rules.SubmitFacts(
            device=sync_facts.sync_facts(device),
            queue=queue,
            batches=submission.batches,
            fence=submission.fence,
            mutexes={index: one.mutexes for index, one in enumerate(planned) if one.mutexes},
        )
        device.report(check(facts), command)
    batches = [
        Batch(
            waits=[SemaphoreWait(record.native, value, stages) for record, value, stages in one.waits],
            record=one.record,
            command_buffers=one.command_buffers,
            signals=[SemaphoreSignal(record.native, value, stages) for record, value, stages in one.signals],
            owners=one.owners,
            chain=one.chain,
        )
        for one in planned
    ]
    end = uses.add(_End(submission, records, batches))
    for record in records:
        record.pending.add(end)
    end.end()  # it is released with the last hold, which the device has until it is done
    try:
        backend.submit_batches(batches, fence.native if fence is not None else None, uses, wait=wait)
    except BaseException as error:
        nothing_done = isinstance(error, DriverError) and device.backend.queue_facts is not None
        if not nothing_done and not (batches and all(batch.abandoned for batch in batches)):
            _settle_failed(submission, records)
        raise
    submission.submitted()
    for one in planned:
        for record, _, _ in one.waits:
            if record.temporary is not None:
                record.restore_payload()


def _settle_failed(submission: Submission, records: Sequence[SemaphoreRecord]) -> None:
    """Record that a submission was done in part, or perhaps: temporary payloads whose waits were done have ended."""
    ended = [one for one in records if one.temporary is not None and not one.native.temporary]
    submission.unknown(restored=[one.state for one in ended])
    for one in ended:
        one.restore_payload()


def _numbered(operations: Sequence[Operation]) -> list[tuple[int, int]]:
    return [(record.state, value) for record, value, _ in operations]


def _refuse_read_only(planned: Sequence[Planned]) -> None:
    for one in planned:
        for record, _, _ in one.signals:
            record.check_writable()


def _checked(device: DeviceState, given: object, struct: type, command: str) -> list[Any]:
    """Return copies of the structs of a submission, all fields of which have the right types.

    Errors: RuleViolation; TypeError where rules are not raised.
    """
    infos = [copy_struct(one) for one in sequence_of(given, "submits")]
    for index, info in enumerate(infos):
        if type(info) is not struct:
            raise TypeError(f"submits[{index}] is {info!r}, {a_type(info)}; pass a vk.{struct.__name__}")
    wrong = rules.malformed_submits(infos, struct)
    if wrong:
        device.report(wrong, command)
        raise TypeError(f"{command}: {wrong[0].where}: {wrong[0].problem}; {wrong[0].remedy}")
    return infos


def _fence(device: DeviceState, fence: object, uses: Uses) -> FenceRecord | None:
    if fence is None or fence == 0:
        return None
    return uses.add(record_of(device, fence, FenceRecord, "fence"))


def _semaphore(device: DeviceState, value: object, uses: Uses, where: str) -> SemaphoreRecord:
    return uses.add(record_of(device, value, SemaphoreRecord, where))


def _plan(device: DeviceState, info: vk.SubmitInfo, uses: Uses, where: str) -> Planned:
    structs = vk.find(info, vk.TimelineSemaphoreSubmitInfo), vk.find(info, vk.D3D12FenceSubmitInfoKHR)
    valued = [one for one in structs if one is not None]
    stages = list(info.wait_dst_stage_mask)
    waits = [
        (
            _semaphore(device, one, uses, f"{where}.wait_semaphores[{index}]"),
            _value(index, [one.wait_semaphore_values for one in valued]),
            int(stages[index]) if index < len(stages) else _ALL_COMMANDS,
        )
        for index, one in enumerate(sequence_of(info.wait_semaphores, f"{where}.wait_semaphores"))
    ]
    signals = [
        (
            _semaphore(device, one, uses, f"{where}.signal_semaphores[{index}]"),
            _value(index, [one.signal_semaphore_values for one in valued]),
            _ALL_COMMANDS,
        )
        for index, one in enumerate(sequence_of(info.signal_semaphores, f"{where}.signal_semaphores"))
    ]
    buffers = [_command_buffer(one, f"{where}.command_buffers[{i}]") for i, one in enumerate(info.command_buffers)]
    chain, mutexes = _chain(device, info, uses, where)
    return Planned(waits, signals, None, buffers, (), chain, mutexes)


def _value(index: int, values: Sequence[Sequence[int]]) -> int:
    """Return the value of a semaphore: of VkTimelineSemaphoreSubmitInfo, else of VkD3D12FenceSubmitInfoKHR, else 0."""
    return next((int(one[index]) for one in values if index < len(one)), 0)


def _plan2(device: DeviceState, info: vk.SubmitInfo2, uses: Uses, where: str) -> Planned:
    waits, signals = (
        [
            (
                _semaphore(device, one.semaphore, uses, f"{where}.{field}[{index}].semaphore"),
                whole_number(one.value, f"{where}.{field}[{index}].value"),
                int(one.stage_mask),
            )
            for index, one in enumerate(infos)
        ]
        for field, infos in (
            ("wait_semaphore_infos", info.wait_semaphore_infos),
            ("signal_semaphore_infos", info.signal_semaphore_infos),
        )
    )
    buffers = [
        _command_buffer(one.command_buffer, f"{where}.command_buffer_infos[{index}].command_buffer")
        for index, one in enumerate(info.command_buffer_infos)
    ]
    chain, mutexes = _chain(device, info, uses, where)
    return Planned(waits, signals, None, buffers, (), chain, mutexes)


def _command_buffer(value: object, where: str) -> int:
    if not hasattr(value, "__int__") or isinstance(value, (str, bytes)):
        raise TypeError(f"{where} is {value!r}: pass the VkCommandBuffer that another binding recorded, as a number")
    return int(value)


def _chain(
    device: DeviceState, info: vk.ChainStruct, uses: Uses, where: str
) -> tuple[list[vk.ChainStruct], tuple[object, ...]]:
    """Return the chained structs for the driver, with numbers in place of memory; and the facts of that memory."""
    chain: list[vk.ChainStruct] = []
    mutexes: tuple[object, ...] = ()
    for link in vk.chain(info):
        if isinstance(link, vk.TimelineSemaphoreSubmitInfo):
            continue  # its values are those of the semaphores
        if isinstance(link, vk.Win32KeyedMutexAcquireReleaseInfoKHR):
            acquired = [_memory(device, one, uses, f"{where}.acquire_syncs") for one in link.acquire_syncs]
            released = [_memory(device, one, uses, f"{where}.release_syncs") for one in link.release_syncs]
            mutexes = tuple(record.facts() for record in (*acquired, *released))
            link.acquire_syncs = [_raw(record) for record in acquired]
            link.release_syncs = [_raw(record) for record in released]
        chain.append(link)
    return chain, mutexes


def _memory(device: DeviceState, value: object, uses: Uses, where: str) -> Any:
    if not isinstance(value, MemoryObject):
        raise TypeError(f"{where} has {value!r}: pass a DeviceMemory of this device")
    record = uses.add(value.record)
    record.check_process()
    return record


def _raw(record: Any) -> int:
    raw = getattr(record.allocation, "raw", 0)
    if not raw:
        raise UnsupportedError(
            f"{record.device.name} has no keyed mutexes; use memory of a Vulkan device on Windows that was imported "
            "as D3D11_TEXTURE",
            requires_one_of=["a Vulkan device on Windows"],
        )
    return int(raw)
