"""The driver of the processes that `extmem top --web` starts for pages: Textual's, which also ends with its server."""

from __future__ import annotations

from textual import messages
from textual.drivers.web_driver import WebDriver

__all__ = ["ServedDriver"]


class ServedDriver(WebDriver):
    """Textual's driver for the web. When its input ends, the server has ended without a word, and the program ends."""

    def run_input_thread(self) -> None:
        """Pass on what the server sends, until it ends."""
        super().run_input_thread()
        if not self.exit_event.is_set():
            self._app.post_message(messages.ExitApp())
