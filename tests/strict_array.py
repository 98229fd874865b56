"""`StrictArray` and `xp`: an array type and its module, as strict as CuPy's, without a GPU.

What a run through it proves: *discipline*. The code asks only for functions that CuPy has, never
mixes in a NumPy array, never lets one come out by accident, and never makes the host wait, or
sends it data, where that is forbidden (`no_synchronisation`). And it counts.

What it does not prove: anything about speed, and nothing about CuPy's numerics: the numbers are
NumPy's. That is for the tests on a real device (tests/test_gpu.py).

Refused as CuPy 14 refuses it:

    np.asarray(x), np_array[...] = x                     implicit conversion
    x + np_array, np_array + x, also 0-d                 NumPy operands
    range(x), x as an index of a list                    no __index__
    take(mode=), multiply.at, subtract.at of floats      missing in CuPy
    x += y, out=                                         where y's kind does not fit into x's

Refused here though CuPy takes it, each because it costs what nobody sees:

    np.tanh(x), np.sum(x)           CuPy hands them on; but then the module is not read off the data
    x + np.float64(2)               a float64 *scalar of NumPy* turns a float32 array into float64
    float32_x += float64_y, out=    arithmetic in double precision, rounded on the way in
    x[[0, 1]], x[np_ids]            an upload of the indices
    matmul(out=) not contiguous     a hidden array and a copy

Counted, in `counted()`:

    kernels             launches, memory sets and copies on the device included. A fused function
                        counts one, all the rest what CuPy 14 launches: concatenating n ≤ 8 arrays
                        is n copies, indexing with k > 1 arrays 2 + k kernels
    allocations         fresh arrays; a view is none
    synchronisations    float(), int(), bool(), .item(), .get(), asnumpy, printing; boolean masks
                        and `where` with one argument (the host must learn the size); iterating,
                        though CuPy only makes views: what follows is a float() of each
    uploads             asarray and array of what is not yet on the device

Memory from `empty` is full of NaN, so that reading what nobody wrote shows.
"""

from __future__ import annotations

import functools
import importlib.machinery
import operator
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from minilstm import backend

# --- counting


@dataclass
class Counts:
    kernels: int = 0
    allocations: int = 0
    synchronisations: int = 0
    uploads: int = 0


class SynchronisationError(RuntimeError):
    """The host waited for the device, or sent it data, where neither is allowed."""


_counting: list[Counts] = []  # of the open `counted()` blocks
_forbidding: list[None] = []  # one entry for each open `no_synchronisation()` block
_fusing: list[None] = []  # one entry while a fused function runs


@contextmanager
def counted() -> Iterator[Counts]:
    """with counted() as counts: …   what the block does is added to counts, as it does it."""
    counts = Counts()
    _counting.append(counts)
    try:
        yield counts
    finally:
        _counting[:] = [other for other in _counting if other is not counts]


@contextmanager
def no_synchronisation() -> Iterator[None]:
    """Inside, a synchronisation or an upload raises SynchronisationError."""
    _forbidding.append(None)
    try:
        yield
    finally:
        _forbidding.pop()


def _count(**events: int) -> None:
    for counts in _counting:
        for name, number in events.items():
            setattr(counts, name, getattr(counts, name) + number)


def _on_device(what: str, kernels: int = 1, allocations: int = 0) -> None:
    """Work on the device, none of which a fused function may hold but elementwise arithmetic."""
    _not_fused(what)
    _count(kernels=kernels, allocations=allocations)


def _not_fused(what: str) -> None:
    if _fusing:
        raise TypeError(f"{what} in a fused function: cupy.fuse takes elementwise arithmetic only")


def _synchronise(what: str) -> None:
    _not_fused(what)
    if _forbidding:
        raise SynchronisationError(f"{what} makes the host wait for the device")
    _count(synchronisations=1)


def _upload(what: str) -> None:
    _not_fused(what)
    if _forbidding:
        raise SynchronisationError(f"{what} sends data to the device")
    _count(uploads=1)


# --- the array


