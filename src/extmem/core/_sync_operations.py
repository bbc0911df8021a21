"""The modules that are attributes of `sync_operations`, imported together."""

from extmem.core import (
    host_waits,
    order_pairs,
    stream_order,
    submitting,
    sync_arguments,
    sync_creating,
    sync_exporting,
    sync_facts,
    sync_importing,
    sync_opening,
    sync_publishing,
    sync_sending,
    sync_state,
)

__all__ = [
    "host_waits",
    "order_pairs",
    "stream_order",
    "submitting",
    "sync_arguments",
    "sync_creating",
    "sync_exporting",
    "sync_facts",
    "sync_importing",
    "sync_opening",
    "sync_publishing",
    "sync_sending",
    "sync_state",
]
