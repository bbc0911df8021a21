"""Owned handles: three states, the methods that change the state, and exactly one close of the system's handle."""

from __future__ import annotations

import errno
import gc
import os
import random
import threading
import warnings
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extmem.errors import HandleStateError, InvalidHandleError
from extmem.handles import Access, FdHandle, HandleEntry, HandleInfo, KmtHandle, NtHandle, is_kmt_value
from extmem.objects import ObjectManager, Refused, Share, Token, error_for
from extmem.owning import Step


class ModelTable:
    """A handle table over the object manager's model, as in the broker, but without the broker."""

    def __init__(self) -> None:
        self.model = ObjectManager(random=random.Random(1).randrange)
        self.process = self.model.attach(Token(1000, 1000), 1)
        self.reference = self.model.export(
            self.process, ((1, 1),), b"", share=Share.NT, name="X", access=0x1000_0000, sddl=None, inherit=False
        ).reference
        self.closes: list[int] = []
        self.lock = threading.RLock()

    def handle(self) -> NtHandle:
        return NtHandle(self.model.get_handle(self.process, self.reference), self)

    @property
    def open_handles(self) -> int:
        first = self.model.get_handle(self.process, self.reference)
        count = self.model.handle_info(self.process, first).handle_count - 1
        self.model.close_handle(self.process, first)
        return count

    def close(self, value: int, entry: HandleEntry | None = None) -> None:
        self.closes.append(value)
        try:
            self.model.close_handle(self.process, value)
        except Refused as refusal:
            raise error_for(refusal.status, refusal.detail) from None

    def when_lost(self, value: int) -> list[Step]:
        return [(self.close, value)]

    def duplicate(
        self,
        value: int,
        *,
        desired: int | None,
        inherit: bool,
        same_attributes: bool,
        close_source: bool,
        into: int | None,
        entry: HandleEntry | None = None,
        source_entry: HandleEntry | None = None,
    ) -> int:
        closes = close_source and not self.info(value).protect_from_close
        try:
            return self.model.duplicate(
                self.process,
                value,
                desired=desired,
                inherit=inherit,
                same_attributes=same_attributes,
                close_source=close_source,
            )
        except Refused as refusal:
            raise error_for(refusal.status, refusal.detail) from None
        finally:
            if closes and source_entry is not None:
                source_entry.forget()

    def same_object(self, a: int, b: int) -> bool:
        return self.model.same_object(self.process, a, b)

    def info(self, value: int) -> HandleInfo:
        try:
            found = self.model.handle_info(self.process, value)
        except Refused as refusal:
            raise error_for(refusal.status, refusal.detail) from None
        return HandleInfo(
            found.inherit, found.protect, found.granted, found.type_name, found.name, found.object, found.handle_count
        )

    def set_flags(self, value: int, mask: int, flags: int) -> None:
        self.model.set_handle_flags(self.process, value, mask, flags)


@pytest.fixture
def table() -> Iterator[ModelTable]:
    made = ModelTable()
    yield made
    assert made.open_handles == 0


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            continue


def test_close_is_safe_twice_and_after_take(table: ModelTable) -> None:
    handle = table.handle()
    handle.close()
    handle.close()
    assert handle.closed and len(table.closes) == 1
    taken = table.handle()
    value = taken.take()
    taken.close()
    assert taken.closed and len(table.closes) == 1
    table.close(value)


@pytest.mark.parametrize(
    "verb", [int, lambda h: h.take(), lambda h: h.info, lambda h: h.duplicate(), lambda h: h.__enter__()]
)
@pytest.mark.parametrize("end", ["close", "take"])
def test_every_other_verb_needs_the_open_state(table: ModelTable, verb: object, end: str) -> None:
    handle = table.handle()
    value = int(handle)
    getattr(handle, end)()
    with pytest.raises(HandleStateError, match=f"{value:#x}.*{'closed' if end == 'close' else 'taken'}"):
        verb(handle)  # type: ignore[operator]
    if end == "take":
        table.close(value)


