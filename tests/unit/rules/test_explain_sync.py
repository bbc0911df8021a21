"""The examples about creating and sharing semaphores and fences: each wrong one breaks its rule, the right none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from extmem import rules, vk
from extmem.rules import FenceFacts, GetSyncFacts, ImportSyncFacts, SemaphoreFacts, SyncDeviceFacts, ledger
from extmem.rules._examples_submit import SUBMIT
from extmem.rules._examples_sync import SYNC
from tests.rules.sync_world import BOTH, DEVICE, NOT_FOUND, PLAIN_DEVICE, F, S, can, of_fence, payload
from tests.rules.world import OLD_DRIVER_UUID, OTHER_GPU

DONE, FRAMES, PLAIN, FENCE, PLAIN_FENCE = 1, 2, 3, 4, 5
TYPES, FENCE_TYPES = int(sum(S)), int(sum(F))
APART = replace(
    DEVICE,
    binary_types={
        **can(BOTH, *S, again=TYPES),
        **can(BOTH, S.SYNC_FD, again=int(S.SYNC_FD)),
        **can(BOTH, S.OPAQUE_WIN32, again=TYPES & ~int(S.OPAQUE_WIN32_KMT)),
    },
    fence_types={
        **can(BOTH, *F, again=FENCE_TYPES),
        **can(BOTH, F.SYNC_FD, again=int(F.SYNC_FD)),
        **can(BOTH, F.OPAQUE_WIN32, again=FENCE_TYPES & ~int(F.OPAQUE_WIN32_KMT)),
    },
)
"""A device that exports neither SYNC_FD nor NT handles from every import, nor NT and KMT handles together."""
SEMAPHORE, TIMELINE = payload(TYPES), payload(TYPES, True)
PAYLOADS: dict[object, rules.SyncPayloadFacts] = {
    7: SEMAPHORE, 8: TIMELINE, 9: of_fence(FENCE_TYPES), 10: replace(SEMAPHORE, flags=1),
    0x1C: SEMAPHORE, 0x20: TIMELINE, 0x24: of_fence(FENCE_TYPES),
    "done": SEMAPHORE, "frames": TIMELINE, "frame fence": of_fence(FENCE_TYPES), "flagged": replace(SEMAPHORE, flags=1),
}  # fmt: skip
"""By fd, handle and name."""


class Desk:
    """Takes the place of a device: calls the rules, and keeps their violations."""

    def __init__(self, facts: SyncDeviceFacts, objects: dict[int, Any], found: list[rules.Violation]) -> None:
        self.facts, self.objects, self.found = facts, objects, found

    def create_semaphore(self, info: vk.SemaphoreCreateInfo) -> None:
        self.found += rules.check_create_semaphore(info, self.facts)

    def create_fence(self, info: vk.FenceCreateInfo) -> None:
        self.found += rules.check_create_fence(info, self.facts)

    def import_semaphore_fd(self, info: vk.ImportSemaphoreFdInfoKHR) -> None:
        self._import(info, info.semaphore, rules.check_import_semaphore_fd, info.fd)

    def import_semaphore_win32_handle(self, info: vk.ImportSemaphoreWin32HandleInfoKHR) -> None:
        self._import(info, info.semaphore, rules.check_import_semaphore_win32_handle, info.name or info.handle)

    def import_fence_fd(self, info: vk.ImportFenceFdInfoKHR) -> None:
        self._import(info, info.fence, rules.check_import_fence_fd, info.fd)

    def import_fence_win32_handle(self, info: vk.ImportFenceWin32HandleInfoKHR) -> None:
        self._import(info, info.fence, rules.check_import_fence_win32_handle, info.name or info.handle)

    def _import(self, info: Any, target: Any, check: Any, source: object) -> None:
        known = PAYLOADS.get(source)
        number = source == 0x40000002 or source == -1
        refusal = None if known is not None or number else NOT_FOUND
        self.found += check(info, ImportSyncFacts(self.facts, self.objects[target], known, refusal))
        self.objects[target] = replace(self.objects[target], import_type=int(info.handle_type))

    def get_semaphore_fd(self, info: vk.SemaphoreGetFdInfoKHR) -> None:
        self.found += rules.check_get_semaphore_fd(info, GetSyncFacts(self.facts, self.objects[info.semaphore]))  # type: ignore[index]  # ints here

    def get_fence_fd(self, info: vk.FenceGetFdInfoKHR) -> None:
        self.found += rules.check_get_fence_fd(info, GetSyncFacts(self.facts, self.objects[info.fence]))  # type: ignore[index]  # as above

    def get_semaphore_win32_handle(self, info: vk.SemaphoreGetWin32HandleInfoKHR) -> Desk:
        return self._get(info, info.semaphore, rules.check_get_semaphore_win32_handle)

    def get_fence_win32_handle(self, info: vk.FenceGetWin32HandleInfoKHR) -> Desk:
        return self._get(info, info.fence, rules.check_get_fence_win32_handle)

    def _get(self, info: Any, source: Any, check: Any) -> Desk:
        self.found += check(info, GetSyncFacts(self.facts, self.objects[source]))
        self.objects[source] = replace(self.objects[source], exported_nt_types=int(info.handle_type))
        return self

    def duplicate(self) -> Desk:
        return self

    def queue_submit(self, submits: Sequence[vk.SubmitInfo], fence: int = 0) -> None:
        for info in submits:
            for one in info.signal_semaphores:
                self.objects[one] = replace(self.objects[one], signaled=True, in_use=True)  # type: ignore[index]  # as above
            for one in info.wait_semaphores:
                self.objects[one] = replace(self.objects[one], waiting_queue=1, in_use=True)  # type: ignore[index]  # as above
        if fence:
            self.objects[fence] = replace(self.objects[fence], pending=True)

    def wait_for_fences(self, fences: Sequence[int], timeout: int) -> None:
        """The work that was submitted is finished."""
        for number, known in self.objects.items():
            self.objects[number] = replace(known, **{"pending" if type(known) is FenceFacts else "in_use": False})


def run(source: str) -> set[str]:
    """Return the rules that an example breaks."""
    found: list[rules.Violation] = []
    objects = {
        DONE: SemaphoreFacts(False, "done", export_types=TYPES),
        FRAMES: SemaphoreFacts(True, "frames", export_types=TYPES),
        PLAIN: SemaphoreFacts(False, "plain"),
        FENCE: FenceFacts("frame_fence", export_types=FENCE_TYPES),
        PLAIN_FENCE: FenceFacts("plain_fence"),
    }
    others = {
        "other_device": replace(DEVICE, device=OTHER_GPU),
        "updated_device": replace(DEVICE, device=replace(DEVICE.device, driver_uuid=OLD_DRIVER_UUID)),
        "old_device": PLAIN_DEVICE,
    }
    names: dict[str, Any] = {name: Desk(facts, objects, found) for name, facts in others.items()}
    names |= {"vk": vk, "S": S, "F": F, "device": Desk(APART, objects, found), "number": 0x40000002}
    names |= {"done": DONE, "frames": FRAMES, "plain": PLAIN, "frame_fence": FENCE, "plain_fence": PLAIN_FENCE}
    names |= {"done_fd": 7, "frames_fd": 8, "fence_fd": 9, "flagged_fd": 10}
    names |= {"done_handle": 0x1C, "frames_handle": 0x20, "fence_handle": 0x24}
    exec(compile(source, "example", "exec"), names)
    return {violation.vuid for violation in found}


@pytest.mark.parametrize("vuid", SYNC)
def test_the_wrong_example_breaks_the_rule_and_the_right_one_none(vuid: str) -> None:
    wrong, right = SYNC[vuid]
    assert vuid in run(wrong)
    assert run(right) == set()


def test_every_explicit_rule_of_external_payloads_has_examples() -> None:
    structs = ("VkImport", "vkImport", "VkExport", "VkSemaphoreGet", "VkFenceGet", "VkSemaphoreType")
    wanted = {
        row.vuid
        for family in ("semaphore", "fence")
        for row in ledger.rows(family=family)
        if row.status in ("checked", "on request") and not row.implicit and row.struct.startswith(structs)
    }
    assert set(SYNC) == wanted and not set(SYNC) & set(SUBMIT)
