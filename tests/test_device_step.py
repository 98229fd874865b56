"""Training, sampling and evaluating through the strict stand-in for CuPy: nothing mixed, no wait
inside a step, and number for number what NumPy gives.

The operations and their order are the same, and so is what does the arithmetic, so "the same
numbers" is meant to the last bit.
"""

import dataclasses

import numpy as np
import pytest
from strict_array import (
    Counts,
    StrictArray,
    SynchronisationError,
    counted,
    no_synchronisation,
    standing_in_for_cupy,
)

import minilstm as ml
from minilstm.nn import embedding

T, B, H = 5, 3, 4  # and three chunks of T
MODELS = {
    "one-hot": ml.ModelConfig(vocab_size=7, hidden_size=H),
    "embedding": ml.ModelConfig(vocab_size=7, hidden_size=H, embedding_size=6),
    "large vocabulary": ml.ModelConfig(vocab_size=1100, hidden_size=H, embedding_size=6),
    "tied": ml.ModelConfig(vocab_size=7, hidden_size=H, embedding_size=H, tie_weights=True),
    "two layers": ml.ModelConfig(vocab_size=7, hidden_size=H, num_layers=2, embedding_size=6),
}
OPTIMIZERS = {
    "SGD": lambda: ml.SGD(lr=0.1, momentum=0.9, weight_decay=0.01),
    "Adam": lambda: ml.Adam(lr=0.01, weight_decay=0.01),
    "AdamW": lambda: ml.AdamW(lr=0.01),
}


@pytest.fixture(autouse=True)
def _cuda():
    """The device "cuda" is the stand-in."""
    with standing_in_for_cupy():
        yield


def make_params(config, dtype=np.float32):
    return ml.init_params(config, np.random.default_rng(0), dtype)


def make_ids(config, length=3 * T, columns=B):
    ids = np.random.default_rng(1).integers(0, config.vocab_size, (length + 1, columns))
    return ids[:-1], ids[1:]


def train(config, optimizer, device, dtype=np.float32, rng=None, workspace=None):
    """Three chunks, the state carried: all that comes out of it, back on the host."""
    params = ml.to_device(make_params(config, dtype), device)
    inputs, targets = ml.to_device(make_ids(config), device)
    state, seen = None, []
    with no_synchronisation() if rng is None else counted() as counts:
        for start in range(0, 3 * T, T):
            chunk = slice(start, start + T)
            loss, grads, state = ml.loss_and_grads(
                params, config, inputs[chunk], targets[chunk], state, rng=rng, workspace=workspace
            )
            norm = ml.clip_by_global_norm(grads, max_norm=0.05)
            optimizer.step(params, grads)
            # copies: the workspace's arrays are the next step's too
            seen.append({"loss": loss, "norm": norm, **{k: g.copy() for k, g in grads.items()}})
    result = {"seen": seen, "state": state, "params": params, "optimizer": optimizer.state_dict()}
    return result, counts


def leaves(tree, path=""):
    if isinstance(tree, dict | list | tuple):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, value in items:
            yield from leaves(value, f"{path}/{key}")
    else:
        yield path, tree


def assert_identical(there, expected):
    """The same tree, moved to the host to the last bit, and all of it was on the device."""
    arrays = [(path, x) for path, x in leaves(there) if not isinstance(x, int)]
    assert {type(x) for _, x in arrays} == {StrictArray}
    for (path, x), (expected_path, y) in zip(
        leaves(ml.to_host(there)), leaves(expected), strict=True
    ):
        assert path == expected_path
        assert getattr(x, "dtype", None) == getattr(y, "dtype", None), path
        np.testing.assert_array_equal(x, y, err_msg=path)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_training_never_waits_and_gives_the_same_numbers_as_numpy(config, optimizer, dtype):
    there, _ = train(config, optimizer(), "cuda", dtype)
    here, _ = train(config, optimizer(), "cpu", dtype)
    assert_identical(there, here)
    largest = max(float(step["norm"]) for step in here["seen"])
    assert largest > 0.05, "clipping had nothing to do"


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_the_fast_form_never_waits_and_gives_numpys_numbers_too(config):
    """To rounding: on a GPU it is the page's cell, on a CPU one written in place."""
    there, _ = train(config, ml.Adam(lr=0.01), "cuda", np.float64, workspace=ml.Workspace())
    here, _ = train(config, ml.Adam(lr=0.01), "cpu", np.float64)
    pairs = zip(leaves(there), leaves(here), strict=True)
    for (path, x), (_, y) in pairs:
        if isinstance(x, StrictArray):
            np.testing.assert_allclose(ml.to_host(x), y, rtol=1e-9, atol=1e-12, err_msg=path)


