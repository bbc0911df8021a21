"""A process that runs for a page: its packets, and its end whatever it does."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from extmem.cli._top import program as module
from extmem.cli._top.program import Program
from extmem.testing.waiting import DEADLINE

BEGINS = """
import sys, time
def put(kind, data):
    sys.stdout.buffer.write(kind + len(data).to_bytes(4, "big") + data); sys.stdout.buffer.flush()
sys.stdout.buffer.write(b"__GANGLION__\\n")
"""


def run(source: str, test: Callable[[Program], Awaitable[None]]) -> Program:
    """Run a test with a program, which has ended when this returns."""

    async def all_of_it() -> Program:
        async with asyncio.timeout(DEADLINE):
            made = await Program.start([sys.executable, "-c", source], 100, 20)
            try:
                await test(made)
            finally:
                await made.end()
            return made

    made = asyncio.run(all_of_it())
    assert made._process.returncode is not None
    return made


async def drawn(program: Program) -> list[bytes]:
    return [data async for data in program.drawn()]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("", []),
        ("print('Traceback')", []),
        ("print('x\\n' * 100)", []),
        ("print('a warning')" + BEGINS + "put(b'D', b'one'); put(b'D', b'')", [b"one", b""]),
        (BEGINS + "put(b'D', b'one'); put(b'P', b'packed'); put(b'M', b'{}'); put(b'D', b'two')", [b"one", b"two"]),
        (BEGINS + "put(b'D', b'one'); put(b'M', b'{\"type\": \"exit\"}'); put(b'D', b'two')", [b"one"]),
        (BEGINS + "put(b'D', b'one'); put(b'M', b'no JSON'); put(b'D', b'two')", [b"one"]),
        (BEGINS + "put(b'D', b'one'); sys.stdout.buffer.write(b'D\\xff\\xff\\xff\\xff')", [b"one"]),
        (BEGINS + "put(b'D', b'one'); sys.stdout.buffer.write(b'D\\0\\0\\0\\x09half')", [b"one"]),
    ],
    ids=["nothing", "no program", "lines", "packets", "other packets", "exit", "wrong JSON", "too long", "half"],
)
def test_what_it_draws_is_read_until_it_ends(source: str, found: list[bytes]) -> None:
    async def test(program: Program) -> None:
        assert await drawn(program) == found

    run(source, test)


def test_what_is_typed_and_told_arrives_in_packets() -> None:
    async def test(program: Program) -> None:
        await program.typed(b"j")
        await program.tell({"type": "focus"})
        assert await drawn(program) == [b'D\\x00\\x00\\x00\\x01jM\\x00\\x00\\x00\\x11{"type": "focus"}']

    # The repr of what arrives, which is 6 and 22 bytes.
    run(BEGINS + "put(b'D', repr(sys.stdin.buffer.read(28)).encode()[2:-1])", test)


def test_the_window_is_in_the_environment() -> None:
    async def test(program: Program) -> None:
        assert await drawn(program) == [b"100x20"]

    run(BEGINS + "import os; put(b'D', f\"{os.environ['COLUMNS']}x{os.environ['ROWS']}\".encode())", test)


def test_one_that_ends_when_it_is_asked_is_not_killed() -> None:
    async def test(program: Program) -> None:
        pass

    asked = BEGINS + "data = sys.stdin.buffer.read(); put(b'D', bytes(1 << 20)); sys.exit(5 if b'quit' in data else 1)"
    assert run(asked, test)._process.returncode == 5


def test_one_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENDS", 0.1)

    async def test(program: Program) -> None:
        await program.typed(b"x")

    assert run(BEGINS + "time.sleep(1000)", test)._process.returncode not in (0, None)


def test_a_page_may_type_after_the_program_has_ended(tmp_path: Path) -> None:
    async def test(program: Program) -> None:
        await program._process.wait()
        for _ in range(5):
            await program.typed(bytes(1 << 16))

    run("", test)


def test_a_command_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        asyncio.run(Program.start([str(tmp_path / "nothing")], 80, 24))
