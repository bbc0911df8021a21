"""A client that lost a reply of a running broker goes on over another connection: nothing is lost or exists twice."""

from __future__ import annotations

import os
import random
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from extmem import wire
from extmem.testing.children import Peer
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until
from extmem.wire import transport
from tests.process.broker.conftest import Start
from tests.process.broker.steps import BECOME, SYSTEM, RawClient, broker_fds, system_broker
from tests.process.broker.test_recovery import memfd

IMPATIENT = """
import os, signal
from extmem.manager.linux.manager import LinuxManager
m = LinuxManager(timeout={timeout})
"""
SETUP = """
a = share('x', b'hello', inherit=True)
h = m.get_handle(a.number)
w = m.open_handle('x', READ)
i = m.import_by_name('x')
k = share(kmt=True)
t = m.offer(reference=a.number)
def held():
    s = m.client.state
    payloads = sorted((p.id, p.holders, sorted(p.fds)) for p in s.payloads.values())
    return sorted(s.references), sorted(s.handles), payloads
def there():
    '''The broker's rows about this process, without values that depend on the order of calls.'''
    return [(row.names, [(o.handle_count, o.pointer_count) for o in row.objects],
        [(x.pid == os.getpid(), x.references, [y.value for y in x.handles], x.tickets) for x in row.holders])
        for row in m.snapshot()]
def unheard(call):
    try:
        call()
    except extmem.errors.PeerGoneError:
        return True
before = held(), there()
"""
BEFORE_THE_WATCHER = """
with m.client.lock:
    os.kill({pid}, signal.SIGSTOP)
    try:
        gave_up = unheard(lambda: {call})
    finally:
        os.kill({pid}, signal.SIGCONT)
    while unheard(m.snapshot):
        pass
    after = held(), there()
"""
VERBS = {
    "share": "share('new', b'new..')",
    "share by number": "share(kmt=True)",
    "share and keep": "share('new', b'new..', keep=Keep(KeepMode.FORGOTTEN))",
    "replace": "share('x', b'new..', replace=True)",
    "wait for a name": "m.await_name('later', READ, Reference(m))",
    "open": "m.import_by_name('x')",
    "open again": "m.import_by_name('x', READ)",
    "import a handle": "m.import_by_handle(h)",
    "import a number": "m.import_by_kmt(k.kmt)",
    "get a handle": "m.get_handle(a.number)",
    "open a handle": "m.open_handle('x', READ)",
    "duplicate": "m.duplicate(h, desired=READ, inherit=False, same_attributes=False, close_source=False, into=None)",
    "offer": "m.offer(handle=h)",
    "claim": "m.claim(t)",
    "inherit": "m.inherit_socket()",
    "look": "m.info(h)",
    "list": "m.snapshot()",
}
ENDS = {
    "free": ("m.release(i.number)", "i.payload.close()"),
    "close": ("m.close(w)", ""),
    "move": ("m.duplicate(w, desired=READ, inherit=False, same_attributes=False, close_source=True, into=None)", ""),
}


@contextmanager
def stopped(pid: int | None) -> Iterator[None]:
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
def peer(start: Start) -> Peer:
    made = start()
    made(IMPATIENT.format(timeout=0.6) + SETUP)
    return made


def as_before(peer: Peer) -> bool:
    # A busy machine may keep the broker from answering in time: then not yet.
    return bool(peer("not unheard(m.snapshot) and (held(), there()) == before"))


