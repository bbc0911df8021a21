"""All cases: importing this module fills the table."""

from __future__ import annotations

from tests.rules import (
    cases_barrier_ranges,
    cases_barriers,
    cases_bind,
    cases_commands,
    cases_create,
    cases_fd,
    cases_generic,
    cases_host,
    cases_host_timelines,
    cases_layouts,
    cases_modifiers,
    cases_submit,
    cases_sync_create,
    cases_sync_get,
    cases_sync_import,
    cases_win32,
)
from tests.rules.world import CASES, Case

__all__ = ["CASES", "Case", "modules"]

modules = (cases_win32, cases_fd, cases_host, cases_generic, cases_bind, cases_barriers, cases_create)
modules += (cases_commands, cases_barrier_ranges, cases_modifiers, cases_layouts)
modules += (cases_submit, cases_host_timelines)
modules += (cases_sync_create, cases_sync_import, cases_sync_get)
