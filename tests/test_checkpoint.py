"""Checkpoints: bit for bit what was written, complete or not there, and refused where damaged."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import random
import resource
import shutil
import stat
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from strict_array import standing_in_for_cupy

import minilstm
from minilstm import checkpoint
from minilstm.checkpoint import (
    Checkpoint,
    has_checkpoint,
    holds_run,
    load_model,
    locked,
    point,
    prune,
    read_checkpoint,
    read_run,
    save_model,
    write_checkpoint,
    write_run,
)
from minilstm.errors import InputError
from minilstm.model import ModelConfig, init_params, init_state
from minilstm.optim import Adam
from minilstm.text.vocabulary import CharVocabulary

VOCABULARY = CharVocabulary.from_text("hell\x1b", unknown="<unk>")
CONFIG = ModelConfig(5, hidden_size=3, num_layers=2, embedding_size=4, dropout=0.25, forget_bias=1)
EXTRA = {"train": {"lr": 0.1, "threads": None}, "corpus": "hello ☺"}
TIED = ModelConfig(5, hidden_size=3, embedding_size=3, tie_weights=True)
ONE_HOT = ModelConfig(5, hidden_size=2, num_layers=3)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """What is forced to the disk, and when, is asserted below; the waiting alone is left out."""
    monkeypatch.setattr(os, "fsync", os.fstat)


def new_checkpoint(step=7, config=CONFIG, dtype=np.float32, B=6):
    """Every part there, every number random."""
    rng = np.random.default_rng(step)
    params = init_params(config, rng, dtype)
    adam = Adam()
    for _ in range(2):
        adam.step(params, {k: rng.normal(size=p.shape).astype(dtype) for k, p in params.items()})
    carry = tuple(rng.normal(size=x.shape).astype(dtype) for x in init_state(config, B))
    progress = {"best_loss": rng.normal(), "epoch": 3, "plateau": {"bad": 0, "best": None}}
    return Checkpoint(step, params, adam.state_dict(), carry, progress)


def new_run(path, *steps, config=CONFIG):
    """A run whose last checkpoint of these steps is both best and last."""
    run = write_run(path, config, VOCABULARY, EXTRA)
    for step in steps:
        name = write_checkpoint(run, new_checkpoint(step, config))
        point(run, "best", name)
        point(run, "last", name)
    return run


def leaves(value, name=""):
    """(path, leaf) of everything nested."""
    value = vars(value) if isinstance(value, Checkpoint) else value
    if isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, f"{name}/{key}")
        yield name, type(value)
    else:
        yield name, value


def assert_equal(found, wanted):
    """The same nested structure and types, arrays equal bit for bit, in the same order."""
    found, wanted = list(leaves(found)), list(leaves(wanted))
    assert [name for name, _ in found] == [name for name, _ in wanted]
    for (name, a), (_, b) in zip(found, wanted, strict=True):
        assert type(a) is type(b), name
        if isinstance(b, np.ndarray):
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), name
        else:
            assert a == b, name


def tree(path):
    """Everything below a folder: relative path -> bytes, or where a link leads, or None."""
    found = {}
    for p in sorted(path.rglob("*")):
        content = p.read_bytes() if p.is_file() else None
        found[str(p.relative_to(path))] = os.readlink(p) if p.is_symlink() else content
    return found


# --- what is written is what is read


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("config", [CONFIG, TIED, ONE_HOT], ids=["plain", "tied", "one-hot"])
def test_a_checkpoint_is_read_back_bit_for_bit(tmp_path, config, dtype):
    run = write_run(tmp_path / "run", config, VOCABULARY, EXTRA)
    wanted = new_checkpoint(config=config, dtype=dtype)
    wanted.params["fc.b"][:] = [-0.0, 1e-45, -1e-45, np.finfo(np.float32).max, 1.0]
    point(run, "last", write_checkpoint(run, wanted))
    found_run = read_run(tmp_path / "run")
    assert found_run == run
    assert (found_run.config, found_run.vocabulary, found_run.extra) == (config, VOCABULARY, EXTRA)
    found = read_checkpoint(found_run, "last")
    assert_equal(found, wanted)
    assert all(p.flags.writeable and p.flags.c_contiguous for p in found.params.values())


@pytest.mark.parametrize("optimizer", [None, Adam().state_dict(), {"steps": 3}])
def test_parts_that_are_not_there_stay_so(tmp_path, optimizer):
    run = write_run(tmp_path, CONFIG, VOCABULARY)
    wanted = Checkpoint(0, new_checkpoint().params, optimizer)
    point(run, "best", write_checkpoint(run, wanted))
    assert_equal(read_checkpoint(run), wanted)


def test_an_optimizer_continues_from_what_was_read(tmp_path):
    wanted, found = new_checkpoint(4), read_checkpoint(new_run(tmp_path, 4))
    for each in (wanted, found):
        adam = Adam()
        adam.load_state_dict(each.optimizer)
        adam.step(each.params, {name: np.full_like(p, 0.3) for name, p in wanted.params.items()})
    assert_equal(found.params, wanted.params)


VIEWS = {
    "Fortran order": np.asfortranarray,
    "every other column": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "on a GPU": None,
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_arrays_are_written_as_what_they_show_wherever_they_are(tmp_path, view):
    """safetensors writes their memory in its order, without a word."""
    plain = new_checkpoint()
    with standing_in_for_cupy() as xp:
        view = view or xp.asarray
        moments = {m: {k: view(a) for k, a in plain.optimizer[m].items()} for m in ("m", "v")}
        params = {name: view(p) for name, p in plain.params.items()}
        carry = tuple(view(x) for x in plain.carry)
        shown = Checkpoint(7, params, {"steps": 2, **moments}, carry, plain.progress)
        run = write_run(tmp_path, CONFIG, VOCABULARY)
        point(run, "best", write_checkpoint(run, shown))
    assert_equal(read_checkpoint(run), plain)


def test_numbers_of_numpy_in_config_and_progress_become_plain_json(tmp_path):
    config = ModelConfig(np.int64(5), np.int32(3), dropout=0, output_dropout=np.float32(0.5))
    run = write_run(tmp_path, config, VOCABULARY, {"steps": np.int64(9)})
    assert (run.config, run.extra, type(run.config.vocab_size)) == (config, {"steps": 9}, int)
    progress = {"loss": np.float64(0.1), "n": np.uint8(7), "done": np.bool_(True)}
    params = init_params(config, np.random.default_rng(0))
    point(run, "best", write_checkpoint(run, Checkpoint(1, params, progress=progress)))
    assert read_checkpoint(run).progress == {"loss": 0.1, "n": 7, "done": True}


def test_a_vocabulary_of_control_characters_and_half_surrogates_is_ascii_on_disk(tmp_path):
    vocabulary = CharVocabulary(("\x1b", "\ud800", "é", "\u202e", "☺"))
    write_run(tmp_path, CONFIG, vocabulary)
    assert read_run(tmp_path).vocabulary == vocabulary
    data = (tmp_path / "vocabulary.json").read_bytes()
    assert all(32 <= byte < 127 or byte == 10 for byte in data)


def test_files_can_be_read_by_those_whom_the_umask_lets(tmp_path):
    before = os.umask(0o027)
    try:
        new_run(tmp_path / "run", 1)
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert modes == {0o640}


def test_a_model_is_loaded_without_its_optimizer(tmp_path):
    run = new_run(tmp_path, 3)
    (tmp_path / "checkpoints/step-00000003/state.safetensors").unlink()
    config, params, vocabulary = load_model(tmp_path)
    assert (config, vocabulary) == (CONFIG, VOCABULARY)
    assert_equal(params, new_checkpoint(3).params)
    with pytest.raises(InputError, match=r"state\.safetensors is missing"):
        read_checkpoint(run)


def test_importing_the_module_imports_no_safetensors():
    code = "import sys, minilstm.checkpoint; sys.exit('safetensors' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- best, last, prune; run folders


def test_best_and_last_name_checkpoints_of_their_own(tmp_path):
    run = write_run(tmp_path, CONFIG, VOCABULARY)
    for which, step in (("best", 1), ("last", 2)):
        assert not has_checkpoint(run, which)
        point(run, which, write_checkpoint(run, new_checkpoint(step)))
        assert has_checkpoint(run, which)
    assert (tmp_path / "best").read_text().startswith("step-00000001: ")
    assert_equal(read_checkpoint(run), new_checkpoint(1))
    assert_equal(read_checkpoint(run, "last"), new_checkpoint(2))


def test_prune_leaves_what_a_pointer_names_and_what_is_not_ours(tmp_path):
    run = new_run(tmp_path, 1, 2)
    point(run, "best", "step-00000001")
    for own in ("notes", "step-1", "my-step-00000001", ".tmp"):
        (tmp_path / "checkpoints" / own).mkdir()
    wanted = tree(tmp_path)
    for step in (3, 123456789):
        write_checkpoint(run, new_checkpoint(step))
    for left_over in (".new", "step-00000004"):
        (tmp_path / "checkpoints" / left_over).mkdir()
        (tmp_path / "checkpoints" / left_over / "weights.safetensors").write_bytes(b"half")
    for _ in range(2):
        prune(run)
        assert tree(tmp_path) == wanted
    (tmp_path / "best").write_text("step-0000")  # damaged: nothing is removed
    wanted = tree(tmp_path)
    with pytest.raises(InputError, match="best must name a checkpoint"):
        prune(run)
    assert tree(tmp_path) == wanted


def test_a_second_checkpoint_of_a_step_stands_beside_the_first(tmp_path):
    run = new_run(tmp_path, 5)
    before = tree(tmp_path)
    names = [write_checkpoint(run, new_checkpoint(5)) for _ in range(2)]
    assert names == ["step-00000005+", "step-00000005++"]
    assert before.items() <= tree(tmp_path).items()
    point(run, "best", names[1])
    assert_equal(read_checkpoint(run), new_checkpoint(5))
    prune(run)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["step-00000005", names[1]]


@pytest.mark.parametrize("name", ["", "step-1", "../x", "step-00000001/../..", "step-00000009"])
def test_a_pointer_is_only_moved_to_a_checkpoint_that_is_there(tmp_path, name):
    run = new_run(tmp_path, 1)
    before = tree(tmp_path)
    with pytest.raises(InputError, match="step-"):
        point(run, "best", name)
    assert tree(tmp_path) == before


def test_a_run_or_what_is_left_of_one_is_not_overwritten_unless_asked(tmp_path):
    for name in ("best", "last", "config.json"):
        (tmp_path / "left").mkdir(exist_ok=True)
        assert not holds_run(tmp_path / "left")
        (tmp_path / "left" / name).touch()
        assert holds_run(tmp_path / "left")
        with pytest.raises(InputError, match="holds a run already"):
            write_run(tmp_path / "left", CONFIG, VOCABULARY)
        (tmp_path / "left" / name).unlink()
    path = tmp_path / "run"
    new_run(path, 1)
    before = tree(path)
    with pytest.raises(InputError, match="holds a run already"):
        write_run(path, CONFIG, VOCABULARY)
    with pytest.raises(InputError, match="holds another run already"):
        save_model(path, CONFIG, new_checkpoint(2).params, VOCABULARY)
    assert tree(path) == before
    run = write_run(path, ONE_HOT, VOCABULARY, overwrite=True)
    assert read_run(path) == run
    assert sorted(tree(path)) == ["checkpoints", "config.json", "vocabulary.json"]


def test_a_model_saved_again_takes_the_place_of_the_one_before(tmp_path):
    for step in (1, 2):
        save_model(tmp_path, CONFIG, new_checkpoint(step).params, VOCABULARY, EXTRA)
        assert_equal(load_model(tmp_path)[1], new_checkpoint(step).params)
        assert (tmp_path / "best").read_bytes() == (tmp_path / "last").read_bytes()
        assert len(os.listdir(tmp_path / "checkpoints")) == 1
    assert read_run(tmp_path).extra == EXTRA


# --- what is refused on the way in, before anything is written


def changed(**parts):
    return lambda wanted: Checkpoint(**{**vars(wanted), **parts})


def with_param(name, array):
    return lambda wanted: changed(params={**wanted.params, name: array})(wanted)


def with_moment(name, array):
    def change(wanted):
        m = {**wanted.optimizer["m"], name: array}
        return changed(optimizer={**wanted.optimizer, "m": m})(wanted)

    return change


ONES = np.ones(5, np.float32)
UNWRITABLE = {
    "a NaN": (with_param("fc.b", ONES * np.nan), "fc.b holds a NaN"),
    "an infinite moment": (with_moment("fc.b", ONES * np.inf), "m/fc.b holds a NaN or an inf"),
    "another shape": (with_param("fc.b", ONES[:4]), r"fc.b must be \(5,\) float32, got \(4,\)"),
    "another dtype": (with_param("fc.b", np.ones(5)), r"fc.b must be .* float32, got .* float64"),
    "a moment's dtype": (with_moment("fc.b", np.ones(5)), r"m/fc.b must be \(5,\) float32"),
    "one too many": (with_param("x", ONES), "params has an unknown 'x'"),
    "one too few": (lambda w: changed(params=dict(list(w.params.items())[1:]))(w), "lacks 'embed"),
    "none": (changed(params={}), "params lacks 'embedding.W'"),
    "integers": (with_param("embedding.W", np.ones((5, 4), int)), "float32 or float64, got .* int"),
    "big-endian": (with_param("embedding.W", np.ones((5, 4), ">f4")), "float32 or float64, got"),
    "a negative step": (changed(step=-1), "step must be an integer from 0 up, got -1"),
    "no step count": (changed(optimizer={"m": {}}), "steps must be an integer from 0 up, got None"),
    "moments too early": (lambda w: changed(optimizer={**w.optimizer, "steps": 0})(w), "unknown"),
    "moments too late": (changed(optimizer={"steps": 2, "m": {}}), "lacks 'm/embedding.W'"),
    "carry of two axes": (changed(carry=(np.ones((2, 3)),) * 2), r"h must be \(2, 3, 3\) float32"),
    "an infinite loss": (changed(progress={"best": float("inf")}), "Out of range float"),
}


@pytest.mark.parametrize("change, message", UNWRITABLE.values(), ids=UNWRITABLE)
def test_what_could_not_be_read_back_is_not_written(tmp_path, change, message):
    run = new_run(tmp_path, 1)
    before = tree(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        write_checkpoint(run, change(new_checkpoint(2)))
    assert len(str(error.value).splitlines()) == 1
    assert tree(tmp_path) == before


def test_a_run_that_could_not_be_read_back_is_not_begun(tmp_path):
    for arguments, message in (
        ((ModelConfig(6, 3), VOCABULARY), "vocabulary.json: config.json wants 6 symbols, got 5"),
        ((CONFIG, VOCABULARY, {"model": 1}), "multiple values for keyword argument 'model'"),
        ((CONFIG, VOCABULARY, {"lr": float("nan")}), "Out of range float"),
        ((CONFIG, VOCABULARY, {"x": object()}), "doesn't apply to a 'object' object"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            write_run(tmp_path / "run", *arguments)
    with pytest.raises(InputError, match="lacks"):
        save_model(tmp_path / "run", CONFIG, {"fc.b": ONES}, VOCABULARY)
    assert tree(tmp_path) == {}


# --- what is refused on the way out


def as_json(change):
    """A damage: apply change(content) to a file of JSON, in place."""

    def damage(file):
        data = json.loads(file.read_bytes())
        change(data)
        file.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")

    return damage


def put(*names):
    """put("model", "dropout", 1) sets data["model"]["dropout"] = 1; put("format", ...) drops it."""
    *path, last, value = names

    def change(data):
        inner = functools.reduce(lambda d, k: d[k], path, data)
        inner[last] = value
        if value is ...:
            del inner[last]

    return as_json(change)


def reseal(run):
    """What an attacker does: make all fingerprints true again that are there."""
    fingerprint, progress = checkpoint._fingerprint, run / PROGRESS
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        data = json.loads(progress.read_bytes())
        for name, found in data["files"].items():
            for file in (run / name, progress.parent / name):
                if isinstance(found, str) and file.is_file():
                    data["files"][name] = fingerprint(file.read_bytes())
        progress.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")
    (run / "last").write_text(f"step-00000001: {fingerprint(progress.read_bytes())}\n")


def tensors(change):
    """A damage: rewrite a file of tensors, with safetensors, after change(arrays)."""

    def damage(file):
        arrays = safetensors.numpy.load(file.read_bytes())
        change(arrays)
        file.write_bytes(safetensors.numpy.save(arrays))

    return damage


def header(change, length=None, pad=b""):
    """A damage: rewrite a file of tensors with change(header), declaring another length."""

    def damage(file):
        data = file.read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        text = change(data[8:end].decode()).encode() + pad
        size = len(text) if length is None else length
        file.write_bytes(struct.pack("<Q", size) + text + data[end:])

    return damage


def as_text(old, new):
    return lambda file: file.write_text(file.read_text().replace(old, new, 1))


def flip(byte, bit=0):
    def damage(file):
        data = bytearray(file.read_bytes())
        data[byte] ^= 1 << bit
        file.write_bytes(data)

    return damage


def cut(n):
    return lambda file: file.write_bytes(file.read_bytes()[:n])


def write(data):
    return lambda file: file.write_bytes(data)


def linked(file):
    """The same content, but a link to what is now outside."""
    target = Path(f"{file.parent}-elsewhere-{file.name}")
    shutil.move(file, target)
    file.symlink_to(target)


def replaced(make):
    return lambda file: (shutil.rmtree(file) if file.is_dir() else file.unlink(), make(file))


STEP = "checkpoints/step-00000001"
WEIGHTS, STATE = f"{STEP}/weights.safetensors", f"{STEP}/state.safetensors"
PROGRESS, HUGE = f"{STEP}/progress.json", 10**15

# file -> what is done to it: damage -> what the error says after the file's name
NOT_A_FILE = {
    "missing": (Path.unlink, "is missing"),
    "a link": (linked, "must be a plain file, not a link"),
    "a folder": (replaced(Path.mkdir), "must be a plain file"),
    "a pipe": (replaced(os.mkfifo), "must be a plain file"),
    "huge, and sparse": (lambda f: os.truncate(f, 1 << 40), "must have at most .* bytes, got"),
}
CHANGED = {
    "flipped": (flip(-7), "is damaged: it must have"),
    "cut short": (cut(-1), "is damaged: it must have"),
    "longer": (lambda f: f.write_bytes(f.read_bytes() + b"\0"), "is damaged: it must have"),
    "empty": (cut(0), "is damaged: .*got 0 bytes"),
}
DAMAGED = {
    **dict.fromkeys((WEIGHTS, STATE, PROGRESS), NOT_A_FILE | CHANGED),
    "config.json": NOT_A_FILE | {"changed": (as_text("0.25", "0.26"), "has changed since step-0")},
    "vocabulary.json": NOT_A_FILE
    | {"reordered": (as_json(lambda d: d["symbols"].reverse()), "has changed since step-00000001")},
    "last": NOT_A_FILE
    | {
        "empty": (cut(0), "must name a checkpoint, got ''"),
        "a path": (write(b"../../etc"), "must name a checkpoint, got '../../etc'"),
        "a path with a name": (write(b"step-00000001/../x: 1"), "must name a checkpoint"),
        "no text": (write(b"\xff\x1b"), r"got '\\\\xff\\x1b'"),
        "too long": (write(b"step-" + b"1" * 200), "must have at most 200 bytes"),
    },
    STEP: {
        "missing": (shutil.rmtree, "is missing"),
        "a link": (linked, "must be a plain folder, not a link"),
        "a file": (replaced(Path.touch), "must be a plain folder"),
    },
    "checkpoints": {"a link": (linked, "must be a plain folder, not a link")},
}

NO_TENSORS = "is damaged: .*Error while deserializing"
# the same, and then somebody makes the fingerprints true; None: the error names another file
CRAFTED = {
    WEIGHTS: {
        "swapped": (tensors(lambda a: a.update({"lstm0.W_h": a["lstm0.b"]})), r"must be \(3, 12\)"),
        "renamed": (header(lambda h: h.replace("lstm0.b", "lstm9.b")), "lacks 'lstm0.b'"),
        "half double": (tensors(lambda a: a.update({"fc.b": np.ones(5)})), "fc.b must be"),
        "integers": (tensors(lambda a: a.update({"embedding.W": np.ones((5, 4), int)})), "int64"),
        "a dtype NumPy lacks": (
            header(lambda h: h.replace('"F32","shape":[5]', '"BF16","shape":[10]')), "BF16|bfloat"),
        "a NaN": (tensors(lambda a: a["fc.b"].__setitem__(2, np.nan)), "fc.b holds a NaN"),
        "one less": (tensors(lambda a: a.pop("fc.b")), "lacks 'fc.b'"),
        "one more": (tensors(lambda a: a.update({"\x1b[2J": ONES[:0]})), r"unknown '\\x1b\[2J'"),
        "no tensors": (tensors(dict.clear), "lacks 'embedding.W'"),
        "empty": (cut(0), NO_TENSORS),
        "cut in the header": (cut(60), NO_TENSORS),
        "a header of 2^63 bytes": (header(str, length=2**63), NO_TENSORS),
        "a header of no bytes": (header(str, length=0), NO_TENSORS),
        "a header of spaces": (header(str, pad=b" " * 10**6), "must have at most"),
        "a tensor twice": (header(lambda h: h.replace('"lstm0.b"', '"lstm1.b"')), ""),
        "overlapping": (header(lambda h: h.replace('s":[0,', 's":[4,')), NO_TENSORS),
        "huge shapes": (header(lambda h: h.replace("[5]", f"[{HUGE},{HUGE}]")), NO_TENSORS),
        "control characters": (header(lambda h: h.replace('"fc.b"', '"\\u001b"')), r"'\\x1b'"),
    },
    STATE: {
        "one less": (tensors(lambda a: a.pop("m/fc.b")), "lacks 'm/fc.b'"),
        "renamed": (header(lambda h: h.replace("v/fc.b", "v/fc.a")), "an unknown 'v/fc.a'"),
        "a NaN": (tensors(lambda a: a["v/fc.b"].__setitem__(0, np.nan)), "v/fc.b holds a NaN"),
        "infinite carry": (tensors(lambda a: a["carry/c"].fill(np.inf)), "c holds a NaN or"),
        "other carry": (tensors(lambda a: a.update({"carry/h": a["carry/h"].reshape(3, 6, 2)})),
                        r"h must be \(2, 6, 3\) float32, got \(3, 6, 2\)"),
        "doubles": (tensors(lambda a: a.update({k: x.astype(float) for k, x in a.items()})),
                    "must be .* float32, got .* float64"),
    },
    "config.json": {
        "of the future": (put("format", 2), "format must be 1, got 2"),
        "of version true": (put("format", True), "format must be 1, got True"),
        "without a version": (put("format", ...), "format must be 1, got None"),
        "without a model": (put("model", ...), "model must be an object"),
        "a list": (write(b"[\n 1\n]\n"), "format must be 1"),
        "an unknown key": (put("model", "hiden_size", 3), "model has an unknown 'hiden_size'"),
        "a key less": (put("model", "hidden_size", ...), "model lacks 'hidden_size'"),
        "a key twice": (as_text('"init"', '"init": "",\n  "init"'), "is not JSON as it must"),
        "a NaN": (as_text("0.25", "NaN"), "is not JSON as it must be: Out of range"),
        "5,000 digits": (as_text("0.25", "1" * 5000), "is not JSON as it must be"),
        "a size as text": (put("model", "hidden_size", "3"), "hidden_size must be .* got '3'"),
        "a broken size": (put("model", "embedding_size", 4.0), "embedding_size must be .* got 4.0"),
        "dropout 1": (put("model", "dropout", 1), r"dropout must be .*\[0, 1\), got 1$"),
        "a list as init": (put("model", "init", ["pytorch"]), "init must be one of"),
        "huge": (put("model", "hidden_size", HUGE), None),
        "a size of 40 digits": (put("model", "hidden_size", 10**39), None),
        "many layers": (put("model", "num_layers", HUGE), "num_layers must be ≤ 1000"),
        "another vocabulary": (put("model", "vocab_size", 6), None),
        "a huge vocabulary": (put("model", "vocab_size", HUGE), None),
        "a BOM": (lambda f: f.write_bytes(b"\xef\xbb\xbf" + f.read_bytes()), "is not JSON as it"),
        "deep objects": (write(b'{"a":' * 10**5), "is not JSON.* recursion depth"),
    },
    "vocabulary.json": {
        "a symbol twice": (as_json(lambda d: d["symbols"].__setitem__(1, "\x1b")), "distinct"),
        "a symbol less": (as_json(lambda d: d["symbols"].pop(1)), "wants 5 symbols, got 4"),
        "a number": (as_json(lambda d: d["symbols"].__setitem__(0, 1)), "distinct chars, got 1"),
        "another kind": (put("kind", "__import__"), "kind"),
        "a string": (write(b'"hello"\n'), "must be a dict"),
    },
    PROGRESS: {
        "a list": (write(b"[]\n"), "must be an object"),
        "no moments": (put("moments", ...), "lacks 'moments'"),
        "a negative step": (put("step", -1), "step must be an integer from 0 up"),
        "no optimizer": (as_json(lambda d: d.update(moments=[], optimizer_steps=None)), None),
        "no step count": (put("optimizer_steps", None), "optimizer_steps must be an integer"),
        "a huge carry": (put("batch_size", HUGE), None),
        "a carry of 0": (put("batch_size", 0), "batch_size must be a positive"),
        "nine moments": (put("moments", list("abcdefghi")), "moments must be a list of ≤ 8 names"),
        "steps a moment": (put("moments", ["m", "steps"]), "moments must be a list of ≤ 8 names"),
        "numbers as moments": (put("moments", [1, [2]]), None),
        "no progress": (put("progress", []), "progress must be an object"),
        "no weights": (put("files", "weights.safetensors", ...), "files lacks 'weights"),
        "no fingerprint": (put("files", "state.safetensors", None), None),
        "a path": (put("files", "../../config.json", ""), r"files has an unknown '../../config"),
        "control characters": (put("files", "\x1b[2J\n", {}), r"unknown '\\x1b\[2J\\n'"),
    },
}  # fmt: skip
CASES = {f"{file} {name}{', crafted' * crafted}": (file, *case, crafted)
         for crafted, table in enumerate((DAMAGED, CRAFTED))
         for file, cases in table.items() for name, case in cases.items()}  # fmt: skip


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "run"
    new_run(path, 1)
    return path


@pytest.fixture
def damaged(tmp_path, whole_run):
    """A copy of a whole run, to be damaged."""
    return Path(shutil.copytree(whole_run, tmp_path / "run"))


def read_all(path):
    return read_checkpoint(read_run(path), "last")


@pytest.mark.parametrize("file, damage, message, crafted", CASES.values(), ids=CASES)
def test_damage_is_refused_in_a_line_that_names_the_file(damaged, file, damage, message, crafted):
    damage(damaged / file)
    if crafted:
        reseal(damaged)
    named = f"{damaged / file}.*{message}" if message is not None else str(damaged)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=named) as error:
            read_all(damaged)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4e6
    text = str(error.value)
    assert text.isprintable()  # so it is one line, too
    assert len(text) < 700


def test_a_checkpoint_of_another_run_is_refused(tmp_path, damaged):
    other = write_run(tmp_path / "other", CONFIG, VOCABULARY, {"train": {"lr": 0.2}})
    shutil.rmtree(damaged / STEP)
    name = write_checkpoint(other, new_checkpoint(1))
    shutil.copytree(tmp_path / "other/checkpoints" / name, damaged / STEP)
    point(read_run(damaged), "last", name)
    with pytest.raises(InputError, match=r"config\.json has changed since step-00000001"):
        read_all(damaged)


def test_every_bit_counts(damaged):
    """Flipped anywhere, in any file: refused. The last line end of a pointer alone may be lost."""
    reseal(damaged)
    wanted, draw, refused = new_checkpoint(1), random.Random(0), []
    assert_equal(read_all(damaged), wanted)
    files = [p for p in damaged.rglob("*") if p.is_file() and p.name != "best"]
    assert len(files) == 6
    for file in files:
        whole = file.read_bytes()
        for _ in range(25):
            flip(draw.randrange(len(whole)), draw.randrange(8))(file)
            with pytest.raises(InputError) as error:
                read_all(damaged)
            refused.append(str(error.value))
            file.write_bytes(whole)
    assert all(map(str.isprintable, refused))


def test_with_true_fingerprints_the_parsers_refuse_by_name_or_return_finite_numbers(damaged):
    files = [p for p in damaged.rglob("*.*") if p.is_file()]
    assert len(files) == 5
    draw, refused = random.Random(1), []
    progress = (damaged / PROGRESS).read_bytes()
    for file in files:
        whole = file.read_bytes()
        for n in range(24):
            if n % 3 == 0:
                cut(draw.randrange(len(whole)))(file)
            else:  # where the header and most of the JSON is
                flip(draw.randrange(min(900, len(whole))), draw.randrange(8))(file)
            reseal(damaged)
            try:
                for name, leaf in leaves(read_all(damaged)):
                    assert not isinstance(leaf, np.ndarray) or np.isfinite(leaf).all(), name
            except InputError as error:
                refused.append(str(error))
            file.write_bytes(whole)
            (damaged / PROGRESS).write_bytes(progress)
    assert len(refused) > 80
    assert all(map(str.isprintable, refused))


@pytest.mark.parametrize("name", ["checkpoints", STEP])
def test_a_crafted_folder_leads_no_writing_outside(damaged, name):
    outside, victim = damaged.parent / "outside", damaged.parent / "victim"
    shutil.move(damaged / name, outside)
    (damaged / name).symlink_to(outside)
    (damaged / "last").unlink()
    (damaged / "best").unlink()
    victim.write_text("mine")
    for temporary in (".best.tmp", ".last.tmp", ".config.json.tmp"):
        (damaged / temporary).symlink_to(victim)
    before, run = tree(outside), read_run(damaged)
    for act in (
        lambda: point(run, "best", write_checkpoint(run, new_checkpoint(2))),
        lambda: prune(run),
        lambda: write_run(damaged, CONFIG, VOCABULARY, overwrite=True),
    ):
        with contextlib.suppress(InputError, OSError):
            act()
    assert tree(outside) == before
    assert victim.read_text() == "mine"


# --- killed, or refused by the system, at any moment


class Killed(BaseException):
    """Nothing runs after it: not even what cleans up."""


class Faults:
    """Before each system call that changes something, and in the middle of each write, a moment.

    At moment number `at` either the process is killed, from when on no call does anything, or the
    one call fails as on a full disk. `synced` are the files and folders forced to the disk so far.
    """

    def __init__(self, monkeypatch, at=None, kill=True):
        self.at, self.kill, self.moments, self.dead = at, kill, 0, False
        self.synced: set[int] = set()
        self.names: dict[int, str] = {}
        self.log: list[tuple[str, str]] = []
        for name in ("mkdir", "rename", "replace", "fsync", "unlink", "rmdir", "open"):
            monkeypatch.setattr(os, name, self.before(name, getattr(os, name)))
        monkeypatch.setattr(Path, "write_bytes", lambda path, data: self.write(path, data))
        monkeypatch.setattr(safetensors.numpy, "save_file", self.save_file)

    def moment(self):
        if self.dead:
            raise Killed
        self.moments += 1
        if self.moments - 1 == self.at:
            self.dead = self.kill
            raise Killed if self.kill else OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def before(self, name, call):
        def wrapped(*args, **kwargs):
            self.moment()
            if name in ("rename", "replace"):
                self.check_synced(Path(args[0]))
                self.log.append((name, str(args[1])))
            if name == "open":
                self.names[os.stat(args[0], dir_fd=kwargs.get("dir_fd")).st_ino] = str(args[0])
            if name == "fsync":
                status = os.fstat(args[0])
                self.synced.add(status.st_ino)
                self.log.append((name, self.names.get(status.st_ino, "")))
            if name == "rmdir":
                self.log.append((name, str(args[0])))
            result = call(*args, **kwargs)
            if name == "mkdir":
                self.unsync(Path(args[0]))
            return result

        return wrapped

    def unsync(self, path):
        """What is new is not on the disk, nor is the folder's entry."""
        self.synced -= {os.stat(path).st_ino, os.stat(path.parent).st_ino}

    def check_synced(self, path):
        for each in (path, *path.rglob("*")):
            assert os.stat(each).st_ino in self.synced, f"{each} renamed before it is on the disk"

    def write(self, path, data):
        """A new file that is written in two halves, with moments before, between and after."""
        self.moment()
        with open(path, "xb", buffering=0) as file:
            self.unsync(path)
            for half in (data[: len(data) // 2], data[len(data) // 2 :]):
                self.moment()
                file.write(half)
        self.moment()

    def save_file(self, arrays, path):
        self.write(path, safetensors.numpy.save(arrays))


def every_moment(tmp_path, start, act, kill):
    """Yield (path, error): a copy of start in which act was stopped, at each moment in turn."""
    for at in range(1000):
        path = tmp_path / str(at)
        shutil.copytree(start, path)
        with pytest.MonkeyPatch.context() as monkeypatch:
            faults, error = Faults(monkeypatch, at, kill), None
            try:
                act(path)
            except (Killed, OSError) as caught:
                error = caught
        yield path, error
        shutil.rmtree(path)
        if faults.moments <= at:
            assert error is None
            return


once = functools.cache(new_checkpoint)


def which_of(path, pointer, *steps):
    """The step that a pointer's checkpoint has, which must be complete; None without a pointer."""
    if not has_checkpoint(read_run(path), pointer):
        return None
    found = read_checkpoint(read_run(path), pointer)
    assert found.step in steps
    assert_equal(found, once(found.step))
    return found.step


def save_step_2(path):
    run = read_run(path)
    name = write_checkpoint(run, once(2))
    point(run, "best", name)
    point(run, "last", name)
    prune(run)


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "disk full"])
@pytest.mark.parametrize("first", [(1,), ()], ids=["a second checkpoint", "the first"])
def test_stopped_at_any_moment_a_run_has_the_old_checkpoint_or_the_new(tmp_path, first, kill):
    new_run(tmp_path / "start", *first)
    old, outcomes = first[0] if first else None, []
    for path, error in every_moment(tmp_path, tmp_path / "start", save_step_2, kill):
        outcomes.append(tuple(which_of(path, which, *first, 2) for which in ("best", "last")))
        if not kill and error is not None and outcomes[-1] != (2, 2):  # it cleaned up after itself
            assert ".new" not in os.listdir(path / "checkpoints")
        if outcomes[-1] == (old, old):
            prune(read_run(path))
            assert len(os.listdir(path / "checkpoints")) == len(first)
        save_step_2(path)  # and it goes on from there
        assert which_of(path, "best", 2) == which_of(path, "last", 2) == 2
        assert not [name for name in tree(path) if ".tmp" in name or ".new" in name]
    assert len(outcomes) > 25
    assert list(dict.fromkeys(outcomes)) == [(old, old), (2, old), (2, 2)]  # last never ahead
    assert sorted(outcomes, key=lambda pair: pair.count(2)) == outcomes  # forward only


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "disk full"])
def test_stopped_while_overwriting_a_folder_holds_the_old_run_the_new_or_none(tmp_path, kill):
    def overwrite(path):
        write_run(path, ONE_HOT, VOCABULARY, overwrite=True)

    new_run(tmp_path / "start", 1)
    outcomes = []
    for path, error in every_moment(tmp_path, tmp_path / "start", overwrite, kill):
        if error is None:  # done, or a folder that was there already could not be made
            assert read_run(path).config == ONE_HOT
        elif not (path / "config.json").exists():
            outcomes.append("none")
        elif read_run(path).config == ONE_HOT:
            outcomes.append("new")
        else:
            outcomes.append("old")
            assert which_of(path, "best", 1) == which_of(path, "last", 1) == 1
        overwrite(path)
        assert sorted(tree(path)) == ["checkpoints", "config.json", "vocabulary.json"]
    assert list(dict.fromkeys(outcomes)) == ["old", "none", "new"]


