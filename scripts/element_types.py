"""`python -m scripts.element_types` writes docs/element-types.md: what each framework makes of each element type.

How this works. The results are those of tests/element_results.py on memory of the host device of this machine; they
are not written by hand. All frameworks of the page must be installed. `columns` reads a page back, so that a test can
compare it with the results of the frameworks that it has, in the versions that the page states.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy

import extmem
from extmem.sharing.elements import ElementType, element_type
from scripts import wrap
from tests.element_results import MODULES, SHAPE, TEXTS, fill, result

__all__ = ["PAGE", "TITLES", "columns", "main", "measure", "render", "versions"]

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path("docs/element-types.md")
TITLES = {"numpy": "`numpy()`", "torch": "`torch()`", "jax": "`jax()`"}
_PACKAGES = {"numpy": ("numpy", "ml_dtypes"), "torch": ("torch",), "jax": ("jax",)}
_X64 = "with `jax_enable_x64`"
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
dtypes for integers of 1 to 7 bits, but hardly any operation on them.)
`python -m scripts.element_types` writes this table from a run on the host device with {versions}.

| element type | bytes | DLPack code, bits, lanes | {titles} |
|---|---|---|{rules}|
"""


def versions() -> dict[str, str]:
    """Return the versions of the frameworks that are installed, as the page states them."""
    return {
        framework: " and ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES[framework])
        for framework, installed in MODULES.items()
        if installed
    }


def measure(framework: str) -> dict[str, str]:
    """Return the cell of each element type, from a run on the host device."""
    cells = {}
    with warnings.catch_warnings(), extmem.open_device(kind="host") as device:
        warnings.simplefilter("ignore")  # PyTorch warns of complex32
        for text in TEXTS:
            with device.allocate(SHAPE, text) as memory:
                octets, address = fill(memory), numpy.frombuffer(memory.map(), "uint8").ctypes.data
                advice = result(memory, framework, octets, int(address))
            cells[text] = "yes" if not advice else _X64 if "x64" in advice else f"`{advice.removeprefix('memory.')}`"
    return cells


def render(cells: Mapping[str, Mapping[str, str]], stated: Mapping[str, str]) -> str:
    """Return the page. cells: by framework and element type. stated: the versions."""
    head = _HEAD.replace("{versions}", ", ".join(stated.values()))
    head = head.replace("{titles}", " | ".join(TITLES.values())).replace("{rules}", "|".join("---" for _ in TITLES))
    lines = [
        f"| `{text}` | {_size(element_type(text))} | {_dlpack(element_type(text))} | "
        f"{' | '.join(cells[framework][text] for framework in TITLES)} |"
        for text in TEXTS
    ]
    return wrap.rewrapped(head + "\n".join(lines) + "\n")


def columns(page: str) -> dict[str, dict[str, str]]:
    """Return the cells of a page by framework and element type. Errors: ValueError for a page without the table."""
    rows = re.findall(r"^\| `(.+?)` \| [^|]* \| [^|]* \| (.*) \|$", page, re.MULTILINE)
    if not rows:
        raise ValueError(f"{PAGE} has no table of element types; run `python -m scripts.element_types`")
    cells = {text: rest.split(" | ") for text, rest in rows}
    return {framework: {text: row[index] for text, row in cells.items()} for index, framework in enumerate(TITLES)}


def _size(element: ElementType) -> str:
    return str(element.itemsize) if element.itemsize is not None else f"{element.bits} bit{'s' * (element.bits > 1)}"


def _dlpack(element: ElementType) -> str:
    padded = ", padded" if element.padded else ""
    return f"{', '.join(map(str, element.dlpack))}{padded}" if element.dlpack is not None else ""


def main() -> int:
    """Write the page. Return the exit status: 1 if a framework is not installed."""
    missing = [framework for framework, installed in MODULES.items() if not installed]
    if missing:
        sys.stderr.write(f"not installed: {', '.join(missing)}; the page has results of all frameworks\n")
        return 1
    page = render({framework: measure(framework) for framework in TITLES}, versions())
    (ROOT / PAGE).write_text(page, encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