class StrictArray:
    """An array "on the device": it wraps a NumPy array and hands it out only when asked aloud."""

    __slots__ = ("_host",)
    __hash__ = None  # type: ignore[assignment]
    __array_ufunc__ = None  # np.tanh(x) and np_array + x raise TypeError

    def __init__(self, host: np.ndarray) -> None:
        self._host = host

    # What CuPy refuses, with its words.

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_function__(self, function: Any, *_: Any) -> Any:
        raise TypeError(f"np.{function.__name__}(x): take the module from x, get_array_module(x)")

    # What is known without asking the device.

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)

    def __len__(self) -> int:
        return len(self._host)

    # What waits for the device.

    def get(self) -> np.ndarray:
        _synchronise(".get()")
        return self._host.copy()

    def item(self) -> Any:
        _synchronise(".item()")
        return self._host.item()

    def tolist(self) -> Any:
        _synchronise(".tolist()")
        return self._host.tolist()

    def __float__(self) -> float:
        _synchronise("float()")
        return float(self._host)

    def __int__(self) -> int:
        _synchronise("int()")
        return int(self._host)

    def __bool__(self) -> bool:
        _synchronise("bool()")
        return bool(self._host)

    def __iter__(self) -> Iterator[StrictArray]:
        _synchronise("iterating")
        return map(StrictArray, map(np.asarray, self._host))

    def __repr__(self) -> str:
        _synchronise("printing")
        return f"Strict{self._host!r}"

    def __str__(self) -> str:
        _synchronise("printing")
        return str(self._host)

    def __format__(self, spec: str) -> str:
        _synchronise("printing")
        return format(self._host[()], spec)

    # Views, and what turns into a copy.

    def _view(self, what: str, host: np.ndarray) -> StrictArray:
        _not_fused(what)
        if host.size and not np.may_share_memory(host, self._host):
            _on_device(what, allocations=1)
        return StrictArray(host)

    T = property(lambda self: self._view("T", self._host.T))
    real = property(lambda self: self._view("real", self._host.real))

    def reshape(self, *shape: Any) -> StrictArray:
        return self._view("reshape", self._host.reshape(*shape))

    def ravel(self) -> StrictArray:
        return self._view("ravel", self._host.ravel())

    def transpose(self, *axes: Any) -> StrictArray:
        return self._view("transpose", self._host.transpose(*axes))

    def __getitem__(self, index: Any) -> StrictArray:
        host_index, kernels = _index(index)
        if kernels:
            _on_device("indexing with arrays", kernels, allocations=1 + (kernels > 1))
            return StrictArray(np.asarray(self._host[host_index]))
        _not_fused("indexing")
        # With an Ellipsis, a view even where NumPy would hand out one number.
        whole = host_index if isinstance(host_index, tuple) else (host_index,)
        whole = whole if Ellipsis in whole else (*whole, Ellipsis)
        return StrictArray(self._host[whole])

    def __setitem__(self, index: Any, value: Any) -> None:
        host_index, kernels = _index(index)
        host_value = _operand(value)
        if isinstance(value, StrictArray) and not kernels:
            there = self._host[host_index].__array_interface__  # address, shape, strides, dtype
            if there == value._host.__array_interface__:
                return  # x[i] += y writes into the view, then assigns it to itself
        if not _fusing or index is not Ellipsis:  # there it is a part of the kernel
            _on_device("assignment", max(1, kernels), allocations=kernels > 1)
        self._host[host_index] = host_value

    # What computes. Reductions and the other operators are added below.

    def astype(self, dtype: Any, copy: bool = True) -> StrictArray:
        if not copy and self.dtype == np.dtype(dtype):
            return self
        _elementwise(allocations=1)
        return StrictArray(self._host.astype(dtype))

    def copy(self) -> StrictArray:
        _elementwise(allocations=1)
        return StrictArray(self._host.copy())

    def fill(self, value: Any) -> None:
        self[...] = value

    def take(self, indices: Any, axis: Any = None, out: StrictArray | None = None) -> StrictArray:
        return _call(np.take, self, _array(indices), axis=axis, out=out)

    def __neg__(self) -> Any:
        return xp.negative(self)

    def __matmul__(self, other: Any) -> StrictArray:
        return _matrix_product(np.matmul, self, other)

    def __rmatmul__(self, other: Any) -> StrictArray:
        return _matrix_product(np.matmul, other, self)


def _operand(x: Any) -> Any:
    """What x is on the host: for an array or a number of Python, which is all that CuPy mixes."""
    if isinstance(x, StrictArray):
        return x._host
    if type(x) in (bool, int, float, complex):  # not isinstance: np.float64 is a float to Python
        return x
    raise TypeError(f"Unsupported type {type(x)}")


