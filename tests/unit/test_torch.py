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


class Settings:
    """PyTorch's allocator settings: a new text replaces the old one."""

    def __init__(self, before: str, *, obeys: bool = True) -> None:
        self.text, self.obeys, self.given = before, obeys, ""
        self.segments: list[dict[str, int]] = []
        self.emptied = 0

    def snapshot(self) -> dict[str, Any]:
        on = self.obeys and "expandable_segments:True" in self.text
        return {"allocator_settings": {"expandable_segments": on, "PYTORCH_CUDA_ALLOC_CONF": self.text}}

    def set(self, text: str) -> None:
        self.text = self.given = text

    def empty_cache(self) -> None:
        self.emptied += 1

    def torch(self) -> Any:
        cuda = types.SimpleNamespace(
            memory=types.SimpleNamespace(_snapshot=self.snapshot, _set_allocator_settings=self.set),
            empty_cache=self.empty_cache,
            current_device=lambda: 0,
            memory_snapshot=lambda: self.segments,
            device=lambda index: contextlib.nullcontext(),
            get_allocator_backend=lambda: "cudaMallocAsync",
        )
        made = types.SimpleNamespace(data_ptr=lambda: 1)
        return types.SimpleNamespace(
            cuda=cuda, _C=object(), uint8=None, empty=lambda *shape, **options: made, __version__="2.11"
        )


@pytest.mark.parametrize(
    ("before", "given"),
    [
        ("", "expandable_segments:True"),
        ("max_split_size_mb:64", "max_split_size_mb:64,expandable_segments:True"),
        ("expandable_segments:False,max_split_size_mb:64", "max_split_size_mb:64,expandable_segments:True"),
        ("expandable_segments:True", ""),
    ],
)
def test_the_other_settings_are_kept(monkeypatch: pytest.MonkeyPatch, before: str, given: str) -> None:
    settings = Settings(before)
    monkeypatch.setattr(extmem.torch, "_torch", settings.torch)
    monkeypatch.setattr(extmem.torch, "_problem", lambda *range_: [])
    assert extmem.torch.make_shareable() == []
    assert settings.given == given and settings.emptied == 1


def test_what_is_left_is_listed_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings("")
    settings.segments = [
        {"device": 0, "address": 4096, "allocated_size": 10, "total_size": 2 << 20},
        {"device": 0, "address": 8192, "allocated_size": 0, "total_size": 2 << 20},
    ]
    problem = extmem.torch.Unshareable(0, 4096, 10, "of cudaMalloc")
    monkeypatch.setattr(extmem.torch, "_torch", settings.torch)
    monkeypatch.setattr(
        extmem.torch, "_problem", lambda index, address, size, used: [problem] if address in (1, 4096) else []
    )
    assert extmem.torch.make_shareable() == [problem, problem._replace(address=0, size=0)]


def test_a_setting_without_effect_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings("backend:cudaMallocAsync", obeys=False)
    monkeypatch.setattr(extmem.torch, "_torch", settings.torch)
    with pytest.raises(extmem.UnsupportedError, match=r"cudaMallocAsync did not switch .*extmem\.torch\.pool\(\)"):
        extmem.torch.make_shareable()


def test_a_large_segment_is_looked_at_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[tuple[int, int]] = []

    class Backend:
        def wrap_pointer(self, address: int, size: int) -> Any:
            raise AssertionError

        def wrap_range(self, address: int, size: int) -> Any:
            looked.append((address, size))
            if address > 3 << 30:
                raise extmem.UnsupportedError("of cudaMalloc")
            return types.SimpleNamespace(close=lambda: None)

    device = types.SimpleNamespace(backend=Backend(), use=contextlib.nullcontext)
    monkeypatch.setattr(extmem.torch, "_device", lambda index: device)
    assert extmem.torch._problem(0, 1 << 21, (2 << 30) + 5, 7) == []
    assert looked == [(1 << 21, 1 << 30), ((1 << 21) + (1 << 30), 1 << 30), ((1 << 21) + (2 << 30), 5)]
    assert extmem.torch._problem(0, 1 << 21, 4 << 30, 7) == [extmem.torch.Unshareable(0, 1 << 21, 7, "of cudaMalloc")]
