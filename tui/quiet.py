"""A terminal driver that sleeps until a key comes.

Textual's own looks ten times a second, because an unfinished escape sequence has to time out, and goes on
without a pause when the terminal is gone. This one looks only while a sequence is unfinished, and ends.
"""

from __future__ import annotations

import os
import selectors
from codecs import getincrementaldecoder
from threading import Event
from typing import Any

from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver

ESCAPE_S = 0.1
READ_BYTES = 4096


class WakingEvent(Event):
    """An event that also makes a file descriptor readable, for a thread that waits for several."""

    def __init__(self) -> None:
        super().__init__()
        self.readable, self._wake = os.pipe()

    def set(self) -> None:
        """Set it, and wake whoever selects."""
        super().set()
        os.write(self._wake, b"x")

    def clear(self) -> None:
        """Forget it, and what woke."""
        if self.is_set():
            os.read(self.readable, READ_BYTES)
        super().clear()

    def close(self) -> None:
        """Give the descriptors back."""
        os.close(self.readable)
        os.close(self._wake)


class QuietDriver(LinuxDriver):
    """LinuxDriver with another wait. Source: textual 8.2.8, LinuxDriver.run_input_thread."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._woken = WakingEvent()
        self.exit_event = self._woken

    def close(self) -> None:
        """Clean up."""
        super().close()
        self._woken.close()

    def run_input_thread(self) -> None:
        """Read keys until the exit event is set, or the terminal is gone."""
        parser, decode = XTermParser(self._debug), getincrementaldecoder("utf-8")("replace").decode
        with selectors.DefaultSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            selector.register(self._woken.readable, selectors.EVENT_READ)
            while not self.exit_event.is_set():
                unfinished = parser._timeout_time is not None
                ready = selector.select(ESCAPE_S if unfinished else None)
                if any(one.fd == self.fileno for one, _ in ready):
                    data = _read(self.fileno)
                    if not data:
                        return  # the terminal is gone; SIGHUP ends the program
                    for event in parser.feed(decode(data)):
                        self.process_message(event)
                for event in parser.tick():
                    self.process_message(event)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, READ_BYTES)
    except OSError:  # a closed terminal may say so instead of giving nothing
        return b""
