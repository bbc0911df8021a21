"""The tasks of the benchmark of tensors: they run, measure what they say, and see what is wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import extmem
from extmem.cli._bench import (
    bare_start,
    tensors,
    tensors_changes,
    tensors_files,
    tensors_lent,
    tensors_start,
)
from extmem.cli._bench.environment import Environment
from extmem.core import shared_devices
from extmem.devices.host import loans
from extmem.testing import fake_cuda, leaks
from extmem.testing.waiting import wait_until
from tests import cuda_bed
from tests.unit.core.test_lending import GRANULE, Foreign
from tests.unit.devices.cuda.test_adopted import segment


@pytest.fixture
def fake() -> Iterator[fake_cuda.FakeCuda]:
    with leaks.no_leaks(), cuda_bed.both() as (cuda, _), shared_devices.fresh_devices():
        with extmem.open_device(kind="cuda"):
            yield cuda
        wait_until(lambda: not loans.lent(), what="the loans have ended")


class NoWorker:
    """Stands for the process that tells what the machine has."""

    def __init__(self, machine: tensors.Machine) -> None:
        self.machine = machine

    def worker(self, title: str) -> NoWorker:
        return self

    def call(self, task: str, gpu_too: bool) -> tensors.Machine:
        assert gpu_too and task.endswith(":found")
        return self.machine

    def dismiss(self, worker: object) -> None:
        pass


def test_what_the_machine_lacks_is_a_row_with_the_reason() -> None:
    machine = tensors.Machine("no NumPy", "no PyTorch", "", "", b"", False, "")
    said: list[str] = []
    chosen = ("files", "passing", "rounds")
    env = cast("Environment", NoWorker(machine))
    rows = list(tensors.figures(env, 1, said.append, quick=True, parts=chosen))
    assert [row.name for row in rows] == ["files: no NumPy", "passing: no PyTorch", "rounds: no PyTorch"]
    assert {row.unit for row in rows} == {"not measured"} and all(row.ok for row in rows)
    assert said == [f"{part} is not measured: {why}" for part, why in (row.name.split(": ") for row in rows)]


def test_the_change_itself_is_told_apart(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors_changes, "_SIZE", 4096)
    tensors_changes.share_on_host(name)
    try:
        waiting = tensors_changes.wait_for_update()
        assert next(waiting) == 0
        begun, entered, changed = tensors_changes.update_once(1)
        assert begun <= entered <= changed <= next(waiting)
        assert next(waiting, None) is None
        with extmem.open(name) as opened:
            assert opened.generation == 2 and set(opened.read_bytes(0, 100)) == {2}
    finally:
        tensors_changes.close_all()


def test_a_read_that_is_torn_and_accepted_is_counted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: half of the memory is changed without `update`."""
    monkeypatch.setattr(tensors_changes, "_READ_SIZE", 4096)
    with extmem.open_device(kind="host") as device, device.allocate(4096, name=name) as memory:
        assert tensors_changes.read_beside(name, 3) == (3, 0, 0, 0)
        memory.map()[2048:] = b"\1" * 2048
        assert tensors_changes.read_beside(name, 3) == (3, 0, 3, 0)


def test_the_table_that_lies_is_refused_and_an_honest_one_is_not(name: str) -> None:
    tensors_changes.share_table(name, 1 << 38)
    tensors_changes.share_table(f"{name} honest", 1024)
    try:
        times, grown = tensors_changes.open_table(name, f"{name} honest", 2)
        assert len(times) == 2 and min(times) > 0 and grown >= 0
        with pytest.raises(RuntimeError, match="was accepted"):
            tensors_changes._refused(f"{name} honest")
    finally:
        for label in (name, f"{name} honest"):
            tensors_changes._at.pop(label).close()


