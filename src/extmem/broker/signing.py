"""Signing records, so that the next broker can verify that a broker issued them; and the key for it.

How this works. Each reply that gives a process a reference or a handle carries a record of it (`wire.HolderRecord`),
with a keyed digest (BLAKE2b, 128 bits) before it. The key is a file of the runtime directory, which the first broker
creates and later ones read. A client can return a record unchanged, and cannot create or change one.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import stat
import struct
from typing import Final

from extmem import wire
from extmem.errors import PeerProtocolError, UnsupportedError
from extmem.objects import Identity, Refused, Status
from extmem.wire.runtime_dir import RuntimeDir

__all__ = ["Signer", "digest", "digest_of_files", "read_key", "restore_key"]

_KEY: Final = 32
_PAIR: Final = struct.Struct("<qQ")  # the first number of an eventfd is negative


def digest(description: bytes) -> bytes:
    """Return what a record contains of the description of a payload: its digest."""
    return hashlib.blake2b(description, digest_size=wire.SIGNATURE).digest()


def digest_of_files(identity: Identity) -> bytes:
    """Return what a record contains of the identity of a payload: a digest of device and inode of each file."""
    hashed = hashlib.blake2b(digest_size=wire.SIGNATURE)
    for device, inode in identity:
        hashed.update(_PAIR.pack(device, inode))
    return hashed.digest()


class Signer:
    """Signs records, and verifies those that were signed with one of its keys."""

    def __init__(self, key: bytes) -> None:
        self._keys = [key]

    @property
    def key(self) -> bytes:
        """The key for signing."""
        return self._keys[0]

    def trust(self, key: bytes) -> None:
        """Accept records that were signed with this key, too."""
        self._keys.append(key)

    def sign(self, record: wire.HolderRecord) -> bytes:
        """Return the signature and the encoded record after it."""
        data = wire.encode(record)
        return _signature(self._keys[0], data) + data

    def verify(self, signed: bytes) -> wire.HolderRecord:
        """Return the record. Refused ACCESS_DENIED unless a broker of this directory has signed it."""
        signature, data = signed[: wire.SIGNATURE], signed[wire.SIGNATURE :]
        if not any(hmac.compare_digest(signature, _signature(key, data)) for key in self._keys):
            raise _unknown("its signature is not this runtime directory's")
        try:
            return wire.decode_record(data)
        except PeerProtocolError as error:
            raise _unknown(f"another version of extmem has signed it ({error})") from None


def _unknown(why: str) -> Refused:
    return Refused(Status.ACCESS_DENIED, f"The record is refused: {why}. Share the memory anew.")


def _signature(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2b(data, key=key, digest_size=wire.SIGNATURE).digest()


def read_key(directory: RuntimeDir, opened: int) -> bytes:
    """Return the key of an opened runtime directory; it is created if there is none.

    Raises UnsupportedError for a file that another user could have written or read.
    """
    while True:
        try:
            fd = os.open(directory.key.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=opened)
        except FileNotFoundError:
            _write(directory, opened, os.urandom(_KEY))
            continue
        with open(fd, "rb") as file:
            found = os.fstat(fd)
            key = file.read(_KEY + 1) if stat.S_ISREG(found.st_mode) else b""
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) != 0o600 or len(key) != _KEY:
            raise UnsupportedError(
                f"{directory.key} must be a file of {_KEY} bytes with mode 0600 that belongs to user "
                f"{os.geteuid()}; it has {found.st_size} bytes and mode {stat.S_IMODE(found.st_mode):04o}, and belongs "
                f"to user {found.st_uid}. Remove it",
                requires_one_of=["a runtime directory of your own"],
            )
        return key


def restore_key(directory: RuntimeDir, key: bytes) -> None:
    """Write the key's file again, if it was removed."""
    with contextlib.suppress(OSError, UnsupportedError):
        opened = directory.open()
        if opened is None:
            return
        with contextlib.closing(opened):
            if directory.key.name not in os.listdir(f"/proc/self/fd/{opened.fd}"):
                _write(directory, opened.fd, key)


def _write(directory: RuntimeDir, opened: int, key: bytes) -> None:
    beside = f".{directory.key.name}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(beside, dir_fd=opened)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(beside, flags, 0o600, dir_fd=opened), "wb") as file:
        file.write(key)
    # The file is complete when it gets its name; the caller holds the broker's lock.
    os.rename(beside, directory.key.name, src_dir_fd=opened, dst_dir_fd=opened)
