"""Run folders and checkpoints: safetensors and JSON, there as a whole or not at all.

    RUN/vocabulary.json
    RUN/config.json              its "format" is the version of this layout
    RUN/best, RUN/last           pointers: a checkpoint's name and its progress.json's fingerprint
    RUN/checkpoints/step-00001234/
        weights.safetensors      the parameters, under the names of model.py
        state.safetensors        the optimizer's moments, such as "m/lstm0.W_x", and the state
                                 carried into the next batch, "carry/h" and "carry/c"
        progress.json            the step, what else the training loop wants to have back, and the
                                 fingerprints of these two files and of the run's first two

A fingerprint is a file's size and SHA-256: each pointer vouches for all that it leads to.

Writing: a checkpoint grows under a temporary name, each file forced to the disk; then the folder
is renamed, and only then does a pointer move to it. Killed at any moment, the run keeps the
checkpoint it had or has the new one. `prune` sweeps up what is left behind.

Reading trusts nothing: no file is opened that is not a plain file inside RUN, none of a checkpoint
is parsed before its fingerprint is known to be right, and no array is returned whose name, shape or
dtype is not the config's, or which holds a NaN or an infinity. What does not fit is an InputError
that names the file. Fingerprints show damage; who can write RUN can rewrite them, too.
"""

import contextlib
import errno
import hashlib
import json
import logging
import math
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from minilstm.backend import to_host
from minilstm.checks import State
from minilstm.errors import InputError, check_count, check_positive_int, quote, require
from minilstm.model import ModelConfig, Params
from minilstm.text.vocabulary import Vocabulary, vocabulary_from_dict

FORMAT = 1

Pointer = Literal["best", "last"]
Shapes = dict[str, tuple[int, ...]]
AnyPath = str | os.PathLike[str]

POINTERS: tuple[Pointer, ...] = ("best", "last")
_WEIGHTS, _STATE, _PROGRESS = "weights.safetensors", "state.safetensors", "progress.json"
_HEAD = ("step", "optimizer_steps", "moments", "batch_size", "progress", "files")  # in the last
_NAME = re.compile(r"step-[0-9]{8,}\+*")
_NEW = ".new"  # a checkpoint before it gets its name
_NO_LOCKS = {errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EBADF, errno.EINVAL}


@dataclass(frozen=True)
class Run:
    """A run folder as `write_run` left it or `read_run` found it.

    Attributes:
        path: the folder.
        config: the model's.
        vocabulary: with config.vocab_size symbols.
        extra: the further entries of config.json, such as how the run was trained.
        fingerprints: of the two files; each checkpoint repeats them.
    """

    path: Path
    config: ModelConfig
    vocabulary: Vocabulary
    extra: dict[str, Any]
    fingerprints: dict[str, str]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """All that changes during training.

    Args:
        step: steps taken, ≥ 0.
        params: float32 or float64, all alike; on either device, read back on the host.
        optimizer: an optimizer's `state_dict`, or None.
        carry: the state carried into the next batch, each (L, B, H), or None.
        progress: plain JSON: schedule, counters, the best loss so far.
    """

    step: int
    params: Params
    optimizer: dict[str, Any] | None = None
    carry: State | None = None
    progress: dict[str, Any] = field(default_factory=dict)


# --- the run folder


def holds_run(path: AnyPath) -> bool:
    """Whether there is a run in this folder, or what may be left of one."""
    return any(os.path.lexists(Path(path) / name) for name in ("config.json", *POINTERS))


@contextlib.contextmanager
def locked(path: AnyPath) -> Iterator[None]:
    """Have a run folder to oneself: until the block ends, whoever else asks here is refused.

    The lock is the system's, on the folder itself: no file is left, and it is gone with the process
    that held it, however that ended. Windows and some file systems have none: there nobody is kept
    out, of which the latter warn. Another machine that sees the folder may not see the lock.

    Args:
        path: the folder; it and its parents are made where they are missing.
    Raises:
        InputError: another training holds it.
        OSError: the system refused.
    """
    Path(path).mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        if sys.platform != "win32":
            import fcntl

            folder = os.open(path, os.O_RDONLY)
            held.callback(os.close, folder)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno == errno.EWOULDBLOCK:
                    raise InputError(f"{path} is in use: another training is at it") from None
                if error.errno not in _NO_LOCKS:
                    raise
                message = "%s: no locks on this file system (%s): nobody keeps a second run out"
                logging.getLogger("minilstm").warning(message, path, error.strerror)
            check_same(path, os.fstat(folder))
        yield


