"""SIGTERM as an interrupt: what a scheduler sends some time before it kills."""

import _thread
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Termination:
    """A handler of SIGTERM that interrupts as Ctrl-C does, and remembers that it was not Ctrl-C.

    Attributes:
        asked: Whether the signal has come.
    """

    def __init__(self):
        self.asked = False

    def hold(self) -> None:
        """Note that the signal has come, where a run holds interrupts back until its results are safe."""
        self.asked = True

    def __call__(self, number: int, frame: Any) -> None:
        """Interrupt at once.

        Args:
            number: Of the signal.
            frame: Where the program is.

        Raises:
            KeyboardInterrupt: Always.
        """
        self.asked = True
        raise KeyboardInterrupt


@contextmanager
def _nothing_swallowed(number: Callable[[], int]) -> Iterator[None]:
    """Send an interrupt again that Python ignored, as it does with exceptions in callbacks of its garbage collector.

    JAX has such a callback. `number` says which signal it was.
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
    """Let SIGTERM interrupt the commands inside, unless the program around them has its own idea of it.

    Yields:
        A function that says whether the signal has come.
    """
    handler = Termination()
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield lambda: handler.asked
        return
    signal.signal(signal.SIGTERM, handler)
    try:
        with _nothing_swallowed(lambda: signal.SIGTERM if handler.asked else signal.SIGINT):
            yield lambda: handler.asked
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
