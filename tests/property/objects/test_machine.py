"""The object manager agrees with the small model, and the model finds managers with planted faults."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from extmem.objects import Claimed, Imported, Refused
from extmem.objects.directory import Directory
from extmem.objects.entities import Payload, Process, Reference, SharedObject, Ticket
from extmem.objects.lifetimes import Keeps
from extmem.objects.names import NameKey, resolve_name
from tests.described_manager import DescribedManager, Held
from tests.property.objects.machine import Machine

RULES_KEPT = settings(max_examples=60, stateful_step_count=50, deadline=None)
HUNT = settings(
    max_examples=400,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # no shrinking
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


# If a sequence of calls fails, Hypothesis takes up to five minutes to find the shortest one.
@pytest.mark.timeout(400)
def test_the_object_manager_keeps_to_the_model() -> None:
    run_state_machine_as_test(Machine, settings=RULES_KEPT)


class ImportDoesNotPinTheObject(DescribedManager):
    """B73 broken: imported memory keeps only the payload alive."""

    def _import_nt(self, owner: Process, shared: SharedObject, granted: int) -> Imported:
        reference = self._add_reference(owner, Reference(shared.payload, None, Keeps(1, 0, 0, 0), granted))
        return Imported(reference, shared.payload.id, shared.id, granted, None, None, shared.payload.object_kind)


class NamesOutliveTheirObjects(DescribedManager):
    """B12 broken: names are not removed from the directory."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]  # passed on as they are

        class Lingering(Directory):
            def remove(self, shared: SharedObject) -> None:
                pass

        self._directory = Lingering()


class NamesAreCaseSensitive(DescribedManager):
    """B5 broken."""

    def _resolve(self, name: str) -> NameKey:
        key = resolve_name(name, self.session)
        return msgspec.structs.replace(key, key=key.display)


class TakenNamesAreTakenOver(DescribedManager):
    """B10 broken: an export under a live name succeeds."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]  # passed on as they are

        class Yielding(Directory):
            def taken(self, name: NameKey) -> Refused | None:
                return None

            def remove(self, shared: SharedObject) -> None:
                if shared.name is not None:
                    self._shared.pop(shared.name.key, None)

        self._directory = Yielding()


class NumbersDieWithTheExporter(DescribedManager):
    """B58 broken: every number is strict."""

    def _new_payload(self, *args: object, **options: object) -> Payload:
        payload = super()._new_payload(*args, **options)  # type: ignore[arg-type]  # passed on as they are
        payload.strict_kmt = True
        return payload

    def _release(self, keeps: Keeps, payload: Payload, shared: SharedObject | None) -> None:
        payload.strict_kmt = True
        super()._release(keeps, payload, shared)


class HandleValuesAreNotReused(DescribedManager):
    """B41 broken: freed values are not used again."""

    def _close(self, owner: Process, value: int) -> None:
        super()._close(owner, value)
        owner.table._free.clear()


class PayloadsAreReleasedTwice(DescribedManager):
    """The broker would close an fd that belongs to another payload."""

    def take_released(self) -> list[int]:
        released = super().take_released()
        return released + released[:1]


class TicketsEndWithTheirSender(DescribedManager):
    """What a worker has sent ends with it."""

    def _orphan(self, ticket: Ticket) -> None:
        self._drop_ticket(ticket)


class NamesOutliveAllLivingHolders(DescribedManager):
    """A reference in flight whose sender has ended also keeps the name."""

    def _unname(self, shared: SharedObject) -> None:
        pass


class WhatNobodyTakesStaysForEver(DescribedManager):
    """A ticket whose sender has ended does not end in time."""

    def expire(self, ticket: int) -> bool:
        found = self._tickets.get(ticket)
        return found is not None if found is None or found.sender is None else super().expire(ticket)


class NumbersOutliveTheirHolders(DescribedManager):
    """A ticket whose sender has ended keeps the KMT number."""

    def _orphan(self, ticket: Ticket) -> None:
        super()._orphan(ticket)
        if ticket.id in self._tickets:
            ticket.payload.kmt_refs += 1


class TicketsCanBeClaimedTwice(DescribedManager):
    """A claim leaves the ticket in flight."""

    def claim(self, process: int, ticket: int) -> Claimed:
        return self._claim(self._process(process), self._tickets[ticket])


class UndoneClaimsEndTheTicket(DescribedManager):
    """A receiver that did not get the reply to its claim cannot repeat it."""

    def put_back(self, process: int, claimed: Claimed) -> Ticket | None:
        ticket = super().put_back(process, claimed)
        if ticket is not None:
            self._drop_ticket(ticket)
        return ticket


class ChildrenInheritEverything(DescribedManager):
    """B31 broken: handles without the inherit flag are inherited."""

    def inherit(self, parent: int, *, only: Collection[int] | None = None) -> int:
        table = self._process(parent).table
        flags = [(entry, entry.flags) for _, entry in table]
        for entry, _ in flags:
            entry.flags |= 1
        child = super().inherit(parent, only=only)
        for entry, before in flags:
            entry.flags = before
        return child


class DeadProcessesKeepTheirHandles(DescribedManager):
    """B78 broken."""

    def detach(self, process: int) -> None:
        for value, _ in list(self._process(process).table):
            self._process(process).table.remove(value)
        super().detach(process)


class RestoredNamesAreLost(DescribedManager):
    """The names of a killed manager are not restored."""

    def describe(self, process: int) -> Held:
        held = super().describe(process)
        return replace(held, objects=tuple(msgspec.structs.replace(record, name=None) for record in held.objects))


class KindsAreNotCompared(DescribedManager):
    """S26 broken: an object is imported as another kind than it is."""

    def _check_kind(self, shared: SharedObject, object_kind: int, what: str) -> None:
        pass


FAULTS = [
    KindsAreNotCompared,
    ImportDoesNotPinTheObject,
    NamesOutliveTheirObjects,
    NamesAreCaseSensitive,
    TakenNamesAreTakenOver,
    NumbersDieWithTheExporter,
    HandleValuesAreNotReused,
    PayloadsAreReleasedTwice,
    TicketsEndWithTheirSender,
    NamesOutliveAllLivingHolders,
    WhatNobodyTakesStaysForEver,
    NumbersOutliveTheirHolders,
    TicketsCanBeClaimedTwice,
    UndoneClaimsEndTheTicket,
    ChildrenInheritEverything,
    DeadProcessesKeepTheirHandles,
    RestoredNamesAreLost,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_manager_with_a_planted_fault_is_caught(fault: type[DescribedManager]) -> None:
    class Faulty(Machine):
        manager_class = fault

    with pytest.raises((AssertionError, Refused)):
        run_state_machine_as_test(Faulty, settings=HUNT)
