"""minilstm plot, convert, info, data and gradcheck."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from running import assert_same, files, weights
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch_file
from torch_reference import TorchModel, torch_model

import minilstm as ml
from minilstm import gradcheck, inside, plots, workers
from minilstm.checkpoint import read_checkpoint, read_run
from minilstm.memory import estimate_memory
from minilstm.metrics import read_rows
from minilstm.text import downloads
from minilstm.text.corpora import load_corpus

# --- plot


@pytest.fixture
def drawn(monkeypatch):
    """The axes that would be saved, in order."""
    saved = []
    monkeypatch.setattr(plots, "save", lambda ax, path: saved.append(ax) or path)
    return saved


def test_a_picture_is_written_and_its_path_told(on_run, tmp_path):
    path = tmp_path / "folder" / "loss.png"
    done = on_run("plot", "run", "--what", "loss", "--out", path)
    assert (done.code, done.out) == (0, f"{path}\n")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_loss_is_that_of_metrics_csv(on_run, tmp_path, drawn):
    on_run("plot", "run", "--out", tmp_path / "loss.png")  # the loss, unless told otherwise
    training, validation, uniform, unigram = drawn[0].lines
    rows = read_rows(read_run("run").path / "metrics.csv")
    assert list(training.get_ydata()) == [row["train_loss"] for row in rows]
    assert list(validation.get_xdata()) == [4, 8, 12]
    assert uniform.get_ydata()[0] == pytest.approx(np.log(27))
    assert unigram.get_ydata()[0] == pytest.approx(load_corpus("text.txt").unigram_entropy())


def test_gates_are_those_of_the_text(on_run, tmp_path, drawn):
    done = on_run("plot", "run", "--what", "gates", "--text", "to be", "--out", tmp_path / "g.svg")
    assert done.code == 0
    labels = [label.get_text() for label in drawn[0].get_xticklabels()]
    assert labels == list("to␣be")
    assert drawn[0].images[0].get_array().shape == (8, 5)


def test_without_a_text_it_looks_at_what_the_model_writes(on_run, tmp_path, drawn):
    on_run("plot", "run", "--what", "gates", "--out", tmp_path / "g.png")
    on_run("plot", "run", "--what", "gates", "--out", tmp_path / "g.png")
    lowest = [ax.figure.axes[4] for ax in drawn]  # of five, which alone has the labels
    first, second = ([label.get_text() for label in ax.get_xticklabels()] for ax in lowest)
    assert first == second
    assert len(first) == 16


def test_gradient_flow_is_the_gradient_of_the_last_loss_at_every_state(on_run, tmp_path, drawn):
    text = "to be, or"
    flow = ["--what", "gradient-flow", "--text", text, "--out", tmp_path / "f.png"]
    assert on_run("plot", "run", *flow).code == 0
    ax = drawn[0]
    assert ax.get_yscale() == "log"
    dh, dc = (np.asarray(line.get_ydata()) for line in ax.lines)
    # The same by autograd: states as leaves, one step at a time.
    model = ml.LanguageModel.load("run")
    reference = torch_model(model.params, model.config)
    ids = torch.from_numpy(model.vocab.encode(text))[:, None]
    states, state = [], None
    for t in range(len(ids) - 1):
        x = reference.embedding(ids[t : t + 1])
        out, state = reference.lstm(x, state)
        state[0].retain_grad()
        states.append(state[0])
    torch.nn.functional.cross_entropy(reference.fc(out)[0], ids[-1]).backward()
    wanted = [float(h.grad[-1].norm()) for h in states[:-1]]
    np.testing.assert_allclose(dh, wanted, rtol=1e-4)
    norms = inside.gradient_norms(model.params, model.config, model.vocab.encode(text))
    np.testing.assert_array_equal(dc, norms[1])
    assert len(dh) == len(text) - 2


@pytest.mark.parametrize(
    "what, shape",
    [("gradient-reach", (5, 5)), ("gradient-terms", (8, 32)), ("next-tokens", (5, 6))],
)
def test_a_picture_of_a_text_has_its_shape(on_run, tmp_path, drawn, what, shape):
    done = on_run("plot", "run", "--what", what, "--text", "to be ", "--out", tmp_path / "x.png")
    assert (done.code, done.err) == (0, "")
    assert drawn[0].images[0].get_array().shape == shape


def test_saturation_has_a_point_for_each_unit(on_run, tmp_path, drawn):
    assert on_run("plot", "run", "--what", "saturation", "--out", tmp_path / "s.png").code == 0
    assert len(drawn[0].lines[-1].get_xdata()) == 8


def test_a_cell_is_named_or_found(on_run, tmp_path, drawn):
    cell = ["--what", "cell", "--text", "to be or not to be", "--out", tmp_path / "c.png"]
    named = on_run("plot", "run", *cell, "--unit", "3")
    assert named.out.splitlines()[0] == "unit 3 of layer 0"
    found = on_run("plot", "run", *cell, "--follows", "word")
    r = r"-?[01]\.\d\d"
    told = rf"unit \d of layer \d follows word best: r = {r} in the text's first half, {r} in "
    assert re.match(told, found.out)
    assert [len(ax.texts) for ax in drawn] == [18, 18]


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--what", "loss", "--out", "x.gif"], "a picture must end in .png, .svg or .pdf"),
        (["--what", "loss", "--text", "to", "--out", "x.png"], "--text has no part in --what loss"),
        (["--what", "gates", "--text", "", "--out", "x.png"], "--text must have at least 1 token"),
        (["--what", "gates", "--text", "a" * 101, "--out", "x.png"], "can show 100 tokens"),
        (["--what", "gates", "--text", "é", "--out", "x.png"], "'é' at index 0"),
        (["--what", "gradient-flow", "--text", "to", "--out", "x.png"], "at least 3 tokens, got 2"),
        (["--what", "loss", "--chunk", "4", "--out", "x.png"], "--chunk has no part in"),
        (["--what", "gates", "--unit", "4", "--out", "x.png"], "--unit has no part in"),
        (["--what", "gradient-reach", "--chunk", "0", "--out", "x.png"], "--chunk must be a posi"),
        (["--what", "cell", "--out", "x.png"], "--follows or --unit (and --layer), got none"),
        (["--what", "cell", "--layer", "0", "--out", "x.png"], "--layer), got --layer"),
        (["--what", "cell", "--unit", "8", "--out", "x.png"], "--unit must be below 8, got 8"),
        (["--what", "cell", "--unit", "0", "--layer", "9", "--out", "x.png"], "--layer must be be"),
        (["--what", "cell", "--follows", "quotes", "--text", "to be", "--out", "x.png"],
         "must have what is to be followed: quotes, got 'to be'"),
        (["--what", "weights", "--out", "x.png"], "invalid choice: 'weights'"),
        (["--what", "loss"], "--out"),
    ],
)
def test_a_picture_that_cannot_be_is_refused(on_run, trained, flags, message):
    before = files(trained)
    done = on_run("plot", "run", *flags)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert files(trained) == before


# --- convert


@pytest.mark.parametrize("flags", [[], ["--tie-weights", "--embedding-size", "8"],
                                   ["--num-layers", "2", "--embedding-size", "none"]])  # fmt: skip
def test_a_run_becomes_the_weights_of_a_pytorch_module_with_the_same_loss(train, cli, flags):
    train(*flags)
    done = cli("convert", "run", "--to", "torch", "--out", "run.safetensors")
    assert (done.code, done.out, done.err) == (0, "run.safetensors\n", "")
    module = TorchModel(read_run("run").config)
    module.load_state_dict(load_torch_file("run.safetensors"), strict=True)
    ids = torch.from_numpy(load_corpus("text.txt").valid.astype(np.int64))[:, None]
    with torch.no_grad():
        logits, _ = module(ids[:-1], None)
    loss = torch.nn.functional.cross_entropy(logits[:, 0].double(), ids[1:, 0])
    figures = json.loads(cli("eval", "run", "--json").out)
    assert figures["loss"] == pytest.approx(float(loss), abs=1e-6)


def test_and_back_into_a_run_with_the_same_weights_vocabulary_and_settings(on_run, tmp_path):
    file, new = tmp_path / "run.safetensors", tmp_path / "new"
    on_run("convert", "run", "--to", "torch", "--out", file)
    done = on_run("convert", file, "--from", "torch", "--like", "run", "--out", new)
    assert (done.code, done.out, done.err) == (0, f"{new}\n", "")
    assert_same(weights(new), weights("run"))
    was, now = read_run("run"), read_run(new)
    assert (now.config, now.vocabulary, now.extra) == (was.config, was.vocabulary, was.extra)
    figures = on_run("eval", "run", "--json").out
    assert on_run("eval", new, "--json").out == figures.replace('"run": "run"', f'"run": "{new}"')


def test_what_pytorch_has_trained_since_is_what_comes_back(on_run, tmp_path):
    file, new = tmp_path / "run.safetensors", tmp_path / "new"
    on_run("convert", "run", "--to", "torch", "--out", file)
    tensors = load_file(file)
    tensors["fc.bias"] += 1
    tensors["lstm.bias_hh_l0"] += 2  # the second bias, which minilstm adds to the first
    save_file(tensors, file)
    assert on_run("convert", file, "--from", "torch", "--like", "run", "--out", new).code == 0
    assert_same(weights(new), weights("run") | {
        "fc.b": weights("run")["fc.b"] + 1, "lstm0.b": weights("run")["lstm0.b"] + 2,
    })  # fmt: skip


@pytest.fixture
def tensors(on_run, tmp_path):
    on_run("convert", "run", "--to", "torch", "--out", tmp_path / "good.safetensors")
    return load_file(tmp_path / "good.safetensors")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"fc.bias": None}, r"missing ['fc.bias']"),
        ({"more": np.zeros(2, np.float32)}, r"unexpected ['more']"),
        ({"fc.bias": np.zeros(3, np.float32)}, "fc.bias must have shape (27,), got (3,)"),
        ({"fc.bias": np.full(27, np.nan, np.float32)}, "fc.b"),
        ({"fc.bias": np.zeros(27, np.int64)}, "fc.bias must be float32 or float64, got int64"),
        ({"fc.bias": np.zeros(27, np.float64)}, "fc.b"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_refused(on_run, tmp_path, tensors, change, message):
    changed = {name: t for name, t in (tensors | change).items() if t is not None}
    save_file(changed, tmp_path / "bad.safetensors")
    new = tmp_path / "new"
    like = ["--from", "torch", "--like", "run"]
    done = on_run("convert", tmp_path / "bad.safetensors", *like, "--out", new)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert not new.exists()


def test_bfloat16_is_named_and_refused(on_run, tmp_path, tensors):
    from safetensors.torch import save_file as save_torch_file

    half = {name: torch.from_numpy(t).bfloat16() for name, t in tensors.items()}
    save_torch_file(half, tmp_path / "bad.safetensors")
    done = on_run("convert", tmp_path / "bad.safetensors", "--from", "torch", "--like", "run",
                  "--out", tmp_path / "new")  # fmt: skip
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "of F32 or F64" in done.err
    assert "bfloat16" in done.err


def test_nothing_is_overwritten_by_a_converted_run(trained, cli, folder):
    shutil.copytree(trained / "run", "run")
    cli("convert", "run", "--to", "torch", "--out", "f.safetensors")
    before = files(folder)
    for flags in (
        ["f.safetensors", "--from", "torch", "--like", "run", "--out", "run"],
        ["f.safetensors", "--from", "torch", "--out", "new"],
        ["none.safetensors", "--from", "torch", "--like", "run", "--out", "new"],
        ["text.txt", "--from", "torch", "--like", "run", "--out", "new"],
        ["run", "--to", "torch", "--out", "run"],
        ["run", "--to", "torch", "--out", "f.pt"],
        ["run", "--to", "torch", "--like", "run", "--out", "g.safetensors"],
        ["run", "--to", "keras", "--out", "g.safetensors"],
        ["run", "--out", "g.safetensors"],
    ):
        done = cli("convert", *flags)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), flags
        assert files(folder) == before
    assert cli("convert", "run", "--to", "torch", "--out", "text.txt/f.safetensors").code == 1


# --- info


def test_info_tells_what_computes(cli):
    versions, device = cli("info").out.splitlines()
    assert versions.startswith(f"minilstm {ml.__version__}, numpy {np.__version__}, python 3.")
    assert device.startswith("device: cpu; threads of matrix products: ")


def test_info_on_a_run_tells_its_size_and_how_far_it_is(on_run):
    lines = on_run("info", "run").out.splitlines()
    config = read_run("run").config
    memory = estimate_memory(config, 4, 9)
    parameters = ml.LanguageModel.load("run").parameter_count
    assert f"{parameters:,} parameters, float32" in lines
    (line,) = (line for line in lines if line.startswith("memory of a training step with 4 x 9"))
    assert f"tokens: {memory['total'] / 1e6:.1f} MB (parameters " in line
    assert "  embedding_size = 5" in lines
    for which in ("best", "last"):
        step = read_checkpoint(read_run("run"), which).step
        assert f"{which}: step {step} of 12" in lines


def test_info_on_settings_tells_the_same_as_a_dry_run(cli):
    flags = ["--data", "text.txt", "--hidden-size", "20"]
    told = cli("info", *flags).out.splitlines()[2:]
    planned = cli("train", *flags, "--dry-run").out.splitlines()
    assert [f"# {line}" for line in told] == planned[1 : 1 + len(told)]
    assert any("memory of a training step with 32 x 64 tokens" in line for line in told)


def test_info_counts_as_many_processes_as_the_threads_allow(cli, monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    flags = ["--data", "text.txt", "--batch-size", "32", "--hidden-size",
             "128", "--seq-len", "32"]  # fmt: skip
    assert "program 80.0 MB" in cli("info", *flags, "--threads", "1").out
    monkeypatch.setattr(workers, "threads_now", lambda: 2)
    assert "program 95.0 MB" in cli("info", *flags).out


def test_info_counts_the_best_weights_only_where_a_text_validates(cli):
    assert "best weights 0.0 MB" in cli("info", "--preset", "hello").out
    assert "best weights 0.3 MB" in cli("info", "--data", "text.txt").out


def test_info_on_a_run_and_settings_at_once_is_refused(on_run):
    assert on_run("info", "run", "--lr", "1").code == 2
    assert on_run("info", "run", "--device", "cpu").code == 0


# --- data


@pytest.fixture
def corpora(monkeypatch, folder):
    """One small corpus of two files, of which the folder has one, and another in one's place."""
    monkeypatch.setenv("MINILSTM_DATA", str(folder))
    import hashlib

    def file(name, text):
        digest = hashlib.sha256(text).hexdigest()
        return downloads.DataFile(name, len(text), digest, (f"https://example.org/{name}",))

    tiny = {"train": file("train.txt", b"to be"), "valid": file("valid.txt", b"or not")}
    for module in ("minilstm.text.downloads", "minilstm.cli.data"):
        monkeypatch.setattr(f"{module}.CORPORA", {"hello": {}, "tiny": tiny})
    (folder / "train.txt").write_bytes(b"to be")
    return folder


