"""The CUDA device: NVIDIA's driver behind the `Backend` interface. This module finds the GPUs that CUDA reports.

`cuda-bindings` is imported when a CUDA device is first looked for: the extra `extmem[cuda]` brings it. The primary
context of a GPU serves all users: it is retained while a device is open, and the current context of a thread is left
as it was found.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from extmem import optional
from extmem.devices import descriptor_shortage
from extmem.errors import DriverError, HandleStateError, UnsupportedError
from extmem.handles.process_id import current_process
from extmem.owning import late_imports

if TYPE_CHECKING:
    from extmem.devices.backend import Offer
    from extmem.devices.cuda.backend import CudaBackend
    from extmem.devices.cuda.physical import Gpu

__all__ = ["all_gpus", "driver_module", "forget", "missing", "offers", "replaced_by"]

_gpus: dict[int, list[Gpu]] = {}
"""This process's GPUs, by process id."""
_missing: dict[int, str] = {}
_began_in: int | None = None
"""The process in which CUDA was first started: a forked child of it cannot use CUDA at all."""
_make_module: Callable[[], Any] | None = None
"""Returns a replacement of `cuda.bindings.driver` (for tests); None for the real one."""


def driver_module() -> Any:
    """Return `cuda.bindings.driver`, or a test's replacement. Errors: UnsupportedError if it is not installed."""
    if _make_module is not None:
        return _make_module()
    return optional.load("cuda.bindings.driver", what="cuda-bindings", advice="pip install 'extmem[cuda]'")


def all_gpus() -> list[Gpu]:
    """Return the GPUs that CUDA sees in this process, in its order (CUDA applies CUDA_VISIBLE_DEVICES).

    Errors: UnsupportedError without cuda-bindings, driver or GPU; HandleStateError in a process that was forked after
    CUDA began; DriverError.
    """
    global _began_in
    pid = current_process.pid
    gpus = _gpus.get(pid)
    if gpus is not None:
        return gpus
    if _began_in not in (None, pid):
        raise HandleStateError(
            f"CUDA was started in process {_began_in}, and this is its forked child {pid}, where CUDA does not work; "
            "start children with spawn, or first use CUDA in the child"
        )
    with late_imports():
        from extmem.devices.cuda.physical import look

    module = driver_module()
    gpus = look(module)
    _began_in = pid
    return _gpus.setdefault(pid, gpus)


def offers() -> list[Offer]:
    """Return the CUDA devices of this machine. If there are none, `missing` returns the reason."""
    pid = current_process.pid
    if _missing.get(pid):
        return []
    try:
        return [_offer(gpu) for gpu in all_gpus()]
    except (UnsupportedError, DriverError, HandleStateError) as error:
        descriptor_shortage.refuse("the CUDA devices cannot be searched")
        _missing[pid] = str(error)
        return []


def _offer(gpu: Gpu) -> Offer:
    with late_imports():
        from extmem.devices.backend import Offer
        from extmem.devices.cuda.capabilities import Answers
        from extmem.devices.cuda.physical import RANK

    return Offer("cuda", gpu.identity, RANK, partial(_open, gpu), partial(Answers, gpu))


def _open(gpu: Gpu) -> CudaBackend:
    with late_imports():
        from extmem.devices.cuda.backend import CudaBackend

    return CudaBackend(gpu)


def missing() -> str:
    """Why `offers` returned none; empty if it returned some, or was not called."""
    return _missing.get(current_process.pid, "")


def forget() -> None:
    """Search again at the next call (for tests)."""
    _missing.clear()
    _gpus.clear()


@contextlib.contextmanager
def replaced_by(make_module: Callable[[], Any] | None) -> Iterator[None]:
    """Within the block another module replaces `cuda.bindings.driver` (for tests). Afterwards everything is as before.

    make_module: returns it; None for the real one, which is searched again.
    """
    global _make_module, _began_in
    before = dict(_gpus), dict(_missing), _make_module, _began_in
    forget()
    _make_module, _began_in = make_module, None
    try:
        yield
    finally:
        forget()
        gpus, absent, _make_module, _began_in = before
        _gpus.update(gpus)
        _missing.update(absent)