def check_same(path: AnyPath, then: os.stat_result) -> None:
    """Raise an InputError where another folder has come to lie at this path since `then`."""
    if not os.path.samestat(os.stat(path), then):
        raise InputError(f"{path} is no longer the folder that this run began in: it was replaced")


def write_run(path: AnyPath, config: ModelConfig, vocabulary: Vocabulary,
              extra: Mapping[str, Any] | None = None, *, overwrite: bool = False) -> Run:
    """Begin a run folder: vocabulary.json, then config.json, whose presence makes it one.

    Args:
        path: the folder; it and its parents are made where they are missing.
        config: the model's.
        vocabulary: with config.vocab_size symbols.
        extra: further entries of config.json, plain JSON.
        overwrite: a run that is there already loses its checkpoints and makes room. Killed in
            between, the folder holds the old run, or none.
    Returns:
        The run, as `read_run` would return it.
    Raises:
        InputError: the folder holds a run and overwrite is not set, or the arguments do not fit.
        OSError: the system refused.
        TypeError, ValueError: extra is not plain JSON, or has an entry of write_run's own.
    """
    path, content = Path(path), dict(format=FORMAT, model=asdict(config), **(extra or {}))
    files = {"vocabulary.json": _to_json(vocabulary.to_dict()), "config.json": _to_json(content)}
    run = _parse_run(path, files)  # so that nothing is written that would not be read
    if holds_run(path) and not overwrite:
        raise InputError(f"{path} holds a run already")
    (path / "checkpoints").mkdir(parents=True, exist_ok=True)
    for name in ("config.json", *POINTERS):  # of a run to be overwritten
        (path / name).unlink(missing_ok=True)
    _sync(path)
    prune(run)
    for name, data in files.items():
        replace_file(path / name, data)
    _sync(path.parent)
    return run


def read_run(path: AnyPath) -> Run:
    """Read a run's config and vocabulary.

    Raises:
        InputError: a file is missing or damaged, or the two do not fit each other.
    """
    path = Path(path)
    require(path.is_dir(), "want the folder of a run", f"{str(path)!r}, which is no folder")
    return _parse_run(path, {n: _read_file(path / n) for n in ("vocabulary.json", "config.json")})


def _parse_run(path: Path, files: Mapping[str, bytes]) -> Run:
    where = path / "config.json"
    extra = _parse_json(where, files[where.name])
    found = extra.pop("format", None) if isinstance(extra, dict) else None
    if type(found) is not int or found != FORMAT:
        raise InputError(f"{where}: format must be {FORMAT}, got {quote(found)} (a newer one?)")
    symbols = _parse_json(path / "vocabulary.json", files["vocabulary.json"])
    try:
        names = [f.name for f in fields(ModelConfig)]
        config = ModelConfig(**_check_keys("model", extra.pop("model", None), names))
        # 10^15 would take the memory to list their tensors
        require(config.num_layers <= 1000, "num_layers must be ≤ 1000", quote(config.num_layers))
        where = path / "vocabulary.json"
        vocabulary = vocabulary_from_dict(symbols)
        V, size = config.vocab_size, len(vocabulary)
        require(size == V, f"config.json wants {quote(V)} symbols", size)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return Run(path, config, vocabulary, extra, {n: _fingerprint(d) for n, d in files.items()})


# --- checkpoints


