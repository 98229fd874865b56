"""The checker is checked: it must reject what is wrong, say where, and pass what is right."""

import numpy as np
import pytest

from minilstm import InputError
from minilstm.gradcheck import GradientError, central_differences, complex_step, directional


def along_one_direction(f, arrays, grads, **options):
    return directional(f, arrays, grads, rng=np.random.default_rng(0), **options)


METHODS = {
    "complex step": complex_step,
    "central differences": central_differences,
    "directional": along_one_direction,
}
every_method = pytest.mark.parametrize("check", METHODS.values(), ids=METHODS)
every_entrywise_method = pytest.mark.parametrize(
    "check", [complex_step, central_differences], ids=["complex step", "central differences"]
)

INPUTS = np.random.default_rng(1).normal(size=(5, 3))


def f(a):
    """A layer and a square: any function whose gradient can be written down."""
    return (np.tanh(INPUTS @ a["W"] + a["b"]) ** 2).sum()


def gradient(a):
    y = np.tanh(INPUTS @ a["W"] + a["b"])
    dz = 2 * y * (1 - y**2)
    return {"W": INPUTS.T @ dz, "b": dz.sum(axis=0)}


@pytest.fixture
def arrays():
    rng = np.random.default_rng(2)
    return {"W": rng.normal(size=(3, 4)), "b": rng.normal(size=4)}


@pytest.fixture
def grads(arrays):
    return gradient(arrays)


def scaled(factor):
    def spoil(grads):
        grads["W"][1, 2] *= factor

    return spoil


def replaced(value):
    def spoil(grads):
        grads["W"][1, 2] = value

    return spoil


def everywhere(factor):
    def spoil(grads):
        for gradient in grads.values():
            gradient *= factor

    return spoil


ONE_WRONG_ENTRY = {
    "0.1 % too large": scaled(1.001),
    "0.1 % too small": scaled(0.999),
    "of the other sign": scaled(-1),
    "zero": replaced(0),
    "nan": replaced(np.nan),
    "inf": replaced(np.inf),
    "minus inf": replaced(-np.inf),
}
ALL_WRONG = {
    "0.05 % too large": everywhere(1.0005),
    "of the other sign": everywhere(-1),
    "twice as large": everywhere(2),
    "all zeros": everywhere(0),
    "all nan": everywhere(np.nan),
}


# --- what is right passes


@every_method
def test_a_right_gradient_passes(check, arrays, grads):
    report = check(f, arrays, grads)
    assert report.passed
    assert all(tensor.passed for tensor in report.tensors.values())
    report.raise_if_failed()


def test_a_report_prints_a_line_for_each_tensor_and_which_is_wrong(arrays, grads):
    spoiled = grads | {"b": 1.001 * grads["b"]}
    report = complex_step(f, arrays, spoiled, raise_on_failure=False)
    _, W, b = str(report).splitlines()
    assert W.split()[0] == "W"
    assert W.endswith("  right")
    assert b.split()[0] == "b"
    assert b.endswith("  WRONG")


@every_entrywise_method
def test_the_report_says_what_was_checked(check, arrays, grads):
    report = check(f, arrays, grads)
    assert list(report.tensors) == ["W", "b"]
    for name, tensor in report.tensors.items():
        assert tensor.name == name
        assert tensor.entries == arrays[name].size
        assert tensor.norm == pytest.approx(np.sqrt((grads[name] ** 2).sum()))
        assert tensor.max_gradient == np.abs(grads[name]).max()
        assert tensor.analytic == grads[name][tensor.worst]
        assert abs(tensor.analytic - tensor.numeric) == tensor.max_error < 1e-9


def test_the_methods_are_as_exact_as_they_claim(arrays, grads):
    exact = complex_step(f, arrays, grads).tensors.values()
    assert all(tensor.max_error <= 1e-15 * tensor.max_gradient for tensor in exact)
    by_hand = central_differences(f, arrays, grads).tensors.values()
    assert all(1e-13 < tensor.max_error < 1e-9 for tensor in by_hand)


@every_method
def test_arrays_without_axes_can_be_checked(check):
    arrays, grads = {"x": np.array(3.0)}, {"x": np.array(27.0)}
    assert check(lambda a: a["x"] ** 3, arrays, grads).passed
    with pytest.raises(GradientError):
        check(lambda a: a["x"] ** 3, arrays, {"x": np.array(27.03)})


