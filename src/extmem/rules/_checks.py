"""All checks, and the facts that they need. `extmem.rules` imports this module when the first of them is used.

They are imported together because a check's rules are registered by several modules: once a check can be called, all of
its rules are registered.
"""

from extmem.rules.allocate_memory import check_allocate_memory, check_allocate_memory_fields
from extmem.rules.barrier_ranges import whole_range
from extmem.rules.barriers import check_buffer_memory_barrier, check_image_memory_barrier
from extmem.rules.bind_memory import check_bind_buffer_memory, check_bind_image_memory
from extmem.rules.buffer_ownership import Ownership, Use, apply_use
from extmem.rules.create_and_query import (
    check_create_buffer,
    check_create_image,
    check_external_buffer_info,
    check_external_image_format_info,
)
from extmem.rules.drm_format_modifiers import check_format_properties, check_get_image_drm_format_modifier_properties
from extmem.rules.facts import (
    AllocateFacts,
    ExternalMemoryFacts,
    ImageFormatFacts,
    MemoryFacts,
    ModifierFacts,
    PayloadFacts,
    Refusal,
    ResourceFacts,
)
from extmem.rules.get_memory_handle import check_get_memory_fd, check_get_memory_win32_handle, wrong_get_info
from extmem.rules.get_queue import check_get_device_queue
from extmem.rules.handle_properties import (
    check_memory_fd_properties,
    check_memory_host_pointer_properties,
    check_memory_win32_handle_properties,
)
from extmem.rules.image_copies import (
    check_copy_buffer_to_image,
    check_copy_image_to_buffer,
    copied_extent,
    default_aspect,
)
from extmem.rules.image_layouts import RELEASED, Area, Layouts, Step, apply
from extmem.rules.keyed_mutex import check_keyed_mutex
from extmem.rules.map_memory import check_map_memory, check_unmap_memory
from extmem.rules.pipeline_barrier import check_pipeline_barrier, check_pipeline_barrier2
from extmem.rules.subresource_layout import check_get_image_subresource_layout
from extmem.rules.transfer_commands import (
    Place,
    check_clear_color_image,
    check_copy_buffer,
    check_fill_buffer,
    guards,
)
from extmem.rules.violation import Violation

__all__ = [
    "AllocateFacts",
    "Area",
    "ExternalMemoryFacts",
    "ImageFormatFacts",
    "Layouts",
    "MemoryFacts",
    "ModifierFacts",
    "Ownership",
    "PayloadFacts",
    "Place",
    "RELEASED",
    "Refusal",
    "ResourceFacts",
    "Step",
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
    "check_create_image",
    "check_external_buffer_info",
    "check_external_image_format_info",
    "check_fill_buffer",
    "check_format_properties",
    "check_get_device_queue",
    "check_get_image_drm_format_modifier_properties",
    "check_get_image_subresource_layout",
    "check_get_memory_fd",
    "check_get_memory_win32_handle",
    "check_image_memory_barrier",
    "check_keyed_mutex",
    "check_map_memory",
    "check_memory_fd_properties",
    "check_memory_host_pointer_properties",
    "check_memory_win32_handle_properties",
    "check_pipeline_barrier",
    "check_pipeline_barrier2",
    "check_unmap_memory",
    "copied_extent",
    "default_aspect",
    "guards",
    "whole_range",
    "wrong_get_info",
]
