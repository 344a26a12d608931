"""Waiting in Python, where interrupts are handled."""

import math
import time
from collections.abc import Callable

GRACE = 0.5  # seconds to wait, after an interrupt, for results that are almost ready


class GaveUpError(Exception):
    """Waiting was interrupted."""


def wait_until(ready: Callable[[], bool], interrupted: Callable[[], bool]) -> None:
    """Wait in Python, where interrupts are handled, instead of inside XLA.

    Raises:
        GaveUpError: After an interrupt, if half a second more was not enough.
    """
    pause, until = 1e-4, math.inf
    while not ready():
        if interrupted():
            until = min(until, time.monotonic() + GRACE)
            if time.monotonic() > until:
                raise GaveUpError
        time.sleep(pause)
        pause = min(1.2 * pause, 0.02)
