"""Optimizers against their formulas, worked by hand; PyTorch's second opinion is elsewhere."""

import copy
import math

import numpy as np
import pytest

from minilstm.errors import InputError
from minilstm.optim import (
    SGD,
    Adam,
    AdamW,
    Plateau,
    clip_and_tensor_norms,
    clip_by_global_norm,
    step_decay,
    warmup_cosine,
)

OPTIMIZERS = {
    "SGD": lambda: SGD(lr=0.1),
    "momentum": lambda: SGD(lr=0.1, momentum=0.9, weight_decay=0.01),
    "Adam": lambda: Adam(lr=0.01, weight_decay=0.01),
    "AdamW": lambda: AdamW(lr=0.01),
}
every_optimizer = pytest.mark.parametrize("new", OPTIMIZERS.values(), ids=OPTIMIZERS)


def params(dtype=np.float64):
    return {"W": np.array([[1.0, -2.0, 0.5]], dtype), "b": np.array([0.25, -3.0], dtype)}


def gradients(n, dtype=np.float64):
    """The gradients of step n: the same each time they are asked for, and large and small ones."""
    rng = np.random.default_rng(n)
    scale = np.array([1e-3, 1.0, 30.0])
    return {
        "W": (rng.normal(size=(1, 3)) * scale).astype(dtype),
        "b": rng.normal(size=2).astype(dtype),
    }


def after(optimizer, *steps, start=None):
    """The parameters after one step for each gradient of the single parameter p."""
    p = {"p": np.array(1.0 if start is None else start)}
    for g in steps:
        optimizer.step(p, {"p": np.array(g)})
    return p["p"]


# --- the formulas


def test_plain_sgd_goes_lr_times_the_gradient_downhill():
    assert after(SGD(lr=0.1), 3.0) == pytest.approx(1 - 0.1 * 3)
    assert after(SGD(lr=0.1), 3.0, -1.0) == pytest.approx(1 - 0.1 * 3 + 0.1 * 1)


def test_momentum_adds_what_is_left_of_earlier_gradients():
    # v: 3, then 0.9·3 - 1 = 1.7
    assert after(SGD(lr=0.1, momentum=0.9), 3.0, -1.0) == pytest.approx(1 - 0.1 * (3 + 1.7))


def test_sgd_weight_decay_is_a_gradient_that_momentum_remembers():
    # g: 3 + 0.5·1 = 3.5, p = 0.65; then g: 0 + 0.5·0.65 = 0.325, v = 0.9·3.5 + 0.325 = 3.475
    sgd = SGD(lr=0.1, momentum=0.9, weight_decay=0.5)
    assert after(sgd, 3.0, 0.0) == pytest.approx(1 - 0.35 - 0.3475)


@pytest.mark.parametrize("new", [Adam, lambda lr: AdamW(lr, weight_decay=0.0)])
def test_adams_first_step_is_lr_whatever_the_size_of_the_gradient(new):
    """Without bias correction it would be lr · 0.1 / √0.001, three times as much."""
    g = np.array([1e-4, -0.3, 7.0, 1e6])
    np.testing.assert_allclose(
        after(new(lr=0.01), g, start=np.zeros(4)), -0.01 * np.sign(g), rtol=2e-4
    )


def test_adams_second_step_is_that_of_the_formula():
    beta1, beta2, eps, lr = 0.8, 0.95, 0.1, 0.01
    m = beta1 * (1 - beta1) * 3.0 + (1 - beta1) * -1.0
    v = beta2 * (1 - beta2) * 3.0**2 + (1 - beta2) * 1.0
    first = lr * 3 / (3 + eps)
    second = lr * (m / (1 - beta1**2)) / (math.sqrt(v / (1 - beta2**2)) + eps)
    adam = Adam(lr, (beta1, beta2), eps)
    assert after(adam, 3.0, -1.0) == pytest.approx(1 - first - second, rel=1e-14)


def test_adams_epsilon_stands_outside_the_square_root():
    # inside, the step would be lr · 1 / √(1 + 1)
    assert after(Adam(lr=0.1, eps=1.0), 1.0) == pytest.approx(1 - 0.1 / 2)


def test_a_parameter_without_gradient_stays_where_adam_found_it():
    assert after(Adam(lr=0.1), 0.0, 0.0) == 1.0


def test_adamw_shrinks_weights_without_a_gradient_by_one_minus_lr_times_decay():
    assert after(AdamW(lr=0.1, weight_decay=0.5), 0.0, 0.0) == pytest.approx((1 - 0.1 * 0.5) ** 2)


