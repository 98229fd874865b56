"""Run folders and checkpoints: safetensors and JSON, there as a whole or not at all.

    RUN/vocabulary.json
    RUN/config.json              its "format" is the version of this layout
    RUN/best, RUN/last           pointers: the name of a checkpoint, on one line
    RUN/checkpoints/step-00001234/
        progress.json            the step, and what else the training loop wants to have back
        weights.safetensors      the parameters, under the names of model.py
        optimizer.safetensors    its moments, such as "m/lstm0.W_x"
        carry.safetensors        the state (h, c) carried into the next batch
        manifest.json            size and SHA-256 of these files, and SHA-256 of the run's first two

Writing: a checkpoint grows under a temporary name, each file forced to the disk, the manifest last;
then the folder is renamed, and only then does a pointer move to it. Killed at any moment, the run
keeps the checkpoint it had or has the new one. `prune` sweeps up what is left behind.

Reading trusts nothing: no file is opened that is not a plain file inside RUN, none is parsed before
its size and digest are as the manifest says, no array is made before its name, shape and dtype are
as the config says, and none with a NaN or an infinity is returned. What does not fit is an
InputError that names the file. Digests show damage; who can write RUN can rewrite them, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from minilstm.backend import to_host
from minilstm.errors import InputError, check_count, check_positive_int, quote
from minilstm.model import ModelConfig, Params, State
from minilstm.text.vocabulary import Vocabulary, vocabulary_from_dict

FORMAT = 1

Pointer = Literal["best", "last"]
Arrays = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]
Entry = Mapping[str, Any]  # of a manifest: {"bytes": size, "sha256": digest}

_POINTERS: tuple[Pointer, ...] = ("best", "last")
_RUN_FILES = ("vocabulary.json", "config.json")
_ALWAYS = ("progress.json", "weights.safetensors")  # in each checkpoint, and the others in some
_SOMETIMES = ("optimizer.safetensors", "carry.safetensors")
_NAME = re.compile(r"step-[0-9]{8,}(\.[0-9]+)?")
_TEMPORARY = re.compile(rf"\.{_NAME.pattern}\.tmp")
_DTYPES = {"float32": "F32", "float64": "F64"}  # NumPy's names and those of safetensors
_JSON_LIMIT = 1 << 26  # bytes, of one JSON file
_MAX_DIGITS = 40  # of a whole number there; a seed of 128 bits has 39


@dataclass(frozen=True)
class Run:
    """A run folder as `write_run` left it or `read_run` found it.

    Attributes:
        path: the folder.
        config: the model's.
        vocabulary: with config.vocab_size symbols.
        extra: the further entries of config.json, such as how the run was trained.
        digests: SHA-256 of the two files; each checkpoint's manifest repeats them.
    """

    path: Path
    config: ModelConfig
    vocabulary: Vocabulary
    extra: dict[str, Any]
    digests: dict[str, str]


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


def holds_run(path: str | os.PathLike[str]) -> bool:
    """Whether there is a run in this folder, or what may be left of one."""
    return any(os.path.lexists(Path(path) / name) for name in ("config.json", *_POINTERS))


def write_run(
    path: str | os.PathLike[str],
    config: ModelConfig,
    vocabulary: Vocabulary,
    extra: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
) -> Run:
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
    """
    path = Path(path)
    files = _run_files(path, config, vocabulary, extra)
    run = _parse_run(path, files)  # so that nothing is written that would not be read
    if holds_run(path) and not overwrite:
        raise InputError(f"{path} holds a run already")
    path.mkdir(parents=True, exist_ok=True)
    if overwrite:
        for name in ("config.json", *_POINTERS):
            (path / name).unlink(missing_ok=True)
        _sync_folder(path)
        prune(run)
    for name in _RUN_FILES:
        _replace_file(path / name, files[name])
    _sync_folder(path.parent)
    return run


def read_run(path: str | os.PathLike[str]) -> Run:
    """Read a run's config and vocabulary.

    Raises:
        InputError: a file is missing or damaged, or the two do not fit each other.
    """
    path = Path(path)
    return _parse_run(path, {name: _read_file(path / name) for name in _RUN_FILES})


