"""A batch shared out to processes: each reads some of the sequences, with products in one thread.

Sequences do not meet before the sum over all of them, so each share of a batch can have a core of
its own. Threads would do for long arrays, but Python's lock changes hands at every call of NumPy,
and the time steps of a small batch are hundreds of short ones (docs/log.md).
"""

import contextlib
import math
import mmap
import os
import signal
import sys
import threading
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np

from minilstm.backend import Array, is_on_host
from minilstm.threads import thread_limit, threads_now
from minilstm.workspace import Workspace

Params = dict[str, Array]
Answer = tuple[Any, Params]  # what is small, and the gradients
Layout = tuple[tuple[str, tuple[int, ...], str], ...]  # name, shape and dtype of each array
TRAINING, EVALUATION = 1 << 16, 1 << 20  # numbers that are worth a process: one to keep, one anew


def shares(params: Params, B: int, numbers: int, worth: int) -> list[slice]:
    """Which of B sequences each process reads; one slice of all where a batch is not shared out.

    Args:
        params: the model's.
        B, numbers, worth: as for `processes`.
    """
    on_host = is_on_host(params["fc.b"])
    n = processes(sum(p.size for p in params.values()), B, numbers, worth) if on_host else 1
    return [slice(k * B // n, (k + 1) * B // n) for k in range(n)]


def processes(parameters: int, B: int, numbers: int, worth: int) -> int:
    """How many processes a batch is shared out to, on a CPU.

    There are at most as many as the matrix products take threads, and each has at least `worth`
    numbers of hs, and half as many as there are parameters, since these are copied to it and
    their gradients back. It needs Linux's fork and the program's main thread.

    Args:
        parameters: numbers in all of them together.
        B: sequences.
        numbers: of all layers' hs (T, B, H) together.
        worth: TRAINING or EVALUATION.
    """
    n = min(B, numbers // max(worth, parameters // 2))
    alone = n > 1 and threading.current_thread() is threading.main_thread()
    return min(n, threads_now()) if alone and sys.platform == "linux" else 1


def shared_out(work: Callable[..., Answer], params: Params, arguments: Sequence[tuple[Any, ...]],
               workspace: Workspace | None) -> list[Answer]:  # fmt: skip
    """[work(params, *a, workspace) for a in arguments]: the first here, and at the same time each
    other in a process of its own, which the workspace keeps.

    Args:
        work: a function of a module; its second result has the names and shapes of params, or
            nothing.
        params: the same for all.
        arguments: one tuple for each process.
        workspace: each process has its own; may be None where there is but one.
    Returns:
        What work returned, in order. The gradients are valid until the next call.
    Raises:
        ChildProcessError: a process was killed.
    """
    first, *others = arguments
    if not others or workspace is None:
        return [work(params, *first, workspace)]
    layout, answers = tuple((name, p.shape, p.dtype.str) for name, p in params.items()), None
    with thread_limit(1):  # inherited by those that begin here
        try:
            workers = workspace.keep("workers", (len(others), layout, os.getpid()), _begin)
        except OSError:  # no more processes are to be had: the same shares, one after the other
            return [work(params, *its, Workspace()) for its in arguments]
        try:
            for name, p in params.items():
                workers[0].params[name][...] = p  # which is that of all
            for worker, its in zip(workers, others, strict=True):
                worker.ask(work, its)
            own = work(params, *first, workspace)
            answers = [own, *(worker.answer() for worker in workers)]
        finally:
            if answers is None:  # or the next call would find answers that nobody has read
                workspace.drop("workers")
    return answers


class Worker:
    """A process that does for its share of each batch what this one does for its own.

    It is a fork of this one, and ends when this one closes its pipe or ends, however that comes
    about. Parameters and gradients lie in memory that both see.
    """

    def __init__(self, params: Params, layout: Layout) -> None:
        from multiprocessing import Pipe

        self.params, self.grads = params, _shared(layout)
        self.pipe, theirs = Pipe()
        # What a terminal sends to both is the owner's to act upon: there it stays blocked.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            with warnings.catch_warnings():
                # Python 3.12 warns of locks that other threads hold; what runs there needs none.
                warnings.simplefilter("ignore", DeprecationWarning)
                process = os.fork()
            if process == 0:
                self.pipe.close()
                _serve(theirs, self.params, self.grads)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        weakref.finalize(self, _end, self.pipe, process, os.getpid())

    def ask(self, work: Callable[..., Answer], its: tuple[Any, ...]) -> None:
        """Let it do work(params, *its, its own workspace)."""
        with self._there():
            self.pipe.send((work, its))

    def answer(self) -> Answer:
        """What the work returned, or the error that it raised."""
        with self._there():
            result = self.pipe.recv()
        if isinstance(result, Exception):
            raise result
        return result, self.grads

    @contextlib.contextmanager
    def _there(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError):
            message = "a process that had a share of the batch was killed"
            raise ChildProcessError(message) from None


def _begin(n: int, layout: Layout, owner: int) -> list[Worker]:
    params = _shared(layout)
    return [Worker(params, layout) for _ in range(n)]


def _shared(layout: Layout) -> Params:
    """Arrays in memory that a fork shares, each beginning a line of the cache."""
    arrays = {}
    for name, shape, dtype in layout:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        memory = mmap.mmap(-1, max(1, size))  # begins a page
        arrays[name] = np.frombuffer(memory, np.uint8, size).view(dtype).reshape(shape)
    return arrays


def _serve(pipe: Any, params: Params, grads: Params) -> NoReturn:
    """The worker's life: from one piece of work to the next, until the pipe is closed."""
    code = 1
    try:
        for held in map(int, os.listdir("/proc/self/fd")):
            if held > 2 and held != pipe.fileno():  # the run's files and locks, the others' pipes
                with contextlib.suppress(OSError):  # of the listing itself
                    os.close(held)
        workspace = Workspace()
        while True:
            try:
                work, its = pipe.recv()
            except EOFError:
                code = 0
                break
            try:
                result, own = work(params, *its, workspace)
                for name, g in own.items():
                    grads[name][...] = g
            except Exception as error:  # whatever it is, the owner raises it where it was asked
                result = error
            pipe.send(result)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _end(pipe: Any, process: int, owner: int) -> None:
    if os.getpid() == owner:  # not a fork of it
        pipe.close()
        os.kill(process, signal.SIGKILL)  # it may be at work, for nobody
        os.waitpid(process, 0)
