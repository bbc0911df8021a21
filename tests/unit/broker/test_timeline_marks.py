"""Changes of a timeline's page by the broker: only what differs is written, and nothing of the signalers' own."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator

import pytest

from extmem.broker import timeline_marks
from extmem.sharing import timeline_page
from extmem.testing.leaks import descriptors


@pytest.fixture
def page() -> Iterator[int]:
    before = descriptors()
    fd = os.memfd_create("page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 2 * timeline_page.PAGE_SIZE)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    yield fd
    os.close(fd)
    assert not descriptors().items() - before.items()


def read(fd: int) -> timeline_page.Facts:
    return timeline_page.read(memoryview(os.pread(fd, timeline_page.PAGE_SIZE, 0)))


def test_a_mark_adds_1_to_the_sequence_and_leaves_what_others_write(page: int) -> None:
    with mmap.mmap(page, timeline_page.PAGE_SIZE) as mapped:
        view = memoryview(mapped)

        def mark(copy: memoryview) -> bool:
            # A signal arrives between the reading and the writing.
            view.cast("Q")[0] = 9
            view.cast("I")[timeline_page.SEQUENCE // 4] = 0xFFFF_FFFF
            timeline_page.mark_gone(copy, 7, 8)
            return True

        assert timeline_marks.change(page, mark)
        view.release()
    found = read(page)
    assert (found.value, found.sequence, found.state, found.pid, found.since) == (9, 0, 1, 7, 8)
    assert timeline_marks.value_of(page) == 9


def test_a_change_without_news_wakes_nobody(page: int) -> None:
    assert not timeline_marks.change(page, lambda copy: not timeline_page.enter(copy, 5, 6))
    assert read(page).sequence == 0
    assert timeline_page.signalers(memoryview(os.pread(page, timeline_page.PAGE_SIZE, 0)))[0].pid == 5


def test_a_page_that_may_not_be_written_is_an_error(page: int) -> None:
    reading = os.open(f"/proc/self/fd/{page}", os.O_RDONLY | os.O_CLOEXEC)
    sealed = os.memfd_create("page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(sealed, timeline_page.PAGE_SIZE)
    fcntl.fcntl(sealed, fcntl.F_ADD_SEALS, 0x10)  # F_SEAL_FUTURE_WRITE
    for fd in (reading, sealed):
        with pytest.raises(OSError):
            timeline_marks.change(fd, lambda copy: not timeline_page.enter(copy, 5, 6))
        with pytest.raises(OSError):
            timeline_marks.change(fd, lambda copy: True)
        os.close(fd)
    assert read(page) == timeline_page.Facts(0, 0, 0, 0, 0, 0, 0, 0)


def test_a_file_that_is_too_small_is_no_page() -> None:
    small = os.memfd_create("page", os.MFD_CLOEXEC)
    os.ftruncate(small, timeline_page.PAGE_SIZE - 1)
    assert not timeline_marks.is_page(small) and timeline_marks.value_of(small) is None
    assert not timeline_marks.change(small, lambda copy: True)
    os.ftruncate(small, timeline_page.PAGE_SIZE)
    assert timeline_marks.is_page(small) and timeline_marks.value_of(small) == 0
    os.close(small)
    event = os.eventfd(0, os.EFD_NONBLOCK)
    assert timeline_marks.value_of(event) is None
    os.close(event)