def _array(x: Any) -> StrictArray:
    if not isinstance(x, StrictArray):
        raise TypeError(f"expected an array on the device, got {type(x)}")
    return x


def _index(index: Any) -> tuple[Any, int]:
    """An index as NumPy takes it, and the kernels CuPy launches for the arrays in it."""
    entries = index if isinstance(index, tuple) else (index,)
    arrays = 0
    host: list[Any] = []
    for entry in entries:
        if isinstance(entry, StrictArray):
            if entry.dtype == np.bool_:
                _synchronise("a boolean mask")
            arrays += 1
            host.append(entry._host)
        elif entry is None or entry is Ellipsis or isinstance(entry, slice):
            host.append(entry)
        elif isinstance(entry, bool | np.ndarray):  # a list too, which is no number below
            raise TypeError(f"an index of type {type(entry)} would be uploaded")
        else:
            host.append(operator.index(entry))
    # CuPy takes one index array as it is, and joins several into one: a memory set, and a kernel
    # for each of them, before the one that reads or writes.
    kernels = arrays if arrays < 2 else 2 + arrays
    return (tuple(host) if isinstance(index, tuple) else host[0]), kernels


def _elementwise(allocations: int) -> None:
    """Count one kernel, unless it is a part of a fused one."""
    if not _fusing:
        _count(kernels=1, allocations=allocations)


def _result(result: Any, out: StrictArray | None) -> StrictArray:
    """Wrap a result, 0-d ones too, or put it into out, which must have its shape and dtype."""
    host = np.asarray(result)
    if out is None:
        return StrictArray(host)
    if _array(out).dtype != host.dtype:
        raise TypeError(f"a result of {host.dtype} does not go into an array of {out.dtype}")
    if out.shape != host.shape:
        raise ValueError(f"a result of shape {host.shape} does not go into shape {out.shape}")
    out._host[...] = host
    return out


def _call(
    function: Callable[..., Any], x: Any, *others: Any, out: Any = None, **options: Any
) -> StrictArray:
    """One kernel that is not elementwise. x must be an array."""
    _on_device(function.__name__, allocations=out is None)
    operands = map(_operand, (_array(x), *others))
    return _result(function(*operands, **options), out)


def _matrix_product(
    function: Callable[..., Any], a: Any, b: Any, out: StrictArray | None = None
) -> StrictArray:
    """cuBLAS takes rows or columns that lie together; anything else CuPy copies first."""
    hosts = [_operand(a), _operand(b)]
    if not (isinstance(a, StrictArray) and isinstance(b, StrictArray)):
        raise TypeError(f"Unsupported types {type(a)} @ {type(b)}")
    if out is not None and not _array(out)._host.flags.c_contiguous:
        raise ValueError("matmul(out=) must be contiguous, or CuPy computes elsewhere and copies")
    copies = sum(not (x.flags.c_contiguous or x.flags.f_contiguous) for x in hosts)
    _on_device(function.__name__, kernels=1 + copies, allocations=(out is None) + copies)
    return _result(function(*hosts), out)


# --- the module: what CuPy has under the same name, and of that what the package may want


class StrictModule(types.ModuleType):
    """What get_array_module(x) is for a StrictArray. A name missing here is missing in CuPy, or
    nobody needed it yet: then add it as CuPy has it."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the stand-in offers no {name!r}; where CuPy has it, add it there")


xp = StrictModule("strict_array.xp", StrictModule.__doc__)


Function = TypeVar("Function", bound=Callable[..., Any])


def _in_xp(function: Function) -> Function:
    setattr(xp, function.__name__, function)
    return function


class _Ufunc:
    """One elementwise function, fit for a fused kernel."""

    def __init__(self, ufunc: np.ufunc) -> None:
        self._ufunc = ufunc
        self.__name__ = ufunc.__name__

    def __call__(self, *operands: Any, out: StrictArray | None = None, dtype: Any = None) -> Any:
        if len(operands) != self._ufunc.nin:
            raise TypeError(f"{self.__name__} takes {self._ufunc.nin} arrays, got {len(operands)}")
        hosts = [_operand(x) for x in operands]
        _elementwise(allocations=out is None)
        return _result(self._ufunc(*hosts, dtype=dtype), out)

    def at(self, x: StrictArray, indices: Any, values: Any) -> None:
        """Scatter: x[indices] ∘= values, equal indices each in turn; on a GPU, in any order."""
        if self.__name__ not in ("add", "subtract", "maximum", "minimum"):
            raise NotImplementedError(f"`cupy_{self.__name__}.at` is not supported yet")
        if self.__name__ == "subtract" and _array(x).dtype.kind == "f":
            raise TypeError("cupy.subtract.at only supports int32, uint32, as data type")
        host_index, kernels = _index(indices)
        _on_device(f"{self.__name__}.at", max(1, kernels), allocations=kernels > 1)
        self._ufunc.at(_array(x)._host, host_index, _operand(values))


_UFUNCS = """
    abs absolute add ceil cos divide equal exp expm1 floor floor_divide greater greater_equal
    isfinite isinf isnan less less_equal log log1p logical_and logical_not logical_or maximum
    minimum multiply negative not_equal power sign sin sqrt square subtract tanh true_divide
