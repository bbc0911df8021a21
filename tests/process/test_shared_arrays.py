"""Named arrays and files between processes: a loader that is killed, a forked child, many openers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import extmem
from extmem.testing.children import Peer
from extmem.testing.waiting import wait_until

numpy = pytest.importorskip("numpy", reason="NumPy is not installed")

LOADER = """
import extmem, time
from extmem.interop import placed_reads
def stuck(*arguments):
    with extmem.open_device(kind="host") as device, device.allocate(1, name="reached"):
        time.sleep(600)
placed_reads.read_to = stuck
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    with extmem.share({"w": numpy.arange(8.0)}) as memory:
        extmem.save_safetensors(memory, path)
    return path


def exists(name: str) -> bool:
    try:
        extmem.open(name).close()
    except extmem.NameNotFoundError:
        return False
    return True


def test_the_file_is_read_by_another_process_if_the_first_is_killed(path: Path) -> None:
    with Peer() as first, Peer() as second:
        first(LOADER)
        first.start(f"extmem.load_safetensors({str(path)!r}, 'model')")
        wait_until(lambda: exists("reached"), "the loader to reach the file")
        assert not exists("model")
        second("import extmem")
        second.start(f"memory = extmem.load_safetensors({str(path)!r}, 'model')")
        first.kill()
        second.finish()
        assert second("memory['w'].numpy().tolist()") == list(range(8))
        with extmem.load_safetensors(path, "model") as memory:
            assert memory["w"].read().tolist() == list(range(8))


@pytest.mark.linux_only("Windows does not fork")
def test_a_forked_child_may_not_use_its_parents_arrays() -> None:
    with extmem.share({"w": numpy.ones(3)}) as memory:
        part, views = memory["w"], memory.numpy()
        views["w"]
        child = os.fork()
        if child == 0:
            status = 1
            try:
                refused = 0
                for use in (lambda: part.numpy(), lambda: memory["w"].read(), lambda: part.share("x")):
                    try:
                        use()
                    except extmem.HandleStateError:
                        refused += 1
                status = 0 if refused == 3 else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        del views


@pytest.mark.linux_only("a signal of Linux")
def test_a_killed_sharer_leaves_its_arrays_to_those_who_have_them(peer: Peer) -> None:
    with Peer() as sharer:
        sharer("import extmem, numpy; memory = extmem.share({'w': numpy.arange(5.0)}, 'model', metadata={'a': 'b'})")
        with extmem.open("model") as opened:
            os.kill(sharer("import os; os.getpid()"), signal.SIGKILL)
            assert opened["w"].numpy().tolist() == [0, 1, 2, 3, 4]
            assert dict(opened.metadata) == {"a": "b"}
            peer("import extmem; late = extmem.open('model')")
            assert peer("late['w'].numpy().tolist()") == [0, 1, 2, 3, 4]
            peer("late.close()")
