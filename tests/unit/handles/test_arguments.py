"""Arguments of another type or range are refused with the value and what to give, before anything happens."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest

import extmem
from extmem import process, raw
from extmem.arguments import check_flag
from extmem.errors import HandleStateError
from extmem.handles.arguments import fd_number, handle_number


@pytest.fixture
def device() -> Iterator[extmem.Device]:
    with extmem.open_device(kind="host") as opened:
        yield opened


OPAQUE_FD = extmem.vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD


class _Index:
    def __index__(self) -> int:
        return 7


def test_numbers_of_any_integer_type_are_taken() -> None:
    assert handle_number(_Index(), "a handle") == fd_number(_Index()) == 7
    assert fd_number(0) == 0 and fd_number(2**31 - 1) == 2**31 - 1


@pytest.mark.parametrize("value", ["4", None, 4.0, b"4", [4], True])
@pytest.mark.parametrize("call", [raw.nt_handle, raw.kmt_handle, raw.fd_handle, raw.borrowed_fd])
def test_a_number_of_another_type_is_a_type_error(call: Callable[[Any], object], value: object) -> None:
    with pytest.raises(TypeError) as caught:
        call(value)
    assert repr(value) in str(caught.value) and "as an int" in str(caught.value)


@pytest.mark.parametrize("fd", [-1, 2**31, 2**70])
@pytest.mark.parametrize("call", [raw.fd_handle, raw.borrowed_fd])
def test_a_number_that_cannot_be_an_fd_is_refused(call: Callable[[Any], object], fd: int) -> None:
    with pytest.raises(HandleStateError, match=f"^{fd} is not a file descriptor") as caught:
        call(fd)
    assert isinstance(caught.value, ValueError)


def test_fd_choices_do_not_convert_text(device: extmem.Device) -> None:
    text: Any = "3"
    with pytest.raises(TypeError, match="'3' is a str; give the number of a file descriptor"):
        raw.fd_choices(device, text)


@pytest.mark.parametrize("value", [[], 5, "x", None, 1, numpy.True_])
def test_a_flag_is_a_bool(value: object) -> None:
    with pytest.raises(TypeError, match="^inherit is .* give True or False$"):
        check_flag(value, "inherit")
    for flag in (True, False):
        check_flag(flag, "inherit")


def test_flags_of_calls_are_checked(device: extmem.Device) -> None:
    wrong: Any
    for wrong in ([], 5, "x"):
        with pytest.raises(TypeError, match="^inherit is "):
            device.allocate(1, inherit=wrong)
        with pytest.raises(TypeError, match="^dedicated is "):
            device.allocate(1, dedicated=wrong)
        with pytest.raises(TypeError, match="^inherit is "):
            extmem.open_handle("no such name", inherit=wrong)
        with pytest.raises(TypeError, match="^strict_kmt is "):
            extmem.open_device(kind="host", strict_kmt=wrong)
    extmem.open_device(kind="host", strict_kmt=True).close()
    with device.allocate(16, name=f"flags-{os.getpid()}", inherit=True) as memory, memory.export_handle() as handle:
        for name in ("inherit", "same_attributes", "close_source"):
            wrong = {name: 1}
            with pytest.raises(TypeError, match=f"^{name} is 1, an int"):
                handle.duplicate(**wrong)
        for name in ("inherit", "protect_from_close"):
            wrong = {name: "x"}
            with pytest.raises(TypeError, match=f"^{name} is 'x'"):
                handle.set_info(**wrong)
        handle.duplicate(inherit=True).close()
        handle.set_info(inherit=False)


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_selects_no_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="is empty, and would fit every device"):
        extmem.open_device(name=name)
    with pytest.raises(ValueError, match="is empty, and would fit every device"):
        extmem.open_device(kind="host", name=name)
    extmem.open_device(name="host memory").close()
    monkeypatch.setenv("EXTMEM_DEVICE", "")  # as if it were not set
    extmem.open_device().close()


@pytest.mark.parametrize(
    ("shape", "element"), [(2**63, "uint8"), (2**62, "float64"), (2**63 - 1, "uint8"), ((1,) * 65, "uint8")]
)
def test_an_array_that_cannot_be_described_is_the_callers_error(
    device: extmem.Device, shape: Any, element: str
) -> None:
    with pytest.raises(ValueError, match=r"shape") as caught:
        device.allocate(shape, element)
    assert not isinstance(caught.value, extmem.ExtmemError)
    device.allocate((1,) * 64, element).close()


def test_handles_to_inherit_are_handles() -> None:
    wrong: Any
    for wrong, words in (["x"], "'x' is a str; give the number of an NT handle"), (5, "handles is 5, an int"):
        with pytest.raises(TypeError, match=words):
            process.run([sys.executable, "-c", ""], handles=wrong)


@pytest.mark.linux_only("only Linux sends fds")
def test_a_handle_is_sent_through_a_socket_and_is_an_fd_handle(device: extmem.Device) -> None:
    nothing: Any = None
    number: Any = 1
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other, device.allocate(16) as memory:
        with memory.export_handle(OPAQUE_FD) as fd:
            with pytest.raises(TypeError, match="sock is None, a NoneType; give a Unix socket"):
                process.send_handle(nothing, fd)
            with pytest.raises(TypeError, match="handle is 1, an int; give an FdHandle"):
                process.send_handle(one, number)
            process.send_handle(one, fd)
        with pytest.raises(TypeError, match="sock is None"):
            process.receive_handle(nothing)
        process.receive_handle(other).close()