"""
for _name in _UFUNCS.split():
    setattr(xp, _name, _Ufunc(getattr(np, _name)))

_OPERATORS = {
    **{"add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide"},
    **{"floordiv": "floor_divide", "pow": "power"},
}
_COMPARISONS = {
    **{"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal"},
    **{"gt": "greater", "ge": "greater_equal"},
}


def _add_operator(name: str, f: _Ufunc) -> None:
    setattr(StrictArray, f"__{name}__", lambda self, other: f(self, other))
    if name in _OPERATORS:
        setattr(StrictArray, f"__r{name}__", lambda self, other: f(other, self))
        setattr(StrictArray, f"__i{name}__", lambda self, other: f(self, other, out=self))


for _name, _ufunc in (_OPERATORS | _COMPARISONS).items():
    _add_operator(_name, getattr(xp, _ufunc))


def _reduction(function: Callable[..., Any]) -> Callable[..., StrictArray]:
    def reduce(
        self: StrictArray, axis: Any = None, *, dtype: Any = None, out: Any = None,
        keepdims: bool = False,
    ) -> StrictArray:  # fmt: skip
        options = {} if dtype is None else {"dtype": dtype}
        return _call(function, self, axis=axis, out=out, keepdims=keepdims, **options)

    return reduce


_REDUCTIONS = "all any argmax argmin max mean min sum"
for _name in _REDUCTIONS.split():
    setattr(StrictArray, _name, _reduction(getattr(np, _name)))


def _method(name: str) -> Callable[..., Any]:
    return lambda x, *arguments, **options: getattr(_array(x), name)(*arguments, **options)


_METHODS = "astype copy ravel reshape take transpose " + _REDUCTIONS
for _name in _METHODS.split():
    setattr(xp, _name, _method(_name))

_AS_IN_NUMPY = """
    bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 intp float16 float32 float64 complex64
    complex128 integer floating dtype newaxis pi e inf nan result_type promote_types can_cast
    finfo iinfo issubdtype
