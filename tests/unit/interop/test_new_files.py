"""Files that appear when they are complete: what was there stays until then, and after errors."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from extmem.interop.new_files import NewFile


def test_a_file_appears_at_its_end(tmp_path: Path) -> None:
    path = tmp_path / "new"
    with NewFile(path) as file:
        file.write(b"one ")
        file.write(memoryview(bytearray(b"two")))
        assert not path.exists()
        file.finish()
    assert path.read_bytes() == b"one two"
    assert os.listdir(tmp_path) == ["new"]


def test_after_an_error_the_path_is_as_before(tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt), NewFile(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["old"]


def test_a_file_without_its_end_is_removed(tmp_path: Path) -> None:
    with NewFile(tmp_path / "new") as file:
        file.write(b"half")
    assert os.listdir(tmp_path) == []


@pytest.mark.linux_only("Windows has other permissions, and links need a right")
def test_permissions_are_kept_and_links_followed(tmp_path: Path) -> None:
    path, link = tmp_path / "secret", tmp_path / "link"
    path.write_bytes(b"before")
    path.chmod(0o600)
    link.symlink_to(path)
    with NewFile(link) as file:
        assert all(stat.S_IMODE(each.stat().st_mode) == 0o600 for each in tmp_path.iterdir() if not each.is_symlink())
        file.write(b"after")
        file.finish()
    assert link.is_symlink()
    assert path.read_bytes() == b"after"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a regular file"):
        NewFile(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder.*absent'$"):
        NewFile(tmp_path / "absent" / "new")
    assert os.listdir(tmp_path) == []


@pytest.mark.linux_only("FIFOs are files on Linux")
def test_a_fifo_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match="not a regular file"):
        NewFile(tmp_path / "fifo")


def test_a_name_of_the_greatest_length(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 200)
    with NewFile(path) as file:
        file.finish()
    assert path.read_bytes() == b""
