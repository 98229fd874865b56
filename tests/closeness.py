"""What the tests mean by "equal" and by "a right gradient".

Both helpers print the largest error they saw; `pytest -rP` shows it.
"""

import numpy as np

from minilstm import gradcheck


def relative_error(actual, expected):
    """max|actual - expected| / max|expected|: the error in units of the tensor's largest entry."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    largest = np.abs(expected).max()
    assert largest > 0, "the expected tensor is all zeros, so there is nothing to compare"
    return float(np.abs(actual - expected).max() / largest)


def assert_close(actual, expected, tolerance):
    """Two dicts of tensors agree within tolerance · max|expected|, tensor by tensor."""
    assert actual.keys() == expected.keys()
    errors = {}
    for name in expected:
        error = errors[name] = relative_error(actual[name], expected[name])
        # Not "fail if error > tolerance": a comparison with NaN is False.
        assert error <= tolerance, f"{name} is off by {error:.2g} of its largest entry"
    print(f"largest difference: {max(errors.values()):.1e} of the tensor's largest entry")


def assert_gradients(f, arrays, grads):
    """Every entry of grads is ∂f/∂entry, by two numeric methods; and no gradient is all zeros."""
    for name, gradient in grads.items():
        assert np.any(gradient != 0), f"the gradient of {name} is all zeros"
    complex_step = gradcheck.complex_step(f, arrays, grads, tolerance=1e-12)
    differences = gradcheck.central_differences(f, arrays, grads, atol=1e-9, rtol=1e-5)
    exact = max(check.max_error / check.max_gradient for check in complex_step.tensors.values())
    by_hand = max(check.max_error for check in differences.tensors.values())
    print(f"complex step: {exact:.1e} of the largest entry; central differences: {by_hand:.1e}")