@pytest.mark.parametrize("verb", VERBS)
def test_what_a_call_made_that_was_given_up_is_undone(own_runtime: Runtime, peer: Peer, verb: str) -> None:
    assert (pid := own_runtime.broker_pid()) is not None
    descriptors = broker_fds(pid)
    with stopped(pid):
        assert peer.fails(VERBS[verb]).is_a("PeerGoneError")
    wait_until(lambda: as_before(peer), lambda: f"all as before: {peer('before, held(), there()')}")
    kept = int(verb == "open again")  # the broker's fd for readers, while the payload lives
    wait_until(lambda: broker_fds(pid) <= descriptors + kept, "the broker to have no descriptor more")
    assert own_runtime.broker_pid() == pid
    peer(f"done = {VERBS[verb]}")
    named = b"new.." if verb == "replace" else b"hello"
    assert peer("reads('x'), text(i), m.info(h).name.endswith('x')") == (named, b"hello", verb != "replace")


@pytest.mark.parametrize("verb", VERBS)
def test_it_is_undone_when_the_next_call_comes_before_the_watcher(own_runtime: Runtime, peer: Peer, verb: str) -> None:
    peer(BEFORE_THE_WATCHER.format(pid=own_runtime.broker_pid(), call=VERBS[verb]))
    assert peer("gave_up")
    assert peer("after") == peer("before")
    peer(f"done = {VERBS[verb]}")
    assert peer("reads('x'), text(i)") == (b"new.." if verb == "replace" else b"hello", b"hello")


@pytest.mark.parametrize("verb", ENDS)
def test_what_a_call_ended_that_was_given_up_may_be_ended_again(own_runtime: Runtime, peer: Peer, verb: str) -> None:
    """Closing twice is not an error for a client that could not learn of the first, and closes nothing of others."""
    call, after = ENDS[verb]
    with stopped(own_runtime.broker_pid()):
        assert peer.fails(call).is_a("PeerGoneError")
    fresh = peer("m.kmt_alive(1)\nn = m.open_handle('x', READ)\nn, w")
    if verb != "move":
        assert fresh[0] != fresh[1], "the value of a handle that may be closed again is not given to another one"
        peer(f"{call}\n{after}")
    assert peer("m.info(n).granted_access, reads('x'), text(m.import_by_handle(h))") == (0x20000, b"hello", b"hello")
    peer("m.close(n)")


def test_a_broker_that_is_silent_for_long_finds_everything_in_its_place(own_runtime: Runtime, peer: Peer) -> None:
    """Several calls in a row fail; the watcher tries too."""
    with stopped(own_runtime.broker_pid()):
        for verb in ("share", "open", "offer", "get a handle"):
            assert peer.fails(VERBS[verb]).is_a("PeerGoneError")
    wait_until(lambda: as_before(peer), lambda: f"all as before: {peer('before, held(), there()')}")
    assert peer("len(m.client._stale), m.client._waiting") == (0, None)


def test_no_call_is_needed_to_go_on(own_runtime: Runtime, peer: Peer, start: Start) -> None:
    """What an interrupted call made is undone by the watcher, and its name is free."""
    with stopped(own_runtime.broker_pid()):
        assert peer.fails("share('new', b'new..')").is_a("PeerGoneError")
    other = start()
    wait_until(lambda: other("[n for row in m.snapshot() for n in row.names if 'new' in n]") == [], "the name to go")
    assert other("share('new', b'other')\nreads('new'), reads('x')") == (b"other", b"hello")


@pytest.mark.parametrize("verb", ["share", "open", "claim", "offer", "free"])
def test_an_interrupted_call_is_undone(own_runtime: Runtime, start: Start, verb: str) -> None:
    peer = start()
    peer(SETUP)
    call = VERBS.get(verb) or ENDS[verb][0]
    with stopped(own_runtime.broker_pid()):
        error = peer.fails(
            "def interrupt(*_): raise KeyboardInterrupt\n"
            f"signal.signal(signal.SIGALRM, interrupt)\nsignal.setitimer(signal.ITIMER_REAL, 0.1)\n{call}"
        )
    assert error.is_a("KeyboardInterrupt")
    peer(f"done = {call}")
    assert peer("reads('x'), m.info(h).name.endswith('x')") == (b"hello", True)
    if verb == "share":
        assert peer("reads('new')") == b"new.."


