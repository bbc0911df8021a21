"""kill -9 of a process that loads a file, at each step: another takes over, and nothing is left."""

from __future__ import annotations

import gc
import sys
import threading
from pathlib import Path

import pytest

import extmem
from extmem.testing import leaks
from extmem.testing.children import Peer
from extmem.testing.waiting import DEADLINE, wait_until

numpy = pytest.importorskip("numpy", reason="NumPy is not installed")

HOLD = """
import itertools, pathlib, threading
import extmem
from extmem.core import sharing_arrays
from extmem.interop import placed_reads, positioned_reads, safetensors_files

def hold(module, name, *, call=1, after=False):
    real, numbers = getattr(module, name), itertools.count(1)
    def held(*arguments, **named):
        number = next(numbers)  # of this call: several threads call it
        result = real(*arguments, **named) if after else None
        if number == call:
            pathlib.Path(mark).touch()
            threading.Event().wait(600)
        return result if after else real(*arguments, **named)
    setattr(module, name, held)

placed_reads.PIECE = 4096
"""
STEPS = {
    "the file is open": ("safetensors_files, 'read_header'", False),
    # On Windows an object has its name from its creation.
    "the claim is allocated": ("sharing_arrays, 'publish'", sys.platform == "win32"),
    "the claim is public": ("sharing_arrays, 'publish', after=True", True),
    "the memory is being allocated": ("sharing_arrays, 'allocate', call=2", True),
    "the memory is allocated": ("placed_reads, 'read_to'", True),
    "a part is read": ("positioned_reads, 'read_into', call=5, after=True", True),
    "all is read": ("placed_reads, 'read_to', after=True", True),
    "the memory is about to be public": ("sharing_arrays, 'publish', call=2", True),
    "the memory is public": ("sharing_arrays, 'publish', call=2, after=True", False),
}
"""Where the loader is held, and whether others wait for it there."""
VALUES = numpy.arange(20_000, dtype="float64")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    with extmem.share({"w": VALUES, "b": VALUES[:3]}) as memory:
        extmem.save_safetensors(memory, path)
    return path


@pytest.mark.parametrize("step", STEPS)
def test_a_loader_that_is_killed_leaves_the_file_to_another(step: str, path: Path, tmp_path: Path) -> None:
    where, others_wait = STEPS[step]
    mark, found = tmp_path / "mark", []

    def load() -> None:
        found.append(extmem.load_safetensors(path, "model"))

    with leaks.no_leaks(everybody=True):
        with Peer() as loader:
            loader(HOLD + f"hold({where})\nNone", mark=str(mark))
            loader.start(f"extmem.load_safetensors({str(path)!r}, 'model')")
            wait_until(mark.exists, f"the loader to be held: {step}")
            waiters = [threading.Thread(target=load) for _ in range(2)]
            for each in waiters:
                each.start()
            if others_wait:
                assert not found
                with pytest.raises(extmem.NameNotFoundError):
                    extmem.open("model")
            else:
                for each in waiters:
                    each.join(DEADLINE)
                assert len(found) == 2, "nobody has to wait for this step"
            loader.kill()
            for each in waiters:
                each.join(DEADLINE)
        assert len(found) == 2
        for memory in found:
            assert (memory["w"].numpy() == VALUES).all() and (memory["b"].numpy() == VALUES[:3]).all()
        with extmem.load_safetensors(path, "model") as again:
            assert len(again) == 2
        for memory in found:
            memory.close()
        found.clear()
        del memory, again
        gc.collect()
        for name in ("model", "model.loading"):
            with pytest.raises(extmem.NameNotFoundError):
                extmem.open(name)


def test_the_loader_that_is_not_killed_ends(path: Path, tmp_path: Path) -> None:
    """The twin of the above: a loader that is held nowhere publishes the file for those who wait."""
    with Peer() as loader:
        loader(HOLD + "hold(placed_reads, 'read_to', call=9)\nNone", mark=str(tmp_path / "mark"))
        loader(f"memory = extmem.load_safetensors({str(path)!r}, 'model')\nNone")
        with extmem.load_safetensors(path, "model") as memory:
            assert memory["w"].read().tolist() == VALUES.tolist()
        assert not (tmp_path / "mark").exists()
        loader("memory.close()")