def test_corpora_are_listed_with_files_digests_and_addresses(cli, corpora):
    done = cli("data", "list")
    assert done.code == 0
    tiny = f"tiny: 11 bytes, in {corpora}\n  ok       train.txt  5 bytes  sha256 "
    assert done.out.startswith(f"hello: built in\n{tiny}")
    assert "\n  missing  valid.txt  6 bytes  sha256 " in done.out
    assert "    https://example.org/valid.txt\n" in done.out
    assert cli("data", "list", "hello").out == "hello: built in\n"


def test_files_are_verified_and_the_exit_code_tells(cli, corpora):
    done = cli("data", "verify")
    assert done.code == 1
    assert done.out == f"ok       {corpora / 'train.txt'}\nmissing  {corpora / 'valid.txt'}\n"
    assert done.err == "error: 1 of 2 files are missing or wrong\n"
    (corpora / "valid.txt").write_bytes(b"or so?")
    assert f"wrong    {corpora / 'valid.txt'}\n" in cli("data", "verify", "tiny").out
    (corpora / "valid.txt").write_bytes(b"or not")
    done = cli("data", "verify", "tiny")
    assert (done.code, done.err) == (0, "")


def test_what_is_there_is_not_fetched_and_what_is_missing_is_named(cli, corpora):
    done = cli("data", "fetch", "tiny")
    assert done.code == 2
    assert str(corpora / "valid.txt") in done.err
    (corpora / "valid.txt").write_bytes(b"or not")
    done = cli("data", "fetch")
    paths = {split: corpora / f"{split}.txt" for split in ("train", "valid")}
    assert done.out.endswith("".join(f"tiny {split}: {path}\n" for split, path in paths.items()))
    assert cli("data", "fetch", "hello").out == "hello: built in\n"


