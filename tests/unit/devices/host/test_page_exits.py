"""The normal end of a process is written into its pages, and no other end is."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from extmem.devices.host import page_exits
from extmem.owning import cleanup_thread


class Page:
    """Counts how often it was written."""

    def __init__(self) -> None:
        self.written = 0

    def mark_leaving(self) -> None:
        self.written += 1


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    """A page of a process that has no other one."""
    monkeypatch.setattr(page_exits, "_process", page_exits._Process())
    monkeypatch.delattr(sys, "last_value", raising=False)
    made = Page()
    page_exits.watch(made)
    return made


def test_a_normal_end_is_written(page: Page) -> None:
    page_exits.leave()
    assert page.written == 1
    page_exits.leave()  # the finalizer of multiprocessing, and the function of atexit
    assert page.written == 2


def test_an_exception_that_was_printed_last_is_not_a_normal_end(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "last_value", ValueError(), raising=False)
    page_exits.leave()
    assert page.written == 0


def test_an_interactive_interpreter_goes_on_after_exceptions(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "last_value", ValueError(), raising=False)
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    page_exits.leave()
    assert page.written == 1


ENDS: list[tuple[BaseException, bool]] = [
    (ValueError(), False),
    (KeyboardInterrupt(), False),
    (SystemExit(1), False),
    (SystemExit(0), True),
    (SystemExit(), True),
]


@pytest.mark.parametrize(("error", "normal"), ENDS, ids=[repr(error) for error, _ in ENDS])
def test_the_exception_that_ends_a_child_is_remembered(page: Page, error: BaseException, normal: bool) -> None:
    def end() -> None:
        try:
            raise error
        finally:
            page_exits.leave()  # as `multiprocessing` calls it

    with pytest.raises(type(error)):
        end()
    page_exits.leave()  # at the end of the interpreter, the exception is not handled any more
    assert page.written == (2 if normal else 0)


def test_a_page_that_is_gone_is_not_written(page: Page) -> None:
    other = Page()
    page_exits.watch(other)
    del other
    page_exits.leave()
    assert page.written == 1


def test_one_page_that_cannot_be_written_does_not_keep_the_others_from_it(page: Page) -> None:
    class Broken(Page):
        def mark_leaving(self) -> None:
            raise FileNotFoundError("/proc/self/stat")

    broken = [Broken() for _ in range(3)]
    for one in broken:
        page_exits.watch(one)
    page_exits.leave()
    assert page.written == 1


def test_what_was_lost_before_is_closed_first(page: Page) -> None:
    done: list[int] = []
    put, work = cleanup_thread.step(lambda: done.append(page.written))
    put(work)
    page_exits.leave()
    assert done == [0] and page.written == 1


def test_a_process_that_had_no_page_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_exits, "_process", page_exits._Process())
    monkeypatch.setattr(cleanup_thread, "finish", lambda seconds: pytest.fail("it waited"))
    page_exits.leave()


@pytest.mark.parametrize("child", [True, False])
def test_a_child_of_multiprocessing_has_a_finalizer(child: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Any, ...]] = []
    monkeypatch.setattr(page_exits, "_process", page_exits._Process())
    process = SimpleNamespace(parent_process=lambda: object() if child else None)
    util = SimpleNamespace(Finalize=lambda *given, **named: made.append((*given, named)))
    monkeypatch.setitem(sys.modules, "multiprocessing.process", process)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "multiprocessing.util", util)  # type: ignore[arg-type]
    pages = [Page(), Page()]
    for one in pages:
        page_exits.watch(one)
    assert made == ([(None, page_exits.leave, {"exitpriority": -1})] if child else [])


@pytest.mark.linux_only("fork")
def test_a_forked_child_does_not_write_the_pages_of_its_parent(page: Page) -> None:
    child = os.fork()
    if child == 0:
        page_exits.leave()
        os._exit(page.written)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    page_exits.leave()
    assert page.written == 1
