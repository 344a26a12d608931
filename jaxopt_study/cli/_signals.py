"""SIGTERM, which schedulers send before they kill a process, handled like Ctrl-C."""

import _thread
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Termination:
    """Handler of SIGTERM that raises KeyboardInterrupt, and records that the signal was not Ctrl-C.

    Attributes:
        received: Whether the signal has come.
    """

    def __init__(self):
        self.received = False

    def hold(self) -> None:
        """Record the signal only, while a run defers interrupts until its results are saved."""
        self.received = True

    def __call__(self, number: int, frame: Any) -> None:
        """Interrupt at once.

        Args:
            number: Number of the signal.
            frame: Current stack frame.

        Raises:
            KeyboardInterrupt: Always.
        """
        self.received = True
        raise KeyboardInterrupt


@contextmanager
def _nothing_swallowed(number: Callable[[], int]) -> Iterator[None]:
    """Repeat an interrupt that Python ignored, as it ignores exceptions in callbacks of the garbage collector.

    JAX has such a callback. `number` returns the number of the signal.
    """
    outer = sys.unraisablehook

    def again(unraisable: Any) -> None:
        if unraisable.exc_type is KeyboardInterrupt and threading.current_thread() is threading.main_thread():
            threading.Timer(0.05, _thread.interrupt_main, (number(),)).start()  # when the callback has ended
        else:
            outer(unraisable)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = outer


@contextmanager
def termination() -> Iterator[Callable[[], bool]]:
    """Let SIGTERM interrupt the commands in this context, unless the program has its own handler.

    Yields:
        A function that returns whether the signal has come.
    """
    handler = Termination()
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield lambda: handler.received
        return
    signal.signal(signal.SIGTERM, handler)
    try:
        with _nothing_swallowed(lambda: signal.SIGTERM if handler.received else signal.SIGINT):
            yield lambda: handler.received
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
