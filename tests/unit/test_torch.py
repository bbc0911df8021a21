"""Blocks of `extmem.torch.pool()` with a scripted allocator, which records to a pool for one thread, as PyTorch's."""

from __future__ import annotations

import contextlib
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import pytest

import extmem.torch


class Allocator:
    """What PyTorch's allocator does: `begin` refuses a pool that is recorded already; the first record decides."""

    def __init__(self) -> None:
        self.recorded: list[tuple[Any, int, int]] = []
        self.made: list[object] = []
        self.fails = False

    @contextlib.contextmanager
    def use_mem_pool(self, pool: Any, device: int) -> Iterator[None]:
        if self.fails:
            raise RuntimeError("begin has failed")
        if any(each[0] is pool for each in self.recorded):
            raise RuntimeError("beginAllocateToPool: already recording to mempool_id")
        record = (pool, threading.get_ident(), device)
        self.recorded.append(record)
        try:
            yield
        finally:
            self.recorded.remove(record)

    def current(self, device: int = 0) -> Any:
        here = threading.get_ident()
        return next((pool for pool, thread, of in self.recorded if thread == here and of == device), None)

    def new_pool(self, torch: Any, index: int) -> object:
        self.made.append(object())
        return self.made[-1]


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> Allocator:
    made = Allocator()
    cuda = types.SimpleNamespace(use_mem_pool=made.use_mem_pool)
    monkeypatch.setattr(extmem.torch, "_torch", lambda: types.SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(extmem.torch, "_index", lambda torch, device: device or 0)
    monkeypatch.setattr(extmem.torch, "_new_pool", made.new_pool)
    monkeypatch.setattr(extmem.torch, "_pools", {})
    return made


def test_a_block_ends_and_the_next_one_uses_its_pool(allocator: Allocator) -> None:
    for _ in range(3):
        with extmem.torch.pool():
            assert allocator.current() is allocator.made[0]
        assert allocator.current() is None
    assert len(allocator.made) == 1


def test_blocks_are_nested(allocator: Allocator) -> None:
    with extmem.torch.pool():
        with extmem.torch.pool(), extmem.torch.pool(1):
            assert allocator.current() is allocator.made[0]
            assert allocator.current(1) is allocator.made[1]
        assert allocator.current() is allocator.made[0]
        assert allocator.current(1) is None
    assert allocator.current() is None and len(allocator.made) == 2


def test_blocks_of_one_thread_end_in_any_order(allocator: Allocator) -> None:
    first, second = extmem.torch.pool(), extmem.torch.pool()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert allocator.current() is allocator.made[0]
    second.__exit__(None, None, None)
    assert allocator.current() is None and not extmem.torch._open


def test_eight_threads_have_a_pool_each_at_the_same_time(allocator: Allocator) -> None:
    together = threading.Barrier(8, timeout=20)
    seen: list[Any] = []

    def work() -> None:
        for _ in range(2):
            with extmem.torch.pool():
                together.wait()
                with extmem.torch.pool():
                    seen.append(allocator.current())
                together.wait()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(seen) == 16 and len(set(seen[:8])) == 8 and set(seen[8:]) == set(seen[:8])
    assert len(allocator.made) == 8 and not allocator.recorded


def test_an_exception_ends_the_block(allocator: Allocator) -> None:
    with pytest.raises(ValueError, match="of the program"), extmem.torch.pool():
        raise ValueError("of the program")
    allocator.fails = True
    with pytest.raises(RuntimeError, match="begin has failed"), extmem.torch.pool():
        pass
    allocator.fails = False
    assert allocator.current() is None and not extmem.torch._open
    with extmem.torch.pool():
        assert allocator.current() is allocator.made[0]


def test_after_an_interrupt_at_each_line_the_next_block_leaves_nothing(allocator: Allocator) -> None:
    interrupted = 0

    def tracer(at: int) -> Any:
        lines = iter(range(at))

        def trace(frame: Any, event: str, argument: object) -> Any:
            if frame.f_code.co_name not in ("_enter", "_leave"):
                return None
            if event == "line" and next(lines, None) is None:
                sys.settrace(None)
                raise KeyboardInterrupt
            return trace

        return trace

    before = sys.gettrace()
    for at in range(100):
        sys.settrace(tracer(at))
        try:
            with extmem.torch.pool():
                assert allocator.current() is not None
            break
        except KeyboardInterrupt:
            interrupted += 1
        finally:
            sys.settrace(before)
        with extmem.torch.pool():
            assert allocator.current() is allocator.made[0]
        assert allocator.current() is None and not extmem.torch._open
    assert 10 < interrupted < 50
    assert len(allocator.made) <= 2  # one, and one that was made when the interrupt came
