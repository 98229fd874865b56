"""NumPy or CuPy: who computes, which device is chosen, what moves where, what gets imported."""

import importlib.machinery
import subprocess
import sys
import types
from typing import NamedTuple

import numpy as np
import pytest
from strict_array import StrictArray, counted, standing_in_for_cupy, xp

from minilstm import backend
from minilstm.backend import (
    choose_device,
    fuse,
    get_array_module,
    is_on_host,
    like,
    to_device,
    to_host,
)
from minilstm.errors import InputError


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    """Each test finds the backend as a new process does, and leaves it so."""
    monkeypatch.setattr(backend, "_array_modules", dict(backend._array_modules))
    monkeypatch.delenv("MINILSTM_DEVICE", raising=False)
    proof = backend._cuda_fault
    proof.cache_clear()
    yield
    proof.cache_clear()


@pytest.fixture
def stand_in():
    with standing_in_for_cupy() as module:
        yield module


# --- the array module


@pytest.mark.parametrize("x", [np.zeros(3), np.zeros(()), np.float32(1), np.int64(1)])
def test_numpy_arrays_and_scalars_belong_to_numpy(x):
    assert get_array_module(x) is np
    assert is_on_host(x)


def test_an_array_of_a_subclass_belongs_to_its_base_module(stand_in):
    class Mine(np.ndarray):
        pass

    class MineToo(StrictArray):
        pass

    for _ in range(2):  # the second look is in the table
        assert get_array_module(np.zeros(3).view(Mine)) is np
        assert get_array_module(MineToo(np.zeros(3))) is xp


def test_the_stand_in_belongs_to_its_module(stand_in):
    assert get_array_module(xp.zeros(3)) is xp
    assert not is_on_host(xp.zeros(3))


@pytest.mark.parametrize("x", [[1.0], 1.0, None, "ids"])
def test_anything_else_is_an_error_that_names_the_type(x):
    with pytest.raises(InputError, match=f"expected a NumPy or CuPy array, got {type(x).__name__}"):
        get_array_module(x)


@pytest.mark.parametrize("module", ["cupy", "cupy._core.fusion"])
def test_a_type_defined_inside_cupy_belongs_to_cupy(module, monkeypatch):
    cupy = types.ModuleType("cupy")
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    kind = type("Proxy", (), {"__module__": module})
    assert get_array_module(kind()) is cupy


def test_a_module_whose_name_merely_begins_so_is_not_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", types.ModuleType("cupy"))
    with pytest.raises(InputError):
        get_array_module(type("Array", (), {"__module__": "cupyx_like.array"})())


# --- fuse


def test_fuse_calls_the_plain_function_on_numpy():
    seen = []

    @fuse
    def f(a, b):
        """What it does."""
        seen.append((a, b))
        return a + b, a * b

    a, b = np.arange(3.0), np.ones(3)
    total, product = f(a, b)
    assert seen[0][0] is a
    assert seen[0][1] is b
    np.testing.assert_array_equal(total, a + b)
    np.testing.assert_array_equal(product, a * b)
    assert (f.__name__, f.__doc__) == ("f", "What it does.")


def test_fuse_compiles_once_for_each_module_and_keeps_them_apart(stand_in, monkeypatch):
    compiled = []

    def compile_and_note(function, compile=xp.fuse):
        compiled.append(function)
        return compile(function)

    monkeypatch.setattr(xp, "fuse", compile_and_note)

    def double(a):
        return (2 * a * a,)

    f = fuse(double)
    there = xp.ones(3)
    for _ in range(3):
        with counted() as counts:
            (result,) = f(there)
        assert counts.kernels == 1
        assert type(result) is StrictArray
        assert type(f(np.ones(3))[0]) is np.ndarray
    assert compiled == [double]


# --- the device


def a_cupy(monkeypatch, **functions):
    """Let `import cupy` give a module with these functions."""
    cupy = types.ModuleType("cupy")
    cupy.__spec__ = importlib.machinery.ModuleSpec("cupy", loader=None)
    for name, function in functions.items():
        setattr(cupy, name, function)
    monkeypatch.setitem(sys.modules, "cupy", cupy)


def no_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)


def no_device(monkeypatch):
    a_cupy(monkeypatch, is_available=lambda: False)


class BrokenProduct(np.ndarray):
    def __matmul__(self, other):
        raise ImportError("Failure finding libcublasLt.so\nNo such file: libcublasLt.so.12")


class WrongProduct(np.ndarray):
    def __matmul__(self, other):
        return 0 * self


def broken_product(monkeypatch, kind=BrokenProduct):
    a_cupy(
        monkeypatch,
        is_available=lambda: True,
        ones=lambda shape, dtype: np.ones(shape, dtype).view(kind),
        asnumpy=np.asarray,
    )


def wrong_product(monkeypatch):
    broken_product(monkeypatch, WrongProduct)


def broken_driver(monkeypatch):
    def is_available():
        raise RuntimeError  # without a message

    a_cupy(monkeypatch, is_available=is_available)


def broken_import(monkeypatch, tmp_path):
    (tmp_path / "cupy.py").write_text("raise ImportError('libcudart.so.12\\nnot found')")
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.syspath_prepend(tmp_path)


MISSING = {
    no_cupy: "CuPy is not installed: pip install 'cupy-cuda12x[ctk]'",
    no_device: "finds no CUDA device: check the driver, or --device cpu",
    broken_product: "(ImportError: Failure finding libcublasLt.so): pip install 'cupy-cuda12x",
    broken_driver: "(RuntimeError: ): pip install 'cupy-cuda12x[ctk]'",
    broken_import: "(ImportError: libcudart.so.12): pip install 'cupy-cuda12x[ctk]'",
    wrong_product: "the GPU computed 1·1 + 1·1 + 1 ≠ 3: check the device, or --device cpu",
}