def test_stopped_while_saving_again_the_model_is_the_old_one_or_the_new(tmp_path):
    def save(path, step=2):
        save_model(path, CONFIG, once(step).params, VOCABULARY)

    save(tmp_path / "start", step=1)
    outcomes = []
    for path, _ in every_moment(tmp_path, tmp_path / "start", save, kill=True):
        params = load_model(path)[1]
        outcomes.append(2 if np.array_equal(params["fc.b"], once(2).params["fc.b"]) else 1)
        assert_equal(params, once(outcomes[-1]).params)
    assert sorted(outcomes) == outcomes
    assert set(outcomes) == {1, 2}


def test_all_is_on_the_disk_before_it_gets_its_name_and_the_name_after(tmp_path, monkeypatch):
    """That files are forced out before each rename is asserted in `Faults`; here, what follows."""
    path = tmp_path / "run"
    faults = Faults(monkeypatch)
    run = new_run(path)
    assert faults.log[-1] == ("fsync", str(tmp_path))
    assert ("fsync", str(path)) in faults.log  # the name of the folder of checkpoints
    faults.log.clear()
    point(run, "last", write_checkpoint(run, new_checkpoint(2)))
    renamed = faults.log.index(("rename", f"{path}/checkpoints/step-00000002"))
    replaced = faults.log.index(("replace", f"{path}/last"))
    assert ("fsync", f"{path}/checkpoints") in faults.log[renamed:replaced]
    assert faults.log[replaced + 1 :] == [("fsync", str(path))]
    faults.log.clear()
    write_run(path, CONFIG, VOCABULARY, overwrite=True)
    removed = [call for call, _ in faults.log].index("rmdir")
    assert ("fsync", str(path)) in faults.log[:removed]  # nothing points to what is removed