def test_repr_shows_value_and_state(table: ModelTable) -> None:
    handle = table.handle()
    assert repr(handle) == f"NtHandle({int(handle):#x})"
    handle.close()
    assert repr(handle).endswith(", closed)")
    assert repr(KmtHandle(0x4000_0002)) == "KmtHandle(0x40000002)"


@pytest.mark.parametrize("value", [0, -4, 0x4000_0004, 0x8000_0000, 1 << 32, 1 << 40])
def test_values_that_no_nt_handle_has(table: ModelTable, value: int) -> None:
    with pytest.raises(HandleStateError, match="multiples of 4"):
        NtHandle(value, table)


def test_a_refused_close_leaves_it_open(table: ModelTable) -> None:
    with table.handle() as handle:
        handle.set_info(protect_from_close=True)
        with pytest.raises(InvalidHandleError):
            handle.close()
        assert not handle.closed
        handle.set_info(protect_from_close=False)


def test_lost_while_open_warns_and_closes(table: ModelTable) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        handle = table.handle()
        value = int(handle)
        del handle
        gc.collect()
    assert [str(w.message) for w in seen] == [f"unclosed NtHandle({value:#x})"]
    assert table.closes == [value]


def test_set_info_of_nothing_changes_nothing(table: ModelTable) -> None:
    with table.handle() as handle:
        handle.set_info(inherit=True)
        handle.set_info()
        assert handle.info.inherit and handle.access == Access(0xF0001) and handle.table is table


