"""Each call of the kernel fails once while a semaphore or fence is made, shared, imported and waited for."""

from __future__ import annotations

import pytest

import extmem
from extmem import errors
from extmem.testing import faults
from tests.windows.sync_steps import KINDS, create, handle_of, import_into, is_signaled, signal

pytestmark = pytest.mark.slow("hundreds of failures, each with a count of what is held")


@pytest.mark.parametrize("kind", KINDS)
def test_each_failure_is_an_error_and_loses_nothing(name: str, kind: str) -> None:
    with extmem.open_device(kind="host") as device:

        def life() -> None:
            with create(device, kind, name=name) as made, handle_of(device, made) as handle:
                with import_into(device, kind, name=name) as other:
                    signal(device, other)
                    assert is_signaled(device, made)
                import_into(device, kind, handle).close()

        failed = faults.fail_each(life, faults.failing_system_calls, allowed=(errors.ExtmemError,))
    assert {"NtCreateSection", "NtMapViewOfSection", "NtDuplicateObject"} <= set(failed)
    assert kind == "timeline" or {"fence": "NtCreateEvent", "binary": "NtCreateSemaphore"}[kind] in failed


def test_a_wait_that_cannot_create_its_event_is_an_error() -> None:
    with extmem.open_device(kind="host") as device:

        def wait() -> None:
            with device.timeline() as made, pytest.raises(TimeoutError):
                made.wait(1, timeout=0.01)

        failed = faults.fail_each(wait, faults.failing_system_calls, allowed=(errors.ExtmemError, AssertionError))
    assert "NtCreateEvent" in failed
