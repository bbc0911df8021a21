"""docs/element-types.md shows what the frameworks make of each element type, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numpy", reason="NumPy is not installed")

from scripts import element_types
from scripts.element_types import Cells
from tests import cuda_bed
from tests.element_results import MODULES, ON_GPU, ON_HOST, TEXTS
from tests.frameworks import param

PAGE = (Path(__file__).resolve().parents[2] / element_types.PAGE).read_text(encoding="utf-8")
GPU = element_types.read_gpu_results()


def check_column(written: Cells, framework: str, measured: dict[str, str], same_version: bool) -> None:
    """Compare a column of the page with a run. Another version may have more types; those of the page it still has."""
    assert set(written[framework]) == set(TEXTS)
    if framework == "dlpack":  # the page has the codes that the capsule had
        answers = {text: "yes" if re.search(r"\d", cell) else cell for text, cell in written[framework].items()}
    else:
        answers = dict(written[framework])
    if same_version:
        assert answers == measured
    else:
        assert [text for text in TEXTS if answers[text] == "yes" and measured[text] != "yes"] == []


@pytest.mark.linux_only("a page has the results of one system")
@pytest.mark.parametrize("framework", ["numpy", "dlpack", param("torch"), param("jax"), param("pyarrow")])
def test_the_page_has_the_results_of_a_run(framework: str) -> None:
    if not MODULES[framework]:
        pytest.skip("ml_dtypes is not installed")
    stated = element_types.versions().get(framework, "")
    check_column(element_types.columns(PAGE)[0], framework, element_types.measure(framework), stated in PAGE)


@pytest.mark.linux_only("a page has the results of one system")
@pytest.mark.parametrize("framework", ["numpy", "dlpack", param("torch"), param("jax"), param("pyarrow")])
def test_the_page_has_the_results_of_a_vulkan_device(framework: str, vulkan_device: Any) -> None:
    if not MODULES[framework]:
        pytest.skip("ml_dtypes is not installed")
    with vulkan_device.allocate(16) as memory:
        if not memory.host_visible:
            pytest.skip("this device shares nothing that the host sees")
    stated = element_types.versions().get(framework, "")
    check_column(element_types.columns(PAGE)[0], framework, element_types.measure(framework, "vulkan"), stated in PAGE)


def test_the_page_has_the_results_of_the_gpu_run() -> None:
    """Those of the file that a GPU run wrote; if there is none, every cell states that."""
    host, gpu = element_types.columns(PAGE)
    assert set(host) == set(ON_HOST) and set(gpu) == set(ON_GPU)
    rendered = element_types.render(_answers(host), element_types.versions().values(), ["x"], GPU)
    assert element_types.columns(rendered)[1] == gpu
    if GPU is None:
        assert {cell for column in gpu.values() for cell in column.values()} == {"not run"}
        assert "It was not run on a GPU yet." in PAGE
    else:
        assert GPU["machine"] in " ".join(PAGE.split())


def _answers(host: Cells) -> dict[str, dict[str, str]]:
    """Return the cells of a page as those of a run: `render` writes the codes of DLPack itself."""
    found = {framework: dict(column) for framework, column in host.items()}
    found["dlpack"] = {text: "yes" if re.search(r"\d", cell) else cell for text, cell in host["dlpack"].items()}
    return found


@pytest.mark.slow("allocates memory of each element type twice")
@pytest.mark.linux_only("a page has the results of one system")
def test_a_gpu_run_writes_the_file_that_the_page_is_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the scripted drivers, of which no framework knows: `read` alone."""
    monkeypatch.setattr(element_types, "ON_GPU", ("read",))
    file = tmp_path / "gpu.json"
    with cuda_bed.both():
        assert element_types.main(["gpu", str(file)]) == 0
    found = element_types.read_gpu_results(file)
    assert found is not None and found["machine"] and set(found["cells"]) == {"cuda", "vulkan"}
    assert found["cells"]["cuda"]["read"]["int4_packed"] == "`read_bytes()`"
    assert set(found["cells"]["vulkan"]["read"]) == set(TEXTS) and "numpy" in found["versions"]
    assert element_types.read_gpu_results(tmp_path / "none.json") is None
    assert element_types.main(["gpu"]) == 2


PLANTED: dict[str, Any] = {
    "machine": "GPU 9",
    "versions": {"torch": "9.1"},
    "cells": {
        "cuda": {"torch": dict.fromkeys(TEXTS, "yes"), "read": dict.fromkeys(TEXTS, "yes")},
        "vulkan": {"torch": {**dict.fromkeys(TEXTS, "yes"), "bfloat16": "no"}, "read": dict.fromkeys(TEXTS, "yes")},
    },
}


def test_a_page_that_states_something_else_is_found() -> None:
    written = _answers(element_types.columns(PAGE)[0])
    cells = {framework: dict(column) for framework, column in written.items()}
    cells["numpy"]["bfloat16"] = "no"
    changed = element_types.render(cells, ["NumPy 0"], ["a device"], PLANTED)
    host, gpu = element_types.columns(changed)
    assert _answers(host) == cells != written
    told = " ".join(changed.split())
    assert "NumPy 0" in told and "GPU 9" in told and "torch 9.1" in told
    assert not re.search(r"[{](versions|devices|host|gpu|gpu_intro)[}]", changed)
    assert gpu["torch"]["bfloat16"] == "cuda: yes; vulkan: no" and gpu["read"]["bfloat16"] == "yes"
    assert gpu["cupy"]["bfloat16"] == "not run"
    with pytest.raises(AssertionError):
        check_column(host, "numpy", written["numpy"], True)
    check_column(host, "numpy", written["numpy"], False)  # a version that has more
    with pytest.raises(AssertionError):
        check_column(written, "numpy", cells["numpy"], False)
    with pytest.raises(ValueError, match="no table"):
        element_types.columns("# Nothing")
