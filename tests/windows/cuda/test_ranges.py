"""The addresses of the scripted CUDA driver's memory: it is mapped at its own addresses, and never at another's."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import pytest

from extmem.handles._win32 import calls, sections
from extmem.testing.fake_cuda import _views as views

SIZE = 1 << 20
COMMIT, READ_WRITE, RELEASE = 0x3000, 4, 0x8000


@pytest.fixture
def section() -> Iterator[int]:
    made = sections.create(SIZE, None)
    yield made
    calls.close_handle(made)


def taken(address: int) -> int:
    """Return the address that the system gives for a request of memory there; 0 for no particular place."""
    kernel32: Any = views._kernel32
    return int(kernel32.VirtualAlloc(address, SIZE, COMMIT, READ_WRITE))


def given_back(address: int) -> None:
    views._kernel32.VirtualFree(address, 0, RELEASE)


def test_what_is_mapped_at_a_range_is_the_sections_bytes(section: int) -> None:
    span = views.reserve(SIZE)
    views.place(span, section, SIZE, writable=True)
    ctypes.memset(span.address, 7, SIZE)
    assert sections.peek(section, SIZE - 1, 1) == b"\7"
    views.place(span, -1, SIZE, writable=False)
    views.place(span, section, SIZE, writable=False)
    assert ctypes.string_at(span.address, 2) == b"\7\7"


@pytest.mark.parametrize(("mapped", "why"), [(True, "WinError 487"), (False, "cannot be mapped at .* 0xc0000018")])
def test_who_takes_a_range_meanwhile_keeps_it(
    section: int, mapped: bool, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    span, theirs = views.reserve(SIZE), []
    if mapped:
        views.place(span, section, SIZE, writable=True)
    emptied = views.Span.empty

    def too_late(self: views.Span) -> None:
        emptied(self)
        theirs.append(taken(self.address))

    with monkeypatch.context() as patched:
        patched.setattr(views.Span, "empty", too_late)
        with pytest.raises(OSError, match=why):
            views.place(span, -1 if mapped else section, SIZE, writable=True)
    try:
        assert theirs[0] == span.address
        ctypes.memset(span.address, 9, SIZE)
        del span
        assert ctypes.string_at(theirs[0], SIZE) == b"\x09" * SIZE
    finally:
        given_back(theirs[0])


def test_the_system_puts_nothing_into_a_range_of_its_own_accord() -> None:
    span = views.reserve(SIZE)
    span.empty()
    found = [taken(0) for _ in range(64)]
    try:
        assert all(found)
        assert not [at for at in found if abs(at - span.address) < 1 << 40]
    finally:
        for at in found:
            given_back(at)


def test_ranges_are_never_used_twice() -> None:
    first = views.reserve(SIZE)
    at = first.address
    del first
    assert views.reserve(SIZE).address != at
