"""minilstm on a real GPU against NumPy in float64.

Each test runs twice: on the device, where there is one, and through the strict stand-in for CuPy,
which keeps the tests themselves right on machines without. In float32 the two may differ by 1e-5
of a tensor's largest entry, in float64 by 1e-12. CuPy multiplies in full float32 unless CUPY_TF32=1
is set; then these tests do not hold.
"""

import os
import runpy
from pathlib import Path

import numpy as np
import pytest
from closeness import assert_close, relative_error
from strict_array import standing_in_for_cupy

import minilstm as ml
from minilstm import backend

T, B, H = 6, 3, 5
MODELS = {
    "one-hot": ml.ModelConfig(vocab_size=7, hidden_size=H),
    "embedding": ml.ModelConfig(vocab_size=7, hidden_size=H, embedding_size=4),
    "large vocabulary": ml.ModelConfig(vocab_size=1100, hidden_size=H, embedding_size=4),
    "tied": ml.ModelConfig(vocab_size=7, hidden_size=H, embedding_size=H, tie_weights=True),
    "two layers": ml.ModelConfig(vocab_size=7, hidden_size=H, num_layers=2, embedding_size=4),
}
pytestmark = pytest.mark.filterwarnings("default")  # CuPy has some about its own compiling
TOLERANCES = {np.float32: 1e-5, np.float64: 1e-12}

every_model = pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
every_dtype = pytest.mark.parametrize("dtype", TOLERANCES)


@pytest.fixture(params=[pytest.param("GPU", marks=pytest.mark.gpu), "stand-in"], autouse=True)
def device(request):
    """The array type of the device "cuda", which is the GPU or the stand-in."""
    if request.param == "stand-in":
        with standing_in_for_cupy() as xp:
            yield xp.ndarray
    else:
        import cupy

        assert os.environ.get("CUPY_TF32", "0") == "0"
        backend._cuda_fault.cache_clear()
        yield cupy.ndarray


def make_params(config, dtype):
    """Parameters of dtype, and the same numbers in float64."""
    params = ml.init_params(config, np.random.default_rng(0), dtype)
    return params, {name: p.astype(np.float64) for name, p in params.items()}


def make_batch(config, length=T):
    ids = np.random.default_rng(1).integers(0, config.vocab_size, (length + 1, B))
    return ids[:-1], ids[1:]


def make_state(config, dtype, seed=2):
    rng = np.random.default_rng(seed)
    shape = (config.num_layers, B, config.hidden_size)
    return tuple(rng.normal(size=shape).astype(dtype) for _ in "hc")


def named(state, prefix=""):
    return {f"{prefix}h": state[0], f"{prefix}c": state[1]}


def assert_all_on(device, tree):
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, list | tuple):
        assert type(tree) is device
        return
    for part in tree:
        assert_all_on(device, part)


def test_the_device_proves_itself(device):
    assert ml.choose_device("cuda") == ml.choose_device("auto") == "cuda"
    assert type(ml.to_device(np.ones(2), "cuda")) is device


@every_dtype
@every_model
def test_forward_and_backward(config, dtype, device):
    """All seams, with gradients into hs and into the last state."""
    params, exact_params = make_params(config, dtype)
    inputs, targets = make_batch(config)
    state, dstate = make_state(config, dtype), make_state(config, dtype, seed=3)

    def run(params, inputs, targets, state, dstate):
        logits, new_state, cache = ml.forward_with_cache(params, config, inputs, state)
        loss, dlogits = ml.softmax_cross_entropy(logits, targets)
        grads, dstate = ml.backward(dlogits, cache, dstate)
        return {
            "logits": logits, "loss": loss, "dlogits": dlogits, **grads,
            **named(new_state), **named(dstate, "d"),
        }  # fmt: skip

    there = run(*ml.to_device((params, inputs, targets, state, dstate), "cuda"))
    assert_all_on(device, there)
    assert all(x.dtype == dtype for name, x in there.items() if name != "loss")
    exact = run(
        exact_params, inputs, targets,
        *(tuple(x.astype(np.float64) for x in pair) for pair in (state, dstate)),
    )  # fmt: skip
    assert_close(ml.to_host(there), exact, TOLERANCES[dtype])


@every_dtype
@every_model
def test_loss_and_grads_over_chunks_with_the_state_carried(config, dtype, device):
    params, exact_params = make_params(config, dtype)
    inputs, targets = make_batch(config, 3 * T)
    there_params, there_inputs, there_targets = ml.to_device((params, inputs, targets), "cuda")
    state = exact_state = None
    for start in range(0, 3 * T, T):
        chunk = slice(start, start + T)
        loss, grads, state = ml.loss_and_grads(
            there_params, config, there_inputs[chunk], there_targets[chunk], state
        )
        exact_loss, exact_grads, exact_state = ml.loss_and_grads(
            exact_params, config, inputs[chunk], targets[chunk], exact_state
        )
        assert_all_on(device, [loss, grads, state])
        there = {"loss": loss, **grads, **named(state)}
        exact = {"loss": exact_loss, **exact_grads, **named(exact_state)}
        assert_close(ml.to_host(there), exact, TOLERANCES[dtype])


