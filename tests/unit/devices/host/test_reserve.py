"""How much memory is left, read from trees like /proc and /sys, and from the real ones."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from extmem.devices.host import cgroups, reserve
from extmem.testing.children import Peer
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until

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
    assert reserve.total_memory(root) == 8 * GIB
    assert reserve.available(root) == (5 * GIB, "the machine")


def test_the_tightest_control_group_decides(root: Path) -> None:
    group(root, "box/inner", "max", 0)
    group(root, "box", str(2 * GIB), 2 * GIB - 1000, droppable=500)
    assert reserve.total_memory(root) == 2 * GIB
    assert reserve.available(root) == (1500, "control group box")


def test_a_generous_control_group_does_not(root: Path) -> None:
    group(root, "box/inner", str(100 * GIB), 0)
    assert reserve.total_memory(root) == 8 * GIB
    assert reserve.available(root) == (5 * GIB, "the machine")


def test_swap_that_the_group_may_use_counts(root: Path) -> None:
    group(root, "box/inner", str(GIB), GIB, swap=str(GIB // 2))
    assert reserve.available(root) == (GIB // 2, "control group inner")
    group(root, "box/inner", str(GIB), GIB, swap="max")
    assert reserve.available(root) == (GIB, "control group inner"), "the machine's swap"


@pytest.mark.parametrize("text", ["", "12:memory:/x\n", "0::/../above\n"])
def test_unknown_groups_are_left_out(root: Path, text: str) -> None:
    write(root, "proc/self/cgroup", text)
    assert reserve.available(root) == (5 * GIB, "the machine")


# Version 1, alone and beside version 2.

NONE = 9223372036854771712
"""What version 1 writes where there is no limit."""


def old_group(root: Path, name: str, limit: int, used: int, below: str = "sys/fs/cgroup/memory", **more: int) -> None:
    """more: `memsw`, `memsw_used`, and the contents of memory.stat."""
    write(root, f"{below}/{name}/memory.limit_in_bytes", f"{limit}\n")
    write(root, f"{below}/{name}/memory.usage_in_bytes", f"{used}\n")
    if "memsw" in more:
        write(root, f"{below}/{name}/memory.memsw.limit_in_bytes", f"{more.pop('memsw')}\n")
        write(root, f"{below}/{name}/memory.memsw.usage_in_bytes", f"{more.pop('memsw_used')}\n")
    write(root, f"{below}/{name}/memory.stat", "cache 1\n" + "".join(f"{key} {more[key]}\n" for key in more))


@pytest.fixture
def old(root: Path) -> Path:
    write(root, "proc/self/cgroup", "5:devices:/\n4:cpu,memory:/box/inner\n1:name=systemd:/box\n")
    return root


def test_a_limit_of_version_1_counts(old: Path) -> None:
    old_group(old, "box/inner", 2 * GIB, GIB)
    assert reserve.total_memory(old) == 2 * GIB
    assert reserve.available(old) == (2 * GIB, "control group inner"), "1 GiB of memory, and the machine's swap"


def test_what_version_1_can_drop_is_left_with_what_is_below(old: Path) -> None:
    old_group(old, "box/inner", GIB, GIB, inactive_file=1, total_inactive_file=4096, memsw=GIB, memsw_used=GIB)
    assert reserve.available(old) == (4096, "control group inner")


def test_a_group_above_counts_in_version_1(old: Path) -> None:
    old_group(old, "box/inner", NONE, GIB)
    old_group(old, "box", GIB, GIB - 100, memsw=GIB, memsw_used=GIB - 50)
    old_group(old, "", NONE, 3 * GIB)
    assert reserve.available(old) == (50, "control group box")
    assert reserve.total_memory(old) == GIB


def test_memory_and_swap_together_are_limited_in_version_1(old: Path) -> None:
    old_group(old, "box/inner", GIB, GIB, memsw=GIB + 4096, memsw_used=GIB)
    assert reserve.available(old) == (4096, "control group inner")
    old_group(old, "box/inner", NONE, GIB, memsw=GIB + 8192, memsw_used=GIB)
    assert reserve.available(old) == (8192, "control group inner")
    old_group(old, "box/inner", GIB, GIB, memsw=NONE, memsw_used=GIB)
    assert reserve.available(old) == (GIB, "control group inner"), "the machine's swap"


def test_no_limit_of_version_1_is_none(old: Path) -> None:
    old_group(old, "box/inner", NONE, GIB, memsw=NONE, memsw_used=GIB)
    assert reserve.total_memory(old) == 8 * GIB
    assert reserve.available(old) == (5 * GIB, "the machine")


def mounts(root: Path, *lines: str) -> None:
    write(root, "proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/root rw\n" + "".join(f"{one}\n" for one in lines))
    cgroups._mounts.cache_clear()


def test_a_hybrid_machine_has_the_limit_in_one_of_both(root: Path) -> None:
    mounts(
        root,
        "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory",
        "36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices",
        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
    )
    write(root, "proc/self/cgroup", "4:memory:/box\n0::/other\n")
    old_group(root, "box", GIB, GIB - 7, memsw=GIB, memsw_used=GIB - 7)
    assert reserve.available(root) == (7, "control group box")
    group(root, "unified/other", str(GIB), GIB - 3)  # the memory controller is in the other hierarchy
    assert reserve.available(root) == (3, "control group other")


def test_in_a_container_a_part_of_the_hierarchy_is_seen(root: Path) -> None:
    mounts(root, "35 31 0:32 /docker/abc /cg\\040here rw - cgroup cgroup rw,memory")
    write(root, "proc/self/cgroup", "4:memory:/docker/abc\n")
    old_group(root, "", NONE, GIB - 5, below="cg here", hierarchical_memory_limit=GIB, memsw=GIB, memsw_used=GIB - 5)
    assert reserve.available(root) == (5, "control group cg here")
    assert reserve.total_memory(root) == GIB, "a group above that is not seen"
    write(root, "proc/self/cgroup", "4:memory:/docker/abcdef\n")
    assert reserve.available(root) == (5 * GIB, "the machine"), "another group, of which nothing is seen"


def test_a_real_limit_is_an_error_and_not_the_end_of_the_process(own_runtime: Runtime) -> None:
    limit = 192 << 20
    with limited(limit) as procs, Peer(env=own_runtime.environment) as peer:
        peer("device = extmem.open_device(kind='host')\ndevice.allocate(1).close()")
        procs.write_text(f"{peer.pid}\n")
        error = peer.fails(f"device.allocate({limit + (64 << 20)})")
        assert error.is_a("OutOfMemoryError") and "extmem-test" in error.message, error.message
        assert peer("with device.allocate(32 << 20) as memory: size = memory.size\nsize") == 32 << 20
        # Several allocations that are too much together: the last is refused.
        error = peer.fails("kept = []\nwhile True: kept.append(device.allocate(32 << 20))")
        assert error.is_a("OutOfMemoryError") and peer("len(kept)") >= 2
        peer("while kept: kept.pop().close()")


@contextlib.contextmanager
def limited(limit: int) -> Iterator[Path]:
    """A control group of this machine with a limit of memory; the path by which processes join it."""
    own, mount = next(
        (
            (line.split(":", 2)[2], Path("/sys/fs/cgroup/memory"))
            for line in Path("/proc/self/cgroup").read_text().splitlines()
            if "memory" in line.split(":")[1].split(",")
        ),
        ("/", Path("/sys/fs/cgroup")),
    )
    made = mount / own.strip("/") / f"extmem-test-{os.getpid()}"
    file = made / ("memory.limit_in_bytes" if mount.name == "memory" else "memory.max")
    try:
        made.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be limited here: {error}")
    try:
        if not file.exists() or not os.access(file, os.W_OK):
            pytest.skip("no control group can be limited here: the memory controller is not handed down")
        file.write_text(str(limit))
        yield made / "cgroup.procs"
    finally:
        wait_until(lambda: not (made / "cgroup.procs").read_text(), "the group to be empty")
        made.rmdir()


def test_nothing_known_refuses_nothing(tmp_path: Path) -> None:
    assert reserve.available(tmp_path)[0] == 1 << 62
    assert reserve.total_memory(tmp_path) == 1 << 62


def test_this_machine_has_memory() -> None:
    left, whose = reserve.available()
    assert 0 < left and whose
    assert 0 < reserve.total_memory() < 1 << 62


def test_what_is_not_left_is_refused_before_anything_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve, "available", lambda: ((8 << 20) - 1, "control group box"))
    fd = os.memfd_create("x", os.MFD_CLOEXEC)
    os.ftruncate(fd, 8 << 20)
    with pytest.raises(MemoryError, match="8388608 more bytes are needed and control group box has 8388607 left"):
        reserve.reserve(fd, 8 << 20)
    assert os.fstat(fd).st_blocks == 0
    reserve.reserve(fd, (8 << 20) - 1)
    assert os.fstat(fd).st_blocks * 512 >= (8 << 20) - 1
    os.close(fd)


def test_what_somebody_else_takes_meanwhile_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve, "_STEP", 1 << 20)
    answers = iter([4 << 20, 2 << 20])
    monkeypatch.setattr(reserve, "available", lambda: (next(answers), "the machine"))
    fd = os.memfd_create("x", os.MFD_CLOEXEC)
    os.ftruncate(fd, 4 << 20)
    with pytest.raises(MemoryError, match="3145728 more bytes are needed and the machine has 2097152 left"):
        reserve.reserve(fd, 4 << 20)
    os.close(fd)