def _run_files(
    path: Path, config: ModelConfig, vocabulary: Vocabulary, extra: Mapping[str, Any] | None
) -> dict[str, bytes]:
    own = {"format": FORMAT, "model": asdict(config)}
    if taken := own.keys() & (extra or {}).keys():
        raise InputError(f"extra must leave {quote(min(taken))} to the run folder")
    return {
        "vocabulary.json": _to_json(path / "vocabulary.json", vocabulary.to_dict()),
        "config.json": _to_json(path / "config.json", {**(extra or {}), **own}),
    }


def _parse_run(path: Path, files: Mapping[str, bytes]) -> Run:
    where = path / "config.json"
    extra = _parse_json(where, files["config.json"])
    _check_format(where, extra)
    del extra["format"]
    config = _parse_model_config(where, extra.pop("model", None))
    where = path / "vocabulary.json"
    data = _parse_json(where, files["vocabulary.json"])
    try:
        vocabulary = vocabulary_from_dict(data)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if len(vocabulary) != config.vocab_size:
        wanted = f"config.json's vocab_size = {quote(config.vocab_size)} symbols"
        raise InputError(f"{where} must have {wanted}, got {len(vocabulary)}")
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return Run(path, config, vocabulary, extra, digests)


def _parse_model_config(where: Path, data: object) -> ModelConfig:
    kinds = {f.name: str(f.type).split(" | ") for f in fields(ModelConfig)}  # ["int", "None"]
    for name, value in _check_keys(f"{where}: model", data, kinds).items():
        kind, allowed = "None" if value is None else type(value).__name__, kinds[name]
        if kind not in allowed and not (kind == "int" and "float" in allowed):
            wanted = " or ".join(allowed)
            raise InputError(f"{where}: {name} must be of type {wanted}, got {quote(value)}")
    try:
        return ModelConfig(**data)  # type: ignore[arg-type]
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


# --- checkpoints


def write_checkpoint(run: Run, checkpoint: Checkpoint) -> str:
    """Write a checkpoint; no pointer names it yet.

    Args:
        run: where to.
        checkpoint: its arrays need not be contiguous, nor on the host.
    Returns:
        The checkpoint's name, for `point`.
    Raises:
        InputError: the checkpoint is not one of this run's model, or not finite.
        OSError: the system refused, as where the disk is full, or the run's files have changed
            under it. Nothing is left of this checkpoint; those before it are as they were.
    """
    return _write_folder(run, checkpoint.step, _pack(run, checkpoint))


def _write_folder(run: Run, step: int, files: dict[str, bytes | Arrays]) -> str:
    for name, digest in run.digests.items():
        path = run.path / name
        if not path.is_file() or _fingerprint(path)["sha256"] != digest:
            raise OSError(f"{path} has gone or changed since the run was opened")
    checkpoints = run.path / "checkpoints"
    if not os.path.lexists(checkpoints):
        os.mkdir(checkpoints)
        _sync_folder(run.path)
    _check_folder(checkpoints)
    plain = name = f"step-{step:08d}"
    for n in itertools.count(2):
        if not os.path.lexists(checkpoints / name):
            break  # else it may be in use: leave it alone
        name = f"{plain}.{n}"
    temporary = _temporary(checkpoints / name)
    if temporary.exists():  # a process was killed here
        shutil.rmtree(temporary)
    try:
        os.mkdir(temporary)
        for file, content in files.items():
            if isinstance(content, bytes):
                _write_file(temporary / file, content)
            else:
                _write_tensors(temporary / file, content, mode_of=temporary / "progress.json")
        manifest = {
            "format": FORMAT,
            "files": {file: _fingerprint(temporary / file) for file in files},
            "run": run.digests,
        }
        path = temporary / "manifest.json"
        _write_file(path, _to_json(path, manifest))
        _sync_folder(temporary)
        os.rename(temporary, checkpoints / name)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync_folder(checkpoints)
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
    if not _NAME.fullmatch(name):
        raise InputError(f"a checkpoint's name must be like step-00001234, got {quote(name)}")
    _size(run.path / "checkpoints" / name / "manifest.json")
    _replace_file(_pointer(run, which), f"{name}\n".encode())