@pytest.mark.parametrize("verb", ["share", "claim", "open a handle", "look"])
def test_a_client_killed_out_of_step_leaves_nothing(own_runtime: Runtime, peer: Peer, start: Start, verb: str) -> None:
    other = start()
    other("m.kmt_alive(1)")
    pid = own_runtime.broker_pid()
    with stopped(pid):
        assert peer.fails(VERBS[verb]).is_a("PeerGoneError")
        assert peer.fails(VERBS[verb]).is_a("PeerGoneError")
        peer.kill()
    wait_until(
        lambda: other("[row for row in m.snapshot() if any(h.references or h.handles for h in row.holders)]") == [],
        "all to end",
    )
    assert own_runtime.broker_pid() == pid


def test_a_forked_child_does_not_go_on_for_its_parent(own_runtime: Runtime, peer: Peer) -> None:
    with stopped(own_runtime.broker_pid()):
        assert peer.fails("share('new', b'new..')").is_a("PeerGoneError")
        peer(
            "reading, writing = os.pipe()\nchild = os.fork()\n"
            "if not child:\n"
            "    try: answer = repr((m.client._secret, m.client._stale, m.kmt_alive(1)))\n"
            "    except PeerGoneError: answer = repr((m.client._secret, 'silent'))\n"
            "    os.write(writing, answer.encode()); os._exit(0)\n"
            "os.close(writing)"
        )
    assert peer("with open(reading) as file: said = file.read()\nos.waitpid(child, 0)\nsaid").startswith("(b'', ")
    wait_until(lambda: as_before(peer), "all as before")


# -- by hand: at each point


@pytest.fixture
def names(own_runtime: Runtime, start: Start) -> Callable[[], list[tuple[Any, ...]]]:
    """Return what another client gets of all payloads but its own."""
    witness = start()
    witness("m.kmt_alive(1)")
    source = "[(row.names, [(h.references, len(h.handles), h.tickets) for h in row.holders]) for row in m.snapshot()]"
    return lambda: witness(source)  # type: ignore[no-any-return]  # whatever the peer returns


def export(client: RawClient, name: str | None) -> wire.Reply | None:
    fd = memfd()
    try:
        return client.ask(wire.Export(1, 1, 1, b"d", 1, name, 1 << 28, None, False, False), fd)
    finally:
        os.close(fd)


INTERRUPTED = """
import logging
from extmem.handles import HandleEntry
from extmem.manager import Reference
logged = []
class Kept(logging.Handler):
    def emit(self, record): logged.append(record.getMessage())
logging.getLogger('extmem').addHandler(Kept())
class Interrupted(BaseException): pass
class Memory(Reference):
    def record(self, number):
        super().record(number)
        raise Interrupted
class Value(HandleEntry):
    def record(self, number):
        super().record(number)
        raise Interrupted
"""


@pytest.mark.parametrize("first", ["the connection", "the owner"])
@pytest.mark.parametrize(
    "call",
    ["m.import_by_name('x', ALL, Memory(m))", "m.open_handle('x', READ, False, Value(m))"],
    ids=["memory", "handle"],
)
def test_what_was_undone_and_has_an_owner_is_released_without_a_warning(start: Start, call: str, first: str) -> None:
    """The owner has recorded the number, the reply is not recorded: the broker undoes it, and the owner is lost."""
    peer = start()
    peer(INTERRUPTED + "a = share('x', b'hello')")
    if first == "the owner":
        peer(f"try: {call}\nexcept Interrupted: pass")
    else:
        peer(f"with m.client.lock:\n    try: {call}\n    except Interrupted as error: kept = error\n    m.kmt_alive(1)")
        peer("del kept")
    peer("m.kmt_alive(1)")
    wait_until(lambda: peer("m.kmt_alive(1) or len(m.client._later)") == 0, "what was lost to be given back")
    assert peer("logged, len(m.client.state.references), len(m.client.state.handles)") == ([], 1, 0)
    assert peer("len(m.snapshot()), reads('x')") == (1, b"hello")


