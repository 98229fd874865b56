"""Threads: how many the matrix products take, and other work in as many."""

import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def thread_limit(threads: int | None) -> Any:
    """with thread_limit(n): …   NumPy's matrix products, and `in_threads`, take n threads.

    Args:
        threads: n; None leaves them as they are.
    """
    return _blas().limit(limits=threads)


def threads_now() -> int:
    """How many threads the matrix products take; 1 where that cannot be told."""
    return max((library.num_threads for library in _blas().lib_controllers), default=1)


def in_threads(work: Callable[[T], R], pieces: Iterable[T]) -> list[R]:
    """[work(piece) for piece in pieces], in as many threads as the matrix products take.

    NumPy lets go of Python's lock while it computes, so arrays of 10⁵ numbers are worked on side
    by side; for short ones handing the lock over takes longer than the work.

    Args:
        work: what one call does must not matter to another.
        pieces: what to call it with.
    Returns:
        The results in the order of the pieces: their sum does not depend on the threads.

    >>> in_threads(abs, [-1, 2, -3])
    [1, 2, 3]
    """
    pieces = list(pieces)
    threads = 1 if len(pieces) == 1 else min(threads_now(), len(pieces))
    if threads == 1:
        return [work(piece) for piece in pieces]

    def share(n: int) -> list[R]:  # one long task for each: handing over many takes time
        return [work(piece) for piece in pieces[n::threads]]

    results: list[Any] = [None] * len(pieces)
    shares = [_pool(threads, os.getpid()).submit(share, n) for n in range(threads)]
    wait(shares)  # all of them, before the first one's error is raised
    for n, done in enumerate(shares):
        results[n::threads] = done.result()
    return results


@functools.cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


@functools.cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Of this process: a fork inherits the pool, but none of its threads."""
    return ThreadPoolExecutor(threads, "minilstm")
