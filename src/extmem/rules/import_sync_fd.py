"""vkImportSemaphoreFdKHR and vkImportFenceFdKHR.

No rule requires that the fd is open and of the handle type: the command then returns
VK_ERROR_INVALID_EXTERNAL_HANDLE. SYNC_FD defines the fd -1: a payload that is signaled already.
"""

from __future__ import annotations

from extmem import vk
from extmem.rules import _sync_field_types  # noqa: F401  # it registers
from extmem.rules._engine import Suite, demand
from extmem.rules._field_types import malformed, wrong_struct
from extmem.rules._sync_import import (
    ImportSync,
    common_rows,
    in_use,
    permanence_rows,
    same_device,
    same_semaphore_rows,
)
from extmem.rules._sync_types import FENCE, SEMAPHORE, one_sync_type, sync_type_in
from extmem.rules.sync_facts import ImportSyncFacts
from extmem.rules.violation import Violation

__all__ = ["check_import_fence_fd", "check_import_semaphore_fd"]

IMPORT_SEMAPHORE_FD: Suite[ImportSync] = Suite("vkImportSemaphoreFdKHR")
IMPORT_FENCE_FD: Suite[ImportSync] = Suite("vkImportFenceFdKHR")

_SEMAPHORE, _FENCE = "VkImportSemaphoreFdInfoKHR", "VkImportFenceFdInfoKHR"
_NO_FD = "a type of file descriptors"

demand(
    IMPORT_SEMAPHORE_FD,
    *common_rows(SEMAPHORE, "vkImportSemaphoreFdKHR", _SEMAPHORE),
    one_sync_type(SEMAPHORE, f"{_SEMAPHORE}-handleType-parameter"),
    sync_type_in(
        SEMAPHORE,
        f"{_SEMAPHORE}-handleType-01143",
        SEMAPHORE.fd_types,
        _NO_FD,
        "Use OPAQUE_FD or SYNC_FD, or ImportSemaphoreWin32HandleInfoKHR for that type.",
    ),
    same_device(f"{_SEMAPHORE}-fd-01544", "{call.where}.fd"),
    *same_semaphore_rows(f"{_SEMAPHORE}-handleType-03263", f"{_SEMAPHORE}-handleType-03264"),
    *permanence_rows(SEMAPHORE, copied=f"{_SEMAPHORE}-handleType-07307", timeline=f"{_SEMAPHORE}-flags-03323"),
    in_use("vkImportSemaphoreFdKHR-semaphore-01142", "vkImportSemaphoreFdKHR", SEMAPHORE),
)
demand(
    IMPORT_FENCE_FD,
    *common_rows(FENCE, "vkImportFenceFdKHR", _FENCE),
    one_sync_type(FENCE, f"{_FENCE}-handleType-parameter"),
    sync_type_in(
        FENCE,
        f"{_FENCE}-handleType-01464",
        FENCE.fd_types,
        _NO_FD,
        "Use OPAQUE_FD or SYNC_FD, or ImportFenceWin32HandleInfoKHR for that type.",
    ),
    same_device(f"{_FENCE}-fd-01541", "{call.where}.fd"),
    *permanence_rows(FENCE, copied=f"{_FENCE}-handleType-07306"),
    in_use("vkImportFenceFdKHR-fence-01463", "vkImportFenceFdKHR", FENCE),
)


def check_import_semaphore_fd(info: vk.ImportSemaphoreFdInfoKHR, facts: ImportSyncFacts) -> list[Violation]:
    """Return all rules that this vkImportSemaphoreFdKHR would break."""
    where = "ImportSemaphoreFdInfoKHR"
    return (
        wrong_struct(info, vk.ImportSemaphoreFdInfoKHR, "vkImportSemaphoreFdKHR.info")
        or malformed([(where, info)])
        or IMPORT_SEMAPHORE_FD.run(ImportSync(info, SEMAPHORE, facts, where), 0)
    )


def check_import_fence_fd(info: vk.ImportFenceFdInfoKHR, facts: ImportSyncFacts) -> list[Violation]:
    """Return all rules that this vkImportFenceFdKHR would break."""
    where = "ImportFenceFdInfoKHR"
    return (
        wrong_struct(info, vk.ImportFenceFdInfoKHR, "vkImportFenceFdKHR.info")
        or malformed([(where, info)])
        or IMPORT_FENCE_FD.run(ImportSync(info, FENCE, facts, where), 0)
    )
