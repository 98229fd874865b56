"""What training loops share: how many steps fit into the time there is."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

from minilstm.errors import InputError


def steps_within(minutes: float, step: Callable[[], object], trials: int = 10) -> int:
    """How many calls of `step` fit into so many minutes, from the median of a few timed ones.

    A clock is looked at here, once, and never again: a run whose number of steps is fixed can be
    repeated, and its learning-rate schedule knows where it ends. `step` must do what a training
    step does, on throw-away parameters, and wait for the device. Returns at least 1.

    Raises InputError unless minutes is a finite number above 0.
    """
    if not (minutes > 0 and math.isfinite(minutes)):
        raise InputError(f"minutes must be a finite number above 0, got {minutes}")
    step(), step()  # the first calls pay for caches and allocations
    seconds = []
    for _ in range(trials):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return max(1, int(60 * minutes / statistics.median(seconds)))
