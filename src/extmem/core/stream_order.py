"""Waits and signals of streams (CUDA): a stream waits for timelines of any device, and the host does not.

How this works. A stream works with semaphores of its own device. A timeline of another device is imported into the
CUDA device of that GPU when a stream first uses it; the import belongs to the timeline's record and ends with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from extmem.core import sync_opening, sync_sending
from extmem.core.sync_record import SemaphoreRecord
from extmem.devices.optional_protocols import OrdersStreams
from extmem.errors import UnsupportedError
from extmem.handles import HandleEntry
from extmem.manager import Reference
from extmem.owning import Uses

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.devices.backend import Allocation

__all__ = ["graph_signal", "graph_wait", "hold_until_done", "on_device", "stream_signal", "stream_wait"]


def on_device(record: SemaphoreRecord, device: DeviceState, uses: Uses) -> SemaphoreRecord:
    """Return the record of this payload on another device, which is imported there once, and held.

    Errors: UnsupportedError for a semaphore that cannot be exported; RuleViolation for a payload of another GPU.
    """
    if record.device is device:
        return record
    with record.device.creation_lock:
        known: SemaphoreRecord | None = record.companions.get(device)
        if known is None:
            owner, ticket = sync_sending.offered(record)
            claimed: Any = owner.claim(ticket, Reference(owner), HandleEntry(owner))
            held = sync_opening.open_claimed(lambda said: device, owner, claimed)
            known = record.companions[device] = held.record
    return uses.add(known)


def _orderer(device: DeviceState) -> OrdersStreams:
    backend = device.backend
    if not isinstance(backend, OrdersStreams):
        raise UnsupportedError(
            f"{device.name} ({device.kind}) has no streams that wait for semaphores; use access(queue=True) with a "
            "Vulkan device, or memory on a GPU that CUDA supports",
            requires_one_of=["a CUDA device"],
        )
    return backend


def stream_wait(device: DeviceState, stream: int, waits: Sequence[tuple[SemaphoreRecord, int]], uses: Uses) -> None:
    """Make later work of the stream wait for the values. device: the CUDA device of the stream."""
    if waits:
        backend = _orderer(device)
        backend.stream_wait(stream, [(on_device(record, device, uses).native, value) for record, value in waits])


def stream_signal(device: DeviceState, stream: int, signals: Sequence[tuple[SemaphoreRecord, int]], uses: Uses) -> None:
    """Signal the values when the earlier work of the stream is done. Errors: AccessDeniedError without the right."""
    if signals:
        backend = _orderer(device)
        for record, _ in signals:
            record.check_writable()
        backend.stream_signal(stream, [(on_device(record, device, uses).native, value) for record, value in signals])


def hold_until_done(device: DeviceState, stream: int, allocation: Allocation) -> None:
    """Keep memory of this CUDA device until the earlier work of the stream is done. Errors: as `OrdersStreams`."""
    _orderer(device).hold_until_done(stream, allocation)


def graph_wait(
    device: DeviceState, graph: int, waits: Sequence[tuple[SemaphoreRecord, int]], dependencies: Sequence[int]
) -> int:
    """Add waits to a CUgraph, and return the last node. Errors: as `stream_wait`."""
    with Uses(device) as uses:
        native = [(on_device(record, device, uses).native, value) for record, value in waits]
        return _orderer(device).add_graph_wait(graph, native, dependencies)


def graph_signal(
    device: DeviceState, graph: int, signals: Sequence[tuple[SemaphoreRecord, int]], dependencies: Sequence[int]
) -> int:
    """Add signals to a CUgraph, and return the last node. Errors: as `stream_signal`."""
    for record, _ in signals:
        record.check_writable()
    with Uses(device) as uses:
        native = [(on_device(record, device, uses).native, value) for record, value in signals]
        return _orderer(device).add_graph_signal(graph, native, dependencies)
