"""Optional packages: absent, broken, and imported by many threads at once."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extmem import optional
from extmem.errors import UnsupportedError
from extmem.testing.children import Child

PACKAGE = "extmem_test_package"

# Each part waits until the other's import has begun, so that two threads that import them get unfinished modules.
PART = """
import builtins
builtins.extmem_test_begun["{mine}"].set()
builtins.extmem_test_begun["{other}"].wait({patience})
from {package}.{other} import {other_name}
{mine_name} = 1
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Write modules of a package of that name, which is unloaded after the test."""
    folder = tmp_path / PACKAGE
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    def write(**modules: str) -> None:
        for name, text in modules.items():
            (folder / f"{name}.py").write_text(text)
        importlib.invalidate_caches()

    yield write
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]


def load(module: str) -> Any:
    return optional.load(f"{PACKAGE}.{module}", what="The package", advice="install it", package="package")


def circle(patience: float) -> dict[str, str]:
    """Two modules that import each other, each of which begins before the other is finished."""
    texts = {}
    for mine, other in (("one", "two"), ("two", "one")):
        texts[mine] = PART.format(
            mine=mine, other=other, patience=patience, package=PACKAGE, mine_name=mine.upper(), other_name="__doc__"
        )
    return texts


def in_two_threads(how: Any, monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    begun = {"one": threading.Event(), "two": threading.Event()}
    monkeypatch.setattr("builtins.extmem_test_begun", begun, raising=False)
    failed: list[BaseException] = []

    def run(name: str) -> None:
        try:
            assert getattr(how(name), name.upper()) == 1
        except (ImportError, AttributeError, UnsupportedError) as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(name,)) for name in begun]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return failed


def test_two_threads_get_whole_modules(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    package(**circle(0.2))
    assert in_two_threads(load, monkeypatch) == []


def test_planted_half_made_modules_are_found(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Python's own import does with the same two: one of the threads gets a module without its name."""
    package(**{name: text.replace("__doc__", name_of_other(name)) for name, text in circle(10).items()})
    failed = in_two_threads(lambda name: importlib.import_module(f"{PACKAGE}.{name}"), monkeypatch)
    assert failed and isinstance(failed[0], ImportError)


def name_of_other(name: str) -> str:
    return {"one": "TWO", "two": "ONE"}[name]


def test_what_is_there_is_returned(package: Any) -> None:
    package(whole="VALUE = 5")
    assert load("whole").VALUE == 5 and load("whole") is sys.modules[f"{PACKAGE}.whole"]


def test_what_is_absent_is_named_with_the_advice(package: Any) -> None:
    package(whole="")
    for absent in ("missing", "whole.deeper"):
        with pytest.raises(UnsupportedError, match="The package is not installed .*; install it") as caught:
            load(absent)
        assert caught.value.requires_one_of == ("package",)
    with pytest.raises(UnsupportedError, match="is not installed"):
        optional.load("extmem_no_such_package.inner", what="Nothing", advice="do without")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import extmem_no_such_package", "ModuleNotFoundError: No module named 'extmem_no_such_package'"),
        ("from os import no_such_name", "ImportError: cannot import name 'no_such_name'"),
        ("raise ImportError('libthing.so.7: no such file')", "ImportError: libthing.so.7: no such file"),
        ("raise OSError('a broken library')", "OSError: a broken library"),
    ],
)
def test_what_is_there_and_fails_is_reported_as_what_it_is(package: Any, text: str, reason: str) -> None:
    package(broken=text)
    with pytest.raises(UnsupportedError) as caught:
        load("broken")
    assert reason in str(caught.value) and "is installed and cannot be imported" in str(caught.value)
    assert "is not installed" not in str(caught.value)


def test_a_package_that_was_broken_can_be_mended(package: Any) -> None:
    package(broken="raise ImportError('not yet')")
    with pytest.raises(UnsupportedError, match="not yet"):
        load("broken")
    package(broken="VALUE = 'mended now, and longer than before'")
    assert load("broken").VALUE


BROKEN = """
import extmem

with extmem.open_device(kind="host") as device, device.allocate(4) as memory:
    for use in (memory.numpy, memory.read, memory.__dlpack__, memory.torch):
        try:
            use()
        except extmem.UnsupportedError as error:
            print(error)
    print(bytes(memory.map()))
"""


def test_a_numpy_that_is_broken_is_reported_with_its_own_reason(tmp_path: Path) -> None:
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text("raise ImportError('libblas.so.3: cannot open shared object file')")
    (tmp_path / "torch.py").write_text("dtype = str\nuint8 = 'uint8'\n")  # makes tensors from arrays
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{BROKEN}"
    with Child.python(program) as child:
        child.wait()
        output = child.output
    assert output.count("NumPy is installed and cannot be imported (ImportError: libblas.so.3: cannot open") == 4
    assert "NumPy is not installed" not in output and repr(bytes(4)) in output


# The library's own: the first use of each in a new process, by eight threads at once.

FIRST_USE = """
import sys, threading
import extmem
from extmem.testing import fake_cuda

what = sys.argv[1]
kind = "cuda" if what in ("capsule", "cupy", "torch on a GPU") else "host"
outcomes, barrier = [], threading.Barrier(8)
fake = fake_cuda.FakeCuda()
with fake_cuda.installed(fake), extmem.open_device(kind=kind) as device, device.allocate(64, "float32") as memory:
    uses = {
        "numpy": lambda: memory.numpy().shape,
        "read": lambda: memory.read().shape,
        "dlpack": lambda: memory.__dlpack__() is not None,
        "capsule": lambda: memory.__dlpack__() is not None,
        "torch": lambda: tuple(memory.torch().shape),
        "torch on a GPU": lambda: tuple(memory.torch().shape),
        "jax": lambda: memory.jax().shape,
        "cupy": lambda: memory.cupy().shape,
    }

    def use():
        barrier.wait()
        try:
            outcomes.append(str(uses[what]()))
        except Exception as error:
            outcomes.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert len(outcomes) == 8 and len(set(outcomes)) == 1, outcomes
    print(outcomes[0])
"""


@pytest.mark.parametrize("what", ["numpy", "read", "dlpack", "capsule", "torch", "torch on a GPU", "jax", "cupy"])
def test_eight_threads_that_first_use_a_package_get_the_same_answer(what: str) -> None:
    """Whether it is installed or not, all get the same."""
    package = {"capsule": "numpy", "torch on a GPU": "torch", "read": "numpy", "dlpack": "numpy"}.get(what, what)
    with Child.python(FIRST_USE, what) as child:
        child.wait(deadline=100)
        if not _is_here(package):
            assert "is not installed" in child.output
        elif what not in ("torch on a GPU", "cupy"):  # these need a GPU that is not a script's
            assert "Error" not in child.output, child.output


def _is_here(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False
