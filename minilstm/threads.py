"""Threads: how many the matrix products take, and long arrays a piece in each."""

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_MOST = 4  # as many share a memory well
_limits: list[int] = []  # of the open `thread_limit` blocks


@contextmanager
def thread_limit(threads: int | None) -> Iterator[None]:
    """with thread_limit(n): …   NumPy's matrix products and `in_threads` take at most n threads.

    Args:
        threads: n; None leaves them as they are.
    """
    from threadpoolctl import threadpool_limits

    _limits.append(threads or _most())
    try:
        with threadpool_limits(threads, user_api="blas"):
            yield
    finally:
        _limits.pop()


def in_threads(work: Callable[[T], R], pieces: Iterable[T], most: int | None = None) -> list[R]:
    """[work(piece) for piece in pieces], several at a time.

    NumPy lets go of Python's lock while it computes, so arrays of 10⁵ numbers are worked on side
    by side; for short ones handing the lock over takes longer than the work.

    Args:
        work: what one call does must not matter to another.
        pieces: what to call it with.
        most: threads; None is as many as `thread_limit` says, or the processor has.
    Returns:
        The results in the order of the pieces: their sum does not depend on the threads.

    >>> in_threads(abs, [-1, 2, -3])
    [1, 2, 3]
    """
    pieces, threads = list(pieces), most or _most()
    if min(len(pieces), threads) < 2:
        return [work(piece) for piece in pieces]
    results: list[R] = [None] * len(pieces)

    def share(n: int) -> None:  # one long task for each thread: handing over many takes time
        results[n::threads] = [work(piece) for piece in pieces[n::threads]]

    list(_pool(threads, os.getpid()).map(share, range(threads)))
    return results


def _most() -> int:
    return _limits[-1] if _limits else min(_MOST, os.cpu_count() or 1)


@functools.cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Of this process: a fork inherits the pool, but none of its threads."""
    return ThreadPoolExecutor(threads, "minilstm")
