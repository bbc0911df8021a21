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
    from extmem.owning import late_names

    __getattr__ = late_names(
        globals(),
        {"extmem.manager": ("manager",)},
        modules=(
            "extmem.core.adopting",
            "extmem.core.allocating",
            "extmem.core.allocating_arrays",
            "extmem.core.arguments",
            "extmem.core.binding",
            "extmem.core.creating",
            "extmem.core.describing",
            "extmem.core.exporting",
            "extmem.core.import_source",
            "extmem.core.mapped_ranges",
            "extmem.core.memory_buffer",
            "extmem.core.opening",
            "extmem.core.queries",
            "extmem.core.rule_facts",
            "extmem.core.shared_devices",
            "extmem.core.views",
        ),
    )
