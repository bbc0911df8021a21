"""Every example is short, states what it shows, and runs to its end in two processes without a warning."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

from extmem.devices import cuda
from extmem.testing.runtime import Runtime
from tests import frameworks
from tests.meta.running import private_environment
from tests.meta.tools import ROOT, python_files, run
from tests.vulkan_bed import SHARES_NOTHING

MOST_LINES = 60
HOSTILE = {"hostile_client.py"}
"""The example that shows what not to do; it has a test of its own."""

NEED_VULKAN = {
    "render_to_consumer.py",
    "foreign_binding.py",
    "frames_to_torch.py",
    "render_to_torch_in_order.py",
    "slangpy_buffer.py",
}
IN_ORDER = ("frames_in_order.py", "render_to_torch_in_order.py")
WITHOUT = {"camera_and_viewer.py": "FramesLostError", "writer_restarted.py": "WriterGoneError"}
"""Examples of channels, and the error that ends them with `--without`."""
NEED_CUDA = {"render_to_torch_in_order.py"}
NEED_TORCH = {
    "frames_to_torch.py",
    "render_to_torch_channel.py",
    "render_to_torch_in_order.py",
    "trainer_and_workers.py",
    "weights_from_safetensors.py",
}
NEED_SLANGPY = {"slangpy_buffer.py"}

MARKS = {
    "foreign_binding.py": pytest.mark.linux_only("shares the other binding's memory by fd"),
    "slangpy_buffer.py": pytest.mark.linux_only("shares the other binding's memory by fd"),
    "readonly_publish.py": pytest.mark.linux_only("passes the payload's fd to an unrelated program"),
    "render_to_consumer.py": SHARES_NOTHING,
}
"""Examples that do not run on every system, or that take long."""

EXAMPLES = [path for path in python_files(ROOT / "examples") if path.name not in HOSTILE]


def run_example(path: Path, folder: Path, *arguments: str, timeout: float = 60) -> str:
    """Run the example. Return what went wrong; "" if nothing did."""
    here = folder / "here"
    here.mkdir()
    with Runtime() as runtime:
        try:
            result = run(
                [sys.executable, "-X", "dev", "-W", "error", path, *arguments],
                cwd=here,
                env=private_environment(runtime),
                timeout=timeout,
            )
        except AssertionError as error:
            return str(error)
    if result.returncode != 0 or result.stderr:
        return f"ended with {result.returncode}\n{result.stdout}{result.stderr}"
    return "" if result.stdout.strip() else "printed nothing: an example shows something"


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5


def example(path: Path) -> ParameterSet:
    """Return the parameter of an example, with its marks."""
    if path.name in NEED_TORCH:
        return frameworks.param("torch", path, id=path.name)
    return pytest.param(path, id=path.name, marks=MARKS.get(path.name, ()))


@pytest.mark.parametrize("path", [example(path) for path in EXAMPLES])
def test_example_runs(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if path.name in NEED_VULKAN:
        request.getfixturevalue("vulkan_device")
    if path.name in NEED_SLANGPY and importlib.util.find_spec("slangpy") is None:
        pytest.skip("slangpy is not installed")
    _skip_without_cuda(path)
    # With PyTorch, up to four processes import it, which takes each of them seconds.
    problem = run_example(path, tmp_path, timeout=300 if path.name in NEED_TORCH else 60)
    assert not problem, problem


def _skip_without_cuda(path: Path) -> None:
    if path.name in NEED_CUDA and not cuda.offers():
        pytest.skip("no CUDA device here")


@pytest.mark.slow("waits for the deadline of a signal that does not come")
@pytest.mark.parametrize("path", [example(ROOT / "examples" / name) for name in IN_ORDER])
def test_an_example_of_order_fails_without_one_signal(path: Path, tmp_path: Path) -> None:
    """It runs with all signals (above): so it is the order that makes it right."""
    _skip_without_cuda(path)
    problem = run_example(path, tmp_path, "--without")
    assert "ended with 1" in problem and "WaitTimeoutError" in problem, problem


@pytest.mark.slow("runs examples a second time")
@pytest.mark.parametrize("name", sorted(WITHOUT))
def test_an_example_of_channels_fails_without_its_option(name: str, tmp_path: Path) -> None:
    """It runs with the option (above): so it is the option that makes it right."""
    problem = run_example(ROOT / "examples" / name, tmp_path, "--without")
    assert "ended with 1" in problem and WITHOUT[name] in problem, problem


@pytest.mark.parametrize("name", sorted(NEED_TORCH))
def test_an_example_for_pytorch_ends_with_one_sentence_without_it(name: str, tmp_path: Path) -> None:
    """Without the package, whether or not it is installed: a folder that comes first on the path hides it."""
    text = "import importlib.util, runpy, sys\nimportlib.util.find_spec = lambda name: None\n"
    start = tmp_path / "start.py"
    start.write_text(f"{text}sys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')\n")
    result = run([sys.executable, start, ROOT / "examples" / name], cwd=tmp_path)
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr == "this example needs PyTorch: pip install torch\n"


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.name for path in EXAMPLES])
def test_example_is_short_and_described(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MOST_LINES
    assert ast.get_docstring(ast.parse(text)), "an example states in its docstring what it shows"
    assert path.name in (ROOT / "examples" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("code", "expected", "timeout"),
    [
        ("raise SystemExit(3)", "ended with 3", 60),
        ("x = 1", "printed nothing", 60),
        ("import sys; print(1); print('oops', file=sys.stderr)", "oops", 60),
        ("import threading; threading.Event().wait()", "did not end", 0.5),
    ],
    ids=["status", "nothing", "stderr", "endless"],
)
def test_planted_bad_example_is_found(code: str, expected: str, timeout: float, tmp_path: Path) -> None:
    path = tmp_path / "planted.py"
    path.write_text(code, encoding="utf-8")
    assert expected in run_example(path, tmp_path, timeout=timeout)


def test_a_right_example_passes(tmp_path: Path) -> None:
    path = tmp_path / "right.py"
    path.write_text("print('shown')", encoding="utf-8")
    assert run_example(path, tmp_path) == ""
