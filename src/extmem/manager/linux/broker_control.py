"""The calls that concern the broker as a process: inheritance, snapshots, status, and ending it."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import NoReturn

from extmem import wire
from extmem.errors import InvalidHandleError, PeerProtocolError
from extmem.manager.api import BrokerStatus, Manager, OtherBroker
from extmem.manager.linux.client import Client
from extmem.manager.linux.search import other_versions
from extmem.manager.linux.validate import check_handle
from extmem.objects import Part, PayloadRow, assemble

__all__ = ["BrokerControl", "unexpected", "value_of"]


class BrokerControl(Manager):
    """This process's connection, and the calls that concern the broker and not shared objects."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def inherit_socket(self, handles: Sequence[int] | None = None) -> socket.socket:
        client = self.client
        with client.lock:
            reply, fds = client.exchange(wire.Inherit(None if handles is None else tuple(map(check_handle, handles))))
        if type(reply) is not wire.Channel:
            unexpected(reply)
        return socket.socket(fileno=fds[0].take())

    def snapshot(self) -> list[PayloadRow]:
        """Return the live payloads that this user may open, and their holders; for root, all.

        It comes in pages, each of its own moment: what is created or ends meanwhile may be in it or not.
        """
        client = self.client
        parts: list[Part] = []
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
            if type(reply) is not wire.SnapshotFile:
                unexpected(reply)
            parts += wire.decode_parts(_read(fds[0].fd, reply.size))
            cursor = reply.next
            if not cursor:
                return assemble(parts)

    def status(self) -> BrokerStatus | None:
        reply = self.client.probe(wire.GetStatus())
        if reply is None:
            return None
        if type(reply) is not wire.BrokerState:
            unexpected(reply)
        return BrokerStatus(
            reply.pid,
            reply.version,
            str(self.client.directory.socket),
            reply.uptime_ms / 1000,
            reply.clients,
            reply.payloads,
            reply.fds,
            reply.resident_kib * 1024,
            reply.limit,
            reply.used,
            reply.reserve,
            reply.client_share,
            reply.user_share,
            reply.longest_turn_us / 1_000_000,
        )

    def other_brokers(self) -> list[OtherBroker]:
        found = other_versions(self.client.directory)
        return [OtherBroker(broker.version, broker.pid, str(broker.socket)) for broker in found]

    def stop(self, *, force: bool = False) -> bool:
        reply = self.client.probe(wire.Stop(force))
        return reply is None or value_of(reply) == 0

    def disconnect(self) -> None:
        self.client.close()


def _read(fd: int, size: int) -> bytes:
    """Return the first `size` bytes of a file."""
    octets = bytearray()
    while len(octets) < size:
        piece = os.pread(fd, size - len(octets), len(octets))
        if not piece:
            break
        octets += piece
    return bytes(octets)


def value_of(reply: wire.Reply) -> int:
    """Return the number in a reply."""
    if type(reply) is not wire.Value:
        unexpected(reply)
    return reply.value


def unexpected(reply: wire.Reply) -> NoReturn:
    """Raise for a reply that does not belong to its request."""
    raise PeerProtocolError(f"the broker answered with {type(reply).__name__}, which is not a reply to that request")