def unheard(client: RawClient, request: wire.Request, fd: int | None = None) -> None:
    """Send a request, wait until it is carried out, and do not read the reply."""
    transport.send(client.sock, wire.encode(request), fd)
    waiting = select.poll()
    waiting.register(client.sock, select.POLLIN)
    assert waiting.poll(20_000)


def gone_on(runtime: Runtime, secret: bytes, received: int) -> tuple[RawClient, wire.Welcome]:
    client = RawClient(runtime.path)
    return client, client.hello(resume=secret, received=received)


def test_an_unheard_reply_is_undone_and_a_heard_one_is_not(own_runtime: Runtime, names: Any) -> None:
    first = RawClient(own_runtime.path)
    secret = first.hello().secret
    assert isinstance(export(first, "heard"), wire.Exported)
    fd = memfd()
    unheard(first, wire.Export(1, 1, 1, b"d", 1, "unheard", 1 << 28, None, False, False), fd)
    assert len(names()) == 2
    second, welcome = gone_on(own_runtime, secret, 1)
    assert (welcome.resumed, welcome.done, welcome.undone_reference, welcome.undone_handle) == (True, True, 2, 0)
    assert isinstance(first.receive(), wire.Exported), "it was on its way"
    assert first.is_disconnected() and len(names()) == 1
    third, welcome = gone_on(own_runtime, secret, 1)  # the Welcome of the second was not read either
    assert (welcome.resumed, welcome.done, welcome.undone_reference) == (True, False, 0)
    assert second.is_disconnected() and len(names()) == 1
    again = third.ask(wire.ImportName("heard", 0x02000000, 1))
    assert isinstance(again, wire.Imported) and again.fds, "descriptors are sent anew"
    for client in (first, second, third):
        client.close()
    wait_until(lambda: names() == [], "all to end")
    os.close(fd)


def test_with_another_count_it_is_a_new_client(own_runtime: Runtime, names: Any) -> None:
    first = RawClient(own_runtime.path)
    secret = first.hello().secret
    for number in range(3):
        export(first, f"n{number}")
    for received in (0, 1, 4, 2**62):
        client, welcome = gone_on(own_runtime, secret, received)
        assert not welcome.resumed and welcome.secret != secret
        client.close()
    assert len(names()) == 3 and first.ask(wire.KmtAlive(5)) == wire.Value(0)
    first.close()


@pytest.mark.parametrize("secret", [b"", bytes(16), b"short"])
def test_an_unknown_secret_is_a_new_client(own_runtime: Runtime, names: Any, secret: bytes) -> None:
    first = RawClient(own_runtime.path)
    first.hello()
    export(first, "x")
    client, welcome = gone_on(own_runtime, secret, 1)
    assert not welcome.resumed and welcome.secret not in (b"", secret)
    assert isinstance(client.ask(wire.GetHandle(1)), wire.Refusal)
    assert len(names()) == 1
    client.close()
    first.close()


def test_another_user_cannot_go_on_for_a_client(own_runtime: Runtime, start: Start) -> None:
    with system_broker(own_runtime):
        victim, thief = start(), start()
        victim(SYSTEM + "a = share('x', b'hello')")
        thief(BECOME + "become()\n" + SYSTEM)
        secret, received = victim("m.client._secret, m.client._received")
        thief("m.client._secret, m.client._received = secret, received", secret=secret, received=received)
        assert thief("m.kmt_alive(1), m.client._secret") != (False, secret)
        assert thief.fails("m.get_handle(1)").is_a("InvalidHandleError")
        assert victim("reads('x')") == b"hello"