def test_a_file_that_lies_is_refused_by_its_library(tmp_path: Path) -> None:
    pytest.importorskip("numpy", reason="NumPy is not installed")
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    times = tensors_changes.open_lying_file(str(tmp_path / "lying.safetensors"), 2)
    assert len(times) == 2 and min(times) > 0


def test_the_page_cache_of_a_file_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "some"
    path.write_bytes(bytes(1 << 20))
    assert tensors_files.cached_kib(str(path)) == 1024
    with path.open("r+b") as file:
        file.truncate(2 << 20)  # the second half was never read
    assert tensors_files.cached_kib(str(path)) == 1024


def test_a_file_is_loaded_and_checked(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numpy", reason="NumPy is not installed")
    monkeypatch.setattr(tensors_files, "_TENSOR", (4, 8))
    monkeypatch.setattr(tensors_files, "_TENSOR_BYTES", 128)
    path = tmp_path / "weights.safetensors"
    tensors_files.write_file(str(path), 3)
    spent, right = tensors_files.load(str(path), name, "NumPy", "extmem", "cpu")
    tensors_files.drop()
    assert spent > 0 and right
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    assert tensors_files.load(str(path), name, "NumPy", "extmem", "cpu")[1] is False
    tensors_files.drop()


def test_opening_and_importing_take_turns(fake: fake_cuda.FakeCuda, name: str) -> None:
    asked: list[tuple[int, list[int]]] = []

    def by_c(fds: Sequence[int], sizes: Sequence[int]) -> int:
        assert all(os.fstat(fd) for fd in fds)
        asked.append((len(fds), list(sizes)))
        return 5

    with segment(fake, 1, 3, 1) as address:
        source = Foreign(address, 5 * GRANULE)
        with extmem.share(source, name, copy=False):
            ours, theirs = tensors_lent.imports_in_turns(name, 3, by_c)
        del source
    assert len(ours) == 3 and min(ours) > 0 and theirs == [5, 5, 5]
    assert {(count, *sizes) for count, sizes in asked} == {(3, GRANULE, 3 * GRANULE, GRANULE)}


def test_the_program_to_compare_with_imports_and_maps(fake: fake_cuda.FakeCuda, name: str) -> None:
    kind = extmem.vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
    with extmem.open_device(kind="cuda") as device, device.allocate(GRANULE, "uint8", name=name) as memory:
        memory.fill(9)
        with memory.export_handle(kind) as handle:
            address = bare_start._of_cuda(fake.module, int(handle), GRANULE, 0)
        _, part = fake.module.cuMemRetainAllocationHandle(address)
        fake.module.cuMemRelease(part)
        assert bare_start._Octets(address, GRANULE).__cuda_array_interface__["data"] == (address, False)
        assert not fake.module.cuMemUnmap(address, GRANULE)[0]
        assert not fake.module.cuMemRelease(part)[0] and not fake.module.cuMemAddressFree(address, GRANULE)[0]
    with pytest.raises(OSError, match="a call of CUDA failed"):
        bare_start._value((fake.module.CUresult.CUDA_ERROR_INVALID_VALUE,))


def test_only_modules_of_one_program_count() -> None:
    head = "import time: self [us] | cumulative | imported package\n"
    bare = f"{head}import time:       900 |        900 |   torch._C\nimport time:      100 |       1000 | torch\n"
    ours = f"{bare}import time:      1500 |       2000 |   extmem.api\nimport time:       250 |       2250 | extmem\n"
    assert tensors_start.own_imports(ours, bare) == 1.75
    assert tensors_start.own_imports(bare, bare) == 0


def test_a_step_with_other_contents_is_an_error() -> None:
    done = SimpleNamespace(stdout='{"nanoseconds": 5, "first": 7}')
    assert tensors_start._nanoseconds(cast("Any", done)) == 5
    done.stdout = '{"nanoseconds": 5, "first": 0}'
    with pytest.raises(RuntimeError, match="has read 0"):
        tensors_start._nanoseconds(cast("Any", done))
