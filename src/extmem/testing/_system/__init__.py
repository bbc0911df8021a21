"""The parts of `extmem.testing` that differ between operating systems, chosen here."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from extmem.testing._system._win32_faults import failing_system_calls, killing_broker
    from extmem.testing._system._win32_held import descriptors, mappings, memory_file_bytes, memory_files
    from extmem.testing._system._win32_peer import PYTHON, Connection, PeerChannel, python_variables, receive_pipe
    from extmem.testing._system._win32_processes import KILL, TEMPORARY, broker_serves, started_with
else:
    from extmem.testing._system._linux_faults import failing_system_calls, killing_broker
    from extmem.testing._system._linux_held import descriptors, mappings, memory_file_bytes, memory_files
    from extmem.testing._system._linux_peer import PYTHON, Connection, PeerChannel, python_variables, receive_pipe
    from extmem.testing._system._linux_processes import KILL, TEMPORARY, broker_serves, started_with

__all__ = [
    "KILL",
    "PYTHON",
    "TEMPORARY",
    "Connection",
    "PeerChannel",
    "broker_serves",
    "descriptors",
    "failing_system_calls",
    "killing_broker",
    "mappings",
    "memory_file_bytes",
    "memory_files",
    "python_variables",
    "receive_pipe",
    "started_with",
]