def test_adamw_decay_comes_before_adams_step_and_does_not_enter_the_moments():
    adamw = AdamW(lr=0.1, weight_decay=0.5)
    assert after(adamw, 3.0) == pytest.approx(0.95 - 0.1)
    assert adamw.moments["m"]["p"] == pytest.approx(0.1 * 3)


def test_adams_l2_penalty_is_a_gradient_divided_like_any_other():
    """So its first step is lr however small the penalty: what AdamW exists to repair."""
    assert after(Adam(lr=0.1, weight_decay=0.5), 0.0) == pytest.approx(1 - 0.1)
    assert after(Adam(lr=0.1, weight_decay=0.001), 0.0) == pytest.approx(1 - 0.1, rel=1e-4)


def test_lr_may_change_between_steps():
    sgd = SGD(lr=0.1)
    p = {"p": np.array(1.0)}
    sgd.step(p, {"p": np.array(1.0)})
    sgd.lr = 0.5
    sgd.step(p, {"p": np.array(1.0)})
    assert p["p"] == pytest.approx(1 - 0.1 - 0.5)


# --- what a step leaves alone


@every_optimizer
def test_a_step_changes_params_in_place_and_gradients_not_at_all(new):
    p, g = params(), gradients(0)
    arrays = dict(p)
    new().step(p, g)
    for name in p:
        assert p[name] is arrays[name]
        assert np.all(p[name] != params()[name])
        np.testing.assert_array_equal(g[name], gradients(0)[name])


@every_optimizer
@pytest.mark.parametrize("lr", [0.01, np.float64(0.01)], ids=["float", "float64"])
def test_float32_stays_float32_in_params_and_moments(new, lr):
    optimizer, p = new(), params(np.float32)
    optimizer.lr = lr
    for n in range(2):
        optimizer.step(p, gradients(n, np.float32))
    assert {array.dtype for array in p.values()} == {np.dtype(np.float32)}
    moments = [m for moment in optimizer.moments.values() for m in moment.values()]
    assert moments
    assert {m.dtype for m in moments} == {np.dtype(np.float32)}


@every_optimizer
def test_float32_follows_float64(new):
    wide, narrow = params(), params(np.float32)
    one, other = new(), new()
    for n in range(20):
        one.step(wide, gradients(n))
        other.step(narrow, gradients(n, np.float32))
    for name in wide:
        np.testing.assert_allclose(narrow[name], wide[name], rtol=1e-5)


# --- state


@every_optimizer
def test_a_state_dict_continues_exactly_where_it_was_taken(new):
    optimizer, p = new(), params()
    for n in range(3):
        optimizer.step(p, gradients(n))
    saved, saved_params = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(p)
    assert saved["steps"] == 3
    for n in range(3, 6):
        optimizer.step(p, gradients(n))

    for _ in range(2):  # the second time from the same state, which a step must not have changed
        resumed, q = new(), copy.deepcopy(saved_params)
        resumed.load_state_dict(saved)
        for n in range(3, 6):
            resumed.step(q, gradients(n))
        for name in p:
            np.testing.assert_array_equal(q[name], p[name], strict=True)


def test_state_of_another_optimizer_is_refused_and_changes_nothing():
    sgd, adam = SGD(lr=0.1), Adam()
    sgd.step(params(), gradients(0))
    adam.step(params(), gradients(0))
    with pytest.raises(InputError, match=r"Adam needs .*'m', 'steps', 'v'.*, got .*'velocity'"):
        adam.load_state_dict(sgd.state_dict())
    with pytest.raises(InputError, match=r"SGD needs .*'velocity'.*, got .*'m', 'steps', 'v'"):
        sgd.load_state_dict(adam.state_dict())
    with pytest.raises(InputError, match=r"got \[\]"):
        sgd.load_state_dict({})
    assert sgd.steps == adam.steps == 1
    assert adam.moments.keys() == {"m", "v"}


# --- bad input


@every_optimizer
@pytest.mark.parametrize(
    "broken, named",
    [
        ({"W": np.ones((1, 3))}, r"\['b'\]"),
        ({"W": np.ones((1, 3)), "b": np.ones(2), "c": np.ones(1)}, r"\['c'\]"),
        ({"W": np.ones((1, 3)), "b": np.ones(1)}, r"of b must have its shape \(2,\), got \(1,\)"),
        ({"W": np.ones((3, 1)), "b": np.ones(2)}, r"of W .* \(1, 3\), got \(3, 1\)"),
    ],
    ids=["missing", "surplus", "would broadcast", "transposed"],
)
def test_gradients_of_other_params_are_refused_before_anything_changes(new, broken, named):
    optimizer, p = new(), params()
    with pytest.raises(InputError, match=named):
        optimizer.step(p, broken)
    assert optimizer.steps == 0
    for name in p:
        np.testing.assert_array_equal(p[name], params()[name])


