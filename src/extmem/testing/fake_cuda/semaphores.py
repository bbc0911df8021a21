"""External semaphores, which a fake Vulkan driver exports, and which streams wait for and signal.

As with the real driver, the type is the caller's word: the fd of a binary semaphore is imported as a timeline's without
an error, and the reverse. A file that is no semaphore gives CUDA_ERROR_UNKNOWN, and has no other effect.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from extmem.testing.fake_cuda.machine import INVALID_VALUE, Refusal
from extmem.testing.fake_cuda.objects import ExternalSemaphore
from extmem.testing.fake_cuda.sharing import semaphore_page
from extmem.testing.fake_cuda.streams import Step, enqueue, pending
from extmem.testing.fake_vulkan.sync_pages import SyncPage

if TYPE_CHECKING:
    from extmem.testing.fake_cuda.machine import FakeCuda

__all__: list[str] = []

_UNKNOWN, _NOT_SUPPORTED = 999, 801
_FD_TYPES = (1, 9)
_NUMBERS = (3, 8)
"""KMT numbers, which have no name."""
_BINARY = (1, 2, 3)
_KEYED = (7, 8)
_NVSCISYNC = 6
PARAMS_WORDS, KEY = 18, 2


def cuImportExternalSemaphore(fake: FakeCuda, description: Any) -> tuple[Any]:
    """Import a semaphore. An fd is consumed on success, an NT handle never. `semaphore_imports` records the types."""
    ordinal = fake.current().ordinal
    kind = int(description.type)
    fake.semaphore_imports.append(kind)
    if int(description.flags):
        raise fake.wrong(f"flags {int(description.flags)} of a semaphore's description")
    if kind == _NVSCISYNC:
        raise Refusal(_NOT_SUPPORTED)
    page = SyncPage.from_fd(int(description.handle.fd)) if kind in _FD_TYPES else _by_handle(fake, kind, description)
    if page is None:
        raise Refusal(_UNKNOWN)
    if page.device_uuid.strip(bytes(1)) and page.device_uuid != fake.gpus[ordinal].uuid:
        if kind in _FD_TYPES:
            page.forget()
        else:
            page.close()
        raise Refusal(INVALID_VALUE)
    return (fake.module.CUexternalSemaphore(fake.add(ExternalSemaphore(page=page, kind=kind, ordinal=ordinal))),)


def _by_handle(fake: FakeCuda, kind: int, description: Any) -> SyncPage | None:
    handle, name = int(description.handle.win32.handle), int(description.handle.win32.name)
    if bool(handle) == bool(name) or (name and kind in _NUMBERS):
        raise fake.wrong(f"handle {handle:#x}, name at {name:#x}")
    text = ctypes.wstring_at(name) if name else None
    found = fake.win32_semaphores.get(text if text is not None else handle)
    return found.use() if found is not None else semaphore_page(kind in _NUMBERS, handle, text)


def cuDestroyExternalSemaphore(fake: FakeCuda, handle: Any) -> None:
    """Destroy a semaphore, which no stream must have to wait for or to signal."""
    semaphore = fake.get(handle, ExternalSemaphore)
    if pending(fake, semaphore):
        fake.wrong("a semaphore is destroyed while a stream has still to wait for it or to signal it")
    fake.end(semaphore)
    if semaphore.page is not None:
        semaphore.page.close()


def wait_step(semaphore: ExternalSemaphore, words: Sequence[int]) -> Step:
    """A wait: a binary semaphore is consumed, a keyed mutex acquired with its key."""
    page = semaphore.page
    if page is None:
        raise Refusal(INVALID_VALUE)
    if semaphore.kind in _BINARY:
        return Step(page.consume, semaphore)
    if semaphore.kind in _KEYED:
        return Step(lambda: page.number == words[KEY], semaphore)
    return Step(lambda: page.number >= words[0], semaphore)


def signal_step(semaphore: ExternalSemaphore, words: Sequence[int]) -> Step:
    """A signal; of a keyed mutex, a release with its key."""
    page = semaphore.page
    if page is None:
        raise Refusal(INVALID_VALUE)
    value = 1 if semaphore.kind in _BINARY else words[KEY] if semaphore.kind in _KEYED else words[0]

    def signal() -> bool:
        page.signal(value)
        return True

    return Step(signal, semaphore)


def words_of(params: Any) -> list[int]:
    """The words of CUDA_EXTERNAL_SEMAPHORE_{WAIT,SIGNAL}_PARAMS, as in memory."""
    return list((ctypes.c_uint64 * PARAMS_WORDS).from_address(int(params.getPtr())))


def cuWaitExternalSemaphoresAsync(fake: FakeCuda, semaphores: Any, params: Any, count: int, stream: Any) -> None:
    """Make a stream wait for semaphores."""
    for handle, one in zip(semaphores[:count], params[:count], strict=True):
        semaphore = fake.get(handle, ExternalSemaphore)
        enqueue(fake, stream, wait_step(semaphore, one if isinstance(one, list) else words_of(one)))


def cuSignalExternalSemaphoresAsync(fake: FakeCuda, semaphores: Any, params: Any, count: int, stream: Any) -> None:
    """Make a stream signal semaphores."""
    for handle, one in zip(semaphores[:count], params[:count], strict=True):
        semaphore = fake.get(handle, ExternalSemaphore)
        enqueue(fake, stream, signal_step(semaphore, one if isinstance(one, list) else words_of(one)))
