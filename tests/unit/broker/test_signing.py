"""Records are signed with the directory's key, and only records with a valid signature are accepted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extmem import wire
from extmem.broker import signing
from extmem.broker.signing import Signer, restore_key
from extmem.errors import UnsupportedError
from extmem.objects import Refused, Status
from extmem.wire.runtime_dir import RuntimeDir
from tests.unit.wire.test_codec import LONGEST_RECORD

KEY_FILE = RuntimeDir(Path()).key.name
KEY, OTHER = bytes(range(32)), bytes(32)
RECORD = wire.HolderRecord(
    5, 6, "x", 1000, "D:", True, 7, 1000, 0x20000, False, 1, 1, 1, (), 1, 0, False, 0, 1000, bytes(16), bytes(16),
    4711, 12345, 0, 0,
)  # fmt: skip
SIGNED = Signer(KEY).sign(RECORD)


def read_key(path: Path) -> bytes:
    directory = RuntimeDir(path)
    opened = directory.prepare()
    try:
        return signing.read_key(directory, opened.fd)
    finally:
        opened.close()


def refused(signed: bytes, key: bytes = KEY) -> bool:
    try:
        Signer(key).verify(signed)
    except Refused as refusal:
        assert refusal.status is Status.ACCESS_DENIED and "The record is refused" in refusal.detail
        return True
    return False


@pytest.mark.parametrize("record", [RECORD, LONGEST_RECORD], ids=["short", "longest"])
def test_a_record_comes_back_as_it_was_signed(record: wire.HolderRecord) -> None:
    assert Signer(KEY).verify(Signer(KEY).sign(record)) == record


def test_another_key_does_not_do_until_it_is_trusted() -> None:
    assert refused(SIGNED, OTHER)
    both = Signer(OTHER)
    both.trust(KEY)
    assert both.verify(SIGNED) == RECORD


@given(st.integers(0, len(SIGNED) - 1), st.integers(1, 255))
def test_any_other_byte_breaks_it(at: int, change: int) -> None:
    assert refused(SIGNED[:at] + bytes([SIGNED[at] ^ change]) + SIGNED[at + 1 :])


@given(st.binary(max_size=200))
def test_what_was_not_signed_is_refused(data: bytes) -> None:
    assert refused(data) and refused(data + wire.encode(RECORD)) and refused(SIGNED + data + b"x")


def test_a_record_of_another_version_is_refused_though_it_is_signed() -> None:
    import hashlib

    data = wire.encode([1, 2, "another version"])
    assert refused(hashlib.blake2b(data, key=KEY, digest_size=16).digest() + data)


def test_the_first_broker_makes_the_key_and_the_next_reads_it(tmp_path: Path) -> None:
    key = read_key(tmp_path)
    assert len(key) == 32 and key != bytes(32) and read_key(tmp_path) == key
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o7777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_a_key_whose_file_has_gone_is_put_back_and_no_other_is_overwritten(tmp_path: Path) -> None:
    key = read_key(tmp_path)
    restore_key(RuntimeDir(tmp_path), OTHER)
    assert read_key(tmp_path) == key
    (tmp_path / KEY_FILE).unlink()
    restore_key(RuntimeDir(tmp_path), key)
    assert read_key(tmp_path) == key
    restore_key(RuntimeDir(tmp_path / "missing"), key)


@pytest.mark.parametrize("fault", ["mode", "short", "long", "fifo"])
def test_a_key_that_others_may_know_or_have_made_is_refused(tmp_path: Path, fault: str) -> None:
    path = tmp_path / KEY_FILE
    path.write_bytes(bytes({"short": 31, "long": 33}.get(fault, 32)))
    path.chmod(0o640 if fault == "mode" else 0o600)
    if fault == "fifo":
        path.unlink()
        os.mkfifo(path, 0o600)
        with open(os.open(path, os.O_RDWR), "wb") as file:
            file.write(bytes(33))
            file.flush()
            _refuses(tmp_path, path)
        return
    _refuses(tmp_path, path)


def _refuses(directory: Path, path: Path) -> None:
    with pytest.raises(UnsupportedError) as caught:
        read_key(directory)
    assert str(path) in str(caught.value) and "Remove it" in str(caught.value)


def test_a_key_of_another_user_is_refused(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root, to be another user")
    read_key(tmp_path)
    os.chown(tmp_path / KEY_FILE, 54321, 54321)
    with pytest.raises(UnsupportedError, match="54321"):
        read_key(tmp_path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(bytes(32))
    (tmp_path / KEY_FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        read_key(tmp_path)