# --- what is wrong does not


@every_method
@pytest.mark.parametrize("spoil", ONE_WRONG_ENTRY.values(), ids=ONE_WRONG_ENTRY)
def test_one_wrong_entry_is_rejected(check, spoil, arrays, grads):
    spoil(grads)
    with pytest.raises(GradientError):
        check(f, arrays, grads)


@every_method
@pytest.mark.parametrize("spoil", ALL_WRONG.values(), ids=ALL_WRONG)
def test_a_gradient_wrong_everywhere_is_rejected(check, spoil, arrays, grads):
    spoil(grads)
    with pytest.raises(GradientError):
        check(f, arrays, grads)


@every_method
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_function_that_is_no_number_is_rejected(check, value, arrays, grads):
    with pytest.raises(GradientError):
        check(lambda a: f(a) * value, arrays, grads)


@every_method
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_number_on_both_sides_is_no_agreement(check, value):
    arrays, grads = {"x": np.array([1.0, 2.0])}, {"x": np.array([value, value])}
    with np.errstate(invalid="ignore"), pytest.raises(GradientError):
        check(lambda a: a["x"].sum() * value, arrays, grads)


def test_a_function_that_drops_the_imaginary_part_is_rejected(arrays, grads):
    """And not for the gradient's sake: with all-zero gradients it would pass."""
    message = "f must return a complex number for complex ones, got float64: an array of it may"
    with pytest.raises(InputError, match=message):
        complex_step(lambda a: f({name: x.real for name, x in a.items()}), arrays, grads)


def test_a_gradient_computed_in_float32_is_too_coarse_for_the_complex_step(arrays, grads):
    single = gradient({name: x.astype(np.float32) for name, x in arrays.items()})
    rounded = {name: g.astype(np.float32).astype(np.float64) for name, g in single.items()}
    assert central_differences(f, arrays, rounded).passed
    with pytest.raises(GradientError):
        complex_step(f, arrays, rounded)


@pytest.mark.parametrize(("off", "passes"), [(0.9e-12, True), (1.1e-12, False)])
def test_complex_step_tolerates_1e_12_of_the_largest_entry(off, passes):
    arrays, grads = {"x": np.array([1.0, 2.0, 3.0])}, {"x": np.array([2.0, 4.0, 6.0])}
    grads["x"][0] += off * 6
    report = complex_step(lambda a: (a["x"] ** 2).sum(), arrays, grads, raise_on_failure=False)
    assert report.passed is passes


@pytest.mark.parametrize(
    ("entry", "off", "passes"),
    [(0, 0.9e-9, True), (0, 1.1e-9, False), (1, 0.9e-5, True), (1, 1.1e-5, False)],
)
def test_central_differences_tolerate_1e_9_and_1e_5_of_each_entry(entry, off, passes):
    slope = np.array([0.0, 1.0, 1e6])
    arrays, grads = {"x": np.zeros(3)}, {"x": slope.copy()}  # f is 0 there: no rounding
    grads["x"][entry] += off
    report = central_differences(lambda a: a["x"] @ slope, arrays, grads, raise_on_failure=False)
    assert report.passed is passes


# --- where it is wrong


@every_entrywise_method
@pytest.mark.parametrize("spoil", ONE_WRONG_ENTRY.values(), ids=ONE_WRONG_ENTRY)
def test_the_error_names_the_parameter_and_the_index(check, spoil, arrays, grads):
    spoil(grads)
    with pytest.raises(GradientError, match=r"^[a-z ]+: W\[1, 2\]: analytic \S+, numeric \S+, off"):
        check(f, arrays, grads)


@every_method
def test_the_error_quotes_both_numbers_and_their_difference(check):
    arrays, grads = {"x": np.array([2.0])}, {"x": np.array([5.0])}
    with pytest.raises(GradientError) as rejected:
        check(lambda a: (a["x"] ** 2).sum(), arrays, grads)
    numbers = [word.strip(",()") for word in str(rejected.value).replace("-", "").split()]
    assert [float(n) for n in numbers if n[0].isdigit()] == pytest.approx([5, 4, 1, 5], rel=1e-6)