def has_checkpoint(run: Run, which: Pointer = "last") -> bool:
    """Whether RUN/best or RUN/last is there. What it names may still be damaged."""
    return os.path.lexists(_pointer(run, which))


def read_checkpoint(run: Run, which: Pointer = "best", *, weights_only: bool = False) -> Checkpoint:
    """Read the checkpoint that RUN/best or RUN/last names.

    Args:
        run: as `read_run` returned it.
        which: "best" or "last".
        weights_only: leave optimizer and carry out, None, and their files unread.
    Returns:
        The checkpoint, bit for bit as it was written, its arrays on the host.
    Raises:
        InputError: a file is missing or is not what it must be; the message names it.
    """
    folder = run.path / "checkpoints" / _read_pointer(run, which)
    _check_folder(folder.parent)
    _check_folder(folder)
    entries = _read_manifest(run, folder)
    progress = folder / "progress.json"
    data = _parse_json(progress, _read_file(progress, entries[progress.name]))
    _check_keys(progress, data, ("step", "dtype", "optimizer", "carry", "progress"))
    step, dtype = check_count(f"{progress}: step", data["step"]), data["dtype"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        wanted = " or ".join(_DTYPES)
        raise InputError(f"{progress}: dtype must be {wanted}, got {quote(dtype)}")
    if not isinstance(data["progress"], dict):
        raise InputError(f"{progress}: progress must be an object, got {quote(data['progress'])}")
    parts = [file for file in _SOMETIMES if data[file.removesuffix(".safetensors")] is not None]
    _check_keys(f"{folder / 'manifest.json'}: files", entries, (*_ALWAYS, *parts))

    def read(name: str, shapes: Shapes) -> Arrays:
        return _read_tensors(folder / name, entries[name], shapes, dtype)

    # Three tensors per layer: a number of layers in the millions ends here, not in a dict of shapes
    path = folder / "weights.safetensors"
    if 150 * run.config.num_layers > (header := _header_size(path, entries[path.name])):
        layers = f"num_layers = {quote(run.config.num_layers)} of {run.path / 'config.json'}"
        raise InputError(f"{path}: a header of {header} bytes cannot hold {layers}")
    params = read(path.name, run.config.parameter_shapes())
    optimizer, carry = None, None
    if data["optimizer"] is not None and not weights_only:
        steps, moments = _parse_optimizer(progress, data["optimizer"])
        arrays = read("optimizer.safetensors", _moment_shapes(run.config, moments, steps))
        nested: dict[str, Arrays] = {m: {} for m in moments}
        for name, array in arrays.items():
            m, _, parameter = name.partition("/")
            nested[m][parameter] = array
        optimizer = {"steps": steps, **nested}
    if data["carry"] is not None and not weights_only:
        B = check_positive_int(f"{progress}: carry", data["carry"])
        arrays = read("carry.safetensors", _carry_shapes(run.config, B))
        carry = arrays["h"], arrays["c"]
    return Checkpoint(step, params, optimizer, carry, data["progress"])


def prune(run: Run) -> None:
    """Remove the checkpoints that no pointer names, and what a killed process left behind.

    Raises:
        InputError: a pointer is damaged; nothing is removed then.
    """
    pointers = [which for which in _POINTERS if has_checkpoint(run, which)]
    keep = {_read_pointer(run, which) for which in pointers}
    for name in (*_RUN_FILES, *_POINTERS):
        _temporary(run.path / name).unlink(missing_ok=True)
    checkpoints = run.path / "checkpoints"
    if not os.path.lexists(checkpoints):
        return
    _check_folder(checkpoints)
    with os.scandir(checkpoints) as entries:
        folders = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
    for name in folders - keep:
        if _NAME.fullmatch(name) or _TEMPORARY.fullmatch(name):
            shutil.rmtree(checkpoints / name)


def save_model(
    path: str | os.PathLike[str],
    config: ModelConfig,
    params: Params,
    vocabulary: Vocabulary,
    extra: Mapping[str, Any] | None = None,
) -> None:
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
    path = Path(path)
    files = _run_files(path, config, vocabulary, extra)
    run = _parse_run(path, files)
    contents = _pack(run, Checkpoint(step=0, params=params))
    if not holds_run(path):
        write_run(path, config, vocabulary, extra)
    elif any(_read_file(path / name) != data for name, data in files.items()):
        raise InputError(f"{path} holds another run already")
    name = _write_folder(run, 0, contents)
    for which in _POINTERS:
        point(run, which, name)
    prune(run)


def load_model(path: str | os.PathLike[str]) -> tuple[ModelConfig, Params, Vocabulary]:
    """Read the best model of a run folder, onto the host.

    Raises:
        InputError: as `read_run` and `read_checkpoint`.
    """
    run = read_run(path)
    return run.config, read_checkpoint(run, "best", weights_only=True).params, run.vocabulary


# --- what a checkpoint's files hold


def _pack(run: Run, checkpoint: Checkpoint) -> dict[str, bytes | Arrays]:
    """File name -> content, progress.json first; InputError unless all of it would be read back."""
    step = check_count("step", checkpoint.step)
    dtype = str(next((p.dtype for p in checkpoint.params.values()), None))
    if dtype not in _DTYPES:
        raise InputError(f"params must be {' or '.join(_DTYPES)}, got {dtype}")
    progress: dict[str, Any] = {"step": step, "dtype": dtype, "progress": checkpoint.progress}
    progress |= {"optimizer": None, "carry": None}
    tensors = {"weights.safetensors": (checkpoint.params, run.config.parameter_shapes())}
    if checkpoint.optimizer is not None:
        moments = {name: m for name, m in checkpoint.optimizer.items() if name != "steps"}
        progress["optimizer"] = {"steps": checkpoint.optimizer.get("steps"), "moments": [*moments]}
        steps, names = _parse_optimizer("checkpoint", progress["optimizer"])
        flat = {f"{m}/{p}": array for m in names for p, array in moments[m].items()}
        tensors["optimizer.safetensors"] = (flat, _moment_shapes(run.config, names, steps))
    if checkpoint.carry is not None:
        h, c = checkpoint.carry
        B = progress["carry"] = h.shape[1] if len(h.shape) > 1 else 1
        tensors["carry.safetensors"] = ({"h": h, "c": c}, _carry_shapes(run.config, B))
    files: dict[str, bytes | Arrays] = {"progress.json": _to_json("progress.json", progress)}
    for file, (arrays, shapes) in tensors.items():
        found = {k: (tuple(a.shape), str(a.dtype)) for k, a in arrays.items()}
        _check_tensors(file, found, shapes, dtype)
        # safetensors writes an array that is not C-contiguous as if it were, and says nothing.
        contiguous = {k: np.ascontiguousarray(a) for k, a in to_host(arrays).items()}
        _check_finite(file, contiguous)
        files[file] = contiguous
    return files


def _parse_optimizer(where: object, data: object) -> tuple[int, list[str]]:
    """The optimizer's step count and the names of its moments."""
    data = _check_keys(f"{where}: optimizer", data, ("steps", "moments"))
    steps, moments = check_count(f"{where}: optimizer steps", data["steps"]), data["moments"]
    if not isinstance(moments, list) or not len(set(map(str, moments))) == len(moments) <= 8:
        raise InputError(f"{where}: moments must be a list of ≤ 8 names, got {quote(moments)}")
    for name in moments:
        if not isinstance(name, str) or not re.fullmatch("[a-z_]{1,40}", name) or name == "steps":
            raise InputError(f"{where}: a moment must have a plain name, got {quote(name)}")
    return steps, moments


def _moment_shapes(config: ModelConfig, moments: list[str], steps: int) -> Shapes:
    """Before an optimizer's first step its moments are empty."""
    shapes = config.parameter_shapes() if steps > 0 else {}
    return {f"{m}/{name}": shape for m in moments for name, shape in shapes.items()}


def _carry_shapes(config: ModelConfig, B: int) -> Shapes:
    return dict.fromkeys(("h", "c"), (config.num_layers, B, config.hidden_size))


def _check_tensors(
    where: object, found: Mapping[str, tuple[tuple[int, ...], str]], shapes: Shapes, dtype: str
) -> None:
    _check_keys(where, found, shapes)
    for name, (shape, found_dtype) in found.items():
        if shape != shapes[name]:
            wanted, got = quote(shapes[name]), quote(shape)
            raise InputError(f"{where}: {name} must have shape {wanted}, got {got}")
        if found_dtype != dtype:
            raise InputError(f"{where}: {name} must be {dtype}, got {quote(found_dtype)}")


def _check_finite(where: object, arrays: Mapping[str, Any]) -> None:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise InputError(f"{where}: {name} holds a NaN or an infinity")


# --- reading


def _read_pointer(run: Run, which: Pointer) -> str:
    path = _pointer(run, which)
    data = _read_file(path, limit=100)
    name = data.decode("ascii", "backslashreplace").removesuffix("\n")
    if not _NAME.fullmatch(name):
        raise InputError(f"{path} must name a checkpoint, such as step-00001234, got {quote(name)}")
    return name


def _read_manifest(run: Run, folder: Path) -> dict[str, Any]:
    """The manifest's files: name -> size and digest, the names being plain and known."""
    path = folder / "manifest.json"
    manifest = _parse_json(path, _read_file(path))
    _check_format(path, manifest)
    _check_keys(path, manifest, ("format", "files", "run"))
    digests = _check_keys(f"{path}: run", manifest["run"], run.digests)
    for name, digest in digests.items():
        if digest != run.digests[name]:
            raise InputError(f"{run.path / name} has changed since {folder.name} was written")
    entries = _check_keys(f"{path}: files", manifest["files"], _ALWAYS, _SOMETIMES)
    for name, entry in entries.items():
        _check_keys(f"{path}: {name}", entry, ("bytes", "sha256"))
    return entries


def _read_tensors(path: Path, entry: Entry, shapes: Shapes, dtype: str) -> Arrays:
    """The tensors of these names, in this order."""
    from safetensors import SafetensorError, safe_open

    header = _header_size(path, entry)
    data = sum(map(math.prod, shapes.values())) * np.dtype(dtype).itemsize
    if header > 512 * (len(shapes) + 1) or 8 + header + data != entry["bytes"]:
        wanted = f"{len(shapes)} tensors of {quote(data)} bytes together"
        raise InputError(f"{path} must hold {wanted}, got a file of {entry['bytes']} bytes")
    if _fingerprint(path) != entry:
        raise InputError(f"{path} is damaged: its SHA-256 is not the manifest's")
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {k: (tuple(s.get_shape()), s.get_dtype()) for k, s in slices.items()}
            _check_tensors(path, found, shapes, _DTYPES[dtype])
            arrays: Arrays = {name: file.get_tensor(name) for name in shapes}
    except SafetensorError as error:
        raise InputError(f"{path} is damaged: {str(error)[:200]!a}") from None
    _check_finite(path, arrays)
    return arrays


def _header_size(path: Path, entry: Entry) -> int:
    """The length in bytes of a safetensors file's header, which its first 8 bytes declare."""
    size = _check_size(path, entry)
    with open(path, "rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if 8 + header > size:
        got = f"a file of {size} bytes whose header would have {header}"
        raise InputError(f"{path} is damaged: {got}")
    return header


def _read_file(path: Path, entry: Entry | None = None, limit: int = _JSON_LIMIT) -> bytes:
    """A plain file's bytes, which are what the manifest's entry says, if there is one."""
    size = _size(path) if entry is None else _check_size(path, entry)
    if size > limit:
        raise InputError(f"{path} must have at most {limit} bytes, got {size}")
    with open(path, "rb") as file:
        data = file.read(size)
    if entry is not None and hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise InputError(f"{path} is damaged: its SHA-256 is not the manifest's")
    return data


def _size(path: Path) -> int:
    """The size of a plain file; a link is none, wherever it leads."""
    return _lstat(path, stat.S_ISREG, "a plain file, not a link, a folder or a device").st_size


def _check_folder(path: Path) -> None:
    _lstat(path, stat.S_ISDIR, "a folder, not a link or a file")


def _lstat(path: Path, is_kind: Callable[[int], bool], kind: str) -> os.stat_result:
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} is missing") from None
    if not is_kind(status.st_mode):
        raise InputError(f"{path} must be {kind}")
    return status


def _check_size(path: Path, entry: Entry) -> int:
    size = _size(path)
    if type(entry["bytes"]) is not int or size != entry["bytes"]:
        wanted = quote(entry["bytes"])
        raise InputError(f"{path} must have the manifest's {wanted} bytes, got {size}")
    return size


def _fingerprint(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": _size(path), "sha256": digest}


def _check_format(path: Path, data: dict[str, Any]) -> None:
    found = data.get("format")
    if type(found) is not int or found != FORMAT:
        wanted = f"{FORMAT} (a higher one is a newer minilstm's)"
        raise InputError(f"{path}: format must be {wanted}, got {quote(found)}")


def _check_keys(
    where: object, data: object, wanted: Iterable[str], optional: Iterable[str] = ()
) -> dict[str, Any]:
    """Return data; an InputError unless it is a dict with exactly the keys wanted."""
    if not isinstance(data, dict):
        raise InputError(f"{where} must be an object with named values, got {quote(data)}")
    wanted = [*wanted]
    for name in wanted:
        if name not in data:
            raise InputError(f"{where} lacks {quote(name)}")
    if unknown := data.keys() - {*wanted, *optional}:
        raise InputError(f"{where} has an unknown {quote(min(unknown))}")
    return data


def _parse_json(path: Path, data: bytes) -> dict[str, Any]:
    """An object of standard JSON: each name once, and no number too large to reckon with."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for name, item in pairs:
            if name in value:
                raise ValueError(f"{quote(name)} stands there twice")
            value[name] = item
        return value

    def finite(text: str) -> float:
        if not math.isfinite(value := float(text)):
            raise ValueError(f"{quote(text)} is not a finite number")
        return value

    def whole(text: str) -> int:
        if len(text) > _MAX_DIGITS:
            raise ValueError(f"{quote(text)} has more than {_MAX_DIGITS} digits")
        return int(text)

    hooks: Any = {"parse_int": whole, "parse_float": finite, "parse_constant": finite}
    try:
        value = json.loads(data.decode(), object_pairs_hook=unique, **hooks)
    except RecursionError:
        raise InputError(f"{path} is nested too deeply") from None
    except ValueError as error:
        raise InputError(f"{path} is not JSON as it must be: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} must hold an object with named values, got {quote(value)}")
    return value


# --- writing


def _to_json(where: object, value: object) -> bytes:
    """Indented and sorted, and in ASCII: no symbol of a vocabulary reaches a terminal raw."""

    def plain(value: object) -> object:
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"{type(value).__name__} is not plain JSON")

    try:
        text = json.dumps(value, default=plain, indent=1, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {error}") from None
    return f"{text}\n".encode()


def _write_tensors(path: Path, arrays: Arrays, mode_of: Path) -> None:
    """Straight from the arrays to the file; the bytes would have been two copies in memory."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(arrays, path)
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from None
    shutil.copymode(mode_of, path)  # safetensors lets nobody but the owner read it
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _write_file(path: Path, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _replace_file(path: Path, data: bytes) -> None:
    """The file is the old one, and from one moment on the new one."""
    temporary = _temporary(path)
    temporary.unlink(missing_ok=True)
    try:
        _write_file(temporary, data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    """Force the names in a folder to the disk, where the system knows how."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _pointer(run: Run, which: Pointer) -> Path:
    if which not in _POINTERS:
        raise InputError(f"which must be {' or '.join(_POINTERS)}, got {quote(which)}")
    return run.path / which
