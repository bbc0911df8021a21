"""The calls that concern the broker as a process: inheritance, snapshots, status, and ending it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import TypeVar

from extmem import objects, wire
from extmem.errors import InvalidHandleError, PeerProtocolError
from extmem.manager.api import BrokerStatus, Manager, OtherBroker
from extmem.manager.linux.client import Client
from extmem.manager.linux.search import other_versions
from extmem.manager.linux.validate import check_handle

__all__ = ["BrokerControl", "expect"]

R = TypeVar("R", bound=wire.Reply)


class BrokerControl(Manager):
    """This process's connection, and the calls that concern the broker and not shared objects."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def inherit_socket(self, handles: Sequence[int] | None = None) -> socket.socket:
        client = self.client
        with client.lock:
            reply, fds = client.exchange(wire.Inherit(None if handles is None else tuple(map(check_handle, handles))))
        expect(reply, wire.Channel)
        return socket.socket(fileno=fds[0].take())

    def snapshot(self) -> list[objects.PayloadRow]:
        """Return the live payloads that this user may open, and their holders; for root, all.

        It comes in pages, each of its own moment: what is created or ends meanwhile may be in it or not.
        """
        client = self.client
        parts: list[objects.Part] = []
        cursor = 0
        while True:
            try:
                with client.lock:
                    reply, fds = client.exchange(wire.Snapshot(cursor))
            except InvalidHandleError:
                if not cursor:
                    raise
                parts, cursor = [], 0  # another broker has replaced the first one
                continue
            page = expect(reply, wire.SnapshotFile)
            with open(fds[0].fd, "rb", closefd=False) as file:
                file.seek(0)  # the broker's file descriptor, with which it has written, has the same position
                parts += wire.decode_parts(file.read(page.size))
            cursor = page.next
            if not cursor:
                return objects.assemble(parts)

    @property
    def holds_payloads(self) -> bool:
        return not self.client.state.empty

    def status(self) -> BrokerStatus | None:
        reply = self.client.probe(wire.GetStatus())
        if reply is None:
            return None
        state = expect(reply, wire.BrokerState)
        return BrokerStatus(
            state.pid,
            state.version,
            str(self.client.directory.socket),
            state.uptime_ms / 1000,
            state.clients,
            state.payloads,
            state.fds,
            state.resident_kib * 1024,
            state.limit,
            state.used,
            state.reserve,
            state.client_share,
            state.user_share,
            state.longest_turn_us / 1_000_000,
            state.kept,
            state.waiting,
        )

    def other_brokers(self) -> list[OtherBroker]:
        found = other_versions(self.client.directory)
        return [OtherBroker(broker.version, broker.pid, str(broker.socket)) for broker in found]

    def stop(self, *, force: bool = False) -> bool:
        reply = self.client.probe(wire.Stop(force))
        return reply is None or expect(reply, wire.Value).value == 0

    def disconnect(self) -> None:
        self.client.close()


def expect(reply: wire.Reply, message: type[R]) -> R:
    """Return a reply that must be this message. PeerProtocolError for one that does not belong to its request."""
    if type(reply) is not message:
        raise PeerProtocolError(
            f"the broker answered with {type(reply).__name__}, which is not a reply to that request"
        )
    return reply
