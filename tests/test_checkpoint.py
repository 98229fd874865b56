"""Checkpoints: bit for bit what was written, complete or not there, and refused where damaged."""

from __future__ import annotations

import builtins
import contextlib
import errno
import functools
import hashlib
import json
import os
import random
import resource
import shutil
import stat
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from strict_array import standing_in_for_cupy

from minilstm import checkpoint
from minilstm.checkpoint import (
    Checkpoint,
    has_checkpoint,
    holds_run,
    load_model,
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
from minilstm.optim import SGD, Adam
from minilstm.text.vocabulary import CharVocabulary

VOCABULARY = CharVocabulary.from_text("hell\x1b", unknown="<unk>")
CONFIG = ModelConfig(
    vocab_size=5, hidden_size=3, num_layers=2, embedding_size=4, dropout=0.25, forget_bias=1
)
EXTRA = {"train": {"lr": 0.1, "threads": None}, "corpus": "hello ☺"}
TIED = ModelConfig(vocab_size=5, hidden_size=3, embedding_size=3, tie_weights=True)
ONE_HOT = ModelConfig(vocab_size=5, hidden_size=2, num_layers=3)


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
        grads = {name: rng.normal(size=p.shape).astype(dtype) for name, p in params.items()}
        adam.step(params, grads)
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
    if isinstance(value, Checkpoint):
        value = vars(value)
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
    return {
        str(p.relative_to(path)): os.readlink(p)
        if p.is_symlink()
        else (p.read_bytes() if p.is_file() else None)
        for p in sorted(path.rglob("*"))
    }


# --- what is written is what is read


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("config", [CONFIG, TIED, ONE_HOT], ids=["plain", "tied", "one-hot"])
def test_a_checkpoint_is_read_back_bit_for_bit(tmp_path, config, dtype):
    run = write_run(tmp_path / "run", config, VOCABULARY, EXTRA)
    wanted = new_checkpoint(config=config, dtype=dtype)
    point(run, "last", write_checkpoint(run, wanted))

    found_run = read_run(tmp_path / "run")
    assert found_run == run
    assert (found_run.config, found_run.vocabulary) == (config, VOCABULARY)
    assert found_run.extra == EXTRA
    found = read_checkpoint(found_run, "last")
    assert_equal(found, wanted)
    assert all(p.flags.writeable and p.flags.c_contiguous for p in found.params.values())


def test_subnormal_and_negative_zero_survive(tmp_path):
    run = write_run(tmp_path, CONFIG, VOCABULARY)
    wanted = new_checkpoint()
    wanted.params["fc.b"][:] = [-0.0, 1e-45, -1e-45, np.finfo(np.float32).max, 1.0]
    point(run, "best", write_checkpoint(run, wanted))
    assert_equal(read_checkpoint(run), wanted)


@pytest.mark.parametrize(
    "optimizer",
    [None, Adam().state_dict(), SGD(0.1).state_dict(), {"steps": 3}],
    ids=["none", "Adam before its first step", "SGD before its first step", "without moments"],
)
def test_parts_that_are_not_there_stay_so(tmp_path, optimizer):
    run = write_run(tmp_path, CONFIG, VOCABULARY)
    wanted = Checkpoint(0, new_checkpoint().params, optimizer)
    point(run, "best", write_checkpoint(run, wanted))
    assert_equal(read_checkpoint(run), wanted)


def test_an_optimizer_continues_from_what_was_read(tmp_path):
    run = new_run(tmp_path, 4)
    wanted, found = new_checkpoint(4), read_checkpoint(run)
    grads = {name: np.full_like(p, 0.3) for name, p in wanted.params.items()}
    for each in (wanted, found):
        adam = Adam()
        adam.load_state_dict(each.optimizer)
        adam.step(each.params, grads)
    assert_equal(found.params, wanted.params)


@pytest.mark.parametrize(
    "view",
    [
        lambda a: np.asfortranarray(a),
        lambda a: a[::-1],
        lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    ],
    ids=["Fortran order", "backwards", "every other column"],
)
def test_arrays_that_are_not_contiguous_are_written_as_what_they_show(tmp_path, view):
    """safetensors writes their memory in its order, without a word."""
    plain = new_checkpoint()
    wanted = Checkpoint(
        7,
        {name: view(p) for name, p in plain.params.items()},
        {
            name: {k: view(a) for k, a in m.items()} if name != "steps" else m
            for name, m in plain.optimizer.items()
        },
        tuple(view(x) for x in plain.carry),
        plain.progress,
    )
    assert not any(p.flags.c_contiguous for p in wanted.params.values() if p.ndim > 1)
    run = write_run(tmp_path, CONFIG, VOCABULARY)
    point(run, "best", write_checkpoint(run, wanted))
    assert_equal(read_checkpoint(run), wanted)


def test_arrays_on_a_gpu_are_written_as_host_arrays(tmp_path):
    wanted = new_checkpoint()
    with standing_in_for_cupy() as xp:
        run = write_run(tmp_path, CONFIG, VOCABULARY)
        optimizer = {
            name: {k: xp.asarray(a) for k, a in m.items()} if name != "steps" else m
            for name, m in wanted.optimizer.items()
        }
        params = {name: xp.asarray(p) for name, p in wanted.params.items()}
        carry = tuple(map(xp.asarray, wanted.carry))
        on_device = Checkpoint(7, params, optimizer, carry, wanted.progress)
        point(run, "best", write_checkpoint(run, on_device))
    assert_equal(read_checkpoint(run), wanted)


def test_numbers_of_numpy_in_config_and_progress_become_plain_json(tmp_path):
    config = ModelConfig(np.int64(5), np.int32(3), dropout=0, output_dropout=np.float32(0.5))
    run = write_run(tmp_path, config, VOCABULARY, {"steps": np.int64(9)})
    assert run.config == config
    assert type(run.config.vocab_size) is int
    assert run.extra == {"steps": 9}
    params = init_params(config, np.random.default_rng(0))
    progress = {"loss": np.float64(0.1), "n": np.uint8(7), "done": np.bool_(True)}
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
    (tmp_path / "checkpoints/step-00000003/optimizer.safetensors").unlink()
    config, params, vocabulary = load_model(tmp_path)
    assert (config, vocabulary) == (CONFIG, VOCABULARY)
    assert_equal(params, new_checkpoint(3).params)
    with pytest.raises(InputError, match=r"optimizer\.safetensors is missing"):
        read_checkpoint(run)


def test_importing_the_module_imports_no_safetensors():
    code = "import sys, minilstm.checkpoint; sys.exit('safetensors' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- best, last, prune


def test_best_and_last_name_checkpoints_of_their_own(tmp_path):
    run = write_run(tmp_path, CONFIG, VOCABULARY)
    assert not has_checkpoint(run, "best")
    assert not has_checkpoint(run, "last")
    point(run, "best", write_checkpoint(run, new_checkpoint(1)))
    point(run, "last", write_checkpoint(run, new_checkpoint(2)))
    assert has_checkpoint(run, "best")
    assert has_checkpoint(run, "last")
    assert (tmp_path / "best").read_text() == "step-00000001\n"
    assert_equal(read_checkpoint(run), new_checkpoint(1))
    assert_equal(read_checkpoint(run, "best"), new_checkpoint(1))
    assert_equal(read_checkpoint(run, "last"), new_checkpoint(2))


def test_prune_leaves_what_a_pointer_names_and_what_is_not_ours(tmp_path):
    run = new_run(tmp_path, 1, 2)
    point(run, "best", "step-00000001")
    wanted = tree(tmp_path)
    for step in (3, 123456789):
        write_checkpoint(run, new_checkpoint(step))
    for left_over in (".step-00000003.tmp", ".step-00000009.2.tmp", "step-00000004"):
        (tmp_path / "checkpoints" / left_over).mkdir()
        (tmp_path / "checkpoints" / left_over / "weights.safetensors").write_bytes(b"half")
    for left_over in (".best.tmp", ".last.tmp", ".config.json.tmp", ".vocabulary.json.tmp"):
        (tmp_path / left_over).write_bytes(b"half")
    for own in ("notes", "step-1", "my-step-00000001", ".tmp"):
        (tmp_path / "checkpoints" / own).mkdir()
        wanted[f"checkpoints/{own}"] = None
    prune(run)
    assert tree(tmp_path) == dict(sorted(wanted.items()))
    prune(run)
    assert tree(tmp_path) == dict(sorted(wanted.items()))


def test_a_second_checkpoint_of_a_step_stands_beside_the_first(tmp_path):
    run = new_run(tmp_path, 5)
    before = tree(tmp_path)
    names = [write_checkpoint(run, new_checkpoint(5)) for _ in range(2)]
    assert names == ["step-00000005.2", "step-00000005.3"]
    assert before.items() <= tree(tmp_path).items()
    point(run, "best", names[1])
    assert_equal(read_checkpoint(run), new_checkpoint(5))
    prune(run)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["step-00000005", "step-00000005.3"]


def test_a_damaged_pointer_stops_prune_before_it_removes_anything(tmp_path):
    run = new_run(tmp_path, 1, 2)
    (tmp_path / "best").write_text("step-0000")
    before = tree(tmp_path)
    with pytest.raises(InputError, match="best must name a checkpoint"):
        prune(run)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["", "step-1", "../x", "step-00000001/../..", "step-00000009"])
