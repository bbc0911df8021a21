"""The words of the specification for semaphores and for fences: commands, structs, and the refusal of an import."""

from __future__ import annotations

from extmem import vk
from extmem.errors import DriverError

__all__ = ["ObjectKindNames", "refusal"]

_S = vk.StructureType


class ObjectKindNames:
    """The words of the specification for one kind of object."""

    __slots__ = ("create", "destroy", "export_type", "get", "get_type", "import_", "import_type", "noun", "type_name")

    def __init__(self, noun: str) -> None:
        """noun: "Semaphore" or "Fence"."""
        upper = noun.upper()
        self.noun = noun.lower()
        self.type_name = noun
        self.create = f"vkCreate{noun}"
        self.destroy = f"vkDestroy{noun}"
        self.get = f"vkGet{noun}FdKHR"
        self.import_ = f"vkImport{noun}FdKHR"
        self.get_type = int(getattr(_S, f"{upper}_GET_FD_INFO_KHR"))
        self.import_type = int(getattr(_S, f"IMPORT_{upper}_FD_INFO_KHR"))
        self.export_type = int(getattr(_S, f"EXPORT_{upper}_CREATE_INFO"))


def refusal(device_name: str, kind: ObjectKindNames, problem: str) -> DriverError:
    """What to raise for an fd that is not imported."""
    return DriverError(
        f"{kind.import_}: {problem}; pass the fd that {kind.get} gave on the same device, and import it into a "
        f"{kind.noun} of the exporter's type",
        result=int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE),
        command=kind.import_,
        devices=[device_name],
    )
