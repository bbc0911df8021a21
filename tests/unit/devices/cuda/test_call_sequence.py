"""The machine code that makes several calls in one: their order, the first that fails, guards, and records."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import pytest

from extmem.devices.cuda import call_sequence, host_function, machine_code
from extmem.devices.cuda.call_sequence import CAPTURING, Program
from extmem.errors import UnsupportedError

pytestmark = pytest.mark.linux_only("CUDA's host functions call Linux")

_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_uint64] * 4)
_WORDS = (ctypes.c_uint64 * 4)()
VALUE = ctypes.addressof(_WORDS)


class Calls:
    """C functions that record their arguments, and return the results that a test states."""

    def __init__(self, *results: int) -> None:
        self.made: list[tuple[int, ...]] = []
        self.functions = [self._function(index, result) for index, result in enumerate(results)]

    def _function(self, index: int, result: int) -> Any:
        def record(*arguments: int) -> int:
            self.made.append((index, *arguments))
            return result

        return _FUNCTION(record)

    def calls(self, *arguments: Sequence[int], guard: int = 0) -> list[tuple[int, Sequence[int], int]]:
        addresses = [ctypes.cast(function, ctypes.c_void_p).value or 0 for function in self.functions]
        return [
            (address, given, guard if index == 0 else 0)
            for index, (address, given) in enumerate(zip(addresses, arguments, strict=True))
        ]


def run(program: Program, value: int = 0, record: int = 0) -> tuple[int, int]:
    """Return the number of calls that succeeded, and the last result."""
    outcome = int(call_sequence.runner()(program.address, value, record))
    return outcome >> 32, outcome & 0xFFFF_FFFF


def test_the_calls_are_made_in_order_with_their_arguments_and_the_value() -> None:
    made = Calls(0, 0, 0)
    program = Program(made.calls((1, 2, 3, 4), (5, 6, 0, 8), ()), (1, 2), None)
    assert run(program, (1 << 64) - 1) == (3, 0) and program.done == 3 << 32
    assert made.made == [(0, 1, 2, 3, 4), (1, 5, 6, (1 << 64) - 1, 8), (2, 0, 0, 0, 0)]
    assert run(program, 7) == (3, 0)
    assert made.made[4] == (1, 5, 6, 7, 8)


def test_the_value_is_stored_where_a_structure_has_it() -> None:
    made = Calls(0)
    assert run(Program(made.calls((1,)), VALUE, None), 9) == (1, 0)
    assert _WORDS[0] == 9


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_no_call_is_made_after_one_that_failed(failing: int) -> None:
    made = Calls(*(400 if index == failing else 0 for index in range(3)))
    record = host_function.prepare(VALUE, 1, VALUE + 8)
    program = Program(made.calls((), (), (1, 2)), VALUE, (2, 2))
    assert not record.given
    assert run(program, 1, record.address) == (failing, 400)
    assert len(made.made) == failing + 1
    assert record.given and record.done, "it is not going to be called"
    host_function.release(record)


def test_a_record_is_passed_on_and_stays_outstanding() -> None:
    made = Calls(0, 0)
    record = host_function.prepare(VALUE, 1, VALUE + 8)
    assert run(Program(made.calls((), (1, 2)), VALUE, (1, 2)), 1, record.address) == (2, 0)
    assert made.made[1] == (1, 1, 2, record.address, 0)
    assert record.given and not record.done
    record.cancel()
    host_function.release(record)


@pytest.mark.parametrize(("status", "outcome"), [(0, (2, 0)), (1, (0, CAPTURING))])
def test_a_guard_stops_after_its_call(status: int, outcome: tuple[int, int]) -> None:
    guard = ctypes.c_uint32(status)
    made = Calls(0, 0)
    program = Program(made.calls((1,), (2,), guard=ctypes.addressof(guard)), VALUE, None)
    assert run(program) == outcome
    assert len(made.made) == 1 + outcome[0] // 2


def test_a_system_without_machine_code_has_no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise UnsupportedError("this system refuses executable memory", requires_one_of=["executable memory"])

    monkeypatch.setattr(machine_code, "load", refuse)
    call_sequence.runner.cache_clear()
    try:
        assert call_sequence.runner() is None
    finally:
        call_sequence.runner.cache_clear()
