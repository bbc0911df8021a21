"""docs/element-types.md shows what the frameworks make of each element type, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("numpy", reason="NumPy is not installed")

from scripts import element_types
from tests.element_results import MODULES, TEXTS
from tests.frameworks import param

PAGE = (Path(__file__).resolve().parents[2] / element_types.PAGE).read_text(encoding="utf-8")


@pytest.mark.linux_only("a page has the results of one system")
@pytest.mark.parametrize("framework", ["numpy", param("torch"), param("jax")])
def test_the_page_has_the_results_of_a_run(framework: str) -> None:
    if not MODULES[framework]:
        pytest.skip("ml_dtypes is not installed")
    stated = element_types.versions()[framework]
    written = element_types.columns(PAGE)[framework]
    assert set(written) == set(TEXTS)
    measured = element_types.measure(framework)
    if stated in PAGE:
        assert written == measured
    else:  # another version may have more types; those of the page it still has
        assert [text for text in TEXTS if written[text] == "yes" and measured[text] != "yes"] == []


def test_a_page_that_states_something_else_is_found() -> None:
    written = element_types.columns(PAGE)
    cells = {framework: dict(column) for framework, column in written.items()}
    cells["numpy"]["bfloat16"] = "no"
    changed = element_types.render(cells, {"numpy": "NumPy 0"})
    assert element_types.columns(changed) == cells != written
    assert "NumPy 0" in changed and not re.search(r"[{](versions|titles|rules)[}]", changed)
    with pytest.raises(ValueError, match="no table"):
        element_types.columns("# Nothing")
