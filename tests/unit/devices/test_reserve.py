"""How much memory is left, read from trees that look like /proc and /sys, and from the real ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from extmem.devices.host import _reserve

GIB = 1 << 30


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(
        tmp_path,
        "proc/meminfo",
        "MemTotal: 8388608 kB\nMemFree: 1 kB\nMemAvailable: 4194304 kB\nSwapFree: 1048576 kB\n",
    )
    write(tmp_path, "proc/self/cgroup", "0::/box/inner\n")
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def group(root: Path, name: str, limit: str, used: int, droppable: int = 0, swap: str = "0") -> None:
    write(root, f"sys/fs/cgroup/{name}/memory.max", limit + "\n")
    write(root, f"sys/fs/cgroup/{name}/memory.current", f"{used}\n")
    write(root, f"sys/fs/cgroup/{name}/memory.swap.max", swap + "\n")
    write(root, f"sys/fs/cgroup/{name}/memory.swap.current", "0\n")
    write(root, f"sys/fs/cgroup/{name}/memory.stat", f"anon 1\ninactive_file {droppable}\n")


def test_without_limits_the_machine_decides(root: Path) -> None:
    assert _reserve.physical(root) == 8 * GIB
    assert _reserve.available(root) == (5 * GIB, "the machine")


def test_the_tightest_control_group_decides(root: Path) -> None:
    group(root, "box/inner", "max", 0)
    group(root, "box", str(2 * GIB), 2 * GIB - 1000, droppable=500)
    assert _reserve.physical(root) == 2 * GIB
    assert _reserve.available(root) == (1500, "control group box")


def test_a_generous_control_group_does_not(root: Path) -> None:
    group(root, "box/inner", str(100 * GIB), 0)
    assert _reserve.physical(root) == 8 * GIB
    assert _reserve.available(root) == (5 * GIB, "the machine")


def test_swap_that_the_group_may_use_counts(root: Path) -> None:
    group(root, "box/inner", str(GIB), GIB, swap=str(GIB // 2))
    assert _reserve.available(root) == (GIB // 2, "control group inner")
    group(root, "box/inner", str(GIB), GIB, swap="max")
    assert _reserve.available(root) == (GIB, "control group inner"), "the machine's swap"


@pytest.mark.parametrize("text", ["", "12:memory:/x\n", "0::/../above\n"])
def test_unknown_groups_are_left_out(root: Path, text: str) -> None:
    write(root, "proc/self/cgroup", text)
    assert _reserve.available(root) == (5 * GIB, "the machine")


def test_nothing_known_refuses_nothing(tmp_path: Path) -> None:
    assert _reserve.available(tmp_path)[0] == 1 << 62
    assert _reserve.physical(tmp_path) == 1 << 62


def test_this_machine_has_memory() -> None:
    left, whose = _reserve.available()
    assert 0 < left and whose
    assert 0 < _reserve.physical() < 1 << 62


def test_what_is_not_left_is_refused_before_anything_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_reserve, "available", lambda: ((8 << 20) - 1, "control group box"))
    fd = os.memfd_create("x", os.MFD_CLOEXEC)
    os.ftruncate(fd, 8 << 20)
    with pytest.raises(MemoryError, match="8388608 more bytes are needed and control group box has 8388607 left"):
        _reserve.reserve(fd, 8 << 20)
    assert os.fstat(fd).st_blocks == 0
    _reserve.reserve(fd, (8 << 20) - 1)
    assert os.fstat(fd).st_blocks * 512 >= (8 << 20) - 1
    os.close(fd)


def test_what_somebody_else_takes_meanwhile_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_reserve, "_STEP", 1 << 20)
    answers = iter([4 << 20, 2 << 20])
    monkeypatch.setattr(_reserve, "available", lambda: (next(answers), "the machine"))
    fd = os.memfd_create("x", os.MFD_CLOEXEC)
    os.ftruncate(fd, 4 << 20)
    with pytest.raises(MemoryError, match="3145728 more bytes are needed and the machine has 2097152 left"):
        _reserve.reserve(fd, 4 << 20)
    os.close(fd)