def test_the_large_vocabulary_is_one_that_scatters():
    sizes = [config.vocab_size for config in MODELS.values()]
    assert min(sizes) <= embedding._LARGEST_ONE_HOT < max(sizes)


def test_dropout_masks_are_one_upload_each_and_nothing_waits():
    config = dataclasses.replace(
        MODELS["two layers"], embedding_dropout=0.2, dropout=0.3, output_dropout=0.4,
        weight_drop=0.5, locked_dropout=True,
    )  # fmt: skip
    there, counts = train(config, ml.Adam(), "cuda", rng=np.random.default_rng(2))
    here, _ = train(config, ml.Adam(), "cpu", rng=np.random.default_rng(2))
    assert_identical(there, here)
    assert counts.synchronisations == 0
    assert counts.uploads == 3 * 5  # chunks; embedding, between, output, and W_h of two layers


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_the_seams_never_wait_either(config):
    """forward_with_cache, softmax_cross_entropy, backward with a gradient into the last state."""

    def run(device):
        params = ml.to_device(make_params(config), device)
        inputs, targets = ml.to_device(make_ids(config), device)
        dstate = ml.to_device(ml.init_state(config, B), device)
        with no_synchronisation():
            logits, state, cache = ml.forward_with_cache(params, config, inputs)
            loss, dlogits = ml.softmax_cross_entropy(logits, targets)
            grads, dstate = ml.backward(dlogits, cache, (dstate[0] + 0.1, dstate[1] + 0.2))
        return [logits, state, loss, dlogits, grads, dstate]

    assert_identical(run("cuda"), run("cpu"))


def test_a_step_that_waits_would_be_noticed(monkeypatch):
    """The check can fail: an optimizer that looks at what it updates."""
    monkeypatch.setattr(ml.SGD, "_update", lambda self, p, g, v: float(g.sum()))
    with pytest.raises(SynchronisationError, match=r"float\(\)"):
        train(MODELS["one-hot"], ml.SGD(lr=0.1), "cuda")


def test_batches_left_on_the_host_would_be_noticed():
    config = MODELS["one-hot"]
    params = ml.to_device(make_params(config), "cuda")
    inputs, targets = make_ids(config)
    with pytest.raises(TypeError, match=r"NumPy|Unsupported"):
        ml.loss_and_grads(params, config, inputs, targets)


# --- launches per time step

# Forward: the product h W_h, its sum with x W_x + b, the cell, h into hs.
# Backward: the sum of both gradients of h_t, the cell, four blocks into dz, the product dz W_hᵀ.
# Four in all do in the fast form, a product and a cell each way.
FORWARD = Counts(kernels=4, allocations=2 + 7)
BACKWARD = Counts(kernels=7, allocations=1 + 5 + 1)
FAST = Counts(kernels=4, allocations=0)


