"""No check of submissions, host timelines and fences raises an exception, whatever the fields contain."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from extmem import rules, vk
from tests.rules.submit_world import CLOSED, PAIR, PLAIN, SYNC
from tests.unit.rules.test_hostile import check_violations, junk, struct, value

number = st.sampled_from([0, 1, 5, 1 << 31, (1 << 64) - 1])
device = st.sampled_from([SYNC, PAIR, PLAIN, CLOSED])
semaphore = st.builds(
    rules.SemaphoreFacts,
    st.booleans(),
    alive=st.booleans(),
    identity=st.integers(0, 2),
    device_identity=st.integers(0, 2),
    waiting_queue=st.sampled_from([None, 0, 1]),
    signaled=st.sampled_from([None, True, False]),
    unsubmitted=st.sampled_from([(), (rules.Unsubmitted("timeline 1", 3),), (rules.Unsubmitted("semaphore 1", 0),)]),
    value=st.one_of(st.none(), number),
    pending_signals=st.lists(st.tuples(st.integers(0, 1), number), max_size=2).map(tuple),
    pending_waits=st.lists(st.tuples(st.integers(0, 1), number), max_size=2).map(tuple),
)
fence = st.builds(
    rules.FenceFacts,
    alive=st.booleans(),
    device_identity=st.integers(0, 2),
    pending=st.booleans(),
    signaled=st.sampled_from([None, True, False]),
)
known = st.lists(st.one_of(st.none(), semaphore), max_size=3).map(tuple)
facts = st.builds(
    rules.SubmitFacts,
    device,
    st.integers(0, 1),
    st.lists(st.builds(rules.BatchFacts, known, known), max_size=2).map(tuple),
    st.one_of(st.none(), fence),
)
one = st.one_of(struct(vk.SemaphoreSubmitInfo), st.builds(vk.SemaphoreSubmitInfo, st.just(5), number), junk)
handles = st.one_of(value, junk, st.lists(st.sampled_from([0x5E, None, "x"]), max_size=3))
numbers = st.one_of(value, junk, st.lists(number, max_size=3))
chained = st.one_of(
    st.builds(vk.TimelineSemaphoreSubmitInfo, numbers, numbers),
    st.builds(vk.D3D12FenceSubmitInfoKHR, numbers, numbers),
    st.builds(vk.DeviceGroupSubmitInfo, numbers, numbers, numbers),
    st.builds(vk.Win32KeyedMutexAcquireReleaseInfoKHR, handles, numbers, numbers, handles, numbers),
    junk,
)
batch = st.one_of(st.builds(vk.SubmitInfo, handles, numbers, handles, handles), junk)
ones = st.one_of(junk, st.lists(one, max_size=3))
batch2 = st.one_of(st.builds(vk.SubmitInfo2, value, ones, st.just(()), ones), junk)


def link(infos: list[Any], links: list[Any]) -> list[Any]:
    """Chain the links to the first of the infos."""
    node = infos[0] if infos else None
    for each in links:
        if isinstance(node, vk.ChainStruct):
            node.p_next = each
        node = each
    return infos


@settings(max_examples=60, deadline=None)
@given(st.lists(batch, max_size=2), st.lists(chained, max_size=3), st.one_of(value, junk), facts)
def test_submit(infos: list[Any], links: list[Any], target: Any, given_facts: rules.SubmitFacts) -> None:
    check_violations(rules.check_queue_submit(link(infos, links), target, given_facts))
    check_violations(rules.check_queue_submit(target, None, given_facts))


@settings(max_examples=60, deadline=None)
@given(st.lists(batch2, max_size=2), st.lists(chained, max_size=3), st.one_of(value, junk), facts)
def test_submit2(infos: list[Any], links: list[Any], target: Any, given_facts: rules.SubmitFacts) -> None:
    check_violations(rules.check_queue_submit2(link(infos, links), target, given_facts))


@settings(max_examples=40, deadline=None)
@given(
    st.one_of(st.builds(vk.SemaphoreWaitInfo, value, handles, numbers), struct(vk.SemaphoreSignalInfo), junk),
    device,
    known,
    st.one_of(st.none(), semaphore),
)
def test_host(info: Any, where: rules.SyncDeviceFacts, several: Any, single: Any) -> None:
    check_violations(rules.check_wait_semaphores(info, where, several))
    check_violations(rules.check_signal_semaphore(info, where, single))
    if single is not None:
        check_violations(rules.check_get_semaphore_counter_value(where, single))


@settings(max_examples=30, deadline=None)
@given(handles, device, st.lists(st.one_of(st.none(), fence), max_size=3))
def test_fences(given_fences: Any, where: rules.SyncDeviceFacts, several: list[Any]) -> None:
    check_violations(rules.check_wait_for_fences(given_fences, where, several))
    check_violations(rules.check_reset_fences(given_fences, where, several))
