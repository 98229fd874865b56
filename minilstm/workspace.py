"""What lives as long as a run: the arrays that `workspace=` lends to the LSTM's faster form."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

LINE = 64  # bytes of the processor's cache that are read at once


def empty(xp: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """xp.empty, but that on a CPU the first number begins a line of the cache: else every vector
    of 64 bytes lies in two, and arithmetic in place takes up to twice as long (docs/log.md)."""
    if xp is not np:
        return xp.empty(shape, dtype)
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size].view(dtype).reshape(shape)


class Workspace:
    """Arrays for `loss_and_grads` and `forward` to use again and again; one for each run.

    An array of many megabytes that is made anew costs more than the arithmetic on it, because the
    system has to clear its memory. What those two return may lie in the workspace, and is valid
    until the next call with it; two threads need one each.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[tuple[Any, ...], Any]] = {}

    def keep(self, name: str, arguments: tuple[Any, ...], make: Callable[..., Any]) -> Any:
        """make(*arguments) as it was made when last asked for by that name; anew where the
        arguments are others.

        >>> workspace = Workspace()
        >>> first, again, larger = (workspace.keep("h", (n,), list) for n in ("ab", "ab", "abc"))
        >>> first is again, first, larger
        (True, ['a', 'b'], ['a', 'b', 'c'])
        """
        arguments_then, made = self._kept.get(name, (None, None))
        if arguments_then != arguments:
            made = make(*arguments)
            self._kept[name] = arguments, made
        return made

    def drop(self, name: str) -> None:
        """Keep it no longer: the next `keep` of that name makes it anew."""
        self._kept.pop(name, None)

    def empty(self, name: str, xp: Any, shape: tuple[int, ...], dtype: Any) -> Any:
        """empty(xp, shape, dtype) of that name: it holds what was last written there."""
        return self.keep(name, (xp, shape, dtype), empty)
