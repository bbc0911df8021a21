"""Status codes, their Win32 errors and their exception classes (B14)."""

from __future__ import annotations

import pytest

from extmem import errors
from extmem.objects import WINERROR, Refused, Status, error_for

B14 = {
    0xC0000035: 183,
    0xC0000034: 2,
    0xC0000033: 123,
    0xC000003A: 3,
    0xC000003B: 161,
    0xC0000024: 6,
    0xC0000008: 6,
    0xC0000235: 6,
    0xC0000022: 5,
    0xC000000D: 87,
    0xC00001AC: 1656,
    0xC0000044: 1816,
    0xC0000058: 1305,
    0xC0000079: 1338,
}


@pytest.mark.parametrize(("ntstatus", "winerror"), B14.items())
def test_B14_every_status_has_its_win32_error(ntstatus: int, winerror: int) -> None:
    assert WINERROR[Status(ntstatus)] == winerror


def test_B14_the_table_is_complete_and_read_only() -> None:
    assert set(WINERROR) == set(Status)
    with pytest.raises(TypeError):
        WINERROR[Status.SUCCESS] = 1  # type: ignore[index]  # that it is refused is the point


@pytest.mark.parametrize(
    ("status", "cls", "builtin"),
    [
        (Status.OBJECT_NAME_COLLISION, errors.NameTakenError, FileExistsError),
        (Status.OBJECT_NAME_NOT_FOUND, errors.NameNotFoundError, FileNotFoundError),
        (Status.OBJECT_PATH_NOT_FOUND, errors.NameNotFoundError, FileNotFoundError),
        (Status.OBJECT_NAME_INVALID, errors.NameInvalidError, ValueError),
        (Status.OBJECT_PATH_SYNTAX_BAD, errors.NameInvalidError, ValueError),
        (Status.ACCESS_DENIED, errors.AccessDeniedError, PermissionError),
        (Status.OBJECT_TYPE_MISMATCH, errors.ObjectTypeError, TypeError),
        (Status.INVALID_HANDLE, errors.InvalidHandleError, ValueError),
        (Status.HANDLE_NOT_CLOSABLE, errors.InvalidHandleError, ValueError),
        (Status.INVALID_PARAMETER, errors.InvalidHandleError, ValueError),
        (Status.QUOTA_EXCEEDED, errors.QuotaError, errors.ExtmemError),
        (Status.INVALID_SECURITY_DESCR, errors.SecurityDescriptorError, ValueError),
    ],
)
def test_B14_error_for_gives_the_class_with_both_codes(
    status: Status, cls: type[errors.ObjectManagerError], builtin: type[Exception]
) -> None:
    error = error_for(status, "It is so. Do this.")
    assert type(error) is cls
    assert isinstance(error, builtin)
    assert (error.ntstatus, error.winerror, str(error)) == (int(status), WINERROR[status], "It is so. Do this.")


def test_error_for_takes_the_plain_number_from_the_wire() -> None:
    assert isinstance(error_for(0xC0000022, "No."), errors.AccessDeniedError)


def test_error_for_success_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="no refusal"):
        error_for(Status.SUCCESS, "All is well.")


def test_refused_tells_status_and_sentence() -> None:
    refusal = Refused(Status.ACCESS_DENIED, "It is not yours. Ask its owner.")
    assert str(refusal) == "STATUS_ACCESS_DENIED (0xC0000022): It is not yours. Ask its owner."