def write_checkpoint(run: Run, checkpoint: Checkpoint) -> str:
    """Write a checkpoint; no pointer names it yet.

    Args:
        run: where to.
        checkpoint: its arrays need not be contiguous, nor on the host.
    Returns:
        The checkpoint's name, for `point`.
    Raises:
        InputError: the checkpoint is not one of this run's model, or not finite; or the run's
            files have gone or changed since it was opened.
        OSError: the system refused, as where the disk is full. Nothing is left of this
            checkpoint; those before it are as they were.
    """
    import safetensors.numpy

    head, tensors = _pack(run, checkpoint)
    for file, fingerprint in run.fingerprints.items():
        _read_file(run.path / file, fingerprint)
    folder = _check_is("folder", run.path / "checkpoints")
    new, name = folder / _NEW, f"step-{checkpoint.step:08d}"
    while os.path.lexists(folder / name):  # leave it alone: it may be in use
        name += "+"
    shutil.rmtree(new, ignore_errors=True)  # if a process was killed here
    try:
        os.mkdir(new)
        for file, arrays in tensors.items():
            # Array by array, without a second copy of them all.
            safetensors.numpy.save_file(arrays, new / file)
            head["files"][file] = _fingerprint(np.memmap(new / file, mode="r").data)
        (new / _PROGRESS).write_bytes(_to_json(head))
        _sync(*new.iterdir(), new)
        for file in tensors:  # so far for the owner's eyes alone
            shutil.copymode(run.path / "config.json", new / file)
        os.rename(new, folder / name)
    except safetensors.SafetensorError as error:  # such as a full disk
        raise OSError(f"{new}: {error}") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)  # of what was stopped on the way
    _sync(folder)
    return name


def point(run: Run, which: Pointer, name: str) -> None:
    """Let RUN/best or RUN/last name a checkpoint, from one moment to the next.

    A checkpoint that is both becomes the best first: a run killed in between then resumes from the
    one before and finds its best again, where the other order would have lost it.

    Args:
        run: the run.
        which: "best" or "last".
        name: as `write_checkpoint` returned it.
    Raises:
        InputError: there is no such checkpoint.
        OSError: the system refused. The pointer names what it named before, or the new one.
    """
    require(_NAME.fullmatch(name), "a checkpoint's name must be like step-00001234", quote(name))
    fingerprint = _fingerprint(_read_file(run.path / "checkpoints" / name / _PROGRESS))
    replace_file(run.path / which, f"{name}: {fingerprint}\n".encode())


def has_checkpoint(run: Run, which: Pointer = "last") -> bool:
    """Whether RUN/best or RUN/last is there. What it names may still be damaged."""
    return os.path.lexists(run.path / which)


def read_checkpoint(run: Run, which: Pointer = "best", *, weights_only: bool = False) -> Checkpoint:
    """Read the checkpoint that RUN/best or RUN/last names.

    Args:
        run: as `read_run` returned it.
        which: "best" or "last".
        weights_only: leave optimizer and carry out, None, and their file unread.
    Returns:
        The checkpoint, bit for bit as it was written, its arrays on the host.
    Raises:
        InputError: a file is missing or is not what it must be; the message names it.
    """
    name, fingerprint = _read_pointer(run, which)
    folder = _check_is("folder", _check_is("folder", run.path / "checkpoints") / name)
    where = folder / _PROGRESS
    head = _parse_json(where, _read_file(where, fingerprint))
    shapes = _check_head(where, run.config, head)
    files = _check_keys(f"{where}: files", head["files"], (*run.fingerprints, *shapes))
    if changed := [file for file, wanted in run.fingerprints.items() if files[file] != wanted]:
        raise InputError(f"{run.path / changed[0]} has changed since {name} was written")
    params = _read_tensors(folder / _WEIGHTS, files[_WEIGHTS], shapes[_WEIGHTS])
    if weights_only:
        return Checkpoint(head["step"], params, progress=head["progress"])
    dtype, steps = str(params["fc.b"].dtype), head["optimizer_steps"]
    state = _read_tensors(folder / _STATE, files[_STATE], shapes[_STATE], dtype)
    moments = {str(m): {p: state[f"{m}/{p}"] for p in params if steps} for m in head["moments"]}
    optimizer = {"steps": steps, **moments} if steps is not None else None
    carry = (state["carry/h"], state["carry/c"]) if head["batch_size"] is not None else None
    return Checkpoint(head["step"], params, optimizer, carry, head["progress"])


def prune(run: Run) -> None:
    """Remove the checkpoints that no pointer names, and one that a killed process left half done.

    Raises:
        InputError: a pointer is damaged; nothing is removed then.
        OSError: the system refused.
    """
    keep = {_read_pointer(run, which)[0] for which in POINTERS if has_checkpoint(run, which)}
    folder = _check_is("folder", run.path / "checkpoints")
    for name in set(os.listdir(folder)) - keep:
        if name == _NEW or _NAME.fullmatch(name):
            shutil.rmtree(folder / name)


