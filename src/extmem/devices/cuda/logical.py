"""`LogicalDevice`: a GPU's primary context, from its retention to its release. A backend's parts are built on one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from extmem.devices.cuda.results import check, value_of
from extmem.errors import HandleStateError, UnsupportedError
from extmem.handles.process_id import current_process
from extmem.owning import Held, Lock
from extmem.vk.handle_types import MemoryHandleType
from extmem.vk.value_text import types_text

if TYPE_CHECKING:
    from extmem.devices.cuda.physical import Gpu

__all__ = ["LogicalDevice"]


class LogicalDevice(Held):
    """One open device of a GPU. Ownership: retains the primary context until it is closed and nothing of it is left."""

    def __init__(self, gpu: Gpu) -> None:
        super().__init__()
        self.gpu = gpu
        self.module = gpu.module
        """`cuda.bindings.driver`."""
        self.name = gpu.name
        self.pid = current_process.pid
        self._retained = gpu.retain()
        self.making = Lock()
        """Held while a thing is made that is made once: an exported handle."""

    def check(self, result: Any, command: str, tried: str = "", others: tuple[str, ...] = ()) -> None:
        """Raise the error that a CUresult other than CUDA_SUCCESS means.

        tried: words for the error. others: names of the other devices.
        """
        check(result, command, self.name, *others, tried=tried)

    def value_of(self, answer: tuple[Any, Any], command: str, tried: str = "", others: tuple[str, ...] = ()) -> Any:
        """Return the second part of a call's answer. Errors: as `check`, of the first part."""
        return value_of(answer, command, self.name, *others, tried=tried)

    def check_open(self) -> None:
        """Raise HandleStateError once closed, and in a forked child, where CUDA does not work."""
        if self.pid != current_process.pid:
            raise HandleStateError(
                f"the CUDA device {self.name} was opened by process {self.pid}, and this is its forked child "
                f"{current_process.pid}, where CUDA does not work; start children with spawn"
            )
        if self.closing:
            raise HandleStateError(f"the device {self.name} is closed; open it again with extmem.open_device()")

    def unsupported_type(self, handle_type: MemoryHandleType) -> UnsupportedError:
        """What to raise for a handle type that the device does not import."""
        return UnsupportedError(
            f"{self.name} by CUDA does not import {types_text(handle_type)} here; `extmem devices` lists what it does",
            requires_one_of=["a handle type that the device imports"],
        )

    def close(self) -> None:
        """Release the primary context, when nothing of this device is left. Safe to call twice."""
        self.closing = True
        self.gpu.undo_left()
        if self.pid == current_process.pid:
            self.gpu.release_ring(self)
        self.end()

    def give_back(self) -> None:
        """See `Held`."""
        self._retained.settle()
