"""A child that another thread forks while a broker is started: it keeps no lock, and it has no copies of the pipes."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import get_ident
from typing import Any

import pytest

from extmem import forks
from extmem.manager.linux import launch
from extmem.owning import OwnedFd
from extmem.wire.runtime_dir import RuntimeDir, lock_holder


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Copies of all files that are opened, as a child has them that is forked at that moment."""
    made: list[int] = []
    opening = OwnedFd.open

    def copied(*arguments: Any, **options: Any) -> OwnedFd:
        opened = opening(*arguments, **options)
        made.append(os.dup(opened.fd))
        return opened

    monkeypatch.setattr(OwnedFd, "open", copied)
    yield made
    for fd in made:
        os.close(fd)


def is_free(lock: Path) -> bool:
    with open(lock, "rb+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_a_copied_file_keeps_its_lock(tmp_path: Path) -> None:
    """The reason for the tests below: closing one of two copies does not end a lock."""
    lock = tmp_path / "lock"
    lock.touch()
    fd = os.open(lock, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    copy = os.dup(fd)
    os.close(fd)
    assert not is_free(lock)
    os.close(copy)
    assert is_free(lock)


def test_looking_for_a_brokers_lock_leaves_none(tmp_path: Path, copies: list[int]) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    assert lock_holder(lock) is None
    assert copies and is_free(lock)


def test_no_thread_forks_while_the_pipes_are_open_for_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`_spawn` has the end for writing, of which a child must have no copy; `_read_line` waits without it."""
    directory, delayed = RuntimeDir(tmp_path / "extmem"), dict[str, bool]()

    def note(name: str, result: str = "") -> Callable[..., str]:
        def call(*_: object) -> str:
            delayed[name] = forks._state.is_in_block(get_ident())
            return result

        return call

    monkeypatch.setattr(launch, "_spawn", note("_spawn"))
    monkeypatch.setattr(launch, "_read_line", note("_read_line", "ready"))
    with contextlib.closing(directory.prepare()) as opened:
        launch.start_broker(directory, opened.fd, 1.0)
    assert delayed == {"_spawn": True, "_read_line": False}


def test_starting_a_broker_leaves_no_lock(tmp_path: Path, copies: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    directory = RuntimeDir(tmp_path / "extmem")

    def start(*_: object) -> None:
        assert not is_free(directory.start_lock)
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "_start", start)
    monkeypatch.delenv("EXTMEM_BROKER_START", raising=False)
    with pytest.raises(KeyboardInterrupt):
        launch.connect_or_start(directory, 1.0)
    assert copies and is_free(directory.start_lock)
