"""The rights of a user to a payload: those that the fd's open mode and the object's security descriptor both grant."""

from __future__ import annotations

import pytest

from extmem.testing.runtime import Runtime
from tests.process.broker.conftest import Start
from tests.process.broker.steps import BECOME, CLIMB, OTHER, SYSTEM, heir, needs_root, system_broker

READABLE = "D:(A;;GA;;;OW)(A;;GR;;;WD)"


@pytest.mark.parametrize("uid", [OTHER, 0], ids=["other", "root"])
def test_a_reader_does_not_become_a_writer_by_exporting_what_it_was_given(
    own_runtime: Runtime, start: Start, uid: int
) -> None:
    needs_root()
    owner = start()
    owner(f"a = share('x', b'hello', sddl={READABLE!r}, access=READ, inherit=True)\nh = m.get_handle(a.number)")
    output = heir(owner, CLIMB + f"print(climb(m.import_by_handle({owner('h')})))", uid=uid)
    done = eval(output)
    assert len(done) >= 8 and True not in done, done
    assert "AccessDeniedError" in done, "the object made of a read-only descriptor grants no right to write"
    assert owner("reads('x')") == b"hello"


def test_a_writer_stays_one(own_runtime: Runtime, start: Start) -> None:
    """The same attempts with an fd that may be written through do give write access."""
    needs_root()
    owner = start()
    owner("a = share('x', b'hello', sddl='D:(A;;GA;;;WD)', inherit=True)\nh = m.get_handle(a.number)")
    output = heir(owner, CLIMB + f"print(climb(m.import_by_handle({owner('h')})))")
    assert True in eval(output)


def test_a_reader_of_the_systems_broker_does_not_become_a_writer(own_runtime: Runtime, start: Start) -> None:
    with system_broker(own_runtime):
        owner, reader, third = start(), start(), start()
        owner(SYSTEM + f"a = share('x', b'hello', sddl={READABLE!r})")
        reader(CLIMB + BECOME + "become()\n" + SYSTEM + "i = m.import_by_name('x')")
        third(CLIMB + BECOME + f"become({OTHER + 1})\n" + SYSTEM)
        done = reader("climb(i)")
        assert True not in done, done
        # What the reader shared of it, others may read, and may not write.
        assert third("text(m.import_by_name('as host', READ))") == b"hello"
        assert third.fails("m.import_by_name('as host', READ_WRITE)").is_a("AccessDeniedError")
        assert owner.fails("m.import_by_name('as host', READ_WRITE)").is_a("AccessDeniedError")
        assert owner("reads('x')") == b"hello"


def test_one_file_is_one_payload_of_one_kind(start: Start) -> None:
    peer = start()
    peer(
        "from extmem.wire import Backing\nfd = payload()\nhow = dict(share=Share.NT, access=ALL, sddl=None, "
        "inherit=False)\nfirst = m.export([fd], b'', name='a', **how)"
    )
    error = peer.fails("m.export([fd], b'', name='b', backing=Backing.DRIVER_FD, identity=9, **how)")
    assert error.is_a("InvalidHandleError") and "shared as HOST_FILE already" in error.message
    assert peer("m.export([fd], b'', name='c', **how).payload == first.payload")


# -- a GPU driver's payload, whose fd has no read-only form


DRIVER = """
from extmem.sharing.kinds import Backing
def driver(name, sddl, make):
    fd = make()
    try:
        how = dict(share=Share.NT, name=name, access=ALL, sddl=sddl, inherit=True, identity=7)
        how |= dict(backing=Backing.DRIVER_FD)
        return m.export([fd], b'', **how)
    finally: os.close(fd)
def memfd():
    fd = os.memfd_create('a software driver')
    os.ftruncate(fd, 4096)
    return fd
def node(): return os.open('/dev/zero', os.O_RDWR)
"""


@pytest.mark.parametrize("make", ["memfd", "node"])
def test_a_drivers_descriptor_is_not_given_to_another_user_who_may_only_read(
    own_runtime: Runtime, start: Start, make: str
) -> None:
    with system_broker(own_runtime):
        owner, other, root = start(), start(), start()
        owner(DRIVER + BECOME + "become()\n" + SYSTEM)
        other(BECOME + f"become({OTHER + 1})\n" + SYSTEM)
        root(SYSTEM)
        owner(f"a = driver('g', {READABLE!r}, {make})\nb = driver('w', 'D:(A;;GA;;;WD)', {make})")
        for call in ("m.import_by_name('g')", "m.import_by_name('g', READ)", "m.open_handle('g', READ)"):
            error = other.fails(call)
            assert error.is_a("AccessDeniedError") and f"which user {OTHER} created" in error.message, error
            assert "host memory" in error.message
        assert other("m.snapshot()[0].holders[-1].pid != os.getpid() and m.client.state.references") == {}
        assert other("i = m.import_by_name('w')\ni.granted & 1") == 1, "who may write is given it"
        assert owner("m.import_by_name('g', READ).granted & 1") == 0, "its own user is given it to read"
        assert root("m.import_by_name('g', READ).granted & 1") == 0


def test_an_heir_of_another_user_does_not_get_it_either(start: Start) -> None:
    needs_root()
    owner = start()
    owner(DRIVER + f"a = driver('g', {READABLE!r}, node)\nh = m.get_handle(a.number)")
    weak = owner("m.duplicate(h, desired=READ, inherit=True, same_attributes=False, close_source=False, into=None)")
    owner("m.set_flags(h, 1, 0)")
    for call in (f"m.import_by_handle({weak})", f"m.info({weak})"):
        assert "AccessDeniedError" in heir(owner, call)
    owner("m.set_flags(h, 1, 1)")
    assert heir(owner, f"print(m.import_by_handle({owner('h')}).granted & 1)") == "1", "the handle that may write"