class Script:
    """Random requests of one client that loses replies at random, compared with what it must hold by then."""

    def __init__(self, runtime: Runtime, seed: int) -> None:
        self.runtime = runtime
        self.rng = random.Random(seed)
        self.client = RawClient(runtime.path)
        self.secret = self.client.hello().secret
        self.received = 0
        self.memories: list[int] = []
        self.handles: list[int] = []
        self.tickets: list[bytes] = []
        self.fd = memfd()
        self.record(self.ask(wire.Export(1, 1, 1, b"d", 1, "base", 1 << 28, None, True, False), self.fd))

    def ask(self, request: wire.Request, fd: int | None = None) -> wire.Reply:
        reply = self.client.ask(request, fd)
        assert reply is not None and not isinstance(reply, wire.Fault), reply
        self.received += 1
        return reply

    def record(self, reply: wire.Reply) -> None:
        if isinstance(reply, wire.Exported | wire.Imported):
            self.memories.append(reply.reference)
        elif isinstance(reply, wire.Handle) and reply.handle not in self.handles:
            self.handles.append(reply.handle)
        elif isinstance(reply, wire.Ticket):
            self.tickets.append(reply.ticket)

    def request(self) -> wire.Request:
        rng = self.rng
        makers: list[Callable[[], wire.Request]] = [
            lambda: wire.ImportName("base", 0x02000000, 1),
            lambda: wire.OpenHandle("base", 0x80000000, False),
            lambda: wire.GetHandle(self.memories[0]),
            lambda: wire.Offer(rng.choice(self.memories)),
        ]
        if self.handles:
            makers += [
                lambda: wire.ImportHandle(rng.choice(self.handles), 1),
                lambda: wire.CloseHandle(rng.choice(self.handles)),
                lambda: wire.Duplicate(rng.choice(self.handles), None, False, False, rng.random() < 0.5, False),
            ]
        if len(self.memories) > 1:
            makers.append(lambda: wire.Release(rng.choice(self.memories[1:])))
        if self.tickets:
            makers += [
                lambda: wire.Claim(rng.choice(self.tickets)),
                lambda: wire.Withdraw(rng.choice(self.tickets)),
            ]
        return rng.choice(makers)()

    def step(self) -> None:
        request = self.request()
        if self.rng.random() < 0.6:
            self.took(request)
            self.record(self.ask(request))
            return
        unheard(self.client, request)
        old = self.client
        self.client, welcome = gone_on(self.runtime, self.secret, self.received)
        assert welcome.resumed and welcome.done
        old.close()
        if isinstance(request, wire.Release | wire.CloseHandle | wire.Withdraw):
            self.took(request)
        elif isinstance(request, wire.Duplicate) and request.close_source:
            # The same value was returned, or the source was closed and the new one undone.
            self.handles = list(self.listed())
        assert welcome.undone_reference not in self.memories and welcome.undone_handle not in self.handles

    def took(self, request: wire.Request) -> None:
        """What a request releases if it is carried out."""
        if isinstance(request, wire.Release):
            self.memories.remove(request.reference)
        elif isinstance(request, wire.CloseHandle) or (isinstance(request, wire.Duplicate) and request.close_source):
            self.handles.remove(request.handle)
        elif isinstance(request, wire.Claim | wire.Withdraw):
            self.tickets.remove(request.ticket)

    def listed(self) -> tuple[int, ...]:
        reply = self.ask(wire.ListHandles())
        assert isinstance(reply, wire.Handles)
        return reply.values

    def check(self, names: Any) -> None:
        ((_, (held,)),) = names()
        assert held == (len(self.memories), len(self.handles), len(self.tickets))
        assert sorted(self.handles) == list(self.listed())


@pytest.mark.parametrize("seed", range(3))
def test_random_requests_and_lost_replies(own_runtime: Runtime, names: Any, seed: int) -> None:
    script = Script(own_runtime, seed)
    try:
        for number in range(150):
            script.step()
            if number % 10 == 0:
                script.check(names)
        script.check(names)
    finally:
        script.client.close()
        os.close(script.fd)