def test_what_stops_a_checkpoint_leaves_nothing_of_it(tmp_path):
    run = new_run(tmp_path / "run", 1)
    before = tree(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in (100, 2500):  # the weights, the state
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                write_checkpoint(run, new_checkpoint(2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert tree(tmp_path) == before
    for name, message in (("config.json", "is damaged"), ("vocabulary.json", "is damaged")):
        whole = (tmp_path / "run" / name).read_bytes()
        (tmp_path / "run" / name).write_text("{}")
        with pytest.raises(InputError, match=f"{name} {message}"):
            write_checkpoint(run, new_checkpoint(2))
        (tmp_path / "run" / name).write_bytes(whole)
    assert tree(tmp_path) == before
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(InputError, match=r"vocabulary\.json is missing"):
        write_checkpoint(run, new_checkpoint(2))
    assert tree(tmp_path) == {}


# --- two at once


HOLD = """
import sys, time
from minilstm.checkpoint import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(path):
    environment = os.environ | {"PYTHONPATH": str(Path(minilstm.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_folder_in_use_is_refused_until_its_process_is_gone_however_it_went(tmp_path):
    path = tmp_path / "new" / "run"
    process = holder(path)
    refused = pytest.raises(InputError, match="run is in use: another training is at it")
    with process:
        with refused, locked(path):
            pytest.fail("it was let in")
        process.kill()
    with locked(path), refused, locked(path):  # the second call in one process is another, too
        pytest.fail("it was let in")
    with locked(path):
        pass
    assert list(path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")
@pytest.mark.parametrize("code", [errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS])
def test_where_the_file_system_has_no_locks_the_run_goes_on_with_a_warning(
    tmp_path, monkeypatch, caplog, code
):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", refuse)
    with locked(tmp_path / "run"):
        (line,) = caplog.messages
        assert "no locks on this file system" in line
        assert os.strerror(code) in line


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")
def test_a_folder_replaced_before_its_lock_was_had_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "run"

    def replaced(*_):
        path.rename(tmp_path / "old")
        path.mkdir()

    monkeypatch.setattr("fcntl.flock", replaced)
    with pytest.raises(InputError, match="it was replaced"), locked(path):
        pytest.fail("it was let in")
