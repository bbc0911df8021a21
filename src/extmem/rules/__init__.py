"""Valid usage: the specification's requirements on a call, checked before the call is made.

Each function takes structs of `extmem.vk` and facts (plain values, `extmem.rules.facts`) and returns a list with a
violation for each rule that the call breaks. An empty list means that no rule is known to be broken. The functions are
pure: they call neither the operating system nor a driver. A fact that could not be determined is None, and the rules
that need it report nothing.

The facts of an open device are imported with this module, and those of memory and payloads when the first of them is
used. The checks are imported together when the first of them is used, because opening a device or a payload makes no
call that they could check. Those of semaphores and fences are imported apart from those of memory.
"""

from __future__ import annotations

from extmem.forks import no_fork as _no_fork
from extmem.rules.device_facts import DeviceFacts, MemoryTypeFacts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from extmem.rules import ledger as ledger
    from extmem.rules._checks import (
        RELEASED,
        AllocateFacts,
        Area,
        ExternalMemoryFacts,
        ImageFormatFacts,
        Layouts,
        MemoryFacts,
        ModifierFacts,
        Ownership,
        PayloadFacts,
        Place,
        Refusal,
        ResourceFacts,
        Step,
        Use,
        Violation,
        apply,
        apply_use,
        check_allocate_memory,
        check_allocate_memory_fields,
        check_bind_buffer_memory,
        check_bind_image_memory,
        check_buffer_memory_barrier,
        check_clear_color_image,
        check_copy_buffer,
        check_copy_buffer_to_image,
        check_copy_image_to_buffer,
        check_create_buffer,
        check_create_image,
        check_external_buffer_info,
        check_external_image_format_info,
        check_fill_buffer,
        check_format_properties,
        check_get_device_queue,
        check_get_image_drm_format_modifier_properties,
        check_get_image_subresource_layout,
        check_get_memory_fd,
        check_get_memory_win32_handle,
        check_image_memory_barrier,
        check_keyed_mutex,
        check_map_memory,
        check_memory_fd_properties,
        check_memory_host_pointer_properties,
        check_memory_win32_handle_properties,
        check_pipeline_barrier,
        check_pipeline_barrier2,
        check_unmap_memory,
        copied_extent,
        default_aspect,
        guards,
        whole_range,
        wrong_get_info,
    )
    from extmem.rules._sync_checks import (
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
        check_create_fence,
        check_create_semaphore,
        check_destroy_fence,
        check_destroy_semaphore,
        check_external_fence_info,
        check_external_semaphore_info,
        check_get_fence_fd,
        check_get_fence_status,
        check_get_fence_win32_handle,
        check_get_semaphore_counter_value,
        check_get_semaphore_fd,
        check_get_semaphore_win32_handle,
        check_import_fence_fd,
        check_import_fence_win32_handle,
        check_import_semaphore_fd,
        check_import_semaphore_win32_handle,
        check_queue_submit,
        check_queue_submit2,
        check_reset_fences,
        check_signal_semaphore,
        check_wait_for_fences,
        check_wait_semaphores,
        malformed_submits,
    )

__all__ = [
    "AllocateFacts",
    "Area",
    "BatchFacts",
    "DeviceFacts",
    "ExternalMemoryFacts",
    "ExternalSyncFacts",
    "FenceFacts",
    "GetSyncFacts",
    "ImageFormatFacts",
    "ImportSyncFacts",
    "Layouts",
    "MemoryFacts",
    "MemoryTypeFacts",
    "ModifierFacts",
    "Ownership",
    "PayloadFacts",
    "Place",
    "RELEASED",
    "Refusal",
    "ResourceFacts",
    "SemaphoreFacts",
    "Step",
    "SubmitFacts",
    "SyncDeviceFacts",
    "SyncPayloadFacts",
    "SyncRefusal",
    "Unsubmitted",
    "Use",
    "Violation",
    "apply",
    "apply_use",
    "check_allocate_memory",
    "check_allocate_memory_fields",
    "check_bind_buffer_memory",
    "check_bind_image_memory",
    "check_buffer_memory_barrier",
    "check_clear_color_image",
    "check_copy_buffer",
    "check_copy_buffer_to_image",
    "check_copy_image_to_buffer",
    "check_create_buffer",
    "check_create_fence",
    "check_create_image",
    "check_create_semaphore",
    "check_destroy_fence",
    "check_destroy_semaphore",
    "check_external_buffer_info",
    "check_external_fence_info",
    "check_external_image_format_info",
    "check_external_semaphore_info",
    "check_fill_buffer",
    "check_format_properties",
    "check_get_device_queue",
    "check_get_fence_fd",
    "check_get_fence_status",
    "check_get_fence_win32_handle",
    "check_get_image_drm_format_modifier_properties",
    "check_get_image_subresource_layout",
    "check_get_memory_fd",
    "check_get_memory_win32_handle",
    "check_get_semaphore_counter_value",
    "check_get_semaphore_fd",
    "check_get_semaphore_win32_handle",
    "check_image_memory_barrier",
    "check_import_fence_fd",
    "check_import_fence_win32_handle",
    "check_import_semaphore_fd",
    "check_import_semaphore_win32_handle",
    "check_keyed_mutex",
    "check_map_memory",
    "check_memory_fd_properties",
    "check_memory_host_pointer_properties",
    "check_memory_win32_handle_properties",
    "check_pipeline_barrier",
    "check_pipeline_barrier2",
    "check_queue_submit",
    "check_queue_submit2",
    "check_reset_fences",
    "check_signal_semaphore",
    "check_unmap_memory",
    "check_wait_for_fences",
    "check_wait_semaphores",
    "copied_extent",
    "default_aspect",
    "guards",
    "ledger",
    "malformed_submits",
    "whole_range",
    "wrong_get_info",
]

_FACTS = ("AllocateFacts", "ExternalMemoryFacts", "ImageFormatFacts", "MemoryFacts", "ModifierFacts", "PayloadFacts",
          "Refusal", "ResourceFacts")  # fmt: skip
"""The names that `facts` has."""
_OF_SYNC = ("batch", "fence", "semaphore", "submit", "sync")
"""Words in the names that `_sync_checks` has; all other names are in `_checks`."""


if not TYPE_CHECKING:  # a type checker would take this to mean that every name exists

    def __getattr__(name: str) -> object:
        if name != "ledger" and name not in __all__:
            raise AttributeError(f"module 'extmem.rules' has no attribute {name!r}")
        with _no_fork():
            import importlib

            if name == "ledger":
                return importlib.import_module("extmem.rules.ledger")
            if name in _FACTS:
                facts = importlib.import_module("extmem.rules.facts")
                globals().update((each, getattr(facts, each)) for each in _FACTS)
                return globals()[name]
            of_sync = any(word in name.lower() for word in _OF_SYNC)
            checks = importlib.import_module(f"extmem.rules.{'_sync_checks' if of_sync else '_checks'}")
        globals().update((each, getattr(checks, each)) for each in checks.__all__)
        value: object = globals()[name]
        return value