def test_the_path_of_the_folder_and_of_a_corpus(cli, corpora):
    assert cli("data", "path").out == f"{corpora}\n"
    assert cli("data", "path", "tiny").out == f"{corpora}/train.txt\n{corpora}/valid.txt\n"


def test_a_corpus_that_is_not_there_is_named(cli, corpora):
    for action in ("list", "fetch", "verify", "path"):
        done = cli("data", action, "shakespear")
        assert (done.code, done.out) == (2, "")
        assert "got 'shakespear'" in done.err
    assert cli("data", "steal").code == 2
    assert cli("data").code == 2


# --- gradcheck


def test_every_gradient_passes(cli):
    done = cli("gradcheck", "--layers", "1", "--one-hot", "--seed", "1")
    assert (done.code, done.err) == (0, "")
    assert "L = 1, T = 5, B = 2, V = 6, E = None, H = 4, float64" in done.out
    assert "every entry passes" in done.out


def test_a_wrong_gradient_fails_and_is_named(cli, monkeypatch):
    def wrong(*arguments, **options):
        grads, dstate = right(*arguments, **options)
        return grads | {"lstm0.b": grads["lstm0.b"] * 1.001}, dstate

    right = ml.backward
    monkeypatch.setattr(ml, "backward", wrong)
    done = cli("gradcheck", "--layers", "1", "--one-hot")
    assert done.code == 1
    assert done.err == "error: the gradient is wrong of lstm0.b\n"
    assert re.search(r"^lstm0.b .* WRONG$", done.out, re.M)
    assert re.search(r"^lstm0.W_h .* ok$", done.out, re.M)
    assert re.search(r"^lstm0.b\[\d+\]: analytic \S+, numeric \S+, off by", done.out, re.M)
    assert "every entry passes" not in done.out
    assert gradcheck.GradientError.__name__ not in done.err
