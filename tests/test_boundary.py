"""The public boundary refuses what does not fit instead of computing something else."""

import numpy as np
import pytest

import minilstm as ml

CONFIG = ml.ModelConfig(vocab_size=7, hidden_size=5, num_layers=2)
PARAMS = ml.init_params(CONFIG, np.random.default_rng(0))
IDS = np.zeros((4, 3), np.int64)
LOGITS = np.zeros((4, 3, 7))


@pytest.mark.parametrize(
    "targets",
    [
        IDS.T,  # (B, T): scored silently against the wrong targets
        IDS - 1,  # negative: silently the last symbol
        IDS + 7,  # IndexError (CuPy wraps it silently)
        IDS[:3],  # ValueError of reshape
        IDS.astype(float),  # IndexError
    ],
    ids=["transposed", "negative", "too large", "fewer", "float"],
)
def test_softmax_cross_entropy_refuses_targets_that_do_not_fit(targets):
    with pytest.raises(ml.InputError, match=r"must (have|hold|be|be a)"):
        ml.softmax_cross_entropy(LOGITS, targets)


@pytest.mark.parametrize(
    "dlogits",
    [
        LOGITS.swapaxes(0, 1),  # (B, T, V): wrong gradients, silently
        LOGITS.reshape(1, 12, 7),
        LOGITS[..., :6],  # ValueError of reshape
    ],
    ids=["transposed", "flattened", "too narrow"],
)
def test_backward_refuses_dlogits_of_another_shape(dlogits):
    _, _, cache = ml.forward_with_cache(PARAMS, CONFIG, IDS)
    with pytest.raises(ml.InputError, match=r"must (have|hold|be|be a)"):
        ml.backward(dlogits, cache)


@pytest.mark.parametrize(
    "state",
    [
        (np.zeros((2, 3, 5)),),
        (None, None),
        0,
        (np.zeros((2, 3, 5), np.float64),) * 2,  # float64 state, float32 params: c runs in float64
    ],
    ids=["h alone", "None, None", "0", "float64"],
)
def test_forward_refuses_a_state_that_is_no_pair_of_arrays_of_the_params_dtype(state):
    with pytest.raises(ml.InputError, match=r"must (have|hold|be|be a)"):
        ml.forward(PARAMS, CONFIG, IDS, state)


def test_init_params_refuses_a_seed_instead_of_a_generator():
    with pytest.raises(ml.InputError, match=r"must (have|hold|be|be a)"):
        ml.init_params(CONFIG, 0)


def test_init_params_refuses_a_dtype_in_which_every_weight_is_zero():
    with pytest.raises(ml.InputError, match=r"must (have|hold|be|be a)"):
        ml.init_params(CONFIG, np.random.default_rng(0), dtype=np.int64)


def test_a_forget_bias_and_a_rate_that_are_no_numbers_are_refused():
    with pytest.raises(ml.InputError, match=r"must (have|hold|be|be a)"):
        ml.ModelConfig(7, 5, forget_bias="1")
    with pytest.raises(ml.InputError, match=r"must (have|hold|be|be a)"):
        ml.ModelConfig(7, 5, num_layers=2, dropout="0.5")


def test_no_gradients_to_clip_are_refused():
    with pytest.raises(ml.InputError, match=r"must (have|hold|be|be a)"):
        ml.clip_by_global_norm({}, 1.0)
