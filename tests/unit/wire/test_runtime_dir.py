"""The runtime directory: which one it is, and that no other user can access it."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from extmem.errors import OutOfMemoryError, UnsupportedError
from extmem.manager.linux import launch
from extmem.wire.runtime_dir import RuntimeDir, runtime_directory
from tests.broker_files import SOCKET, START_LOCK


def test_the_first_variable_that_is_set_decides(tmp_path: Path) -> None:
    both = {"EXTMEM_RUNTIME_DIR": "/a/b", "XDG_RUNTIME_DIR": str(tmp_path)}
    assert runtime_directory(both).path == Path("/a/b")
    assert runtime_directory({"XDG_RUNTIME_DIR": str(tmp_path)}).path == tmp_path / "extmem"


def test_an_empty_variable_is_none(tmp_path: Path) -> None:
    empty = {"EXTMEM_RUNTIME_DIR": "", "XDG_RUNTIME_DIR": str(tmp_path)}
    assert runtime_directory(empty).path == tmp_path / "extmem"
    assert runtime_directory({"XDG_RUNTIME_DIR": ""}) == runtime_directory({})


def test_without_variables_it_is_the_login_sessions_or_one_in_tmp() -> None:
    uid = os.geteuid()
    assert runtime_directory({}).path in (Path(f"/run/user/{uid}/extmem"), Path(f"/tmp/extmem-{uid}"))


def test_a_session_directory_that_is_missing_or_is_none_is_as_if_not_set(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for value in (str(tmp_path / "missing"), str(tmp_path / "file"), "relative", "/dev/null/x", "/" + "x" * 300):
        assert runtime_directory({"XDG_RUNTIME_DIR": value}) == runtime_directory({}), value


def test_a_session_directory_of_another_user_is_as_if_not_set(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root, to be another user")
    (tmp_path / "theirs").mkdir(mode=0o700)
    os.chown(tmp_path / "theirs", 1234, 1234)
    assert runtime_directory({"XDG_RUNTIME_DIR": str(tmp_path / "theirs")}) == runtime_directory({})
    os.chown(tmp_path / "theirs", 0, 0)
    assert runtime_directory({"XDG_RUNTIME_DIR": str(tmp_path / "theirs")}).path == tmp_path / "theirs" / "extmem"


def test_a_relative_directory_does_not_move_with_the_process() -> None:
    assert runtime_directory({"EXTMEM_RUNTIME_DIR": "here"}).path == Path.cwd() / "here"


def test_a_relative_directory_whose_base_is_gone_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(UnsupportedError, match="relative to a directory that is gone"):
        runtime_directory({"EXTMEM_RUNTIME_DIR": "here"})
    monkeypatch.chdir("/")
    assert runtime_directory({"EXTMEM_RUNTIME_DIR": "here"}).path == Path("/here")


def prepare(path: Path, system: bool = False) -> None:
    RuntimeDir(path, system).prepare().close()


def test_it_is_made_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        prepare(tmp_path / "fresh")
    finally:
        os.umask(before)
    assert (tmp_path / "fresh").stat().st_mode & 0o777 == 0o700
    prepare(tmp_path / "fresh")


def test_the_umask_takes_nothing_away(tmp_path: Path) -> None:
    before = os.umask(0o777)
    try:
        prepare(tmp_path / "fresh")
    finally:
        os.umask(before)
    assert (tmp_path / "fresh").stat().st_mode & 0o777 == 0o700


def test_the_systems_is_open_to_look_at(tmp_path: Path) -> None:
    prepare(tmp_path / "fresh", system=True)
    assert (tmp_path / "fresh").stat().st_mode & 0o777 == 0o755


def refusal(path: Path) -> str:
    with pytest.raises(UnsupportedError) as caught:
        RuntimeDir(path).prepare()
    assert str(path) in str(caught.value) and "EXTMEM_RUNTIME_DIR" in str(caught.value)
    with pytest.raises(UnsupportedError):
        launch.connect_or_start(RuntimeDir(path), 1)
    return str(caught.value)


def test_one_that_others_can_enter_is_refused_with_the_command_that_helps(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o700)
    (tmp_path / "open").chmod(0o750)
    assert "0750" in refusal(tmp_path / "open") and f"chmod 700 {tmp_path / 'open'}" in refusal(tmp_path / "open")
    (tmp_path / "open").chmod(0o700)
    prepare(tmp_path / "open")


@pytest.mark.parametrize("name", ["broker.3.sock", "start.12.lock", "clients.3.json", "broker.lock"])
def test_one_with_files_of_brokers_can_be_made_private(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    tmp_path.chmod(0o755)
    assert f"chmod 700 {tmp_path}." in refusal(tmp_path)


def test_one_with_other_files_is_not_made_private(tmp_path: Path) -> None:
    (tmp_path / "broker.3.sock").touch()
    (tmp_path / "notes.txt").touch()
    tmp_path.chmod(0o755)
    message = refusal(tmp_path)
    inner = tmp_path / f"extmem-{os.geteuid()}"
    assert "chmod" not in message and f"EXTMEM_RUNTIME_DIR={inner} " in message
    prepare(inner)  # as the message advises


def test_in_one_that_others_may_change_no_folder_is_advised(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    tmp_path.chmod(0o777)
    message = refusal(tmp_path)
    assert "chmod" not in message and "EXTMEM_RUNTIME_DIR=" not in message


def test_a_sticky_one_is_not_made_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    message = refusal(tmp_path)
    assert "chmod" not in message and "1777" in message
    prepare(tmp_path / f"extmem-{os.geteuid()}")


@pytest.mark.skipif(os.geteuid() != 0, reason="the system's directories belong to root")
@pytest.mark.parametrize("path", ["/", "/tmp", "/usr", "/var/lib"])
def test_the_systems_directories_are_not_made_private(path: str) -> None:
    before = os.stat(path).st_mode
    message = refusal(Path(path))
    assert "chmod" not in message and f"EXTMEM_RUNTIME_DIR={Path(path) / 'extmem-0'} " in message
    assert os.stat(path).st_mode == before


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    assert "symbolic link" in refusal(tmp_path / "link")
    (tmp_path / "nowhere").symlink_to("missing")
    assert "symbolic link" in refusal(tmp_path / "nowhere")


def test_a_directory_behind_a_symbolic_link_is_taken(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    prepare(tmp_path / "link" / "inner")
    assert (tmp_path / "real" / "inner").is_dir()


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "is not a directory" in refusal(tmp_path / "file")
    assert "cannot be reached (Not a directory)" in refusal(tmp_path / "file" / "inner")


def test_a_circle_of_links_and_too_long_a_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert "symbolic links" in refusal(tmp_path / "a" / "inner")
    assert "too long" in refusal(Path("/" + "x" * 300))


def test_one_without_a_parent_is_refused(tmp_path: Path) -> None:
    assert "cannot be created" in refusal(tmp_path / "no" / "where")


def test_a_missing_one_is_none_and_is_not_made(tmp_path: Path) -> None:
    assert RuntimeDir(tmp_path / "missing").open() is None
    assert launch.connect(RuntimeDir(tmp_path / "missing"), 1) is None
    assert not (tmp_path / "missing").exists()


def test_one_of_another_user_is_refused(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root, to be another user")
    (tmp_path / "theirs").mkdir(mode=0o700)
    os.chown(tmp_path / "theirs", 1234, 1234)
    assert "belongs to user 1234" in refusal(tmp_path / "theirs")


def test_none_is_made_in_a_directory_of_another_user(tmp_path: Path) -> None:
    """`sudo` keeps variables: the owner could not enter what root creates there."""
    if os.geteuid():
        pytest.skip("needs root, to be another user")
    (tmp_path / "theirs").mkdir(mode=0o700)
    os.chown(tmp_path / "theirs", 1234, 1234)
    assert "belongs to user 1234" in refusal(tmp_path / "theirs" / "extmem")
    assert not list((tmp_path / "theirs").iterdir())
    (tmp_path / "theirs" / "extmem").mkdir(mode=0o700)  # made on purpose
    prepare(tmp_path / "theirs" / "extmem")


@pytest.mark.parametrize("mode", [0o777, 0o707, 0o733])
def test_one_that_others_may_replace_is_refused(tmp_path: Path, mode: int) -> None:
    inner = tmp_path / "open" / "inner" / "extmem"
    inner.mkdir(parents=True, mode=0o700)
    inner.chmod(0o700)
    (tmp_path / "open").chmod(mode)
    assert f"is in {tmp_path / 'open'}" in refusal(inner)
    (tmp_path / "open").chmod(0o1777)  # as /tmp is: only the owner may rename an entry
    prepare(inner)


def test_one_in_a_directory_that_a_strange_group_may_write_is_refused(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root, to be another user")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o775)
    prepare(tmp_path / "shared" / "extmem")  # a group of this user
    os.chown(tmp_path / "shared", 0, 4321)
    assert f"is in {tmp_path / 'shared'}" in refusal(tmp_path / "shared" / "extmem")


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    assert "too long" in refusal(tmp_path / ("x" * 120))
    (tmp_path / ("x" * 120)).mkdir(mode=0o700)
    assert "too long" in refusal(tmp_path / ("x" * 120))


# The directory that was opened is used.


@pytest.fixture
def swapped(tmp_path: Path) -> Iterator[tuple[RuntimeDir, int, Path]]:
    """A directory that was opened and checked; at its path is another one by now, where another process listens."""
    directory = RuntimeDir(tmp_path / "ours")
    opened = directory.prepare()
    os.rename(tmp_path / "ours", tmp_path / "moved")
    (tmp_path / "ours").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as impostor:
        impostor.bind(os.fspath(directory.socket))
        impostor.listen()
        yield directory, opened.fd, tmp_path / "moved"
    opened.close()


def test_who_replaces_the_directory_after_the_look_is_not_connected_to(swapped: tuple[RuntimeDir, int, Path]) -> None:
    directory, opened, moved = swapped
    assert launch._connect_in(directory, opened, 1) is None
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as ours:
        ours.bind(os.fspath(moved / SOCKET))
        ours.listen()
        found = launch._connect_in(directory, opened, 1)
        assert found is not None
        accepted, _ = ours.accept()
        accepted.close()
        found.close()
    there = launch.connect(directory, 1)  # the path leads to the other one: this must not happen above
    assert there is not None
    there.close()


def test_who_replaces_the_directory_after_the_look_gets_no_lock(swapped: tuple[RuntimeDir, int, Path]) -> None:
    directory, opened, moved = swapped
    with launch._locked(directory, opened, time.monotonic() + 5):
        assert (moved / START_LOCK).exists() and not directory.start_lock.exists()


def test_too_many_open_files_is_what_this_process_lacks(tmp_path: Path) -> None:
    directory = RuntimeDir(tmp_path / "fresh")
    prepare(directory.path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    for room in range(3):
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + room, hard))
        try:
            with pytest.raises(OutOfMemoryError, match="ulimit -n"):
                launch.connect_or_start(directory, 1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert launch.connect(directory, 1) is None
