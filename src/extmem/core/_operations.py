"""The modules that are attributes of `operations`, imported together."""

from extmem.core import (
    adopting,
    allocating,
    allocating_arrays,
    arguments,
    binding,
    creating,
    describing,
    exporting,
    import_source,
    mapped_ranges,
    memory_buffer,
    opening,
    queries,
    rule_facts,
    shared_devices,
    views,
)
from extmem.manager import manager

__all__ = [
    "adopting",
    "allocating",
    "allocating_arrays",
    "arguments",
    "binding",
    "creating",
    "describing",
    "exporting",
    "import_source",
    "manager",
    "mapped_ranges",
    "memory_buffer",
    "opening",
    "queries",
    "rule_facts",
    "shared_devices",
    "views",
]
