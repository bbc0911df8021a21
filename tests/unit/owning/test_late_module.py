"""Modules that are imported at the first use of an attribute."""

from __future__ import annotations

import errno
import importlib
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from extmem.errors import OutOfMemoryError
from extmem.owning import LateModule, late_names

MODULE = "extmem_test_late"


@pytest.fixture
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that has not been imported, and is unloaded after the test."""
    (tmp_path / f"{MODULE}.py").write_text("value = 3\nother = 4\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    importlib.invalidate_caches()
    return MODULE


def test_the_first_use_imports_the_module_and_puts_it_in_place(late: str) -> None:
    namespace: dict[str, Any] = {}
    namespace[late] = LateModule(namespace, late)
    assert late not in sys.modules
    assert namespace[late].value == 3
    assert namespace[late] is sys.modules[late]


def test_what_a_module_lacks_is_no_attribute(late: str) -> None:
    with pytest.raises(AttributeError, match="absent"):
        _ = LateModule({}, late).absent


def test_a_module_that_does_not_exist_is_an_import_error() -> None:
    with pytest.raises(ModuleNotFoundError, match="extmem_test_nothing"):
        _ = LateModule({}, "extmem_test_nothing").value


def test_an_import_without_file_descriptors_says_so_and_works_later(late: str, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: dict[str, Any] = {"__name__": "package"}
    module, names = LateModule(namespace, late), late_names(namespace, {late: ("value",)})

    def fail(name: str) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(importlib, "import_module", fail)
        for call in (lambda: module.value, lambda: names("value")):
            with pytest.raises(OutOfMemoryError, match="no file descriptor is left"):
                call()
    assert not namespace.keys() - {"__name__"}
    assert module.value == names("value") == 3


def test_names_of_a_package_are_found_once_and_others_are_no_attributes(late: str) -> None:
    namespace: dict[str, Any] = {"__name__": "package"}
    names = late_names(namespace, {late: ("value",)}, modules=(late,))
    assert late not in sys.modules
    assert names("value") == namespace["value"] == 3
    assert names(late) is namespace[late] is sys.modules[late]
    for absent in ("other", "__path__"):
        with pytest.raises(AttributeError, match=f"module 'package' has no attribute '{absent}'"):
            names(absent)


def test_threads_get_the_same_module(late: str) -> None:
    namespace: dict[str, Any] = {}
    module = LateModule(namespace, late)
    barrier = threading.Barrier(8)
    found: list[Any] = []

    def use() -> None:
        barrier.wait(30)
        found.append((module.value, sys.modules[late]))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [(3, sys.modules[late])] * 8
