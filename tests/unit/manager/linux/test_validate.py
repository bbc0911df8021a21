"""What no message can carry is refused with the object manager's own error, before a message is made."""

from __future__ import annotations

import pytest

from extmem import errors
from extmem.manager.linux.validate import (
    fit_descriptor,
    fit_handle,
    fit_mask,
    fit_name,
    fit_number,
    fit_sddl,
    fit_ticket,
    stamped_ticket,
)


def test_what_fits_comes_back() -> None:
    assert fit_name("naïve ☃") == "naïve ☃" and fit_name("x" * 300) == "x" * 300
    assert fit_handle(7) == 4 and fit_handle(8) == 8
    assert fit_number(0xFFFFFFFF) == 0xFFFFFFFF and fit_mask(0) == 0
    assert fit_sddl(None) is None and fit_sddl("nonsense") == "nonsense"
    assert fit_descriptor(b"x" * 4096) and fit_ticket(stamped_ticket(bytes(16))) == bytes(16)


@pytest.mark.parametrize("name", ["x" * 601, "half \ud800 a character"])
def test_names_that_no_object_can_have(name: str) -> None:
    with pytest.raises(errors.NameInvalidError) as caught:
        fit_name(name)
    assert caught.value.ntstatus == 0xC0000033


@pytest.mark.parametrize("value", [-1, -4, 1 << 63, 1 << 100])
def test_values_that_are_no_handle(value: int) -> None:
    with pytest.raises(errors.InvalidHandleError) as caught:
        fit_handle(value)
    assert caught.value.ntstatus == 0xC0000008


@pytest.mark.parametrize("number", [-1, 1 << 32])
def test_numbers_and_masks_beyond_32_bits(number: int) -> None:
    for fit in (fit_number, fit_mask):
        with pytest.raises(errors.InvalidHandleError) as caught:
            fit(number)
        assert caught.value.ntstatus == 0xC000000D


@pytest.mark.parametrize("sddl", ["D:" + "(A;;GA;;;WD)" * 400, "D:\u2603"])
def test_security_descriptors_that_do_not_fit(sddl: str) -> None:
    with pytest.raises(errors.ObjectManagerError) as caught:
        fit_sddl(sddl)
    assert caught.value.ntstatus == 0xC0000079


def test_descriptors_and_tickets_of_a_wrong_length() -> None:
    with pytest.raises(errors.DescriptorError, match="4097 bytes"):
        fit_descriptor(b"x" * 4097)
    for ticket in (b"", bytes(15), bytes(16), bytes(17), bytes(18)):
        with pytest.raises(errors.InvalidHandleError):
            fit_ticket(ticket)