@pytest.fixture(params=MISSING, ids=lambda missing: missing.__name__)
def missing(request, monkeypatch, tmp_path):
    """A machine without a usable GPU; returns what the message must say."""
    places = (tmp_path,) if request.param is broken_import else ()
    request.param(monkeypatch, *places)
    return MISSING[request.param]


def test_cuda_that_cannot_be_had_is_one_line_that_says_what_to_do(missing):
    with pytest.raises(InputError) as error:
        choose_device("cuda")
    message = str(error.value)
    assert message.startswith("device cuda: ")
    assert missing in message
    assert len(message.splitlines()) == 1
    with pytest.raises(InputError, match=r"^device cuda: "):
        to_device(np.zeros(2), "cuda")


def test_auto_takes_the_cpu_where_there_is_no_usable_gpu(missing):
    assert choose_device("auto") == "cpu"
    assert choose_device() == "cpu"


def test_auto_and_cuda_take_a_gpu_that_proves_itself(stand_in):
    assert choose_device("auto") == choose_device("cuda") == choose_device() == "cuda"


def test_the_proof_is_a_product_and_a_transfer_made_once(stand_in):
    with counted() as counts:
        choose_device("cuda")
        first = (counts.kernels, counts.synchronisations)
        choose_device("auto")
    assert first == (3, 1)  # ones, a product, a sum
    assert (counts.kernels, counts.synchronisations) == first


def test_cpu_asks_nobody(monkeypatch):
    monkeypatch.setattr(backend, "_cuda_fault", None)  # would fail if it were called
    assert choose_device("cpu") == "cpu"
    monkeypatch.setenv("MINILSTM_DEVICE", "cpu")
    assert choose_device() == "cpu"


def test_the_environment_decides_only_where_no_device_is_named(monkeypatch):
    no_cupy(monkeypatch)
    monkeypatch.setenv("MINILSTM_DEVICE", "cuda")
    assert choose_device("cpu") == "cpu"
    with pytest.raises(InputError, match=r"^MINILSTM_DEVICE cuda: CuPy is not installed"):
        choose_device()


@pytest.mark.parametrize("name", ["gpu", "CUDA", "cuda:0", ""])
def test_another_device_is_an_error_that_quotes_it_and_where_it_came_from(name, monkeypatch):
    with pytest.raises(InputError, match=f"^device must be auto, cpu or cuda, got '{name}'$"):
        choose_device(name)
    monkeypatch.setenv("MINILSTM_DEVICE", name)
    with pytest.raises(InputError, match=f"^MINILSTM_DEVICE must be .*, got '{name}'$"):
        choose_device()


# --- moving


class Pair(NamedTuple):
    first: object
    second: object


def test_a_tree_keeps_its_form_and_its_other_leaves(stand_in):
    a, b = np.arange(3.0, dtype=np.float32), np.arange(4)
    tree = {"a": a, "list": [b, None], "tuple": (b, 3, "text"), "pair": Pair(a, {"steps": 7})}
    there = to_device(tree, "cuda")
    assert there.keys() == tree.keys()
    assert (there["list"][1], there["tuple"][1:]) == (None, (3, "text"))
    assert type(there["tuple"]) is tuple
    assert type(there["pair"]) is Pair
    assert there["pair"].second == {"steps": 7}
    arrays = there["a"], there["list"][0], there["tuple"][0], there["pair"].first
    assert [type(x) for x in arrays] == [StrictArray] * 4

    back = to_host(there)
    assert type(back["pair"]) is Pair
    arrays = back["a"], back["list"][0], back["tuple"][0], back["pair"].first
    for x, expected in zip(arrays, (a, b, b, a), strict=True):
        assert type(x) is np.ndarray
        assert x.dtype == expected.dtype
        np.testing.assert_array_equal(x, expected)


def test_what_is_there_already_is_not_copied(stand_in):
    here, there = np.zeros(3), xp.zeros(3)
    with counted() as counts:
        assert to_device({"x": there}, "cuda")["x"] is there
        assert to_device([here], "cpu")[0] is here
        assert to_host((here,))[0] is here
        assert like(here, here) is here
        assert like(there, there) is there
    assert counts.uploads == 0


def test_like_moves_an_array_to_where_another_lives(stand_in):
    here, there = np.arange(3), xp.arange(3)
    assert type(like(here, there)) is StrictArray
    assert type(like(there, here)) is np.ndarray
    np.testing.assert_array_equal(like(there, here), here)


def test_to_device_cpu_needs_no_cupy(monkeypatch):
    no_cupy(monkeypatch)
    x = np.zeros(3)
    assert to_device({"x": x}, "cpu")["x"] is x
    assert to_device({"x": x}, "auto")["x"] is x


# --- imports


@pytest.mark.parametrize("name", ["minilstm", "minilstm.cli", "minilstm.plots"])
def test_importing_it_loads_numpy_and_nothing_else(name):
    """minilstm.cli and minilstm.plots are what examples/train_hello.py imports besides."""
    program = f"""
import sys, numpy, numpy.random
before = set(sys.modules)
import {name}
new = {{module.partition(".")[0] for module in set(sys.modules) - before}}
print(sorted(new - set(sys.stdlib_module_names) - {{"minilstm", "numpy"}}))
print([m for m in ("cupy", "matplotlib", "tqdm", "torch") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.splitlines(), done.stderr) == (["[]", "[]"], "")
