"""Each call of the kernel fails once while a semaphore or fence is made, shared, imported and waited for."""

from __future__ import annotations

import contextlib
import pickle

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


@pytest.mark.parametrize("kind", KINDS)
def test_each_failure_while_one_is_sent_loses_nothing(kind: str) -> None:
    with extmem.open_device(kind="host") as device:

        def life() -> None:
            with create(device, kind) as made:
                data = pickle.dumps(made)
                try:
                    with pickle.loads(data) as arrived:  # raises the error for which it was not received
                        signal(arrived.device, arrived)
                except errors.ExtmemError:
                    with contextlib.suppress(errors.InvalidHandleError):  # the sender keeps what is not claimed
                        pickle.loads(data).close()
                    raise

        failed = faults.fail_each(life, faults.failing_system_calls, allowed=(errors.ExtmemError,))
    assert {"NtDuplicateObject", "NtOpenEvent", "NtMapViewOfSection"} <= set(failed)


@pytest.mark.parametrize("kind", KINDS)
def test_each_failure_while_a_handle_is_opened_loses_nothing(name: str, kind: str) -> None:
    with extmem.open_device(kind="host") as device, create(device, kind, name=name):

        def opened() -> None:
            with extmem.open_handle(name) as handle, handle.duplicate() as copy:
                assert handle.same_object(copy) and handle.info.type_name
                import_into(device, kind, copy).close()

        failed = faults.fail_each(opened, faults.failing_system_calls, allowed=(errors.ExtmemError,))
    assert {"NtDuplicateObject", "NtMapViewOfSection"} <= set(failed)


def test_a_wait_that_cannot_create_its_event_is_an_error() -> None:
    with extmem.open_device(kind="host") as device:

        def wait() -> None:
            with device.timeline() as made, pytest.raises(TimeoutError):
                made.wait(1, timeout=0.01)

        failed = faults.fail_each(wait, faults.failing_system_calls, allowed=(errors.ExtmemError, AssertionError))
    assert "NtCreateEvent" in failed
