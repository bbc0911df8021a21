"""The structs, enums, flags and commands of the Vulkan specification, under their names without `Vk`.

Generated from the registry, so a name, a field or a value can be looked up in the specification. `extmem.vk.abi` turns
structs into C memory and back. Classes are made, and modules imported, when a name is first used: the registry has
hundreds of names, and a program uses few of them.
"""

from typing import TYPE_CHECKING

from extmem.forks import no_fork as _no_fork
from extmem.vk._base import ChainStruct, Command, Handle, Param, SecurityAttributes, Struct
from extmem.vk._chain import chain, find
from extmem.vk._generated.homes import HOMES as _HOMES

__all__ = ["ChainStruct", "Command", "Handle", "Param", "SecurityAttributes", "Struct", "chain", "find"]

if TYPE_CHECKING:
    from extmem.vk import abi as abi
    from extmem.vk._generated import chains, commands, constants, enums, flags, structs
    from extmem.vk._generated.chains import *  # noqa: F403  # each module has its own __all__, and a test compares them
    from extmem.vk._generated.commands import *  # noqa: F403  # as above
    from extmem.vk._generated.constants import *  # noqa: F403  # as above
    from extmem.vk._generated.enums import *  # noqa: F403  # as above
    from extmem.vk._generated.flags import *  # noqa: F403  # as above
    from extmem.vk._generated.structs import *  # noqa: F403  # as above

    __all__ += chains.__all__
    __all__ += commands.__all__
    __all__ += constants.__all__
    __all__ += enums.__all__
    __all__ += flags.__all__
    __all__ += structs.__all__
else:  # a type checker would take this to mean that every name exists
    _HOME = {name: module for module, names in _HOMES.items() for name in names}
    __all__ += _HOME

    def __getattr__(name: str) -> object:
        module = _HOME.get(name)
        if module is None and name != "abi":
            raise AttributeError(f"module 'extmem.vk' has no attribute {name!r}")
        with _no_fork():
            import importlib

            if module is None:
                return importlib.import_module("extmem.vk.abi")
            value = getattr(importlib.import_module(f"extmem.vk._generated.{module}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, "abi"})
