"""The error for a name that was not found: it names the directory, and where else a broker of this user runs."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from extmem.manager.linux import search
from extmem.manager.linux.search import other_brokers, usual_directories, where_looked
from extmem.wire.runtime_dir import RuntimeDir, runtime_directory


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[RuntimeDir]:
    """Two usual places, private to this test."""
    found = [RuntimeDir(tmp_path / name) for name in ("session", "other")]
    monkeypatch.setattr(search, "usual_directories", lambda: found)
    return found


@pytest.mark.parametrize("own_session", [True, False])
def test_whatever_the_environment_the_directory_is_among_the_usual_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_session: bool
) -> None:
    monkeypatch.delenv("EXTMEM_RUNTIME_DIR", raising=False)
    if own_session:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        assert runtime_directory().path == tmp_path / "extmem"
    else:
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert runtime_directory() in usual_directories() and runtime_directory({}) in usual_directories()
    assert RuntimeDir(Path(f"/tmp/extmem-{os.geteuid()}")) in usual_directories()


def lock(place: RuntimeDir) -> int:
    place.path.mkdir(mode=0o700)
    fd = os.open(place.broker_lock, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def test_a_broker_that_runs_elsewhere_is_named(places: list[RuntimeDir]) -> None:
    own, other = places
    assert other_brokers(own) == [] and where_looked(own) == f"The broker in {own.path} was asked."
    held = [lock(own), lock(other)]
    try:
        assert other_brokers(own) == [other.path] and other_brokers(other) == [own.path]
        text = where_looked(own)
        assert f"runs in {other.path}, and shares nothing" in text and "EXTMEM_RUNTIME_DIR" in text
    finally:
        for fd in held:
            os.close(fd)
    assert other_brokers(own) == []  # the files exist, and no broker runs


def test_what_is_no_lock_or_another_users_is_nobody(places: list[RuntimeDir]) -> None:
    own, other = places
    other.path.mkdir()
    os.mkfifo(other.broker_lock)
    assert other_brokers(own) == []
    other.broker_lock.unlink()
    other.broker_lock.symlink_to("/dev/null")
    assert other_brokers(own) == []
    other.broker_lock.unlink()
    other.path.rmdir()
    fd = lock(other)
    try:
        assert other_brokers(own) == [other.path]
        if os.geteuid() == 0:
            os.chown(other.broker_lock, 54321, 54321)
            assert other_brokers(own) == []
    finally:
        os.close(fd)
