"""The runtime directory: which one it is, and that nobody else can get in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from extmem.broker.paths import RuntimeDir, runtime_directory
from extmem.errors import UnsupportedError


def test_the_first_variable_that_is_set_decides() -> None:
    both = {"EXTMEM_RUNTIME_DIR": "/a/b", "XDG_RUNTIME_DIR": "/run/user/7"}
    assert runtime_directory(both).path == Path("/a/b")
    assert runtime_directory({"XDG_RUNTIME_DIR": "/run/user/7"}).path == Path("/run/user/7/extmem")


def test_an_empty_variable_is_none() -> None:
    assert runtime_directory({"EXTMEM_RUNTIME_DIR": "", "XDG_RUNTIME_DIR": "/x"}).path == Path("/x/extmem")


def test_without_variables_it_is_the_login_sessions_or_one_in_tmp() -> None:
    uid = os.geteuid()
    assert runtime_directory({}).path in (Path(f"/run/user/{uid}/extmem"), Path(f"/tmp/extmem-{uid}"))


def test_a_relative_directory_does_not_move_with_the_process() -> None:
    assert runtime_directory({"EXTMEM_RUNTIME_DIR": "here"}).path == Path.cwd() / "here"


def test_it_is_made_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        RuntimeDir(tmp_path / "fresh").prepare()
    finally:
        os.umask(before)
    assert (tmp_path / "fresh").stat().st_mode & 0o777 == 0o700
    RuntimeDir(tmp_path / "fresh").prepare()


def test_the_systems_is_open_to_look_at(tmp_path: Path) -> None:
    RuntimeDir(tmp_path / "fresh", system=True).prepare()
    assert (tmp_path / "fresh").stat().st_mode & 0o777 == 0o755


def refusal(path: Path) -> str:
    with pytest.raises(UnsupportedError) as caught:
        RuntimeDir(path).prepare()
    assert str(path) in str(caught.value) and "EXTMEM_RUNTIME_DIR" in str(caught.value)
    return str(caught.value)


def test_one_that_others_can_enter_is_refused_with_the_command_that_helps(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o700)
    (tmp_path / "open").chmod(0o750)
    assert "0750" in refusal(tmp_path / "open") and f"chmod 700 {tmp_path / 'open'}" in refusal(tmp_path / "open")
    (tmp_path / "open").chmod(0o700)
    RuntimeDir(tmp_path / "open").prepare()


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    assert "symbolic link" in refusal(tmp_path / "link")


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "no directory" in refusal(tmp_path / "file")


def test_one_without_a_parent_is_refused(tmp_path: Path) -> None:
    assert "cannot be made" in refusal(tmp_path / "no" / "where")


def test_a_missing_one_does_not_pass_the_check(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="does not exist"):
        RuntimeDir(tmp_path / "missing").check()


def test_one_of_another_user_is_refused(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root, to be another user")
    (tmp_path / "theirs").mkdir(mode=0o700)
    os.chown(tmp_path / "theirs", 1234, 1234)
    assert "belongs to user 1234" in refusal(tmp_path / "theirs")


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    assert "too long" in refusal(tmp_path / ("x" * 120))
