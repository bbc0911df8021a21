"""Arrays over payloads, zero copy: NumPy, DLPack, PyTorch, CuPy, JAX. A framework is imported on its first use.

The modules of this package are imported together, on the first use of one of its names, because opening a device needs
none of them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from extmem.interop._interop import *  # noqa: F403  # it has an __all__
else:
    from extmem.owning import late_imports

    def __getattr__(name: str) -> object:
        if name.startswith("_"):  # the import system requests such names; this package exports none
            raise AttributeError(f"module 'extmem.interop' has no attribute {name!r}")
        with late_imports():
            import importlib

            modules = importlib.import_module("extmem.interop._interop")
        if name not in modules.__all__:
            raise AttributeError(f"module 'extmem.interop' has no attribute {name!r}")
        globals().update((each, getattr(modules, each)) for each in modules.__all__)
        return globals()[name]
