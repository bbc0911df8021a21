"""All checks of semaphores and fences, and their facts. `extmem.rules` imports this when the first of them is used.

Programs that use memory alone never import it. The checks are imported together, because the rules of one are
registered by several modules.
"""

from extmem.rules.create_fence import check_create_fence, check_external_fence_info
from extmem.rules.create_semaphore import check_create_semaphore, check_external_semaphore_info
from extmem.rules.get_sync_handle import (
    check_get_fence_fd,
    check_get_fence_win32_handle,
    check_get_semaphore_fd,
    check_get_semaphore_win32_handle,
)
from extmem.rules.host_timelines import check_get_semaphore_counter_value, check_signal_semaphore, check_wait_semaphores
from extmem.rules.import_sync_fd import check_import_fence_fd, check_import_semaphore_fd
from extmem.rules.import_sync_win32 import check_import_fence_win32_handle, check_import_semaphore_win32_handle
from extmem.rules.queue_submit import check_queue_submit, check_queue_submit2, malformed_submits
from extmem.rules.sync_facts import (
    BatchFacts,
    ExternalSyncFacts,
    FenceFacts,
    GetSyncFacts,
    ImportSyncFacts,
    SemaphoreFacts,
    SubmitFacts,
    SyncDeviceFacts,
    SyncPayloadFacts,
    SyncRefusal,
    Unsubmitted,
)
from extmem.rules.sync_life import (
    check_destroy_fence,
    check_destroy_semaphore,
    check_get_fence_status,
    check_reset_fences,
    check_wait_for_fences,
)

__all__ = [
    "BatchFacts",
    "ExternalSyncFacts",
    "FenceFacts",
    "GetSyncFacts",
    "ImportSyncFacts",
    "SemaphoreFacts",
    "SubmitFacts",
    "SyncDeviceFacts",
    "SyncPayloadFacts",
    "SyncRefusal",
    "Unsubmitted",
    "check_create_fence",
    "check_create_semaphore",
    "check_destroy_fence",
    "check_destroy_semaphore",
    "check_external_fence_info",
    "check_external_semaphore_info",
    "check_get_fence_fd",
    "check_get_fence_status",
    "check_get_fence_win32_handle",
    "check_get_semaphore_counter_value",
    "check_get_semaphore_fd",
    "check_get_semaphore_win32_handle",
    "check_import_fence_fd",
    "check_import_fence_win32_handle",
    "check_import_semaphore_fd",
    "check_import_semaphore_win32_handle",
    "check_queue_submit",
    "check_queue_submit2",
    "check_reset_fences",
    "check_signal_semaphore",
    "check_wait_for_fences",
    "check_wait_semaphores",
    "malformed_submits",
]
