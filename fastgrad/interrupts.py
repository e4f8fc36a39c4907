"""Ctrl-C between two steps: while a loop owns the signal, an interrupt waits until what the step has changed is complete."""

from __future__ import annotations

import signal
import threading
from contextlib import AbstractContextManager
from typing import Any


class CtrlC(AbstractContextManager["CtrlC"]):
    """While entered, the first Ctrl-C only sets `pressed`; a second one interrupts as usual.

    In other threads than the main one, and where Ctrl-C has no Python handler, nothing is changed.
    """

    def __init__(self) -> None:
        self.pressed = False
        self.previous: Any = None

    def __enter__(self) -> CtrlC:
        if threading.get_ident() == threading.main_thread().ident and callable(signal.getsignal(signal.SIGINT)):
            self.previous = signal.signal(signal.SIGINT, self.press)
        return self

    def press(self, number: int, frame: Any) -> None:
        self.pressed = True
        self.restore()

    def deliver(self) -> None:
        """Hand a Ctrl-C that has waited to the handler of before, which usually raises KeyboardInterrupt; wait for the next.

        If that is another `CtrlC`, which only notes it, the KeyboardInterrupt is raised here.
        """
        if self.pressed:
            self.pressed = False
            outer = getattr(signal.getsignal(signal.SIGINT), "__self__", None)
            signal.raise_signal(signal.SIGINT)
            if isinstance(outer, CtrlC):
                raise KeyboardInterrupt
            self.__enter__()  # that handler did not raise

    def restore(self) -> None:
        if self.previous is not None:
            signal.signal(signal.SIGINT, self.previous)
            self.previous = None

    def __exit__(self, *error: object) -> None:
        self.restore()