@every_dtype
def test_clipping_in_place_and_the_norm_before(dtype, device):
    rng = np.random.default_rng(4)
    shapes = {"W": (50, 40), "b": (40,), "small": (3,)}
    exact = {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
    for max_norm in (1e6, 1.5):  # the first leaves everything as it is
        grads = ml.to_device(exact, "cuda")
        kept = grads["W"]
        norm = ml.clip_by_global_norm(grads, max_norm)
        assert_all_on(device, [norm, grads])
        assert norm.shape == ()
        assert grads["W"] is kept
        expected = {name: g.astype(np.float64) for name, g in exact.items()}
        expected["norm"] = np.asarray(ml.clip_by_global_norm(expected, max_norm))
        assert_close(ml.to_host({**grads, "norm": norm}), expected, TOLERANCES[dtype])


@pytest.mark.parametrize(
    "make_optimizer",
    [
        lambda: ml.SGD(lr=0.1, momentum=0.9, weight_decay=0.01),
        lambda: ml.Adam(lr=1e-2, weight_decay=0.01),
        lambda: ml.AdamW(lr=1e-2),
    ],
    ids=["SGD", "Adam", "AdamW"],
)
@every_dtype
def test_ten_training_steps(make_optimizer, dtype, device):
    config = MODELS["two layers"]
    params, exact_params = make_params(config, dtype)
    inputs, targets = make_batch(config)

    def train(params, inputs, targets):
        optimizer, state = make_optimizer(), None
        for _ in range(10):
            _, grads, state = ml.loss_and_grads(params, config, inputs, targets, state)
            ml.clip_by_global_norm(grads, max_norm=0.3)
            optimizer.step(params, grads)
        moments = {f"{k} {n}": x for k, m in optimizer.moments.items() for n, x in m.items()}
        return {**params, **moments, **named(state)}

    there = train(*ml.to_device((params, inputs, targets), "cuda"))
    assert_all_on(device, there)
    assert_close(ml.to_host(there), train(exact_params, inputs, targets), TOLERANCES[dtype])


def test_parameters_go_there_and_back_and_there_unchanged(device):
    params, _ = make_params(MODELS["tied"], np.float32)
    there = ml.to_device(params, "cuda")
    back = ml.to_host(there)
    again = ml.to_device(back, "cuda")
    assert_all_on(device, [there, again])
    assert_all_on(np.ndarray, back)
    for name, p in params.items():
        np.testing.assert_array_equal(back[name], p)
        np.testing.assert_array_equal(ml.to_host(again[name]), p)
    back["fc.b"][0] += 1  # what came back is a copy
    assert relative_error(ml.to_host(there["fc.b"]), params["fc.b"]) == 0


TEXT = "the quick brown fox jumps over the lazy dog. "


@pytest.fixture
def models():
    """The same model on the host, in float64, and on the device, in float32."""
    vocab = ml.CharVocabulary.from_text(TEXT)
    config = ml.ModelConfig(len(vocab), hidden_size=16, num_layers=2, embedding_size=8)
    params, exact_params = make_params(config, np.float32)
    return (
        ml.LanguageModel(config, exact_params, vocab),
        ml.LanguageModel(config, params, vocab).to("cuda"),
    )


@pytest.mark.parametrize("settings", [{}, {"top_k": 5}, {"top_p": 0.8}, {"greedy": True}], ids=str)
def test_samples_the_same_text(settings, models, device):
    here, there = models
    assert_all_on(device, there.params)
    expected = here.generate("the ", 60, seed=6, **settings)
    assert there.generate("the ", 60, seed=6, **settings) == expected


@pytest.mark.parametrize("options", [{}, {"streams": 4}, {"window": 7, "streams": 2}], ids=str)
def test_evaluates_to_the_same_loss(options, models):
    here, there = models
    got, expected = there.evaluate(3 * TEXT, **options), here.evaluate(3 * TEXT, **options)
    assert got.loss == pytest.approx(expected.loss, rel=1e-5)
    assert (got.tokens, got.accuracy) == (expected.tokens, expected.accuracy)


def test_weights_for_pytorch_come_from_the_device_as_from_the_host(models):
    here, there = models
    got = ml.to_torch_state_dict(there.params, there.config)
    assert_all_on(np.ndarray, got)
    expected = ml.to_torch_state_dict(here.params, here.config)
    nonzero = [name for name in expected if expected[name].any()]  # PyTorch's second bias is zero
    assert_close({k: got[k] for k in nonzero}, {k: expected[k] for k in nonzero}, 1e-7)


def test_learns_hello(monkeypatch, capsys, tmp_path):
    """The example as a user runs it, to its last line."""
    example = Path(__file__).parents[1] / "examples" / "train_hello.py"
    picture = tmp_path / "hello.png"
    arguments = ["--device", "cuda", "--steps", "200", "--picture", str(picture)]
    monkeypatch.setattr("sys.argv", [str(example), *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(example), run_name="__main__")
    said = capsys.readouterr().out.splitlines()
    assert end.value.code == 0
    assert float(said[-2].removeprefix("final loss ").removesuffix(" nats")) < 0.05
    assert said[-1] == "greedy: hello"
    assert picture.stat().st_size > 10_000
