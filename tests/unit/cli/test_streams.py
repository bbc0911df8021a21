"""The standard streams of a command: a reader that ends, and a disk that is full."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from extmem.cli._streams import without_broken_pipes

UNBUFFERED = [False, True]


def _writer(fd: int, *, unbuffered: bool) -> io.TextIOWrapper:
    """Return a stream of an fd, as Python makes standard output."""
    binary = open(fd, "wb", buffering=0 if unbuffered else -1, closefd=False)
    return io.TextIOWrapper(binary, encoding="utf-8", write_through=unbuffered)


@pytest.mark.parametrize("unbuffered", UNBUFFERED)
def test_what_is_written_before_the_reader_goes_arrives_and_the_rest_is_dropped(unbuffered: bool) -> None:
    reading, writing = os.pipe()
    stream = without_broken_pipes(_writer(writing, unbuffered=unbuffered))
    try:
        stream.write("one\n")
        stream.flush()
        assert os.read(reading, 100).splitlines() == [b"one"]
        os.close(reading)
        for _ in range(3):
            stream.write("x" * 100_000)
            stream.flush()
    finally:
        stream.close()
        os.close(writing)


@pytest.mark.parametrize("unbuffered", UNBUFFERED)
def test_python_alone_fails_there(unbuffered: bool) -> None:
    """The same without the wrapper: the tests above check something that is not so by itself."""
    reading, writing = os.pipe()
    os.close(reading)
    stream = _writer(writing, unbuffered=unbuffered)
    try:
        with pytest.raises(OSError):
            stream.write("one\n")
            stream.flush()
    finally:
        with pytest.raises(OSError) if not unbuffered else open(os.devnull):
            stream.close()
        os.close(writing)


def test_files_and_streams_of_other_kinds_are_left_alone(tmp_path: Path) -> None:
    with open(tmp_path / "file", "w", encoding="utf-8") as file:
        assert without_broken_pipes(file) is file
    text = io.StringIO()
    assert without_broken_pipes(text) is text
    wrapped = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    assert without_broken_pipes(wrapped) is wrapped


def test_other_errors_of_a_pipe_are_raised() -> None:
    reading, writing = os.pipe()
    stream = without_broken_pipes(_writer(writing, unbuffered=True))
    os.close(reading)
    os.close(writing)
    with pytest.raises(OSError, match="Bad file descriptor"):
        stream.write("one")


def test_the_encoding_and_its_errors_are_kept() -> None:
    reading, writing = os.pipe()
    binary = open(writing, "wb", closefd=False)
    stream = without_broken_pipes(io.TextIOWrapper(binary, encoding="latin-1", errors="backslashreplace"))
    try:
        stream.write("\xe9 \u65e5\n")
        stream.flush()
        assert os.read(reading, 100).split() == [b"\xe9", b"\\u65e5"]
    finally:
        stream.close()
        os.close(reading)
        os.close(writing)