@pytest.mark.parametrize(
    "make, wanted, got",
    [
        (lambda: Adam(lr=-1e-3), "lr must be a finite number", "-0.001"),
        (lambda: Adam(lr=math.nan), "lr must be", "nan"),
        (lambda: SGD(lr=math.inf), "lr must be", "inf"),
        (lambda: SGD(lr=0.1, momentum=1.0), "momentum must be", "1.0"),
        (lambda: SGD(lr=0.1, momentum=-0.5), "momentum must be", "-0.5"),
        (lambda: SGD(lr=0.1, momentum=math.nan), "momentum must be", "nan"),
        (lambda: SGD(lr=0.1, weight_decay=-1), "weight_decay must be", "-1"),
        (lambda: AdamW(weight_decay=math.nan), "weight_decay must be", "nan"),
        (lambda: Adam(betas=(0.9, 1.0)), "each of betas must be a finite number in", "1.0"),
        (lambda: Adam(betas=(-0.1, 0.9)), "each of betas must be a finite number in", "-0.1"),
        (lambda: Adam(betas=(0.9,)), "betas must be", "(0.9,)"),
        (lambda: Adam(eps=0.0), "eps must be", "0.0"),
        (lambda: Adam(eps=math.nan), "eps must be", "nan"),
    ],
)
def test_arguments_out_of_range_are_quoted(make, wanted, got):
    with pytest.raises(InputError) as error:
        make()
    message = str(error.value)
    assert message.startswith(wanted)
    assert message.endswith(f", got {got}")


# --- clipping


def test_clipping_keeps_the_direction_and_returns_the_norm_before():
    # 3² + 4² + 12² = 13²
    grads = {"a": np.array([3.0, 4.0]), "b": np.array([[12.0]])}
    norm = clip_by_global_norm(grads, 6.5)
    assert norm.shape == ()
    assert float(norm) == pytest.approx(13, rel=1e-15)
    np.testing.assert_allclose(grads["a"], [1.5, 2.0], rtol=1e-6)
    np.testing.assert_allclose(grads["b"], [[6.0]], rtol=1e-6)


def test_clipping_divides_by_the_norm_and_a_millionth():
    grads = {"a": np.array([3e-6, 4e-6])}
    clip_by_global_norm(grads, 1e-6)
    np.testing.assert_allclose(grads["a"], [0.5e-6, 4e-6 / 6], rtol=1e-12)


