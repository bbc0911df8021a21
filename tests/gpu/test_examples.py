"""The examples of shared weights, in the memory of a GPU. Their runs on the host are in tests/meta/test_examples.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from extmem.testing.runtime import Runtime
from tests.meta.running import private_environment
from tests.meta.tools import ROOT, SOURCE, run


@pytest.mark.parametrize("name", ["trainer_and_workers.py", "weights_from_safetensors.py"])
def test_an_example_of_weights_uses_the_gpu(name: str, torch: Any, tmp_path: Path) -> None:
    assert torch.cuda.is_available()
    with Runtime() as runtime:
        done = run(
            [sys.executable, ROOT / "examples" / name],
            cwd=tmp_path,
            env=private_environment(runtime),
            timeout=300,
            python_path=os.pathsep.join([str(SOURCE.parent), os.environ.get("PYTHONPATH", "")]),
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "on cuda:0" in done.stdout and "on cpu" not in done.stdout, done.stdout
