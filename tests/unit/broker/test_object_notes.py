"""What a broker writes down of objects is read by its successor, whatever else is in the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from extmem.broker.object_notes import ObjectNotes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "objects.txt"


def begun(path: Path, *, follows: bool = False) -> ObjectNotes:
    notes = ObjectNotes(path)
    notes.begin(follows=follows)
    return notes


def read(path: Path) -> tuple[set[int], set[int]]:
    notes = ObjectNotes(path)
    notes.read()
    return notes.superseded, notes.forgotten


def test_a_successor_reads_what_was_noted(path: Path) -> None:
    notes = begun(path)
    notes.note("superseded", 5)
    notes.note("superseded", 6)
    notes.note("forgotten", 7)
    notes.undo(6)
    notes.close(remove=False)
    assert read(path) == ({5}, {7})
    after = begun(path, follows=True)
    after.note("superseded", 8)
    after.close(remove=False)
    assert read(path) == ({5, 8}, {7})
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_broker_that_follows_none_begins_anew(path: Path) -> None:
    path.write_text("superseded 5\n")
    notes = begun(path)
    assert not notes.superseded
    notes.close(remove=False)
    assert path.read_text() == ""


def test_the_file_goes_with_the_last_client(path: Path) -> None:
    notes = begun(path)
    notes.note("superseded", 5)
    notes.close(remove=True)
    assert not path.exists()
    notes.close(remove=True)


@pytest.mark.parametrize(
    "text",
    [b"", b"\xff\xff 5\n", b"superseded\n", b"superseded x\n", b"superseded 5", b"sup", b"superseded -5\n",
     b"superseded 99999999999999999999999\n", b"other 5\n", b"\n\n \n"],
)  # fmt: skip
def test_lines_that_are_not_valid_are_ignored(path: Path, text: bytes) -> None:
    path.write_bytes(b"forgotten 7\n" + text)
    superseded, forgotten = read(path)
    assert forgotten == {7} and superseded <= {5}


def test_notes_of_ended_objects_are_removed_when_there_are_many(path: Path) -> None:
    notes = begun(path)
    for number in range(1, 300):
        notes.note("superseded", number)
        notes.prune(lambda number: number % 100 == 0)
    assert len(notes.superseded) < 60
    assert len(path.read_text().splitlines()) < 100
    notes.close(remove=False)
    assert read(path)[0] == notes.superseded and {100, 200} <= notes.superseded


def test_without_a_file_it_works_in_memory(tmp_path: Path) -> None:
    notes = begun(tmp_path / "missing" / "objects.txt")
    notes.note("forgotten", 5)
    assert notes.forgotten == {5}
    notes.prune(lambda number: True)
    notes.close(remove=True)