def counts_of_a_step(config, steps):
    """Counts of forward, backward, loss_and_grads on the page and fast, clipping and Adam."""
    params = ml.to_device(make_params(config), "cuda")
    inputs, targets = ml.to_device(make_ids(config, steps), "cuda")
    state = ml.to_device(ml.init_state(config, B), "cuda")
    optimizer = ml.Adam()
    with no_synchronisation():
        with counted() as forward:
            logits, _, cache = ml.forward_with_cache(params, config, inputs, state)
        _, dlogits = ml.softmax_cross_entropy(logits, targets)
        with counted() as backward:
            grads, _ = ml.backward(dlogits, cache)
        optimizer.step(params, grads)  # the first one makes the moments
        with counted() as both:
            _, grads, _ = ml.loss_and_grads(params, config, inputs, targets, state)
        workspace = ml.Workspace()  # its first step makes the arrays
        ml.loss_and_grads(params, config, inputs, targets, state, workspace=workspace)
        with counted() as fast:
            ml.loss_and_grads(params, config, inputs, targets, state, workspace=workspace)
        with counted() as clipping:
            ml.clip_by_global_norm(grads, 1.0)
        with counted() as adam:
            optimizer.step(params, grads)
    return forward, backward, both, fast, clipping, adam


@pytest.mark.parametrize("what", ["kernels", "allocations"])
@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_a_time_step_launches_four_kernels_or_on_the_page_eleven_per_layer(config, what):
    at_3, at_4, at_8 = (
        [getattr(counts, what) for counts in counts_of_a_step(config, T)] for T in (3, 4, 8)
    )
    forward = config.num_layers * getattr(FORWARD, what)
    backward = config.num_layers * getattr(BACKWARD, what)
    fast = config.num_layers * getattr(FAST, what)
    per_step = [forward, backward, forward + backward, fast, 0, 0]
    assert [b - a for a, b in zip(at_3, at_4, strict=True)] == per_step
    assert [b - a for a, b in zip(at_4, at_8, strict=True)] == [4 * n for n in per_step]


def test_launches_beside_the_time_loop_do_not_grow_unnoticed():
    """One layer, one-hot: 5 parameters."""
    counts = counts_of_a_step(MODELS["one-hot"], T)
    _, _, both, fast, clipping, adam = (each.kernels for each in counts)
    assert fast - T * FAST.kernels <= 60
    assert both - T * (FORWARD.kernels + BACKWARD.kernels) <= 55
    assert clipping <= 4 * 5 + 7
    assert adam <= 13 * 5


# --- sampling and evaluating

TEXT = "the quick brown fox jumps over the lazy dog"


def language_models(dtype=np.float32):
    """The same model on the host and on the device."""
    vocab = ml.CharVocabulary.from_text(TEXT)
    config = ml.ModelConfig(len(vocab), hidden_size=8, num_layers=2, embedding_size=5)
    params = ml.init_params(config, np.random.default_rng(3), dtype)
    here = ml.LanguageModel(config, params, vocab)
    there = ml.LanguageModel(config, dict(params), vocab).to("cuda")
    assert {type(p) for p in there.params.values()} == {StrictArray}
    return here, there


@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.7}, {"greedy": True}, {"stop": "o"}],
    ids=str,
)
def test_generates_the_same_text_as_numpy(settings):
    here, there = language_models()
    text = there.generate("the ", 40, seed=5, **settings)
    assert text == here.generate("the ", 40, seed=5, **settings)
    assert len(text) == 44 or "stop" in settings


def test_sampling_moves_one_row_of_logits_out_and_one_id_in_for_each_token():
    _, there = language_models()
    pieces = there.stream("the ", 10, seed=5)
    for _ in range(10):
        with counted() as counts:
            next(pieces)
        assert (counts.synchronisations, counts.uploads) == (1, 1)


@pytest.mark.parametrize("options", [{}, {"streams": 3}, {"window": 6, "streams": 2}], ids=str)
def test_evaluates_to_the_same_figures_as_numpy(options):
    here, there = language_models()
    assert there.evaluate(TEXT, **options) == here.evaluate(TEXT, **options)


def test_evaluating_waits_for_two_numbers_per_batch():
    _, there = language_models()
    with counted() as counts:
        there.evaluate(TEXT)
    assert (counts.synchronisations, counts.uploads) == (2, 2)  # loss, hits; inputs, targets


def test_params_survive_the_way_to_the_device_and_back():
    here, there = language_models(np.float64)
    assert_identical(there.params, here.params)
    there.to("cpu")
    assert {type(p) for p in there.params.values()} == {np.ndarray}
    assert there.generate("the ", 20, seed=1) == here.generate("the ", 20, seed=1)
