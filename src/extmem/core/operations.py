"""The operations on memory: modules that are imported when they are first used.

The import of all of them takes longer than opening a device, and a program uses some of them. Therefore `api` accesses
the rest of this layer as attributes of this module: `operations.allocating`, `operations.exporting`. The first access
imports the module; other threads wait at its import lock. Afterwards the name is an ordinary attribute of this module.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from extmem.core import adopting as adopting
    from extmem.core import allocating as allocating
    from extmem.core import allocating_arrays as allocating_arrays
    from extmem.core import arguments as arguments
    from extmem.core import binding as binding
    from extmem.core import creating as creating
    from extmem.core import describing as describing
    from extmem.core import exporting as exporting
    from extmem.core import import_source as import_source
    from extmem.core import mapped_ranges as mapped_ranges
    from extmem.core import memory_buffer as memory_buffer
    from extmem.core import opening as opening
    from extmem.core import queries as queries
    from extmem.core import rule_facts as rule_facts
    from extmem.core import shared_devices as shared_devices
    from extmem.core import views as views
    from extmem.manager import manager as manager
else:
    from extmem.owning import late_imports

    _MODULES = frozenset(
        (
            "adopting",
            "allocating",
            "allocating_arrays",
            "arguments",
            "binding",
            "creating",
            "describing",
            "exporting",
            "import_source",
            "mapped_ranges",
            "memory_buffer",
            "opening",
            "queries",
            "rule_facts",
            "shared_devices",
            "views",
        )
    )

    def __getattr__(name: str) -> object:
        if name not in _MODULES and name != "manager":
            raise AttributeError(f"module 'extmem.core.operations' has no attribute {name!r}")
        with late_imports():
            import importlib

            if name == "manager":
                found = importlib.import_module("extmem.manager").manager
            else:
                found = importlib.import_module(f"extmem.core.{name}")
        globals()[name] = found
        return found
