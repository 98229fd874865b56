"""NumPy or CuPy, from one source. This is the only file that names CuPy.

Which array module computes is never a setting: it is read off the arrays
(`get_array_module`). A device is chosen once, by moving the parameters and the batches to it.
"""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from minilstm.errors import InputError, require

Array = Any  # np.ndarray or cupy.ndarray: the two share no base class
Tree = TypeVar("Tree")

_INSTALL = "pip install 'cupy-cuda12x[ctk]' (cuda13x for a driver of CUDA 13), or --device cpu"

# The types that do not say by their name whose they are. The tests enter their stand-in here.
_array_modules: dict[type, Any] = {np.ndarray: np, np.generic: np}


def get_array_module(x: Array) -> Any:
    """The module (`numpy` or `cupy`) whose functions take arrays of x's type.

    Any type defined inside CuPy counts as CuPy, the proxies included that `cupy.fuse` passes
    while it traces a function. CuPy is imported by whoever made such an array, never here.

    Raises:
        InputError: x is of neither.

    >>> get_array_module(np.zeros(3)).__name__
    'numpy'
    """
    for kind in type(x).__mro__:
        if kind in _array_modules:
            return _array_modules[kind]
        if kind.__module__.partition(".")[0] == "cupy":
            return sys.modules["cupy"]
    raise InputError(f"expected a NumPy or CuPy array, got {type(x).__name__}")


def is_on_host(x: Array) -> bool:
    """Whether x can be looked at without waiting for a device."""
    return get_array_module(x) is np


def fuse(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: one kernel on CuPy (`cupy.fuse`), the plain function on NumPy.

    Args:
        function: takes arrays by position, does nothing but elementwise arithmetic on them and
            returns a flat tuple of arrays.
    Returns:
        The same function, which CuPy compiles when it first sees CuPy arrays.
    """
    compiled = functools.cache(lambda xp: xp.fuse(function) if hasattr(xp, "fuse") else function)

    @functools.wraps(function)
    def call(*arrays: Array) -> Any:
        return compiled(get_array_module(arrays[0]))(*arrays)

    return call


def choose_device(name: str | None = None) -> str:
    """Resolve a device's name to "cpu" or "cuda", proving the GPU before anything runs on it.

    The proof is a sum, a matrix product and a transfer back: a missing cuBLAS, for one, shows
    only at the first product.

    Args:
        name: "cpu", "cuda" or "auto" (the GPU where there is a usable one). None reads the
            environment variable MINILSTM_DEVICE and is "auto" without it.
    Returns:
        "cpu" or "cuda".
    Raises:
        InputError: another name, or "cuda" where CuPy or a device is missing; the message says
            what to install.

    >>> choose_device("cpu")
    'cpu'
    """
    source = "device" if name is not None else "MINILSTM_DEVICE"
    name = os.environ.get(source, "auto") if name is None else name
    require(name in ("auto", "cpu", "cuda"), f"{source} must be auto, cpu or cuda", repr(name))
    fault = None if name == "cpu" else _cuda_fault()
    if name == "cuda" and fault:
        raise InputError(f"{source} cuda: {fault}")
    return "cpu" if name == "cpu" or fault else "cuda"


@functools.cache
def _cuda_fault() -> str | None:
    """None where the GPU computes; otherwise one line that says what is missing."""
    try:
        import cupy

        if not cupy.is_available():
            return "CuPy is installed but finds no CUDA device: check the driver, or --device cpu"
        ones = cupy.ones((2, 2), dtype=np.float32)
        if cupy.asnumpy(ones @ ones + ones).tolist() != [[3.0, 3.0], [3.0, 3.0]]:
            return "the GPU computed 1·1 + 1·1 + 1 ≠ 3: check the device, or --device cpu"
    except Exception as error:  # whatever a half-installed CUDA raises, it is one line here
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            return f"CuPy is not installed: {_INSTALL}"
        first_line = (str(error).splitlines() or [""])[0]
        return f"CuPy cannot use the GPU ({type(error).__name__}: {first_line}): {_INSTALL}"
    return None


def to_device(tree: Tree, device: str) -> Tree:
    """Move every array of a tree to a device.

    Args:
        tree: dicts, lists, tuples, named tuples and arrays. Leaves that are no arrays (None,
            numbers, strings) stay as they are.
        device: "cpu", "cuda" or "auto", which is resolved as by `choose_device`.
    Returns:
        The same tree of moved arrays; those already on the device are not copied.
    Raises:
        InputError: as `choose_device` does.
    """
    if choose_device(device) == "cpu":
        return to_host(tree)
    # choose_device has imported CuPy.
    return cast(Tree, _map_arrays(sys.modules["cupy"].asarray, tree))


def to_host(tree: Tree) -> Tree:
    """The same tree with NumPy arrays; on a GPU this waits for the device.

    Args:
        tree: as for `to_device`.
    Returns:
        The same tree of NumPy arrays; those that are on the host already are not copied.

    >>> to_host({"b": (np.zeros(2), None)})
    {'b': (array([0., 0.]), None)}
    """

    def move(x: Array) -> Array:
        return x if is_on_host(x) else get_array_module(x).asnumpy(x)

    return cast(Tree, _map_arrays(move, tree))


def like(tree: Tree, reference: Array) -> Tree:
    """The same tree with its arrays where `reference` lives; those there already are not copied."""
    if is_on_host(reference):
        return to_host(tree)
    return cast(Tree, _map_arrays(get_array_module(reference).asarray, tree))


def _map_arrays(move: Callable[[Array], Array], tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _map_arrays(move, value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        moved = [_map_arrays(move, value) for value in tree]
        return type(tree)(*moved) if hasattr(tree, "_fields") else type(tree)(moved)
    return move(tree) if hasattr(tree, "dtype") and hasattr(tree, "shape") else tree