def test_a_pointer_is_only_moved_to_a_checkpoint_that_is_there(tmp_path, name):
    run = new_run(tmp_path, 1)
    before = tree(tmp_path)
    with pytest.raises(InputError, match="step-"):
        point(run, "best", name)
    assert tree(tmp_path) == before


def test_there_are_two_pointers(tmp_path):
    run = new_run(tmp_path, 1)
    for call in (
        lambda: point(run, "../best", "step-00000001"),
        lambda: read_checkpoint(run, "config.json"),
        lambda: has_checkpoint(run, ""),
    ):
        with pytest.raises(InputError, match="which must be best or last, got "):
            call()


# --- run folders


def test_a_run_is_not_overwritten_unless_asked(tmp_path):
    run = new_run(tmp_path, 1)
    before = tree(tmp_path)
    with pytest.raises(InputError, match="holds a run already"):
        write_run(tmp_path, CONFIG, VOCABULARY)
    assert tree(tmp_path) == before
    run = write_run(tmp_path, ONE_HOT, VOCABULARY, overwrite=True)
    assert read_run(tmp_path) == run
    assert not has_checkpoint(run, "best")
    assert not has_checkpoint(run, "last")
    assert os.listdir(tmp_path / "checkpoints") == []


@pytest.mark.parametrize("name", ["best", "last", "config.json"])
def test_what_is_left_of_a_run_is_not_overwritten_either(tmp_path, name):
    assert not holds_run(tmp_path)
    (tmp_path / name).touch()
    assert holds_run(tmp_path)
    with pytest.raises(InputError, match="holds a run already"):
        write_run(tmp_path, CONFIG, VOCABULARY)


def test_a_model_saved_again_takes_the_place_of_the_one_before(tmp_path):
    for step in (1, 2):
        save_model(tmp_path, CONFIG, new_checkpoint(step).params, VOCABULARY, EXTRA)
        assert_equal(load_model(tmp_path)[1], new_checkpoint(step).params)
        assert (tmp_path / "best").read_bytes() == (tmp_path / "last").read_bytes()
        assert len(os.listdir(tmp_path / "checkpoints")) == 1
    assert read_run(tmp_path).extra == EXTRA


