"""The names and calling forms that other programs rely on, and a program that uses them."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minilstm as ml

TEXT = "how much wood would a woodchuck chuck if a woodchuck could chuck wood? "
SAMPLING = (
    "self, prompt, length, temperature=1.0, top_k=None, top_p=None, greedy=False, stop=None, "
    "seed=None"
)

CALLING_FORMS = [
    (ml.CharVocabulary.from_text, "text"),
    (ml.CharVocabulary.encode, "self, text"),
    (ml.CharVocabulary.decode, "self, ids"),
    (ml.contiguous_streams, "ids, batch_size, seq_len"),
    (ml.random_windows, "ids, batch_size, seq_len"),
    (ml.shuffled_windows, "ids, batch_size, seq_len"),
    (ml.ModelConfig, "vocab_size, hidden_size=128, num_layers=1, embedding_size=None"),
    (ml.init_params, "config, rng, dtype="),
    (ml.init_state, "config, batch_size, dtype="),
    (ml.forward, "params, config, inputs, state=None"),
    (ml.loss_and_grads, "params, config, inputs, targets, state=None"),
    (ml.forward_with_cache, "params, config, inputs, state=None"),
    (ml.softmax_cross_entropy, "logits, targets"),
    (ml.backward, "dlogits, cache, dstate=None"),
    (ml.clip_by_global_norm, "grads, max_norm"),
    (ml.Adam, "lr=0.001, betas=(0.9, 0.999), eps=1e-08"),
    (ml.AdamW, "lr=0.001, betas=(0.9, 0.999), eps=1e-08"),
    (ml.SGD, "lr, momentum=0.0"),
    (ml.Adam.step, "self, params, grads"),
    (ml.Adam.state_dict, "self"),
    (ml.Adam.load_state_dict, "self, state"),
    (ml.to_torch_state_dict, "params, config"),
    (ml.from_torch_state_dict, "state_dict, config"),
    (ml.to_device, "tree, device"),
    (ml.to_host, "tree"),
    (ml.LanguageModel, "config, params, vocab"),
    (ml.LanguageModel.to, "self, device"),
    (ml.LanguageModel.generate, SAMPLING),
    (ml.LanguageModel.stream, SAMPLING),
    (ml.LanguageModel.evaluate, "self, text, streams=1, window=None"),
    (ml.gradcheck.complex_step, "f, arrays, grads"),
    (ml.gradcheck.central_differences, "f, arrays, grads"),
    (ml.gradcheck.directional, "f, arrays, grads"),
]


@pytest.mark.parametrize(
    "function, promised", CALLING_FORMS, ids=[f.__qualname__ for f, _ in CALLING_FORMS]
)
def test_arguments_have_the_promised_names_order_and_defaults(function, promised):
    """More may follow, but not come between."""
    parts = []
    for p in inspect.signature(function).parameters.values():
        if p.kind is p.POSITIONAL_OR_KEYWORD:
            parts.append(p.name if p.default is p.empty else f"{p.name}={p.default!r}")
    assert ", ".join(parts).startswith(promised)


def test_settings_of_a_model_go_by_name():
    named = {"vocab_size": 5, "hidden_size": 4, "num_layers": 2, "embedding_size": 4,
             "tie_weights": True, "init": "pytorch", "forget_bias": 1.0}  # fmt: skip
    config = ml.ModelConfig(**named)
    assert {name: getattr(config, name) for name in named} == named


def test_everything_that_is_listed_exists_and_names_are_listed_once():
    assert len(set(ml.__all__)) == len(ml.__all__)
    for name in ml.__all__:
        assert getattr(ml, name) is not None


def test_everything_public_is_listed():
    functions = {f.__qualname__ for f, _ in CALLING_FORMS if "." not in f.__qualname__}
    functions -= {"complex_step", "central_differences", "directional"}
    assert functions <= set(ml.__all__)


def test_importing_minilstm_imports_numpy_alone():
    modules = "nn.lstm, nn.loss, model, optim, gradcheck, generation, language_model, text, plots"
    names = ", ".join(f"minilstm.{name}" for name in modules.split(", "))
    code = f"import sys, minilstm, {names}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert {"minilstm", "numpy"} <= loaded
    assert not loaded & {
        "matplotlib", "tqdm", "safetensors", "pooch", "threadpoolctl", "cupy", "torch", "scipy",
    }  # fmt: skip


def test_a_program_in_the_public_names_trains_and_speaks():
    vocab = ml.CharVocabulary.from_text(TEXT)
    ids = vocab.encode(TEXT * 8)
    assert vocab.decode(ids[: len(TEXT)]) == TEXT

    config = ml.ModelConfig(vocab_size=len(vocab), hidden_size=32, embedding_size=8)
    params = ml.to_device(ml.init_params(config, np.random.default_rng(0)), "cpu")
    model = ml.LanguageModel(config, params, vocab).to("cpu")
    before = model.evaluate(TEXT, streams=1)
    optimizer = ml.Adam(lr=2e-2)
    for _ in range(12):
        for inputs, targets, starts in ml.contiguous_streams(ids, 4, 20):
            if starts:
                state = ml.init_state(config, batch_size=4)
            loss, grads, state = ml.loss_and_grads(params, config, inputs, targets, state)
            norm = ml.clip_by_global_norm(grads, max_norm=1.0)
            optimizer.step(params, grads)

    after = model.evaluate(TEXT)
    assert abs(before.loss - np.log(len(vocab))) < 0.3
    assert after.loss < before.loss / 4
    assert (after.tokens, after.accuracy > 0.8) == (len(TEXT) - 1, True)
    assert after.perplexity < before.perplexity
    assert after.bits_per_token < before.bits_per_token
    assert float(loss) < 1
    assert float(norm) > 0
    assert "chuck" in model.generate("how much ", 60, greedy=True)
    assert "".join(model.stream("how", length=5, temperature=0.5, seed=0)) == model.generate(
        "how", length=5, temperature=0.5, seed=0
    ).removeprefix("how")


def seams(params, config, inputs, targets, state):
    """loss_and_grads with its seams visible."""
    logits, state, cache = ml.forward_with_cache(params, config, inputs, state, rng=None)
    loss, dlogits = ml.softmax_cross_entropy(logits, targets)
    grads, _ = ml.backward(dlogits, cache)
    return loss, grads, state


def small_step():
    """A float64 step of a model of two layers: params, config, inputs, targets, state."""
    rng = np.random.default_rng(1)
    config = ml.ModelConfig(vocab_size=7, hidden_size=4, num_layers=2, embedding_size=3)
    params = ml.init_params(config, rng, dtype=np.float64)
    inputs, targets = rng.integers(0, 7, (2, 5, 3))
    return params, config, inputs, targets, tuple(rng.normal(size=(2, 2, 3, 4)))


def test_the_step_and_its_seams_give_the_same():
    whole, parts = ml.loss_and_grads(*small_step(), rng=None), seams(*small_step())
    assert float(whole[0]) == pytest.approx(float(parts[0]), rel=1e-14)
    assert whole[1].keys() == parts[1].keys() == small_step()[0].keys()
    for name, g in whole[1].items():
        assert g.shape == small_step()[0][name].shape
        np.testing.assert_allclose(parts[1][name], g, rtol=0, atol=1e-14 * np.abs(g).max())
    for one, other in zip(whole[2], parts[2], strict=True):
        np.testing.assert_array_equal(one, other)


def test_gradients_of_a_chosen_scalar_of_everything_check_out():
    """The loss and the final states: what dstate is for."""
    params, config, inputs, targets, (h_0, c_0) = small_step()
    w_h, w_c = np.random.default_rng(2).normal(size=(2, 2, 3, 4))

    def f(a):
        logits, (h, c) = ml.forward(a, config, inputs, (a["h_0"], a["c_0"]))
        return ml.softmax_cross_entropy(logits, targets)[0] + (w_h * h + w_c * c).sum()

    logits, _, cache = ml.forward_with_cache(params, config, inputs, (h_0, c_0))
    _, dlogits = ml.softmax_cross_entropy(logits, targets)
    grads, (dh_0, dc_0) = ml.backward(dlogits, cache, dstate=(w_h, w_c))
    arrays = params | {"h_0": h_0, "c_0": c_0}
    ml.gradcheck.complex_step(f, arrays, grads | {"h_0": dh_0, "c_0": dc_0})


def test_weights_go_to_pytorch_and_back_bit_for_bit():
    params, config, *_ = small_step()
    back = ml.from_torch_state_dict(ml.to_torch_state_dict(params, config), config)
    assert back.keys() == params.keys()
    for name in params:
        np.testing.assert_array_equal(back[name], params[name], strict=True)


def test_trees_of_arrays_keep_their_shape_on_the_way_to_a_device():
    tree = {"a": (np.ones(2), [np.zeros(3), None]), "b": 4}
    for moved in (ml.to_device(tree, "cpu"), ml.to_host(tree)):
        assert moved["a"][0] is tree["a"][0]
        assert moved["a"][1][1] is None
        assert moved["b"] == 4


RUNS = {"eval", "exec", "compile", "__import__", "import_module", "system", "popen"}
RUNNERS = {"pickle", "marshal", "shelve", "dill", "joblib", "torch", "builtins", "importlib",
           "runpy", "subprocess", "code", "ctypes"}  # fmt: skip
OWN_LOADERS = ("ml.LanguageModel", "safetensors.numpy", "settings.DataConfig(")


def what_could_execute(source):
    """The lines that call what runs or unpickles its argument, or import a module that does."""
    for node in ast.walk(ast.parse(source)):
        bad = isinstance(node, ast.Name) and node.id in RUNS
        if isinstance(node, ast.Import):
            bad = bool({alias.name.split(".")[0] for alias in node.names} & RUNNERS)
        if isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            bad = (node.module or "").split(".")[0] in RUNNERS or bool(names & (RUNS | {"load"}))
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            bad = node.attr in RUNS and owner != "re"
            bad |= node.attr == "load" and not owner.startswith(OWN_LOADERS)
        if bad:
            yield node.lineno


def test_nothing_in_the_package_calls_what_executes_a_files_content():
    """No eval, exec or compile by any name, no module that unpickles or runs what it is given, no
    `load` but our own and safetensors'. (Processes that share a batch talk through
    multiprocessing's pipes, which pickle; nobody else can write into those.)"""
    for path in Path(ml.__file__).parent.rglob("*.py"):
        assert list(what_could_execute(path.read_text(encoding="utf-8"))) == [], path.name


@pytest.mark.parametrize(
    "source",
    ["eval('1')", "builtins.eval('1')", "numpy.load(f)", "from numpy import load", "import torch.x",
     "from os import system", "os.system('x')", "importlib.import_module(n)"],
)  # fmt: skip
def test_what_could_execute_is_found(source):
    assert list(what_could_execute(source)) == [1]