def test_the_norm_is_that_of_all_tensors_together():
    """Each alone is below 6, together they are above; and one factor serves them all."""
    grads = {"a": np.array([5.0]), "b": np.array([0.0, 5.0]), "c": np.array([1e-3])}
    assert float(clip_by_global_norm(grads, 6.0)) == pytest.approx(math.sqrt(50 + 1e-6))
    factor = 6 / math.sqrt(50)
    for name, g in {"a": [5.0], "b": [0.0, 5.0], "c": [1e-3]}.items():
        np.testing.assert_allclose(grads[name], np.multiply(g, factor), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_below_the_limit_are_not_touched(dtype):
    grads = gradients(0, dtype)
    before = copy.deepcopy(grads)
    norm = clip_by_global_norm(grads, 1e3)
    assert 0 < float(norm) < 1e3
    for name in grads:
        np.testing.assert_array_equal(grads[name], before[name], strict=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clipping_works_in_place_and_keeps_the_dtype(dtype):
    grads = gradients(0, dtype)
    arrays, before = dict(grads), copy.deepcopy(grads)
    clip_by_global_norm(grads, 0.1)
    for name in grads:
        assert grads[name] is arrays[name]
        assert grads[name].dtype == dtype
        assert np.all(np.abs(grads[name]) < np.abs(before[name]))
    after_clipping = clip_by_global_norm(grads, 1.0)
    assert float(after_clipping) == pytest.approx(0.1, rel=1e-5)


def test_clipping_reads_gradients_that_are_not_contiguous():
    whole = np.arange(12.0).reshape(3, 4)
    grads = {"transposed": whole.T, "columns": np.ones((3, 4))[:, ::2]}
    assert float(clip_by_global_norm(grads, 1.0)) == pytest.approx(math.sqrt(506 + 6))
    np.testing.assert_allclose(whole, np.arange(12.0).reshape(3, 4) / math.sqrt(512), rtol=1e-6)


def test_the_norm_of_zero_gradients_is_zero_and_they_stay_zero():
    grads = {"a": np.zeros(3)}
    assert float(clip_by_global_norm(grads, 1.0)) == 0
    np.testing.assert_array_equal(grads["a"], np.zeros(3))


def test_a_nan_in_one_gradient_shows_in_the_norm():
    grads = gradients(0)
    grads["b"][1] = np.nan
    assert math.isnan(float(clip_by_global_norm(grads, 1.0)))


@pytest.mark.parametrize("max_norm", [0, -1.0, math.nan])
def test_a_limit_that_is_not_positive_is_refused(max_norm):
    grads = gradients(0)
    with pytest.raises(InputError, match=f"max_norm must be .*, got {max_norm}$"):
        clip_by_global_norm(grads, max_norm)
    np.testing.assert_array_equal(grads["b"], gradients(0)["b"])


def test_the_norm_of_each_tensor_comes_beside_the_joint_one_in_their_order():
    grads = {"b": np.array([3.0, 4.0]), "a": np.array([[12.0]])}
    joint, norms = clip_and_tensor_norms(grads, None)
    assert (float(joint), norms.tolist()) == (13, [5, 12])
    assert grads["b"].tolist() == [3, 4]  # None: measured, not scaled
    joint, norms = clip_and_tensor_norms(grads, 6.5)
    assert (float(joint), norms.tolist()) == (13, [5, 12])
    np.testing.assert_allclose(grads["b"], [1.5, 2.0], rtol=1e-6)


# --- schedules


def test_warmup_rises_linearly_and_the_cosine_falls_to_the_end():
    rates = [warmup_cosine(n, 14, lr=0.3, warmup_steps=4, final_lr=0.1) for n in range(15)]
    np.testing.assert_allclose(rates[:5], [0.06, 0.12, 0.18, 0.24, 0.3])
    assert rates[9] == pytest.approx(0.2)  # half way down
    assert rates[14] == pytest.approx(0.1)
    assert np.all(np.diff(rates[:5]) > 0)
    assert np.all(np.diff(rates[4:]) < 0)


def test_without_warmup_the_first_step_takes_the_whole_rate():
    assert warmup_cosine(0, 10, lr=0.3) == 0.3
    # a quarter of the way: ½ (1 + cos 45°)
    assert warmup_cosine(25, 100, lr=2.0) == pytest.approx(1 + math.sqrt(0.5))


def test_the_last_step_still_moves_and_those_after_the_end_keep_the_final_rate():
    assert 0 < warmup_cosine(9, 10, lr=1.0) < 0.03
    assert warmup_cosine(10, 10, lr=1.0) == pytest.approx(0, abs=1e-16)
    assert warmup_cosine(1000, 10, lr=1.0, final_lr=0.25) == 0.25


@pytest.mark.parametrize("total, warmup", [(1, 0), (1, 1), (3, 3), (2, 5)])
def test_schedules_of_few_steps_stay_between_zero_and_lr(total, warmup):
    for n in range(total):
        assert 0 < warmup_cosine(n, total, lr=0.5, warmup_steps=warmup) <= 0.5


def test_step_decay_multiplies_after_every_so_many_steps():
    rates = [step_decay(n, 0.8, every=3, factor=0.5) for n in range(7)]
    assert rates == [0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.2]


def test_a_plateau_is_more_than_patience_losses_in_a_row_without_improvement():
    plateau = Plateau(lr=1.0, factor=0.5, patience=1)
    losses = [3.0, 2.0, 2.5, 1.9, 1.9, 1.95, 1.9, 1.8]
    assert [plateau.observe(loss) for loss in losses] == [1, 1, 1, 1, 1, 0.5, 0.5, 0.5]
    # less than a ten-thousandth is no improvement, and a NaN is none either
    assert [plateau.observe(loss) for loss in (1.79999, math.nan, 1.7)] == [0.5, 0.25, 0.25]


def test_a_plateau_goes_on_from_its_state():
    plateau, resumed = Plateau(1.0, patience=2), Plateau(7.0, patience=2)
    for loss in (2.0, 2.1, 2.1):
        plateau.observe(loss)
    resumed.load_state_dict(plateau.state_dict())
    for loss in (2.1, 2.1, 2.1, 2.1):
        assert resumed.observe(loss) == plateau.observe(loss)
    assert plateau.lr == pytest.approx(0.01)  # once within reach of the state, once after it