def test_a_model_is_not_saved_over_another_run(tmp_path):
    new_run(tmp_path, 1)
    before = tree(tmp_path)
    with pytest.raises(InputError, match="holds another run already"):
        save_model(tmp_path, CONFIG, new_checkpoint(2).params, VOCABULARY)
    assert tree(tmp_path) == before


# --- what is refused on the way in, before anything is written


def changed(**parts):
    def change(wanted):
        return Checkpoint(**{**vars(wanted), **parts})

    return change


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
    "another shape": (with_param("fc.b", ONES[:4]), r"fc.b must have shape \(5,\), got \(4,\)"),
    "another dtype": (with_param("fc.b", np.ones(5)), "fc.b must be float32, got 'float64'"),
    "a moment's dtype": (with_moment("fc.b", np.ones(5)), "m/fc.b must be float32"),
    "one too many": (with_param("x", ONES), "weights.safetensors has an unknown 'x'"),
    "one too few": (lambda w: changed(params=dict(list(w.params.items())[1:]))(w), "lacks 'embed"),
    "none": (changed(params={}), "params must be float32 or float64, got None"),
    "integers": (changed(params={"fc.b": np.ones(5, int)}), "params must be float32 or float64"),
    "big-endian": (changed(params={"fc.b": ONES.astype(">f4")}), "params must be float32 or"),
    "a negative step": (changed(step=-1), "step must be an integer from 0 up, got -1"),
    "a moment called steps": (changed(optimizer={"steps": 0, "a/b": {}}), "plain name, got 'a/b'"),
    "no step count": (changed(optimizer={"m": {}}), "steps must be an integer from 0 up, got None"),
    "moments too early": (lambda w: changed(optimizer={**w.optimizer, "steps": 0})(w), "unknown"),
    "moments too late": (changed(optimizer={"steps": 2, "m": {}}), "lacks 'm/embedding.W'"),
    "carry of two axes": (changed(carry=(np.ones((2, 3)),) * 2), r"h must have shape \(2, 3, 3\)"),
    "an infinite loss": (changed(progress={"best": float("inf")}), "progress.json: Out of range"),
    "an array in progress": (changed(progress={"x": ONES}), "ndarray is not plain JSON"),
}


