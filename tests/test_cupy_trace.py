"""The LSTM cell is one kernel each way: CuPy's own tracer says so. Needs CuPy, but no GPU.

`cupy.fuse` runs a function once with proxies for arrays, and writes one elementwise kernel if it
can. If it cannot, it says nothing and falls back on another tracer, which makes several. Here the
first tracer is watched at work, the second forbidden, and the kernel kept instead of launched.
"""

import importlib.util

import numpy as np
import pytest

import minilstm.nn.lstm
import minilstm.nn.lstm_steps
from minilstm import backend

pytestmark = pytest.mark.cupy

B, H = 3, 4


class SeveralKernelsError(Exception):
    pass


@pytest.fixture
def kernels(monkeypatch):
    """The kernels made while the test runs, in order; none is launched."""
    import cupy  # noqa: F401
    from cupy._core import fusion, new_fusion

    made = []
    trace = fusion._FusionHistory.get_fusion

    def keep(history, function, arrays, name):
        kernel, options = trace(history, function, arrays, name)
        made.append(kernel)
        return (lambda *arrays: arrays[:1] * kernel.nout), options

    def fall_back(function, name):
        raise SeveralKernelsError(name)

    monkeypatch.setattr(fusion._FusionHistory, "get_fusion", keep)
    monkeypatch.setattr(new_fusion, "Fusion", fall_back)
    # The package's table and its fused functions stay as they were.
    monkeypatch.setattr(backend, "_array_modules", dict(backend._array_modules))
    return made


@pytest.fixture
def lstm(kernels):
    """A copy of minilstm.nn.lstm, whose fused functions have compiled nothing yet."""
    spec = importlib.util.spec_from_file_location("lstm_traced", minilstm.nn.lstm.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fast(lstm, monkeypatch):
    """The same of minilstm.nn.lstm_steps, with that copy's cells."""
    path = minilstm.nn.lstm_steps.__file__
    spec = importlib.util.spec_from_file_location("lstm_fast_traced", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.cell_forward, module.cell_backward = lstm.cell_forward, lstm.cell_backward
    return module


def array(*shape, dtype=np.float32):
    """A CuPy array to trace with. Without a device it has an address, but nobody there."""
    import cupy

    if cupy.is_available():
        return cupy.zeros(shape, dtype)
    memory = cupy.cuda.UnownedMemory(0x7F0000000000, 1 << 20, None, device_id=0)
    return cupy.ndarray(shape, dtype, cupy.cuda.MemoryPointer(memory, 0))


def gate_views(dtype=np.float32):
    """The four gates as lstm_forward passes them: views of z (B, 4H), their rows 4H apart."""
    z = array(B, 4 * H, dtype=dtype)
    views = [z[:, k * H : (k + 1) * H] for k in range(4)]
    assert not any(view.flags.c_contiguous for view in views)
    return views


def assert_one_elementwise_kernel(kernels, inputs, outputs, dtype):
    import cupy

    (kernel,) = kernels
    assert type(kernel) is cupy.ElementwiseKernel
    assert (kernel.nin, kernel.nout) == (inputs, outputs)
    assert {p.dtype for p in (*kernel.in_params, *kernel.out_params)} == {np.dtype(dtype)}
    # Numbers of Python are constants in double precision, cast before use; nothing else may be.
    code = kernel.preamble + kernel.operation
    doubles = [line for line in code.splitlines() if "double" in line]
    if dtype == np.float32:
        assert [line for line in doubles if not line.startswith("const double v")] == []
    else:
        assert "float" not in code.replace("float16.cuh", "")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cell_forward_is_one_kernel(lstm, kernels, dtype):
    results = lstm.cell_forward(*gate_views(dtype), array(B, H, dtype=dtype))
    assert len(results) == 7
    assert_one_elementwise_kernel(kernels, inputs=5, outputs=7, dtype=dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cell_backward_is_one_kernel(lstm, kernels, dtype):
    results = lstm.cell_backward(*(array(B, H, dtype=dtype) for _ in range(8)))
    assert len(results) == 5
    assert_one_elementwise_kernel(kernels, inputs=8, outputs=5, dtype=dtype)


def test_the_fast_forms_kernels_are_one_each(kernels, fast):
    """The cell with its sums before and its results written where they belong."""
    gates = [view for _ in range(3) for view in gate_views()]
    inputs = [array(B, H) for _ in range(5)]
    fast.forward_kernel(*gates, *inputs[:3])
    fast.backward_kernel(*inputs[:3], *gate_views(), *inputs[3:])
    assert len(kernels) == 2
    for kernel in kernels:
        assert {p.dtype for p in (*kernel.in_params, *kernel.out_params)} == {np.dtype(np.float32)}


def test_later_steps_run_the_kernel_of_the_first(lstm, kernels):
    for _ in range(3):
        lstm.cell_forward(*gate_views(), array(B, H))
    assert len(kernels) == 1


# --- the check can fail


def shares_of_rows(x, y):
    return (x * y / backend.get_array_module(x).sum(x, axis=1, keepdims=True),)


def product(x, y):
    return (x @ y,)


def first_gate(x, y):
    return (x[:, :H] + y,)


@pytest.mark.parametrize("function", [shares_of_rows, product, first_gate])
def test_a_function_that_is_not_elementwise_is_noticed(kernels, function):
    with pytest.raises(SeveralKernelsError):
        backend.fuse(function)(array(B, H), array(B, H))
    assert kernels == []


def total(x, y):
    return backend.get_array_module(x).sum(x * y)


def in_double(x, y):
    return (x.astype(np.float64) * y,)


def in_double_on_the_way(x, y):
    return ((x.astype(np.float64) * y).astype(np.float32),)


@pytest.mark.parametrize("function", [total, in_double, in_double_on_the_way])
def test_a_kernel_of_another_kind_or_dtype_is_noticed(kernels, function):
    backend.fuse(function)(array(B, H), array(B, H))
    assert len(kernels) == 1
    with pytest.raises(AssertionError):
        assert_one_elementwise_kernel(kernels, inputs=2, outputs=1, dtype=np.float32)


def sums_twice(x, y):
    return x + y, (x + y) + y


def test_a_function_like_the_cell_passes(kernels):
    """So that the ones above fail for their own fault."""
    backend.fuse(sums_twice)(array(B, H), array(B, H))
    assert_one_elementwise_kernel(kernels, inputs=2, outputs=2, dtype=np.float32)