"""
for _name in _AS_IN_NUMPY.split():
    setattr(xp, _name, getattr(np, _name))
setattr(xp, "ndarray", StrictArray)  # noqa: B010


def _created(what: str, host: np.ndarray, kernels: int = 1) -> StrictArray:
    _on_device(what, kernels, allocations=1)
    return StrictArray(host)


@_in_xp
def empty(shape: Any, dtype: Any = float) -> StrictArray:
    host = np.empty(shape, dtype)
    host.fill(np.nan if host.dtype.kind in "fc" else 0)
    return _created("empty", host, kernels=0)


@_in_xp
def zeros(shape: Any, dtype: Any = float) -> StrictArray:
    return _created("zeros", np.zeros(shape, dtype))


@_in_xp
def ones(shape: Any, dtype: Any = float) -> StrictArray:
    return _created("ones", np.ones(shape, dtype))


@_in_xp
def full(shape: Any, fill_value: Any, dtype: Any = None) -> StrictArray:
    return _created("full", np.full(shape, _operand(fill_value), dtype))


@_in_xp
def empty_like(a: StrictArray, dtype: Any = None) -> StrictArray:
    return empty(_array(a).shape, dtype or a.dtype)


@_in_xp
def zeros_like(a: StrictArray, dtype: Any = None) -> StrictArray:
    return zeros(_array(a).shape, dtype or a.dtype)


@_in_xp
def ones_like(a: StrictArray, dtype: Any = None) -> StrictArray:
    return ones(_array(a).shape, dtype or a.dtype)


@_in_xp
def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> StrictArray:
    begin, end = (0, start) if stop is None else (start, stop)
    return _created("arange", np.arange(*map(_operand, (begin, end, step)), dtype=dtype))


@_in_xp
def asarray(a: Any, dtype: Any = None) -> StrictArray:
    if isinstance(a, StrictArray):
        return a if dtype is None else a.astype(dtype, copy=False)
    _upload("asarray")
    _count(allocations=1)
    return StrictArray(np.array(a, dtype))


@_in_xp
def array(obj: Any, dtype: Any = None) -> StrictArray:
    a: StrictArray = asarray(obj, dtype)
    return a.copy() if a is obj else a


@_in_xp
def ascontiguousarray(a: StrictArray) -> StrictArray:
    return a if _array(a)._host.flags.c_contiguous else a.copy()


@_in_xp
def asnumpy(a: Any) -> np.ndarray:
    return a.get() if isinstance(a, StrictArray) else np.asarray(a)


@_in_xp
def matmul(a: StrictArray, b: StrictArray, out: StrictArray | None = None) -> StrictArray:
    return _matrix_product(np.matmul, a, b, out)


@_in_xp
def vdot(a: StrictArray, b: StrictArray) -> StrictArray:
    return _matrix_product(np.vdot, a, b)


@_in_xp
def concatenate(tup: Any, axis: int = 0, out: StrictArray | None = None) -> StrictArray:
    return _joined(np.concatenate, tup, axis, out)


@_in_xp
def stack(tup: Any, axis: int = 0, out: StrictArray | None = None) -> StrictArray:
    return _joined(np.stack, tup, axis, out)


def _joined(
    function: Callable[..., Any], arrays: Any, axis: int, out: StrictArray | None
) -> StrictArray:
    if isinstance(arrays, StrictArray):
        raise TypeError("Only cupy arrays can be concatenated, in a list or tuple")
    hosts = [_array(x)._host for x in arrays]
    # Up to eight, CuPy copies one after the other; more go in one kernel.
    _on_device(function.__name__, len(hosts) if len(hosts) <= 8 else 1, allocations=out is None)
    return _result(function(hosts, axis), out)


@_in_xp
def broadcast_to(array: StrictArray, shape: Any) -> StrictArray:
    return _array(array)._view("broadcast_to", np.broadcast_to(array._host, shape))


@_in_xp
def nonzero(a: StrictArray) -> tuple[StrictArray, ...]:
    _synchronise("nonzero")
    _on_device("nonzero", allocations=1)
    return tuple(map(StrictArray, np.nonzero(_array(a)._host)))


@_in_xp
def where(condition: StrictArray, *values: Any) -> Any:
    if not values:
        return nonzero(condition)
    _elementwise(allocations=1)
    return StrictArray(np.where(_array(condition)._host, *map(_operand, values)))


@_in_xp
def fuse(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as it is, marked as one kernel: elementwise arithmetic, arrays by position."""

    @functools.wraps(function)
    def kernel(*arrays: StrictArray) -> Any:
        hosts = [_array(x) for x in arrays]
        if _fusing:  # a fused function in another is a part of it
            return function(*hosts)
        _fusing.append(None)
        try:
            results = function(*hosts)
        finally:
            _fusing.pop()
        fresh = results if isinstance(results, tuple) else () if results is None else (results,)
        _on_device(function.__name__, allocations=sum(x is not None for x in map(_array, fresh)))
        return results

    return kernel


@_in_xp
def is_available() -> bool:
    return True


# --- how minilstm meets it


@contextmanager
def standing_in_for_cupy() -> Iterator[StrictModule]:
    """Inside, minilstm knows the array type, and `import cupy` gives xp: the device "cuda" is the
    stand-in, and what a user writes for a GPU runs through it."""
    missing = object()
    table, cupy = dict(backend._array_modules), sys.modules.get("cupy", missing)
    xp.__spec__ = importlib.machinery.ModuleSpec("cupy", loader=None)
    backend._array_modules[StrictArray] = xp
    sys.modules["cupy"] = xp
    backend._cuda_fault.cache_clear()
    try:
        yield xp
    finally:
        backend._array_modules.clear()
        backend._array_modules.update(table)
        backend._cuda_fault.cache_clear()
        if cupy is missing:
            del sys.modules["cupy"]
        else:
            sys.modules["cupy"] = cupy  # type: ignore[assignment]