@pytest.mark.parametrize("change, message", UNWRITABLE.values(), ids=UNWRITABLE)
def test_what_could_not_be_read_back_is_not_written(tmp_path, change, message):
    run = new_run(tmp_path, 1)
    before = tree(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        write_checkpoint(run, change(new_checkpoint(2)))
    assert len(str(error.value).splitlines()) == 1
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((ModelConfig(6, 3), VOCABULARY), r"must have config.json's vocab_size = 6 symbols, got 5"),
        ((CONFIG, VOCABULARY, {"model": 1}), "extra must leave 'model' to the run folder"),
        ((CONFIG, VOCABULARY, {"lr": float("nan")}), r"config\.json: Out of range"),
        ((CONFIG, VOCABULARY, {"x": object()}), "object is not plain JSON"),
        ((CONFIG, VOCABULARY, {1: 2, "x": 3}), r"config\.json: '<' not supported"),
    ],
)
def test_a_run_that_could_not_be_read_back_is_not_begun(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        write_run(tmp_path / "run", *arguments)
    with pytest.raises(InputError):
        save_model(tmp_path / "run", CONFIG, {"fc.b": ONES * np.nan}, VOCABULARY)
    assert tree(tmp_path) == {}


# --- what is refused on the way out


def edit(file, change):
    """Apply change to the JSON file's content, in place or by what it returns."""
    data = json.loads(file.read_bytes())
    result = change(data)
    file.write_text(json.dumps(data if result is None else result, indent=1, sort_keys=True))


def reseal(run):
    """What an attacker does: make the manifest's sizes and digests true again."""
    folder = run / "checkpoints/step-00000001"

    def seal(manifest):
        manifest["run"] = {n: digest_of(run / n) for n in manifest["run"]}
        for name in manifest["files"]:
            if (folder / name).is_file():
                size = (folder / name).stat().st_size
                manifest["files"][name] = {"bytes": size, "sha256": digest_of(folder / name)}

    edit(folder / "manifest.json", seal)


def digest_of(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


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
        text = data[8:end].decode()
        text = change(text).encode() + pad
        size = len(text) if length is None else length
        file.write_bytes(struct.pack("<Q", size) + text + data[end:])

    return damage


def put(name, value):
    return lambda data: data.__setitem__(name, value)


def inside(*names):
    """inside("model", "dropout", 1)  sets data["model"]["dropout"] = 1."""
    *path, last, value = names

    def change(data):
        for name in path:
            data = data[name]
        data[last] = value

    return change


def without(*names):
    def change(data):
        for name in names[:-1]:
            data = data[name]
        del data[names[-1]]

    return change


def swap(a, b):
    def change(arrays):
        arrays[a], arrays[b] = arrays[b], arrays[a]

    return change


def as_json(change):
    return lambda file: edit(file, change)


def as_text(old, new):
    def damage(file):
        text = file.read_text()
        assert text.count(old) == 1, text
        file.write_text(text.replace(old, new))

    return damage


def flip(byte, bit=0):
    def damage(file):
        data = bytearray(file.read_bytes())
        data[byte] ^= 1 << bit
        file.write_bytes(data)

    return damage


def cut(n):
    return lambda file: file.write_bytes(file.read_bytes()[:n])


def linked(file):
    """The same content, but a link to a file outside."""
    outside = file.parents[len(file.parents) - 1] / file  # absolute already
    target = Path(f"{outside.parent}-elsewhere-{outside.name}")
    target.parent.mkdir(exist_ok=True)
    shutil.move(file, target)
    file.symlink_to(target)


def as_folder(file):
    file.unlink()
    file.mkdir()


def as_pipe(file):
    file.unlink()
    os.mkfifo(file)


def write(data):
    return lambda file: file.write_bytes(data)


CONFIG_FILE, VOCAB = "config.json", "vocabulary.json"
STEP = "checkpoints/step-00000001"
WEIGHTS, MOMENTS = f"{STEP}/weights.safetensors", f"{STEP}/optimizer.safetensors"
CARRY, PROGRESS = f"{STEP}/carry.safetensors", f"{STEP}/progress.json"
MANIFEST = f"{STEP}/manifest.json"
HUGE = 10**15

# file, damage, what the error says after the file's name; the digests stay as they were
DAMAGED = {
    "weights flipped in the data": (WEIGHTS, flip(-1), "is damaged: its SHA-256"),
    "weights flipped in the header": (WEIGHTS, flip(30), "is damaged: its SHA-256"),
    "weights cut short": (WEIGHTS, cut(-1), "must have the manifest's .* bytes, got"),
    "weights longer": (WEIGHTS, lambda f: f.write_bytes(f.read_bytes() + b"\0"), "must have the"),
    "weights empty": (WEIGHTS, cut(0), "must have the manifest's"),
    "weights missing": (WEIGHTS, Path.unlink, "is missing"),
    "weights a folder": (WEIGHTS, as_folder, "must be a plain file"),
    "weights a link": (WEIGHTS, linked, "must be a plain file, not a link"),
    "weights a pipe": (WEIGHTS, as_pipe, "must be a plain file"),
    "moments flipped": (MOMENTS, flip(-7), "is damaged: its SHA-256"),
    "moments missing": (MOMENTS, Path.unlink, "is missing"),
    "carry flipped": (CARRY, flip(-7), "is damaged: its SHA-256"),
    "progress flipped": (PROGRESS, as_text('"epoch": 3', '"epoch": 4'), "is damaged: its SHA-256"),
    "progress cut short": (PROGRESS, cut(20), "must have the manifest's"),
    "config changed": (CONFIG_FILE, as_text("0.25", "0.26"), "has changed since step-00000001"),
    "config a link": (CONFIG_FILE, linked, "must be a plain file"),
    "config missing": (CONFIG_FILE, Path.unlink, "is missing"),
    "vocabulary reordered": (
        VOCAB,
        as_json(lambda d: d["symbols"].reverse()),
        "has changed since step-00000001",
    ),
    "manifest missing": (MANIFEST, Path.unlink, "is missing"),
    "manifest a link": (MANIFEST, linked, "must be a plain file"),
    "manifest empty": (MANIFEST, cut(0), "is not JSON"),
    "manifest without weights": (
        MANIFEST,
        as_json(without("files", "weights.safetensors")),
        "files lacks 'weights.safetensors'",
    ),
    "manifest without the run": (MANIFEST, as_json(put("run", {})), "run lacks 'vocabulary.json'"),
    "manifest naming a path": (
        MANIFEST,
        as_json(inside("files", "../../config.json", {"bytes": 1, "sha256": ""})),
        r"files has an unknown '../../config.json'",
    ),
    "manifest naming control characters": (
        MANIFEST,
        as_json(inside("files", "\x1b[2J\n", {})),
        r"files has an unknown '\\x1b\[2J\\n'",
    ),
    "manifest with a size as text": (
        MANIFEST,
        as_json(inside("files", "weights.safetensors", "bytes", "9")),
        None,  # names the weights
    ),
    "manifest with a huge size": (
        MANIFEST,
        as_json(inside("files", "weights.safetensors", "bytes", HUGE)),
        None,
    ),
    "manifest entry a list": (
        MANIFEST,
        as_json(inside("files", "weights.safetensors", [])),
        "weights.safetensors must be an object",
    ),
    "manifest of the future": (MANIFEST, as_json(put("format", 2)), "format must be 1 .*, got 2"),
    "manifest of no version": (MANIFEST, as_json(without("format")), "format must be 1 .*got None"),
    "manifest with more": (MANIFEST, as_json(put("x", 1)), "has an unknown 'x'"),
    "pointer missing": ("last", Path.unlink, "is missing"),
    "pointer empty": ("last", cut(0), "must name a checkpoint, .* got ''"),
    "pointer to a path": ("last", write(b"../../etc"), "must name a checkpoint, .*'../../etc'"),
    "pointer to a path with a name": (
        "last",
        write(b"step-00000001/../step-00000001"),
        "must name a checkpoint",
    ),
    "pointer to an absolute path": ("last", write(b"/tmp/step-00000001"), "must name a check"),
    "pointer with bytes that are no text": ("last", write(b"\xff\x1b"), r"got '\\\\xff\\x1b'"),
    "pointer of two lines": ("last", write(b"step-00000001\n\n"), "must name a checkpoint"),
    "pointer too long": ("last", write(b"step-" + b"1" * 200), "must have at most 100 bytes"),
    "pointer a link": ("last", linked, "must be a plain file"),
    "checkpoint missing": (STEP, shutil.rmtree, "is missing"),
    "checkpoint a link": (STEP, linked, "must be a folder, not a link"),
    "checkpoint a file": (STEP, lambda f: (shutil.rmtree(f), f.touch()), "must be a folder"),
    "checkpoints a link": ("checkpoints", linked, "must be a folder, not a link"),
}

# the same, and then somebody recomputes the digests
CRAFTED = {
    "weights swapped": (WEIGHTS, tensors(swap("lstm0.W_h", "lstm0.b")), "must have shape"),
    "weights renamed": (
        WEIGHTS,
        header(lambda h: h.replace("lstm0.b", "lstm9.b")),
        "lacks 'lstm0.b'",
    ),
    "weights of another shape": (
        WEIGHTS,
        tensors(lambda a: a.update({"lstm0.W_h": a["lstm0.W_h"].T})),
        r"lstm0.W_h must have shape \(3, 12\), got \(12, 3\)",
    ),
    "weights of another dtype": (
        WEIGHTS,
        tensors(lambda a: a.update({n: x.astype(np.float64) for n, x in a.items()})),
        "must hold 9 tensors of .* bytes together",
    ),
    "weights of integers": (
        WEIGHTS,
        tensors(lambda a: a.update({"fc.b": a["fc.b"].view(np.int32)})),
        "fc.b must be F32, got 'I32'",
    ),
    "weights of a dtype NumPy lacks": (
        WEIGHTS,
        header(lambda h: h.replace('"F32","shape":[5]', '"BF16","shape":[10]')),
        r"fc.b must have shape \(5,\), got \(10,\)",
    ),
    "weights with a NaN": (
        WEIGHTS,
        tensors(lambda a: a["fc.b"].__setitem__(2, np.nan)),
        "fc.b holds a NaN",
    ),
    "weights with an infinity": (
        WEIGHTS,
        tensors(lambda a: a["fc.b"].__setitem__(2, -np.inf)),
        "fc.b holds a NaN or an infinity",
    ),
    "weights with one less": (WEIGHTS, tensors(lambda a: a.pop("fc.b")), "must hold 9 tensors"),
    "weights with one more": (
        WEIGHTS,
        tensors(lambda a: a.update(x=np.ones(1, np.float32))),
        "must hold 9 tensors",
    ),
    "weights with an empty one more": (
        WEIGHTS,
        tensors(lambda a: a.update({"\x1b[2J": np.ones(0, np.float32)})),
        r"has an unknown '\\x1b\[2J'",
    ),
    "weights without tensors": (WEIGHTS, tensors(dict.clear), "a header of 8 bytes cannot hold"),
    "weights empty": (WEIGHTS, cut(0), "is damaged: a file of 0 bytes whose header"),
    "weights cut in the length": (WEIGHTS, cut(5), "is damaged: a file of 5 bytes whose header"),
    "weights cut in the header": (WEIGHTS, cut(60), "is damaged: a file of 60 bytes"),
    "weights cut in the data": (WEIGHTS, cut(-4), "must hold 9 tensors"),
    "a header of 2^63 bytes": (WEIGHTS, header(str, length=2**63), "is damaged: .* header would"),
    "a header of no bytes": (WEIGHTS, header(str, length=0), "a header of 0 bytes cannot hold"),
    "a header of spaces": (WEIGHTS, header(str, pad=b" " * 10**6), "must hold 9 tensors"),
    "a header that is no JSON": (
        WEIGHTS,
        header(lambda h: h.replace("{", "[", 1)),
        r"is damaged: 'Error while deserializing",
    ),
    "a header with a tensor twice": (
        WEIGHTS,
        header(lambda h: h.replace('"lstm0.b"', '"lstm1.b"')),
        "",
    ),
    "a header with overlapping tensors": (
        WEIGHTS,
        header(lambda h: h.replace('"data_offsets":[0,', '"data_offsets":[4,')),
        r"is damaged: 'Error while deserializing",
    ),
    "a header of huge shapes": (
        WEIGHTS,
        header(lambda h: h.replace('"shape":[5]', f'"shape":[{HUGE},{HUGE}]')),
        r"is damaged: 'Error while deserializing",
    ),
    "a header with control characters": (
        WEIGHTS,
        header(lambda h: h.replace('"fc.b"', '"\\u001b"').replace('"shape":[5]', '"shape":[9]')),
        r"is damaged: '[^\x1b]*'$",
    ),
    "moments without one": (MOMENTS, tensors(lambda a: a.pop("m/fc.b")), "must hold 18 tensors"),
    "moments renamed": (
        MOMENTS,
        header(lambda h: h.replace("v/fc.b", "v/fc.a")),
        "lacks 'v/fc.b'",
    ),
    "moments with a NaN": (
        MOMENTS,
        tensors(lambda a: a["v/fc.b"].__setitem__(0, np.nan)),
        "v/fc.b holds a NaN",
    ),
    "carry of another model": (
        CARRY,
        tensors(lambda a: a.update({n: x.reshape(3, 6, 2) for n, x in a.items()})),
        r"must have shape \(2, 6, 3\), got \(3, 6, 2\)",
    ),
    "carry with an infinity": (CARRY, tensors(lambda a: a["c"].fill(np.inf)), "c holds a NaN or"),
    "config of the future": (CONFIG_FILE, as_json(put("format", 2)), "format must be 1.*, got 2"),
    "config of version true": (CONFIG_FILE, as_json(put("format", True)), "format .* got True"),
    "config without a model": (CONFIG_FILE, as_json(without("model")), "model must be an object"),
    "config a list": (CONFIG_FILE, write(b"[1]"), r"must hold an object .*got \[1\]"),
    "config with an unknown key": (
        CONFIG_FILE,
        as_json(inside("model", "hiden_size", 3)),
        "model has an unknown 'hiden_size'",
    ),
    "config without a key": (
        CONFIG_FILE,
        as_json(without("model", "hidden_size")),
        "model lacks 'hidden_size'",
    ),
    "config with a key twice": (
        CONFIG_FILE,
        as_text('"num_layers": 2', '"num_layers": 2, "num_layers": 3'),
        "is not JSON as it must be: 'num_layers' stands there twice",
    ),
    "config with a NaN": (CONFIG_FILE, as_text("0.25", "NaN"), "'NaN' is not a finite number"),
    "config with 1e999": (CONFIG_FILE, as_text("0.25", "1e999"), "'1e999' is not a finite"),
    "config with 5,000 digits": (CONFIG_FILE, as_text("0.25", "1" * 5000), "is not JSON as it"),
    "config with a size as text": (
        CONFIG_FILE,
        as_json(inside("model", "hidden_size", "3")),
        "hidden_size must be of type int, got '3'",
    ),
    "config with a size of true": (
        CONFIG_FILE,
        as_json(inside("model", "num_layers", True)),
        "num_layers must be of type int, got True",
    ),
    "config with a size of 0": (
        CONFIG_FILE,
        as_json(inside("model", "num_layers", 0)),
        "num_layers must be a positive integer, got 0",
    ),
    "config with a size as a fraction": (
        CONFIG_FILE,
        as_json(inside("model", "embedding_size", 4.0)),
        "embedding_size must be of type int or None, got 4.0",
    ),
    "config with dropout 1": (
        CONFIG_FILE,
        as_json(inside("model", "dropout", 1)),
        r"dropout must be .*\[0, 1\), got 1$",
    ),
    "config with a number for a flag": (
        CONFIG_FILE,
        as_json(inside("model", "tie_weights", 0)),
        "tie_weights must be of type bool, got 0",
    ),
    "config with a strange init": (
        CONFIG_FILE,
        as_json(inside("model", "init", "\x1b[2J")),
        r"init must be one of .*, got '\\x1b\[2J'",
    ),
    "config with a bias beyond floats": (
        CONFIG_FILE,
        as_json(inside("model", "forget_bias", 10**400)),
        r"'10+\.\.\.0+' has more than 40 digits",
    ),
    "config of huge layers": (
        CONFIG_FILE,
        as_json(inside("model", "hidden_size", HUGE)),
        None,  # names the weights
    ),
    "config of a size of 40 digits": (
        CONFIG_FILE,
        as_json(inside("model", "hidden_size", 10**39)),
        None,
    ),
    "config of many layers": (CONFIG_FILE, as_json(inside("model", "num_layers", HUGE)), None),
    "config of a huge embedding": (
        CONFIG_FILE,
        as_json(inside("model", "embedding_size", HUGE)),
        None,
    ),
    "config of another vocabulary": (CONFIG_FILE, as_json(inside("model", "vocab_size", 6)), None),
    "config of a huge vocabulary": (
        CONFIG_FILE,
        as_json(inside("model", "vocab_size", HUGE)),
        None,
    ),
    "config of bytes that are no text": (CONFIG_FILE, write(b"\xff{}"), "is not JSON.*decode byte"),
    "config with a BOM": (
        CONFIG_FILE,
        lambda f: f.write_bytes(b"\xef\xbb\xbf" + f.read_bytes()),
        "is not JSON as it must be: Unexpected UTF-8 BOM",
    ),
    "config of deep lists": (CONFIG_FILE, write(b"[" * 10**5), "is nested too deeply"),
    "config of deep objects": (CONFIG_FILE, write(b'{"a":' * 10**5), "is nested too deeply"),
    "vocabulary with a symbol twice": (
        VOCAB,
        as_json(inside("symbols", 1, "\x1b")),
        "symbols must be distinct",
    ),
    "vocabulary with a symbol less": (
        VOCAB,
        as_json(without("symbols", 0)),
        "must have config.json's vocab_size = 5 symbols, got 4",
    ),
    "vocabulary with a number": (VOCAB, as_json(inside("symbols", 0, 1)), "non-empty strings"),
    "vocabulary of another kind": (VOCAB, as_json(put("kind", "__import__")), "kind"),
    "vocabulary a string": (VOCAB, write(b'"hello"'), "must hold an object"),
    "progress with another dtype": (PROGRESS, as_json(put("dtype", "float64")), None),
    "progress with no dtype": (PROGRESS, as_json(put("dtype", ["float32"])), "dtype must be"),
    "progress with half precision": (PROGRESS, as_json(put("dtype", "float16")), "dtype must be"),
    "progress with a negative step": (PROGRESS, as_json(put("step", -1)), "step must be an int"),
    "progress with a step as a fraction": (PROGRESS, as_json(put("step", 1.0)), "step must be an"),
    "progress without carry": (PROGRESS, as_json(put("carry", None)), None),
    "progress without optimizer": (PROGRESS, as_json(put("optimizer", None)), None),
    "progress with a huge carry": (PROGRESS, as_json(put("carry", HUGE)), None),
    "progress with a carry of 0": (PROGRESS, as_json(put("carry", 0)), "carry must be a positive"),
    "progress with more steps": (PROGRESS, as_json(put("optimizer", {})), "optimizer lacks"),
    "progress with a moment twice": (
        PROGRESS,
        as_json(inside("optimizer", "moments", ["m", "m"])),
        "moments must be a list of ≤ 8 names",
    ),
    "progress with nine moments": (
        PROGRESS,
        as_json(inside("optimizer", "moments", list("abcdefghi"))),
        "moments must be a list of ≤ 8 names",
    ),
    "progress with a moment called steps": (
        PROGRESS,
        as_json(inside("optimizer", "moments", ["m", "steps"])),
        "a moment must have a plain name, got 'steps'",
    ),
    "progress with a moment of numbers": (
        PROGRESS,
        as_json(inside("optimizer", "moments", [1, 2])),
        "a moment must have a plain name, got 1",
    ),
    "progress without progress": (PROGRESS, as_json(put("progress", [])), "progress must be an"),
}
CASES = [(*case, False) for case in DAMAGED.values()] + [(*c, True) for c in CRAFTED.values()]
IDS = [*DAMAGED, *(f"{name}, resealed" for name in CRAFTED)]


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


@pytest.mark.parametrize("file, damage, message, resealed", CASES, ids=IDS)
def test_damage_is_refused_in_one_line_that_names_the_file(
    damaged, file, damage, message, resealed
):
    damage(damaged / file)
    if resealed:
        reseal(damaged)
    before, started = tree(damaged.parent), time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as error:
            read_all(damaged)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4e6
    assert time.process_time() - started < 1
    text = str(error.value)
    assert len(text.splitlines()) == 1
    assert text.isprintable()
    assert len(text) < 600
    assert tree(damaged.parent) == before
    if message is None:
        assert str(damaged) in text
    else:
        named = pytest.raises(InputError, match=f"{damaged / file}.*{message}")
        with named:
            raise error.value


def test_a_checkpoint_of_another_run_is_refused(tmp_path, damaged):
    other = write_run(tmp_path / "other", CONFIG, VOCABULARY, {"train": {"lr": 0.2}})
    name = write_checkpoint(other, new_checkpoint(1))
    shutil.rmtree(damaged / STEP)
    shutil.copytree(tmp_path / "other/checkpoints" / name, damaged / STEP)
    with pytest.raises(InputError, match=r"config\.json has changed since step-00000001"):
        read_all(damaged)


def test_the_run_that_the_cases_damage_is_whole(damaged):
    assert_equal(read_all(damaged), new_checkpoint(1))
    reseal(damaged)
    assert_equal(read_all(damaged), new_checkpoint(1))


def test_every_bit_counts(damaged):
    """Flipped anywhere, in any file: refused, or (in white space, say) of no consequence."""
    files = [p for p in damaged.rglob("*") if p.is_file() and p.name != "best"]
    assert len(files) == 8
    wanted, draw, refused = new_checkpoint(1), random.Random(0), []
    for file in files:
        whole = file.read_bytes()
        for _ in range(25):
            flip(draw.randrange(len(whole)), draw.randrange(8))(file)
            try:
                assert_equal(read_all(damaged), wanted)
            except InputError as error:
                refused.append(str(error))
            file.write_bytes(whole)
    assert len(refused) > 180
    assert all(map(str.isprintable, refused))


def test_with_true_digests_the_parsers_refuse_by_name_or_return_finite_numbers(damaged):
    files = [p for p in damaged.rglob("*.*") if p.is_file() and p.name != "manifest.json"]
    assert len(files) == 6
    draw, refused = random.Random(1), []
    manifest = damaged / MANIFEST
    sealed = manifest.read_bytes()
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
            manifest.write_bytes(sealed)
    assert len(refused) > 80
    assert all(map(str.isprintable, refused))


@pytest.mark.parametrize("name", ["checkpoints", "checkpoints/step-00000001"])
def test_a_crafted_folder_leads_no_writing_outside(damaged, name):
    outside = damaged.parent / "outside"
    shutil.move(damaged / name, outside)
    (damaged / name).symlink_to(outside)
    (damaged / "last").unlink()
    (damaged / "best").unlink()
    victim = damaged.parent / "victim"
    victim.write_text("mine")
    for temporary in (".best.tmp", ".last.tmp", ".config.json.tmp"):
        (damaged / temporary).symlink_to(victim)
    before = tree(outside)
    run = read_run(damaged)
    with contextlib.suppress(InputError):
        point(run, "best", write_checkpoint(run, new_checkpoint(2)))
    with contextlib.suppress(InputError):
        prune(run)
    with contextlib.suppress(InputError):
        write_run(damaged, CONFIG, VOCABULARY, overwrite=True)
    assert tree(outside) == before
    assert victim.read_text() == "mine"


# --- killed, or refused by the system, at any moment


class Killed(BaseException):
    """Nothing runs after it: not even what cleans up."""


class HalfWrites:
    """A new file that is written in two halves, with moments before and between."""

    def __init__(self, faults, path):
        self.faults, self.file = faults, builtins.open(path, "xb", buffering=0)  # noqa: SIM115
        self.fileno, self.flush = self.file.fileno, faults.moment
        faults.unsync(path)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, data):
        for half in (data[: len(data) // 2], data[len(data) // 2 :]):
            self.faults.moment()
            self.file.write(half)


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
        monkeypatch.setattr(checkpoint, "open", self.open, raising=False)
        self.save_file = safetensors.numpy.save_file
        monkeypatch.setattr(safetensors.numpy, "save_file", self.save)

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
                if not str(args[1]).endswith(".tmp"):  # prune moves out of the way what it removes
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

    def open(self, path, mode):
        if mode != "xb":
            return builtins.open(path, mode)
        self.moment()
        return HalfWrites(self, path)

    def save(self, arrays, path):
        self.moment()
        self.save_file(arrays, path)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        try:
            self.moment()
        except OSError as error:
            raise safetensors.SafetensorError(str(error)) from None
        path.write_bytes(data)
        self.unsync(path)


def every_moment(tmp_path, start, act, kill):
    """Yield (moment, path, error): a copy of start in which act was stopped, at each moment."""
    for at in range(1000):
        path = tmp_path / str(at)
        shutil.copytree(start, path)
        with pytest.MonkeyPatch.context() as monkeypatch:
            faults = Faults(monkeypatch, at, kill)
            error = None
            try:
                act(path)
            except (Killed, OSError) as caught:
                error = caught
        yield at, path, error
        shutil.rmtree(path)
        if faults.moments <= at:
            assert error is None
            return


once = functools.cache(functools.cache)  # once(f)(x): f(x), made once


def which_of(path, pointer, *steps):
    """The step that a pointer's checkpoint has, which must be complete."""
    found = read_checkpoint(read_run(path), pointer)
    assert found.step in steps
    assert_equal(found, once(new_checkpoint)(found.step))
    return found.step


def save_step_2(path):
    run = read_run(path)
    name = write_checkpoint(run, once(new_checkpoint)(2))
    point(run, "best", name)
    point(run, "last", name)
    prune(run)


def temporaries(path):
    return [name for name in tree(path) if ".tmp" in name]


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "disk full"])
def test_stopped_at_any_moment_a_run_has_the_old_checkpoint_or_the_new(tmp_path, kill):
    new_run(tmp_path / "start", 1)
    outcomes = []
    for _, path, error in every_moment(tmp_path, tmp_path / "start", save_step_2, kill):
        outcomes.append(tuple(which_of(path, which, 1, 2) for which in ("best", "last")))
        assert isinstance(error, Killed if kill else OSError) or error is None
        if not kill and outcomes[-1] != (2, 2):  # what failed cleaned up after itself
            assert temporaries(path) == []
        run = read_run(path)
        prune(run)
        assert temporaries(path) == []
        names = {(path / which).read_text().strip() for which in ("best", "last")}
        assert set(os.listdir(path / "checkpoints")) == names
        save_step_2(path)  # and it goes on from there
        assert which_of(path, "last", 1, 2) == 2
    assert len(outcomes) > 40
    assert sorted(outcomes, key=sum) == outcomes  # forward only
    assert {(1, 1), (2, 1), (2, 2)} == set(outcomes)  # never the last ahead of the best


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "disk full"])
def test_stopped_at_any_moment_a_first_checkpoint_is_there_or_not(tmp_path, kill):
    new_run(tmp_path / "start")
    outcomes = []
    for _, path, _ in every_moment(tmp_path, tmp_path / "start", save_step_2, kill):
        run = read_run(path)
        outcomes.append([has_checkpoint(run, which) for which in ("best", "last")])
        for which, there in zip(("best", "last"), outcomes[-1], strict=True):
            assert not there or which_of(path, which, 2) == 2
        save_step_2(path)
        assert which_of(path, "best", 2) == 2
        assert temporaries(path) == []
    assert outcomes[0] == [False, False]
    assert outcomes[-1] == [True, True]
    assert sorted(outcomes) == outcomes


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "disk full"])
def test_stopped_while_overwriting_a_folder_holds_the_old_run_the_new_one_or_none(tmp_path, kill):
    def overwrite(path):
        write_run(path, ONE_HOT, VOCABULARY, overwrite=True)

    new_run(tmp_path / "start", 1)
    outcomes = []
    for _, path, error in every_moment(tmp_path, tmp_path / "start", overwrite, kill):
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
        assert read_run(path).config == ONE_HOT
        assert not holds_run(path) or os.listdir(path / "checkpoints") == []
    order = ["old", "none", "new"]
    assert sorted(outcomes, key=order.index) == outcomes
    assert set(outcomes) == set(order)


