"""The names of a broker's files in its runtime directory."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from extmem.wire.runtime_dir import RuntimeDir

_FILES: Final = RuntimeDir(Path())
SOCKET: Final = _FILES.socket.name
LOCK: Final = _FILES.broker_lock.name
START_LOCK: Final = _FILES.start_lock.name
JOURNAL: Final = _FILES.journal.name
KEY: Final = _FILES.key.name
LOG: Final = _FILES.log.name