@every_entrywise_method
def test_the_largest_of_several_errors_is_named_for_each_tensor(check, arrays, grads):
    grads["W"] *= 1.001
    grads["W"][2, 0] += 1
    grads["b"] *= 1.001
    grads["b"][3] -= 1
    with pytest.raises(GradientError, match=r"W\[2, 0\]: .*; b\[3\]: "):
        check(f, arrays, grads)


@every_entrywise_method
def test_no_number_is_worse_than_any_number(check, arrays, grads):
    grads["b"][0] = 1e30
    grads["b"][2] = np.nan
    with pytest.raises(GradientError, match=r": b\[2\]: analytic nan"):
        check(f, arrays, grads)


@every_entrywise_method
def test_a_right_tensor_is_not_accused(check, arrays, grads):
    grads["W"] *= 2
    with pytest.raises(GradientError) as rejected:
        check(f, arrays, grads)
    assert "b[" not in str(rejected.value)


@every_method
def test_on_request_a_failure_is_reported_and_not_raised(check, arrays, grads):
    grads["W"][1, 2] *= 1.001
    report = check(f, arrays, grads, raise_on_failure=False)
    assert report.passed is False
    assert any(tensor.passed is False for tensor in report.tensors.values())
    with pytest.raises(GradientError, match="off by"):
        report.raise_if_failed()


@every_entrywise_method
def test_the_report_tells_the_failing_tensor_from_the_right_one(check, arrays, grads):
    grads["W"][1, 2] *= 1.001
    tensors = check(f, arrays, grads, raise_on_failure=False).tensors
    assert (tensors["W"].passed, tensors["b"].passed) == (False, True)
    assert tensors["W"].worst == (1, 2)
    assert tensors["W"].analytic == grads["W"][1, 2]
    assert tensors["W"].analytic == pytest.approx(1.001 * tensors["W"].numeric, rel=1e-8)


def test_a_rejected_gradient_is_a_failed_assertion():
    assert issubclass(GradientError, AssertionError)


# --- what cannot be checked, and what must be left alone


@every_method
@pytest.mark.parametrize(
    ("arrays", "grads", "message"),
    [
        (
            {"W": np.ones(2), "b": np.ones(3)},
            {"W": np.ones(2)},
            "arrays and grads must have the same keys, got ['W', 'b'] and ['W']",
        ),
        (
            {"W": np.ones(2)},
            {"w": np.ones(2)},
            "arrays and grads must have the same keys, got ['W'] and ['w']",
        ),
        ({}, {}, "arrays and grads must have the same keys, got [] and []"),
        (
            {"W": np.ones((2, 3))},
            {"W": np.ones((3, 2))},
            "the gradient of W must have shape (2, 3), got (3, 2)",
        ),
        (
            {"W": np.ones((2, 3))},
            {"W": np.ones(3)},  # would broadcast
            "the gradient of W must have shape (2, 3), got (3,)",
        ),
        (
            {"W": np.ones(2, np.float32)},
            {"W": np.ones(2, np.float32)},
            "W must be float64: less is too coarse to check, got float32",
        ),
        (
            {"W": np.ones((0, 2))},
            {"W": np.ones((0, 2))},
            "W must have entries to check, got shape (0, 2)",
        ),
    ],
    ids=["missing", "renamed", "none", "transposed", "broadcast", "float32", "empty"],
)
def test_what_cannot_be_checked_is_refused_in_one_line(check, arrays, grads, message):
    with pytest.raises(InputError) as refused:
        check(lambda a: sum(x.sum() for x in a.values()), arrays, grads)
    assert str(refused.value) == message


@every_method
@pytest.mark.parametrize("wrong", [False, True])
def test_arguments_stay_as_they_were(check, wrong, arrays, grads):
    grads["W"] *= 2 if wrong else 1
    before = {name: (arrays[name].copy(), grads[name].copy()) for name in arrays}
    check(f, arrays, grads, raise_on_failure=False)
    for name, (x, g) in before.items():
        np.testing.assert_array_equal(arrays[name], x)
        np.testing.assert_array_equal(grads[name], g)


def test_directional_checks_all_arrays_in_two_evaluations(arrays, grads):
    calls = []

    def counted(a):
        calls.append(a)
        return f(a)

    along_one_direction(counted, arrays, grads)
    assert len(calls) == 2
    for name in arrays:
        assert np.all(calls[0][name] != calls[1][name])
