"""Arguments of the calls on semaphores and fences: structs, and the objects in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from extmem.arguments import a_type
from extmem.core.sync_object import SyncObject
from extmem.core.sync_record import FenceRecord, SyncRecord
from extmem.errors import HandleStateError

if TYPE_CHECKING:
    from extmem import rules
    from extmem.core.device_state import DeviceState
    from extmem.owning import Uses

__all__ = ["check_device", "check_struct", "number_of", "record_of", "sequence_of", "target_of"]

R = TypeVar("R", bound=SyncRecord)
Check = Callable[..., "list[rules.Violation]"]


def check_struct(device: DeviceState, info: object, struct: type, command: str, check: Check, *rest: Any) -> None:
    """Refuse what is not the struct of the call: there is nothing in it that could be checked.

    check: the rules of the call, which get `info` and `rest`. Errors: RuleViolation; TypeError if rules are not raised.
    """
    if type(info) is not struct:
        device.report(check(info, *rest), command)
        raise TypeError(f"{command}: info is {info!r}, {a_type(info)}; pass a vk.{struct.__name__}")


def number_of(value: object) -> int:
    """Return a field as a number; 0 for what is none, which the rules report."""
    return int(value) if isinstance(value, int) else 0


def sequence_of(value: object, where: str) -> Sequence[Any]:
    """Return a list or tuple of a call as it is. Errors: TypeError for what is none."""
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise TypeError(f"{where} is {value!r}, {a_type(value)}; give a list")
    return value


def record_of(device: DeviceState, value: object, kind: type[R], where: str = "") -> R:
    """Return the record of a semaphore or fence in a struct.

    Errors: TypeError for other objects, and for numbers, about which nothing would be known; HandleStateError for one
    that is closed, of another device, or of the parent of a forked process.
    """
    word = "Fence" if kind is FenceRecord else "Semaphore"
    if not isinstance(value, SyncObject):
        raise TypeError(f"{where or word.lower()} is {value!r}: pass the {word} from create_{word.lower()}")
    record: Any = value.record
    if not isinstance(record, kind):
        raise TypeError(f"{where or word.lower()} is {value!r}, and not a {word}; pass one")
    record.check_process()
    check_device(device, record)
    return record


def check_device(device: DeviceState, record: SyncRecord) -> None:
    """Refuse a semaphore or fence of another device, which may be on the same GPU. Errors: HandleStateError."""
    if record.device is not device:
        raise HandleStateError(
            f"this {record.word} ({record.what()}) belongs to {record.device!r}, which was opened separately from "
            f"{device!r}; open it on this device (extmem.open_timeline(…, device=device))"
        )


def target_of(device: DeviceState, value: object, kind: type[R], uses: Uses) -> R:
    """Return the record of a semaphore or fence, and hold it. Errors: as `record_of`."""
    return uses.add(record_of(device, value, kind))