VERBS = st.lists(
    st.tuples(
        st.sampled_from(["close", "take", "duplicate", "move", "protect", "unprotect", "lose", "new"]),
        st.integers(0, 7),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(VERBS)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_whatever_the_verbs_each_handle_is_closed_exactly_once(verbs: list[tuple[str, int]]) -> None:
    table = ModelTable()
    handles: list[NtHandle] = [table.handle()]
    taken: list[int] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for verb, index in verbs:
            if verb == "new" or not handles:
                handles.append(table.handle())
                continue
            handle = handles[index % len(handles)]
            try:
                if verb == "close":
                    handle.close()
                elif verb == "take":
                    taken.append(handle.take())
                elif verb == "duplicate":
                    handles.append(handle.duplicate(inherit=bool(index % 2)))
                elif verb == "move":
                    handles.append(handle.duplicate(close_source=True))
                elif verb == "protect":
                    handle.set_info(protect_from_close=True)
                elif verb == "unprotect":
                    handle.set_info(protect_from_close=False)
                elif handle.closed or not handle.info.protect_from_close:
                    handles.remove(handle)
                    del handle
            except (HandleStateError, InvalidHandleError):
                continue
        alive = [h for h in handles if not h.closed]
        assert table.open_handles == len(alive) + len(taken)
        for h in alive:
            h.set_info(protect_from_close=False)
            h.close()
        for value in taken:
            table.model.set_handle_flags(table.process, value, 2, 0)
            table.close(value)
    assert table.open_handles == 0


def test_an_fd_handle_owns_its_descriptor(pipe: tuple[int, int]) -> None:
    os.set_inheritable(pipe[0], True)
    handle = FdHandle(pipe[0])
    assert handle.fileno() == int(handle) == pipe[0] and not os.get_inheritable(pipe[0])
    handle.close()
    with pytest.raises(OSError) as error:
        os.fstat(pipe[0])
    assert error.value.errno == errno.EBADF
    with FdHandle(pipe[1]) as other:
        number = other.take()
    os.fstat(number)


@pytest.mark.linux_only("files are compared by inode")
def test_fd_handles_compare_by_file() -> None:
    one, two = os.memfd_create("one"), os.memfd_create("two")
    with FdHandle(one) as a, a.duplicate() as b, FdHandle(two) as c:
        assert int(a) != int(b)
        assert a.same_object(b) and not a.same_object(c)
        with FdHandle(os.open(f"/proc/self/fd/{one}", os.O_RDONLY)) as reopened:
            assert a.same_object(reopened)  # another open file of the same payload


@pytest.mark.linux_only("kcmp is Linux's")
def test_fd_handles_of_what_is_no_file_compare_by_open_file() -> None:
    """The two ends of a pipe are one inode and two open files."""
    read, write = os.pipe()
    with FdHandle(read) as a, FdHandle(write) as b, a.duplicate() as c:
        try:
            assert a.same_object(c)
        except OSError as error:
            raise AssertionError(f"kcmp failed: {error}") from error
        assert not a.same_object(b)


@pytest.mark.parametrize("fd", [-1, -5])
def test_a_negative_number_is_no_fd(fd: int) -> None:
    with pytest.raises(HandleStateError, match="0 or greater"):
        FdHandle(fd)


def test_a_closed_number_is_no_fd_and_is_not_taken_over(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    with pytest.raises(OSError, match="Bad file descriptor"):
        FdHandle(pipe[0])
    gc.collect()


def test_kmt_handles_are_values() -> None:
    one, same, other = KmtHandle(0x4000_0042), KmtHandle(0x4000_0042), KmtHandle(0x8000_0042)
    assert one == same and hash(one) == hash(same) and one != other and one != 0x4000_0042
    assert one.duplicate() == one and one.take() == int(one) == 0x4000_0042 and not one.closed
    with one as entered:
        assert entered is one
    one.close()
    assert int(one) == 0x4000_0042


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        (0, False),
        (4, False),
        (0x3FFF_FFFF, False),
        (0x4000_0000, True),
        (0xFFFF_FFFF, True),
        (1 << 32, False),
        (-1, False),
    ],
)
def test_the_shape_of_a_kmt_value(value: int, is_one: bool) -> None:
    assert is_kmt_value(value) is is_one


@pytest.mark.linux_only("kcmp is Linux's")
def test_kcmp_that_the_kernel_refuses_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes
    import errno
    import platform

    from extmem.errors import UnsupportedError
    from extmem.handles import _kcmp

    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    with pytest.raises(UnsupportedError, match="pdp11"):
        _kcmp.same_open_file(0, 0)
    monkeypatch.undo()
    with pytest.raises(OSError) as error:
        _kcmp.same_open_file(2**30, 2**30 - 1)
    assert error.value.errno in (errno.EBADF,)
    # An unused system call number has the effect of a kernel without kcmp.
    monkeypatch.setitem(_kcmp._SYS_KCMP, platform.machine(), 100_000)
    with pytest.raises(UnsupportedError, match="kcmp"):
        _kcmp.same_open_file(0, 0)
    assert ctypes.get_errno() >= 0


class _ClosedMeanwhile:
    """A table's lock that closes a handle each time it is released, as another thread may."""

    def __init__(self, handle: NtHandle) -> None:
        self._handle, self._lock, self._inside = handle, threading.RLock(), 0

    def __enter__(self) -> None:
        self._lock.acquire()
        self._inside += 1

    def __exit__(self, *_: object) -> None:
        self._inside -= 1
        self._lock.release()
        if not self._inside:
            self._inside += 1  # once, not for the lock that `close` acquires
            self._handle.close()
            self._inside -= 1


def test_what_one_thread_takes_another_does_not_close() -> None:
    table = ModelTable()
    handle = table.handle()
    table.lock = _ClosedMeanwhile(handle)  # type: ignore[assignment]
    value = handle.take()
    assert table.closes == [] and table.info(value).name, "the caller has it"
    with pytest.raises(HandleStateError):
        handle.take()
    table.lock = threading.RLock()
    NtHandle(value, table).close()
    assert table.closes == [value]


def test_a_handle_that_cannot_be_taken_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    table = ModelTable()
    handle = table.handle()

    def interrupted(entry: HandleEntry) -> list[Step]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(HandleEntry, "disown", interrupted)
        handle.take()
    assert not handle.closed
    handle.close()
    assert table.closes == [handle._value]
