r"""Semaphores and fences of the host on Windows: objects of the kernel, and their companion pages.

How this works. A timeline is a section whose first page is the timeline's page, with the description at its end, as
host memory has it (`payloads`). A binary semaphore is a semaphore of the kernel with the limit 1, so that each signal
is taken by exactly one wait, whoever ends meanwhile; a fence is a manual-reset event. The kernel keeps no bytes with
these two. So each that can be shared has a path, if need be a random one, and beside it a companion with its
description. What a payload needs besides (the page that tells who has ended) is a section of its own, whose path is in
the description.

The security that a program states is about the rights of semaphores (0x1 wait, 0x2 signal), and is converted into the
rights of the object that stands for it (`rights`).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence

from extmem.errors import UnsupportedError
from extmem.handles._win32 import calls, sections, waitables
from extmem.manager.windows import names, payloads, rights, status_errors
from extmem.manager.windows.section_frame import FRAME, Description, pack
from extmem.manager.windows.security_descriptors import security_descriptor
from extmem.objects import Share
from extmem.owning import OwnedDescriptor, OwnedFd
from extmem.sharing.kinds import Backing, ObjectKind
from extmem.sharing.payload import Page
from extmem.sharing.terms import ShareTerms

__all__ = [
    "create_fence",
    "create_memory_page",
    "create_page",
    "create_semaphore",
    "create_timeline",
    "open_pages",
    "page_paths",
]

_READ = sections.QUERY | sections.MAP_READ


def create_timeline(descriptor: bytes, terms: ShareTerms | None) -> int:
    """Create the section of a timeline, whose page is zero, and return its handle with every right, which the caller
    owns.

    terms: name and security, if it is shared from the start. Errors: as `payloads.create`; UnsupportedError for a KMT
    number, which drivers of Windows do not have for timelines either.
    """
    if terms is not None and terms.share & Share.KMT:
        raise UnsupportedError(
            "a timeline semaphore has no KMT number on Windows, where drivers crash if one is asked for; share it by "
            "NT handle or name (OPAQUE_WIN32)",
            requires_one_of=["OPAQUE_WIN32"],
        )
    size = sections.PAGE + FRAME
    made = _create(terms, "a timeline", rights.timeline_ace, lambda path, how: sections.create(size, path, how), None)
    display = _display(terms)
    kind = int(ObjectKind.SEMAPHORE)
    described = Description(secrets.randbits(62) + 1, int(Backing.HOST_FILE), False, display, descriptor, kind=kind)
    with calls.closed_on_error(made):
        try:
            sections.poke(made, sections.PAGE, pack(described))
        except calls.StatusError as error:
            raise _failed(error, "a timeline") from None
    return made


def create_semaphore(terms: ShareTerms | None, *, signaled: bool = False) -> int:
    """Create a binary semaphore, and return its handle with every right, which the caller owns.

    terms: None for one of this process only, which cannot be shared. Errors: as `payloads.create`.
    """

    def create_at(path: str | None, security: int) -> int:
        return waitables.create_semaphore(path, count=int(signaled), security=security)

    return _create(terms, "a semaphore", rights.event_ace, create_at, names.hidden_path)


def create_fence(terms: ShareTerms | None, *, signaled: bool = False) -> int:
    """Create a fence, and return its handle with every right; see `create_semaphore`."""

    def create_at(path: str | None, security: int) -> int:
        return waitables.create_event(path, signaled=signaled, security=security)

    return _create(terms, "a fence", rights.event_ace, create_at, names.hidden_path)


def create_page(sddl: str | None) -> int:
    """Create a companion page, zeroed, and return its handle with every right, which the caller owns.

    Only who may signal may write to it. Errors: SecurityDescriptorError, OutOfMemoryError.
    """
    terms = ShareTerms(Share.NT, None, sddl)
    size = sections.PAGE
    return _create(
        terms,
        "a companion page",
        rights.timeline_ace,
        lambda path, how: sections.create(size, path, how),
        names.page_path,
    )


def create_memory_page(sddl: str | None, size: int) -> int:
    """Create a companion page of memory with `size` bytes, zeroed, and return its handle, which the caller owns.

    Its rights are those of its payload, whose security is `sddl`. Errors: SecurityDescriptorError, OutOfMemoryError.
    """
    session = calls.session(os.getpid())
    path = names.page_path(session, secrets.token_bytes(16))
    with security_descriptor(sddl) as security:
        try:
            return sections.create(payloads.capacity_for(size), path, security)
        except calls.StatusError as error:
            raise _failed(error, "a companion page", None, path) from None


def _display(terms: ShareTerms | None) -> str:
    """Return the full path of the name that the program stated, as it spelled it; empty for none."""
    if terms is None or terms.name is None or not terms.share & Share.NT:
        return ""
    return names.resolve(terms.name, calls.session(os.getpid())).display


def _create(
    terms: ShareTerms | None,
    what: str,
    mask: Callable[[int], int],
    create_at: Callable[[str | None, int], int],
    hidden: Callable[[int, bytes], str] | None,
) -> int:
    """Create an object under its name, its number, or (`hidden`) a random path."""
    session = calls.session(os.getpid())
    share = terms.share if terms is not None else Share(0)
    payloads.refuse_both_ways(share)
    name = terms.name if terms is not None and share & Share.NT else None
    with security_descriptor(terms.sddl if terms is not None else None, mask) as security:
        if share & Share.KMT:
            return payloads.create_numbered(
                lambda path: create_at(path, security), session, lambda error, path: _failed(error, what, None, path)
            )
        if name is not None:
            path: str | None = names.payload_path(names.resolve(name, session))
        else:
            path = hidden(session, secrets.token_bytes(16)) if hidden is not None and terms is not None else None
        try:
            return create_at(path, security)
        except calls.StatusError as error:
            raise _failed(error, what, name, path or "") from None


def _failed(error: calls.StatusError, what: str, name: str | None = None, path: str = "") -> Exception:
    return status_errors.out_of_memory(error, "vkCreateSemaphore", what) or status_errors.of_creating(error, name, path)


# -- companion pages --------------------------------------------------------------------------------------------------


def page_paths(pages: Sequence[Page]) -> tuple[str, ...]:
    """Return the paths of companion pages for a description. UnsupportedError for one without a path."""
    paths = tuple(calls.name_of(page.handle) for page in pages)
    if not all(paths):
        raise UnsupportedError(
            "a companion page on Windows is found by its path, and this one has none; create it with "
            "`sync_payloads.create_page`",
            requires_one_of=["a page with a path"],
        )
    return paths


def reopened_pages(description: Description | None) -> list[OwnedFd]:
    """Return owners of the companion pages of a payload that still exist, so that these outlive their other holders."""
    opened: list[OwnedFd] = []
    open_pages(description, False, opened)
    return opened


def open_pages(description: Description | None, writable: bool, opened: list[OwnedFd]) -> list[int]:
    """Open the companion pages of a payload that still exist. Return the mode of each: 1 read-only, 2 writable.

    writable: whether the importer may signal, or change memory. opened: gets the owners of the pages. A page ends with
    the last process that has it open.
    """
    modes: list[int] = []
    paths = description.pages if description is not None else ()
    for path in paths:
        for access in (_READ | sections.MAP_WRITE, _READ) if writable else (_READ,):
            try:
                handle = sections.open_named(path, access)
            except calls.StatusError:
                continue
            opened.append(OwnedDescriptor(handle))
            modes.append(1 + (access != _READ))
            break
    return modes
