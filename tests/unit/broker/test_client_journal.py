"""The journal of clients, and the recovery window that a broker gives those of a killed one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from extmem.broker.client_journal import WINDOW, Client, Journal, RecoveryWindow


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "clients.json")
    made.begin()
    yield made
    made.close()


def read(tmp_path: Path) -> frozenset[Client] | None:
    """Return what the next broker finds."""
    return Journal(tmp_path / "clients.json").read()


def test_clients_are_there_for_the_next_broker(tmp_path: Path, journal: Journal) -> None:
    assert read(tmp_path) == frozenset()
    journal.add(7, os.getpid())
    journal.add(8, os.getppid())
    journal.remove(8)
    assert read(tmp_path) == {ME}
    assert [path.name for path in tmp_path.iterdir()] == ["clients.json"]


def test_a_process_with_two_connections_is_there_until_both_are_gone(tmp_path: Path, journal: Journal) -> None:
    for key in (7, 8):
        journal.add(key, os.getpid())
    journal.remove(7)
    assert read(tmp_path) == {ME}
    journal.remove(8)
    assert read(tmp_path) == frozenset()


def test_what_is_written_for_a_client_does_not_grow_with_their_number(tmp_path: Path, journal: Journal) -> None:
    journal.rewrite()
    journal.add(0, os.getpid())
    line = (tmp_path / "clients.json").stat().st_size
    for key in range(1, 1000):
        before = (tmp_path / "clients.json").stat()
        journal.add(key, os.getpid())
        after = (tmp_path / "clients.json").stat()
        assert (after.st_ino, after.st_size - before.st_size) == (before.st_ino, line)


def test_the_file_does_not_grow_without_end(tmp_path: Path, journal: Journal) -> None:
    journal.rewrite()
    for _ in range(2000):
        journal.add(7, os.getpid())
        journal.remove(7)
    assert (tmp_path / "clients.json").read_bytes().count(b"\n") < 100
    journal.add(7, os.getpid())
    assert read(tmp_path) == {ME}


def test_a_predecessors_clients_stay_until_they_are_not_waited_for_any_more(tmp_path: Path, journal: Journal) -> None:
    """The second broker may be killed before they have announced."""
    journal.add(7, os.getppid())
    second = Journal(tmp_path / "clients.json")
    second.begin()
    for _ in range(200):
        second.add(9, os.getpid())
        second.remove(9)
    assert read(tmp_path) == {PARENT}
    second.rewrite()
    assert read(tmp_path) == frozenset()
    second.close()


def test_a_clean_end_leaves_no_journal_and_an_end_with_clients_does(tmp_path: Path, journal: Journal) -> None:
    journal.add(7, os.getpid())
    journal.close()
    assert read(tmp_path) == {ME}
    journal.begin()
    journal.remove(7)
    journal.close()
    assert not (tmp_path / "clients.json").exists()


@pytest.mark.parametrize("text", ['{"pid": [\n', '[true, "x", 1, 1]\n', "\x00\n"])
def test_in_a_journal_of_nonsense_nobody_is_known(tmp_path: Path, text: str) -> None:
    (tmp_path / "clients.json").write_text(text)
    assert read(tmp_path) is None
    assert Journal(tmp_path / "missing").read() is None


def test_a_line_that_was_not_written_whole_is_no_client(tmp_path: Path, journal: Journal) -> None:
    journal.add(7, os.getpid())
    with open(tmp_path / "clients.json", "a") as file:
        file.write("[true, 12")
    assert read(tmp_path) == {ME}


def test_a_journal_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "missing" / "clients.json")
    journal.begin()
    journal.add(1, os.getpid())
    journal.remove(1)
    journal.rewrite()
    journal.close()


ME = Client.of(os.getpid())
PARENT = Client.of(os.getppid())


def test_without_clients_there_is_no_grace() -> None:
    assert not RecoveryWindow(frozenset(), 0.0).active


def test_the_grace_ends_when_all_have_announced() -> None:
    window = RecoveryWindow(frozenset({ME, PARENT}), 100.0)
    assert window.active and not window.step(100.0)
    window.announced(ME.pid)
    assert not window.step(100.1) and window.active
    window.announced(PARENT.pid)
    assert window.step(100.2) and not window.active
    assert not window.step(100.3)


def test_the_dead_are_not_waited_for() -> None:
    window = RecoveryWindow(
        frozenset({Client(os.getpid(), ME.start - 1, ME.space), Client(2**22 + 1, 5, ME.space)}), 100.0
    )
    assert window.active and window.step(100.0)


def test_where_nobody_is_known_the_grace_lasts_its_time() -> None:
    window = RecoveryWindow(None, 100.0)
    window.announced(ME.pid)
    assert window.active and not window.step(100.0 + WINDOW - 0.01) and window.step(100.0 + WINDOW)


def test_of_many_some_are_looked_for_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def start(pid: int) -> int:
        asked.append(pid)
        return 0

    monkeypatch.setattr("extmem.broker.client_journal.start_time", start)
    window = RecoveryWindow(frozenset(Client(pid, 1, ME.space) for pid in range(1, 1001)), 100.0)
    steps = 0
    while not window.step(100.0):
        steps += 1
        assert len(asked) <= 200 * steps
    assert len(asked) == 1000


def test_processes_that_cannot_be_seen_from_here_are_waited_for() -> None:
    for client in (Client(2**22 + 1, 5, ME.space + 1), Client.of(0)):
        window = RecoveryWindow(frozenset({client}), 100.0)
        assert not window.step(100.0 + WINDOW - 0.01) and window.step(100.0 + WINDOW)


def test_the_grace_ends_in_time() -> None:
    window = RecoveryWindow(frozenset({ME}), 100.0)
    assert not window.step(100.0 + WINDOW - 0.01) and window.step(100.0 + WINDOW)
