"""`python -m scripts.element_types` writes docs/element-types.md: what each framework makes of each element type.

How this works. The results are those of tests/element_results.py on this machine's host device and, if it has a Vulkan
driver whose memory the host can map, on that; they are not written by hand. All frameworks of the page must be
installed: `.frameworks/bin/python -m scripts.element_types`. Results on a GPU are in a file, which a machine with an
NVIDIA GPU writes: `python -m scripts.element_types gpu FILE` uses the frameworks that it has there, on the CUDA device
and on the GPU's Vulkan device. The page has what is in the file; a framework that is not in it was not run. `columns`
reads a page back, so that a test can compare it with the results of the frameworks that it has, in the versions that
the page states.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import extmem
from extmem.errors import UnsupportedError
from extmem.sharing.elements import ElementType, element_type
from scripts import wrap
from tests.element_results import MODULES, NONE, ON_GPU, ON_HOST, TEXTS, results

__all__ = ["GPU_RESULTS", "PAGE", "columns", "gpu_results", "main", "measure", "read_gpu_results", "render", "versions"]

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path("docs/element-types.md")
GPU_RESULTS = Path("tests/element_results_gpu.json")
Cells: TypeAlias = Mapping[str, Mapping[str, str]]
"""By framework and element type."""
_TITLES = {
    "numpy": "`numpy()`",
    "read": "`read()`",
    "torch": "`torch()`",
    "jax": "`jax()`",
    "cupy": "`cupy()`",
    "pyarrow": "PyArrow",
    "dlpack": "DLPack",
}
_PACKAGES = {"numpy": ("numpy", "ml_dtypes"), "torch": ("torch",), "jax": ("jax",), "pyarrow": ("pyarrow",)}
_X64 = "with `jax_enable_x64`"
_NOT_RUN = "not run"
_HEAD = """# Element types

All element types of NumPy and DLPack that are plain memory can be shared. Their text is `memory.dtype`, stands in the
descriptor, and is the same in every process. `dtype=` also accepts codes (`"<f4"`, `"M8[ns]"`), Python's `bool`, `int`,
`float` and `complex`, and the types of NumPy, ml_dtypes, PyTorch, JAX, CuPy and PyArrow. Types are mapped by their
meaning: `float8_e4m3` is not `float8_e4m3fn`, and what has no equal is refused.

```python
import numpy as np
import extmem

device = extmem.open_device(kind="host")
with device.allocate((2, 3), "bfloat16") as memory:       # numpy() needs ml_dtypes for it
    assert (memory.dtype, memory.shape, memory.nbytes) == ("bfloat16", (2, 3), 12)
    assert memory.numpy("int16", memory.shape).shape == (2, 3)   # its bits as integers need nothing
with device.allocate(4, np.dtype([("x", "f4"), ("y", "i2")])) as points:
    points.numpy()["x"] = 1
with device.allocate(2, ">f4") as swapped:                # the other byte order
    swapped.write(np.array([1, 2], "f4"), cast=True)      # converted only because that was requested
    assert swapped.numpy().tolist() == [1, 2]
device.close()
```

- **Fewer than 8 bits.** `int4` takes a byte for each element, as in ml_dtypes. `int4_packed` has two elements in a
  byte, the first in its lowest bits, as in DLPack; strides of packed types are in bits. They are different types, and
  no call converts one to the other. `float4_e2m1fn_x2` is PyTorch's: a byte with two numbers is one element.
- **Byte order.** A `>` (on big-endian machines `<`) stands before types that do not have this machine's byte order.
  Frameworks other than NumPy do not get them.
- **Dates and text.** `datetime64[ns]`, `timedelta64[25us]`, `bytes16` (bytes), `str8` (characters of 4 bytes each),
  `void4` (uninterpreted bytes).
- **Structures.** A structure is described by its fields: `{"x":float32@0,"m":(2,3)int16@4}16` has the fields `x` at
  byte 0 and `m`, an array, at byte 4, and takes 16 bytes. The text has at most 1,024 characters.