def save_model(path: AnyPath, config: ModelConfig, params: Params, vocabulary: Vocabulary,
               extra: Mapping[str, Any] | None = None) -> None:
    """Write a run folder with one checkpoint, both best and last.

    Saved again with the same config, vocabulary and extra, the new parameters take the old ones'
    place, at one moment. Any other run in the folder is left alone.

    Args:
        path, config, vocabulary, extra: as for `write_run`.
        params: as for `Checkpoint`.
    Raises:
        InputError: the folder holds another run, or the arguments do not fit.
        OSError: the system refused.
    """
    _check_arrays("params", params, config.parameter_shapes())  # else a run would be begun
    run = read_run(path) if holds_run(path) else write_run(path, config, vocabulary, extra)
    if (run.config, run.vocabulary, run.extra) != (config, vocabulary, extra or {}):
        raise InputError(f"{path} holds another run already")
    name = write_checkpoint(run, Checkpoint(step=0, params=params))
    for which in POINTERS:
        point(run, which, name)
    prune(run)


def load_model(path: AnyPath) -> tuple[ModelConfig, Params, Vocabulary]:
    """Read the best model of a run folder, onto the host.

    Raises:
        InputError: as `read_run` and `read_checkpoint`.
    """
    run = read_run(path)
    return run.config, read_checkpoint(run, "best", weights_only=True).params, run.vocabulary


# --- what a checkpoint's files hold


def _pack(run: Run, checkpoint: Checkpoint) -> tuple[dict[str, Any], dict[str, Params]]:
    """progress.json but for two fingerprints, and file -> tensors, checked as when read back."""
    moments, carry = dict(checkpoint.optimizer or {}), checkpoint.carry
    steps = moments.pop("steps", None)
    state = {f"{m}/{name}": x for m, arrays in moments.items() for name, x in arrays.items()}
    if carry is not None:
        state["carry/h"], state["carry/c"] = carry
    head = {"step": checkpoint.step, "optimizer_steps": steps, "moments": [*moments],
            "batch_size": carry[0].shape[1] if carry is not None else None,
            "progress": checkpoint.progress, "files": {**run.fingerprints}}
    shapes = _check_head("checkpoint", run.config, head)
    params = _check_arrays("params", checkpoint.params, shapes[_WEIGHTS])
    state = _check_arrays("state", state, shapes[_STATE], str(params["fc.b"].dtype))
    return head, {_WEIGHTS: params, _STATE: state}


def _check_head(where: object, config: ModelConfig, head: Any) -> dict[str, Shapes]:
    """File -> tensor -> shape, as progress.json has them; an InputError if that cannot be."""
    _check_keys(where, head, _HEAD)
    check_count(f"{where}: step", head["step"])
    steps, moments, B = head["optimizer_steps"], head["moments"], head["batch_size"]
    if not isinstance(head["progress"], dict):
        raise InputError(f"{where}: progress must be an object, got {quote(head['progress'])}")
    if not isinstance(moments, list) or len(moments) > 8 or "steps" in moments:
        raise InputError(f"{where}: moments must be a list of ≤ 8 names, got {quote(moments)}")
    if moments or steps is not None:
        check_count(f"{where}: optimizer_steps", steps)
    weights: Shapes = config.parameter_shapes()
    state = {f"{m}/{name}": x for m in moments for name, x in weights.items() if steps}
    if B is not None:
        check_positive_int(f"{where}: batch_size", B)
        state |= dict.fromkeys(("carry/h", "carry/c"), (config.num_layers, B, config.hidden_size))
    return {_WEIGHTS: weights, _STATE: state}


def _check_arrays(where: object, arrays: Params, shapes: Shapes, *dtypes: str) -> Params:
    """The same, on the host, C-contiguous, in shapes' order; an InputError if they do not fit.

    All have one dtype: one of those given, or else float32 or float64.
    """
    _check_keys(where, arrays, shapes)
    checked, dtypes = {}, dtypes or ("float32", "float64")
    for name, shape in shapes.items():
        found, dtype = tuple(arrays[name].shape), str(arrays[name].dtype)
        if found != shape or dtype not in dtypes:
            wanted = f"{quote(shape)} {' or '.join(dtypes)}"
            raise InputError(f"{where}: {name} must be {wanted}, got {quote(found)} {dtype}")
        dtypes = (dtype,)  # the others must be alike
        # safetensors writes an array that is not C-contiguous as if it were, and says nothing.
        checked[name] = np.ascontiguousarray(to_host(arrays[name]))
        if not np.isfinite(checked[name]).all():
            raise InputError(f"{where}: {name} holds a NaN or an infinity")
    return checked


