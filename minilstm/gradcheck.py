"""Numeric gradient checks, for any scalar function of a dict of arrays.

Three questions with the same answer if a backward pass is right:

    complex step          ∂f/∂x_k = Im f(x + i·h·e_k) / h            every entry; exact
    central differences   ∂f/∂x_k ≈ (f(x + ε e_k) - f(x - ε e_k)) / 2ε    every entry; by hand
    directional           Σ_k ∂f/∂x_k u_k ≈ (f(x + ε u) - f(x - ε u)) / 2ε    one random direction

The difference quotient subtracts two nearly equal numbers, so a smaller ε trades truncation error
(∝ ε²) for rounding error (∝ 1/ε): about 1e-10 is the best it reaches in float64. The complex step
subtracts nothing: with h = 1e-20 its error is that of one evaluation of f. It asks for f to be
analytic, with no abs, max or comparison on complex values; minilstm's forward pass is.
Source of the complex step: Squire & Trapp 1998.

Each check returns a Report and, unless told otherwise, raises GradientError if any entry fails.
A NaN or infinity on either side fails.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from minilstm.errors import InputError, require

Arrays = dict[str, np.ndarray]


class GradientError(AssertionError):
    """A gradient is wrong. The message names the parameter and the index of the worst entry."""


class TensorCheck(NamedTuple):
    """The check of one tensor; as a str, its worst entry.

    Attributes:
        name: its key in arrays and grads.
        entries: how many were compared.
        worst: index of the largest error, among the failed entries if there are any.
        passed: whether every entry is finite and within its tolerance.
    """

    name: str
    entries: int
    norm: float  # of the analytic gradient
    max_error: float  # largest |analytic - numeric|
    max_gradient: float  # largest |analytic|
    worst: tuple[int, ...]
    analytic: float  # at `worst`
    numeric: float  # at `worst`
    passed: bool

    def __str__(self) -> str:
        index = ", ".join(map(str, self.worst))
        off = abs(self.analytic - self.numeric)
        numbers = f"analytic {self.analytic:.10g}, numeric {self.numeric:.10g}, off by {off:.3g}"
        largest = f"largest gradient of the tensor: {self.max_gradient:.3g}"
        return f"{self.name}[{index}]: {numbers} ({largest})"


class Report(NamedTuple):
    """The checks of all tensors.

    Attributes:
        method: which of the three checks.
        tensors: name -> its check.
    """

    method: str
    tensors: dict[str, TensorCheck]

    @property
    def passed(self) -> bool:
        """Whether every tensor passed."""
        return all(check.passed for check in self.tensors.values())

    def __str__(self) -> str:
        lines = [f"{self.method}: largest error, largest gradient"]
        for name, check in self.tensors.items():
            verdict = "right" if check.passed else "WRONG"
            lines.append(f"  {name:12} {check.max_error:8.1e} {check.max_gradient:8.1e}  {verdict}")
        return "\n".join(lines)

    def raise_if_failed(self) -> None:
        """Do nothing if every tensor passed.

        Raises:
            GradientError: one did not; the message has the worst entry of each that did not.
        """
        failed = [str(check) for check in self.tensors.values() if not check.passed]
        if failed:
            raise GradientError(f"{self.method}: " + "; ".join(failed))


def complex_step(f: Callable[..., Any], arrays: Arrays, grads: Arrays, *, h: float = 1e-20,
                 tolerance: float = 1e-12, raise_on_failure: bool = True) -> Report:
    """Compare grads with Im f(x + ih e_k) / h at every entry of every array.

    Args:
        f: takes a dict like `arrays`, but complex128, and returns one complex number.
        arrays: where to differentiate; float64.
        grads: the gradients to check, same keys and shapes.
        h: the step; subtracting nothing, it can be this small.
        tolerance: an entry passes if |analytic - numeric| ≤ tolerance · max|numeric| of its tensor.
        raise_on_failure: False leaves the verdict to the report.
    Returns:
        A Report on every tensor.
    Raises:
        InputError: keys, shapes or dtypes do not fit.
        GradientError: an entry fails.
    Source:
        Squire & Trapp 1998.

    >>> x = {"x": np.array([1.0, 2.0])}
    >>> complex_step(lambda a: (a["x"] ** 3).sum(), x, {"x": 3 * x["x"] ** 2}).passed
    True
    """
    _check_arrays(arrays, grads)
    complex_arrays = {name: x.astype(np.complex128) for name, x in arrays.items()}
    numeric = {name: z.imag / h for name, z in _moved(f, complex_arrays, 1j * h).items()}
    allowed = {name: tolerance * np.abs(n).max() for name, n in numeric.items()}
    return _report("complex step", grads, numeric, allowed, raise_on_failure)


def central_differences(f: Callable[..., Any], arrays: Arrays, grads: Arrays, *,
                        eps: float = 1e-5, atol: float = 1e-9, rtol: float = 1e-5,
                        raise_on_failure: bool = True) -> Report:
    """Compare grads with (f(x + ε e_k) - f(x - ε e_k)) / 2ε at every entry of every array.

    Args:
        f: takes a dict like `arrays` and returns one number.
        arrays: where to differentiate; float64, since in float32 the rounding of f drowns the
            difference.
        grads: the gradients to check, same keys and shapes.
        eps: ε.
        atol, rtol: an entry passes if |analytic - numeric| ≤ atol + rtol · |numeric|.
        raise_on_failure: False leaves the verdict to the report.
    Returns:
        A Report on every tensor.
    Raises:
        InputError: keys, shapes or dtypes do not fit.
        GradientError: an entry fails.

    >>> x = {"x": np.array([1.0, 2.0])}
    >>> wrong = {"x": 3.003 * x["x"] ** 2}
    >>> report = central_differences(
    ...     lambda a: (a["x"] ** 3).sum(), x, wrong, raise_on_failure=False
    ... )
    >>> print(report.tensors["x"])
    x[1]: analytic 12.012, numeric 12, off by 0.012 (largest gradient of the tensor: 12)
    """
    _check_arrays(arrays, grads)
    plus, minus = _moved(f, arrays, eps), _moved(f, arrays, -eps)
    with np.errstate(invalid="ignore"):  # ∞ - ∞ is NaN, which fails
        numeric = {name: (plus[name] - minus[name]) / (2 * eps) for name in arrays}
    allowed = {name: atol + rtol * np.abs(n) for name, n in numeric.items()}
    return _report("central differences", grads, numeric, allowed, raise_on_failure)


def directional(f: Callable[..., Any], arrays: Arrays, grads: Arrays, *,
                rng: np.random.Generator, eps: float = 1e-5, atol: float = 1e-9,
                rtol: float = 1e-5, raise_on_failure: bool = True) -> Report:
    """Compare Σ grads · u with (f(x + ε u) - f(x - ε u)) / 2ε along one random direction u.

    u is a unit vector over all arrays together: two evaluations of f, whatever the number of
    entries. It can say that a gradient is wrong, not where.

    Args:
        f, arrays, grads: as for `central_differences`.
        rng: draws u.
        eps, atol, rtol, raise_on_failure: as for `central_differences`.
    Returns:
        A Report on one tensor, "direction", with one entry.
    Raises:
        InputError: keys, shapes or dtypes do not fit.
        GradientError: the two sums differ.
    """
    _check_arrays(arrays, grads)
    u = {name: rng.standard_normal(value.shape) for name, value in arrays.items()}
    length = np.sqrt(sum((v * v).sum() for v in u.values()))
    u = {name: v / length for name, v in u.items()}
    plus = float(f({name: value + eps * u[name] for name, value in arrays.items()}))
    minus = float(f({name: value - eps * u[name] for name, value in arrays.items()}))
    analytic = {"direction": np.array([sum((grads[name] * u[name]).sum() for name in u)])}
    numeric = {"direction": np.array([(plus - minus) / (2 * eps)])}
    allowed = {"direction": atol + rtol * np.abs(numeric["direction"])}
    return _report("directional", analytic, numeric, allowed, raise_on_failure)


def _check_arrays(arrays: Arrays, grads: Arrays) -> None:
    wanted, got = sorted(arrays), sorted(grads)
    require(wanted == got != [], "arrays and grads must have the same keys", f"{wanted} and {got}")
    for name, x in arrays.items():
        if x.dtype != np.float64:
            raise InputError(f"{name} must be float64: less is too coarse to check, got {x.dtype}")
        shape = grads[name].shape
        require(shape == x.shape, f"the gradient of {name} must have shape {x.shape}", shape)
        require(x.size > 0, f"{name} must have entries to check", f"shape {x.shape}")


def _moved(f: Callable[..., Any], arrays: Arrays, step: complex) -> Arrays:
    """f with one entry moved by step and all others in place: for each entry of each array."""
    x = {name: value.copy() for name, value in arrays.items()}
    moved = {}
    for name, array in x.items():
        values = []
        for index, kept in np.ndenumerate(array):
            array[index] = kept + step
            values.append(f(x))
            array[index] = kept
        dtype = np.asarray(values).dtype
        # An f that drops the imaginary part has slope 0 everywhere.
        if array.dtype.kind == "c" and dtype.kind != "c":
            why = "an array of it may have been made without the dtype of its inputs"
            raise InputError(f"f must return a complex number for complex ones, got {dtype}: {why}")
        moved[name] = np.array(values, dtype=array.dtype).reshape(array.shape)
    return moved


def _report(method: str, grads: Arrays, numeric: Arrays, allowed: Arrays, raises: bool) -> Report:
    """Compare grads with the numeric ones; an entry passes if it is no further off than allowed."""
    report = Report(method, {})
    for name, n in numeric.items():
        a = np.asarray(grads[name])
        error = np.abs(a - n)
        # Written as ≤ and then negated: a comparison with NaN is False, so a NaN is a failure.
        ok = (error <= allowed[name]) & np.isfinite(a) & np.isfinite(n)
        # The worst entry: among the failed ones if there are any, and a NaN before any number.
        badness = np.where(ok & ~ok.all(), -1.0, np.nan_to_num(error, nan=np.inf))
        worst = tuple(int(k) for k in np.unravel_index(np.argmax(badness), n.shape))
        report.tensors[name] = TensorCheck(
            name, n.size, norm=float(np.linalg.norm(a)), max_error=float(error.max()),
            max_gradient=float(np.abs(a).max()), worst=worst, analytic=float(a[worst]),
            numeric=float(n[worst]), passed=bool(ok.all()))  # fmt: skip
    if raises:
        report.raise_if_failed()
    return report