- **`float128` and `complex256`** are NumPy's `longdouble` and `clongdouble` where these take 16 and 32 bytes.
- **Not shared:** Python objects, NumPy's `StringDType`, types with titles, PyTorch's quantized types, and PyArrow's
  types whose values are in several buffers.

## What the frameworks make of them

*yes*: the array is the memory itself, with an element type of the same meaning. Otherwise the framework has no such
type, and the call is refused with an error that names the view in the table, which has the same bytes. (PyTorch has
dtypes for integers of 1 to 7 bits, but hardly any operation on them.) `pyarrow.Array.from_buffers` and capsules of
DLPack have no views: – means that they have no such type. The tables are written by `python -m scripts.element_types`
from a run of each cell.

### Memory that the host can map

With {versions}, on {devices}.

{host}

### Memory of a GPU

`read()` copies to NumPy. {gpu_intro}

{gpu}
"""


def versions() -> dict[str, str]:
    """Return the versions of the frameworks that are installed, as the page states them."""
    return {
        framework: " and ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
        for framework, packages in _PACKAGES.items()
        if MODULES[framework]
    }


def measure(framework: str, kind: str = "host") -> dict[str, str]:
    """Return the cell of each element type, from a run on a device of that kind."""
    with extmem.open_device(kind=kind) as device:
        return _cells(results(device, framework))


def _cells(found: Mapping[str, str]) -> dict[str, str]:
    return {text: _cell(advice) for text, advice in found.items()}


def _cell(advice: str) -> str:
    if advice in ("", NONE):
        return advice or "yes"
    return _X64 if "x64" in advice else f"`{advice.removeprefix('memory.')}`"


def gpu_results() -> dict[str, Any]:
    """Return the results of this machine's GPU: `{"machine", "versions", "cells": {"cuda": Cells, "vulkan": Cells}}`.

    Errors: UnsupportedError without a GPU for CUDA.
    """
    found: dict[str, Any] = {"machine": "", "versions": {}, "cells": {}}
    installed = [framework for framework in ON_GPU if MODULES[framework]]
    with extmem.open_device(kind="cuda") as cuda:
        found["machine"] = cuda.name
        found["cells"]["cuda"] = {one: _cells(results(cuda, one)) for one in installed}
        try:
            vulkan = extmem.open_device(kind="vulkan", uuid=cuda.uuid)
        except UnsupportedError as error:
            sys.stderr.write(f"no Vulkan device for {cuda.name}: {error}\n")
            return found
        with vulkan:
            found["cells"]["vulkan"] = {one: _cells(results(vulkan, one)) for one in installed}
    for package in ("numpy", "ml_dtypes", *installed):
        for name in importlib.metadata.packages_distributions().get(package, ())[:1]:
            found["versions"][name] = importlib.metadata.version(name)
    return found


def read_gpu_results(path: Path = ROOT / GPU_RESULTS) -> dict[str, Any] | None:
    """Return the results of a GPU in the file; None if there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def render(cells: Cells, stated: Iterable[str], devices: Iterable[str], gpu: Mapping[str, Any] | None) -> str:
    """Return the page. cells: of the host's memory. stated: versions. gpu: of `gpu_results`; None if not run."""
    page = _HEAD.replace("{versions}", ", ".join(stated)).replace("{devices}", " and on ".join(devices))
    page = page.replace("{host}", _table(ON_HOST, cells, with_sizes=True))
    if gpu is None:
        intro = "It was not run on a GPU yet."
    else:
        names = {"cuda": "the CUDA device", "vulkan": "the Vulkan device, whose memory CUDA imports"}
        where = " and ".join(names[kind] for kind in gpu["cells"])
        listed = ", ".join(f"{name} {version}" for name, version in gpu["versions"].items())
        intro = f"On {gpu['machine']}, for {where}, with {listed}."
    page = page.replace("{gpu_intro}", intro)
    return wrap.rewrapped(page.replace("{gpu}", _table(ON_GPU, _of_both({} if gpu is None else gpu["cells"]))))


