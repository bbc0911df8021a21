"""tests/unit mirrors src/extmem: the tests of a package are in the folder of the same path."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.meta.tools import ROOT, python_files


def without_source(root: Path) -> list[str]:
    """Return each test file below tests/unit whose folder is not a package of src/extmem, as a sentence.

    tests/unit/A/test_B.py requires the package src/extmem/A; tests/unit/test_B.py requires the module src/extmem/B.py.
    """
    unit, source = root / "tests" / "unit", root / "src" / "extmem"
    complaints = []
    for path in python_files(unit):
        if not path.name.startswith("test_"):
            continue
        folder = path.parent.relative_to(unit)
        if folder == Path():
            required = source / path.name.removeprefix("test_")
        else:
            required = source / folder / "__init__.py"
        if not required.is_file():
            name, missing = path.relative_to(root).as_posix(), required.relative_to(root).as_posix()
            complaints.append(
                f"{name} requires {missing}, which does not exist; move the test to the path of its source"
            )
    return complaints


def test_every_unit_test_is_in_the_folder_of_its_source() -> None:
    assert len(python_files(ROOT / "tests" / "unit")) > 100
    assert not without_source(ROOT), "\n".join(without_source(ROOT))


@pytest.mark.parametrize(
    ("test", "required"),
    [
        ("devices/host/test_memory.py", None),
        ("test_errors.py", None),
        ("devices/steps.py", None),
        ("devices/metal/test_memory.py", "src/extmem/devices/metal/__init__.py"),
        ("transport/test_codec.py", "src/extmem/transport/__init__.py"),
        ("errors/test_errors.py", "src/extmem/errors/__init__.py"),
        ("test_faults.py", "src/extmem/faults.py"),
    ],
)
def test_planted_test_without_a_source_is_found(tmp_path: Path, test: str, required: str | None) -> None:
    for name in ("src/extmem/errors.py", "src/extmem/devices/host/__init__.py", f"tests/unit/{test}"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    complaints = without_source(tmp_path)
    assert len(complaints) == (required is not None)
    assert required is None or f"tests/unit/{test} requires {required}," in complaints[0]
