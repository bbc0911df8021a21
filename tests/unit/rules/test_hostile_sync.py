"""No check of semaphores and fences raises an exception, whatever the fields contain."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from extmem import rules, vk
from extmem.rules import _checks, _sync_checks
from tests.rules.sync_world import BOTH, CLOSED_DEVICE, DEVICE, PLAIN_DEVICE, F, S
from tests.unit.rules.test_hostile import check_violations, junk, struct, uuid, value

TYPES = sorted({int(t) for t in (*S, *F)})
mask = st.sampled_from([*TYPES, 0, BOTH, 0x1F, 1 << 31])
device = st.sampled_from([DEVICE, PLAIN_DEVICE, CLOSED_DEVICE])
maybe = st.sampled_from([None, True, False])
semaphore = st.builds(
    rules.SemaphoreFacts,
    st.booleans(),
    alive=st.booleans(),
    flags=st.integers(0, 1),
    export_types=st.one_of(st.none(), mask),
    import_type=mask,
    exported_nt_types=mask,
    in_use=st.booleans(),
    waiting_queue=st.sampled_from([None, 0, 1]),
    signaled=maybe,
    unsubmitted=st.sampled_from([(), (rules.Unsubmitted("timeline 1", 3),)]),
)
fence = st.builds(
    rules.FenceFacts,
    alive=st.booleans(),
    export_types=st.one_of(st.none(), mask),
    import_type=mask,
    exported_nt_types=mask,
    pending=st.booleans(),
    signaled=maybe,
)
payload = st.builds(
    rules.SyncPayloadFacts,
    st.sampled_from(["semaphore", "fence"]),
    mask,
    maybe,
    st.sampled_from([None, 0, 1]),
    uuid,
    uuid,
    st.sampled_from([None, b"", b"\x02" * 8]),
    st.booleans(),
)
refusal = st.sampled_from([None, rules.SyncRefusal("STATUS_INVALID_HANDLE", "no.")])
create_info = st.one_of(struct(vk.SemaphoreCreateInfo), struct(vk.FenceCreateInfo), junk)
chained = st.one_of(
    struct(vk.SemaphoreTypeCreateInfo),
    struct(vk.ExportSemaphoreCreateInfo),
    struct(vk.ExportSemaphoreWin32HandleInfoKHR),
    struct(vk.ExportFenceCreateInfo),
    struct(vk.ExportFenceWin32HandleInfoKHR),
    junk,
)


@settings(max_examples=150, deadline=None)
@given(create_info, st.lists(chained, max_size=3), device, value)
def test_create(info: Any, links: Any, facts: rules.SyncDeviceFacts, kind: Any) -> None:
    node = info
    for link in links:
        if isinstance(node, vk.ChainStruct):
            node.p_next = link
        node = link
    check_violations(rules.check_create_semaphore(info, facts))
    check_violations(rules.check_create_fence(info, facts))
    first = links[0] if links else None
    check_violations(rules.check_external_semaphore_info(vk.PhysicalDeviceExternalSemaphoreInfo(kind, first)))
    check_violations(rules.check_external_fence_info(vk.PhysicalDeviceExternalFenceInfo(kind, first)))
    check_violations(rules.check_external_fence_info(kind))


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(struct(vk.ImportSemaphoreFdInfoKHR), struct(vk.ImportSemaphoreWin32HandleInfoKHR), junk),
    st.builds(rules.ImportSyncFacts, device, semaphore, st.one_of(st.none(), payload), refusal, maybe),
)
def test_import_semaphore(info: Any, facts: rules.ImportSyncFacts) -> None:
    check_violations(rules.check_import_semaphore_fd(info, facts))
    check_violations(rules.check_import_semaphore_win32_handle(info, facts))


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(struct(vk.ImportFenceFdInfoKHR), struct(vk.ImportFenceWin32HandleInfoKHR), junk),
    st.builds(rules.ImportSyncFacts, device, fence, st.one_of(st.none(), payload), refusal, maybe),
)
def test_import_fence(info: Any, facts: rules.ImportSyncFacts) -> None:
    check_violations(rules.check_import_fence_fd(info, facts))
    check_violations(rules.check_import_fence_win32_handle(info, facts))


@settings(max_examples=100, deadline=None)
@given(value, st.one_of(st.none(), chained), device, semaphore, fence)
def test_get(kind: Any, link: Any, facts: rules.SyncDeviceFacts, known: Any, other: Any) -> None:
    of_semaphore, of_fence = rules.GetSyncFacts(facts, known), rules.GetSyncFacts(facts, other)
    check_violations(rules.check_get_semaphore_fd(vk.SemaphoreGetFdInfoKHR(1, kind, link), of_semaphore))
    win32 = vk.SemaphoreGetWin32HandleInfoKHR(1, kind, link)
    check_violations(rules.check_get_semaphore_win32_handle(win32, of_semaphore))
    check_violations(rules.check_get_fence_fd(vk.FenceGetFdInfoKHR(1, kind, link), of_fence))
    fence_win32 = vk.FenceGetWin32HandleInfoKHR(1, kind, link)
    check_violations(rules.check_get_fence_win32_handle(fence_win32, of_fence))
    check_violations(rules.check_get_fence_fd(kind, of_fence))


def test_the_names_lead_to_the_module_that_has_them() -> None:
    """`extmem.rules` tells from a name which of the two modules to import."""
    for module, of_sync in ((_checks, False), (_sync_checks, True)):
        for name in module.__all__:
            assert any(word in name.lower() for word in rules._OF_SYNC) is of_sync, name
            assert getattr(rules, name) is getattr(module, name)
    assert {*_checks.__all__, *_sync_checks.__all__, "DeviceFacts", "MemoryTypeFacts", "ledger"} == set(rules.__all__)