def _of_both(kinds: Mapping[str, Cells]) -> dict[str, dict[str, str]]:
    """Return one cell for the results of both devices: they are told apart where they differ."""
    found: dict[str, dict[str, str]] = {}
    for framework in ON_GPU:
        if not all(framework in cells for cells in kinds.values()) or not kinds:
            continue
        found[framework] = {}
        for text in TEXTS:
            each = {kind: cells[framework].get(text, _NOT_RUN) for kind, cells in kinds.items()}
            same = len(set(each.values())) == 1
            told = "; ".join(f"{kind}: {cell}" for kind, cell in each.items())
            found[framework][text] = next(iter(each.values())) if same else told
    return found


def _table(frameworks: Iterable[str], cells: Cells, *, with_sizes: bool = False) -> str:
    head = ["element type", *(["bytes", "DLPack code, bits, lanes"] if with_sizes else [])]
    head += [_TITLES[one] for one in frameworks if not with_sizes or one != "dlpack"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for text in TEXTS:
        element = element_type(text)
        row = [f"`{text}`"]
        if with_sizes:  # the capsule of this run had these codes
            has = cells["dlpack"][text]
            row += [_size(element), _dlpack(element) if has == "yes" else has]
        row += [
            cells[one][text] if one in cells else _NOT_RUN for one in frameworks if not with_sizes or one != "dlpack"
        ]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def columns(page: str) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """Return the cells of a page by framework and element type: of the host's memory, and of a GPU's.

    The cells of DLPack on the host are its codes. Errors: ValueError for a page without the tables.
    """
    found = []
    for part in page.partition("### Memory of a GPU")[::2]:
        rows = [
            [cell.strip() for cell in line.strip("|").split(" | ")] for line in part.splitlines() if line[:2] == "| "
        ]
        if not rows:
            raise ValueError(f"{PAGE} has no table of element types; run `python -m scripts.element_types`")
        of_title = {title: framework for framework, title in _TITLES.items()}
        titles = [of_title.get(title, "dlpack" if title.startswith("DLPack") else "") for title in rows[0]]
        found.append(
            {title: {row[0].strip("`"): row[index] for row in rows[1:]} for index, title in enumerate(titles) if title}
        )
    return found[0], found[1]


def _size(element: ElementType) -> str:
    return str(element.itemsize) if element.itemsize is not None else f"{element.bits} bit{'s' * (element.bits > 1)}"


def _dlpack(element: ElementType) -> str:
    padded = ", padded" if element.padded else ""
    return f"{', '.join(map(str, element.dlpack))}{padded}" if element.dlpack is not None else ""


def main(arguments: list[str]) -> int:
    """Write the page, or with `gpu FILE` the results of this machine's GPU. Return the exit status."""
    if arguments[:1] == ["gpu"] and len(arguments) == 2:
        Path(arguments[1]).write_text(json.dumps(gpu_results(), indent=1) + "\n", encoding="utf-8")
        sys.stdout.write(f"wrote {arguments[1]}; it belongs to {GPU_RESULTS}\n")
        return 0
    if arguments:
        sys.stderr.write("usage: python -m scripts.element_types [gpu FILE]\n")
        return 2
    missing = [framework for framework in ON_HOST if not MODULES[framework]]
    if missing:
        sys.stderr.write(f"not installed: {', '.join(missing)}; run it in the environment .frameworks\n")
        return 1
    cells = {framework: measure(framework) for framework in ON_HOST}
    devices = ["the host device"]
    with extmem.open_device(kind="vulkan") as vulkan:
        devices.append(f"a Vulkan device ({vulkan.name})")
    differing = [framework for framework in ON_HOST if measure(framework, "vulkan") != cells[framework]]
    if differing:
        sys.stderr.write(f"{devices[1]} differs from the host device for {', '.join(differing)}\n")
        return 1
    page = render(cells, versions().values(), devices, read_gpu_results())
    (ROOT / PAGE).write_text(page, encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