def test_stopped_while_saving_again_the_model_is_the_old_one_or_the_new(tmp_path):
    def save(path, step=2):
        save_model(path, CONFIG, new_checkpoint(step).params, VOCABULARY)

    save(tmp_path / "start", step=1)
    outcomes = []
    for _, path, _ in every_moment(tmp_path, tmp_path / "start", save, kill=True):
        params = load_model(path)[1]
        same = np.array_equal(params["fc.b"], new_checkpoint(2).params["fc.b"])
        outcomes.append(2 if same else 1)
        assert_equal(params, new_checkpoint(outcomes[-1]).params)
        save(path)
        assert temporaries(path) == []
    assert sorted(outcomes) == outcomes
    assert set(outcomes) == {1, 2}


def test_everything_is_on_the_disk_before_it_gets_its_name_and_the_name_after(
    tmp_path, monkeypatch
):
    """That files are forced out before each rename is asserted in `Faults`; here, what follows."""
    path = tmp_path / "run"
    faults = Faults(monkeypatch)
    run = new_run(path)
    assert faults.log[-1] == ("fsync", str(tmp_path))
    faults.log.clear()
    point(run, "last", write_checkpoint(run, new_checkpoint(2)))
    renamed = faults.log.index(("rename", f"{path}/checkpoints/step-00000002"))
    replaced = faults.log.index(("replace", f"{path}/last"))
    assert ("fsync", str(path)) in faults.log[:renamed]  # the name of the folder of checkpoints
    assert ("fsync", f"{path}/checkpoints") in faults.log[renamed:replaced]
    assert faults.log[replaced + 1 :] == [("fsync", str(path))]
    faults.log.clear()
    write_run(path, CONFIG, VOCABULARY, overwrite=True)
    removed = [call for call, _ in faults.log].index("rmdir")
    assert ("fsync", str(path)) in faults.log[:removed]  # nothing points to what is removed


def test_a_limit_of_the_system_on_file_sizes_is_an_oserror_and_leaves_nothing(tmp_path):
    run = new_run(tmp_path, 1)
    before = tree(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in (100, 800, 1500):  # progress.json, the weights, the moments
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                write_checkpoint(run, new_checkpoint(2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["config.json", "vocabulary.json", ""])
def test_a_run_that_has_gone_from_under_the_training_is_an_oserror(tmp_path, name):
    run = new_run(tmp_path / "run", 1)
    if name:
        (tmp_path / "run" / name).write_text("{}")
    else:
        shutil.rmtree(tmp_path / "run")
    before = tree(tmp_path)
    with pytest.raises(OSError, match="has gone or changed since the run was opened"):
        write_checkpoint(run, new_checkpoint(2))
    assert tree(tmp_path) == before