# --- reading


def _read_pointer(run: Run, which: Pointer) -> tuple[str, str]:
    """The checkpoint's name and the fingerprint of its progress.json."""
    text = _read_file(run.path / which, limit=200).decode("ascii", "backslashreplace")
    name, _, fingerprint = text.removesuffix("\n").partition(": ")
    require(_NAME.fullmatch(name), f"{run.path / which} must name a checkpoint", quote(name))
    return name, fingerprint


def _read_tensors(path: Path, fingerprint: object, shapes: Shapes, *dtypes: str) -> Params:
    import safetensors.numpy

    limit = 8 * sum(map(math.prod, shapes.values())) + 512 * (len(shapes) + 1)
    data = _read_file(path, str(fingerprint), limit)
    try:
        return _check_arrays(path, safetensors.numpy.load(data), shapes, *dtypes)
    except (safetensors.SafetensorError, KeyError) as error:  # the key is a dtype that NumPy lacks
        raise InputError(f"{path} is damaged: {str(error)[:200]!a}") from None


def _read_file(path: Path, fingerprint: str | None = None, limit: int = 1 << 26) -> bytes:
    """A plain file's bytes: at most so many, and with this fingerprint, if there is one."""
    if (size := _check_is("file", path).stat().st_size) > limit:
        raise InputError(f"{path} must have at most {quote(limit)} bytes, got {size}")
    data = path.read_bytes()
    if fingerprint is not None and (found := _fingerprint(data)) != fingerprint:
        raise InputError(f"{path} is damaged: it must have {quote(fingerprint)}, got {found}")
    return data


def _fingerprint(data: bytes | memoryview) -> str:
    return f"{len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}"


def _check_is(kind: Literal["file", "folder"], path: Path) -> Path:
    """Return path. A link is neither file nor folder, wherever it leads."""
    if not os.path.lexists(path):
        raise InputError(f"{path} is missing")
    if path.is_symlink() or not (path.is_file() if kind == "file" else path.is_dir()):
        raise InputError(f"{path} must be a plain {kind}, not a link or anything else")
    return path


def _parse_json(path: Path, data: bytes) -> Any:
    """The inverse of `_to_json`, and of nothing else: what it would have written otherwise (a name
    twice, a NaN, 1e999) is refused, and so is a number of more digits than any that it wrote."""
    try:
        value = json.loads(data, parse_int=lambda digits: int(digits[:40]))
        if _to_json(value) == data:
            return value
        raise ValueError("minilstm would have written it otherwise")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON as it must be: {error}") from None


def _check_keys(where: object, data: Any, wanted: Iterable[str]) -> dict[str, Any]:
    """Return data; an InputError unless it is a dict with exactly the keys wanted."""
    if not isinstance(data, dict):
        raise InputError(f"{where} must be an object with named values, got {quote(data)}")
    if odd := sorted(data.keys() ^ set(wanted)):
        fault = "has an unknown" if odd[0] in data else "lacks"
        raise InputError(f"{where} {fault} {quote(odd[0])}")
    return data


# --- writing


def _to_json(value: object) -> bytes:
    """Indented and sorted, and in ASCII: no symbol of a vocabulary reaches a terminal raw."""
    # NumPy's scalars become plain numbers; .item of anything else is a TypeError.
    text = json.dumps(value, default=np.generic.item, indent=1, sort_keys=True, allow_nan=False)
    return f"{text}\n".encode()


def replace_file(path: Path, data: bytes) -> None:
    """The file is the old one, and from one moment on the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)  # if a process was killed here; it may be a link, too
    temporary.write_bytes(data)
    _sync(temporary)
    os.replace(temporary, path)
    _sync(path.parent)


def _sync(*paths: Path) -> None:
    """Force files, and where the system knows how the names in folders, to the disk."""
    for path in paths:
        if path.is_file() or os.name != "nt":
            descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
