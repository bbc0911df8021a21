"""Parts of the host device that are imported at their first use, not when the device is opened: `late.resources`."""

from __future__ import annotations

from extmem.owning import late_imports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from extmem.devices.host import commands as commands
    from extmem.devices.host import control_page as control_page
    from extmem.devices.host import image_layouts as image_layouts
    from extmem.devices.host import page_system as page_system
    from extmem.devices.host import resources as resources
    from extmem.devices.host import sync as sync
    from extmem.devices.host import system as system
    from extmem.devices.host import transfers as transfers
else:  # a type checker would take this to mean that every name exists
    _LATER = ("commands", "control_page", "image_layouts", "page_system", "resources", "sync", "system", "transfers")

    def __getattr__(name: str) -> object:
        if name not in _LATER:
            raise AttributeError(f"module 'extmem.devices.host.late' has no attribute {name!r}")
        with late_imports():
            import importlib

            module = globals()[name] = importlib.import_module(f"extmem.devices.host.{name}")
        return module
