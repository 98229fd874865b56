"""Pictures. matplotlib is imported when the first one is drawn, and never shows a window.

Each function draws into the axes it is given, or into new ones of its own, and returns the axes;
`save` writes their figure to a file.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from minilstm.backend import like, to_host
from minilstm.errors import InputError, require
from minilstm.model import ModelCache, ModelConfig, Params, backward, forward_with_cache
from minilstm.nn.loss import softmax_cross_entropy

Axes = Any  # matplotlib.axes.Axes, not imported here
_LEVEL = {"color": "0.2", "linestyle": "--", "linewidth": 1.0}  # a value to compare curves with


def new_axes(mosaic: str = "A", width: float = 7.0, height: float = 4.0) -> list[Axes]:
    """Axes in a new figure without a window.

    Args:
        mosaic: one letter per axes, rows apart by ";": "AAA;BCD" is a wide one above three.
        width, height: in inches.
    Returns:
        The axes, in the order in which their letters first occur.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return list(figure.subplot_mosaic(mosaic).values())


def save(ax: Axes, path: str | os.PathLike[str]) -> Path:
    """Write the figure that `ax` belongs to, at 150 dots per inch.

    Args:
        ax: any axes of the figure.
        path: its suffix names the format; folders that are missing are made.
    Returns:
        The path.
    Raises:
        InputError: as `check_path` does.
        OSError: the file cannot be made all the same.
    """
    target = check_path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    ax.figure.savefig(target, dpi=150)
    return target


def check_path(path: str | os.PathLike[str]) -> Path:
    """Return path as a Path if `save` can write to it: to be asked before training, not after.

    Raises:
        InputError: the suffix is not .png, .svg or .pdf, or no file can be made there.
    """
    target = Path(path)
    if target.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise InputError(f"a picture must end in .png, .svg or .pdf, got {str(path)!r}")
    # `save` makes the folders that are missing; the nearest that is there must let it.
    nearest = next(p for p in (target, *target.absolute().parents) if p.exists())
    if nearest.is_dir() is (nearest is target) or not os.access(nearest, os.W_OK):
        raise InputError(f"a picture needs a place where it can be written, got {str(path)!r}")
    return target


def loss_curve(steps: Sequence[float], losses: Sequence[float], vocab_size: int,
               ax: Axes | None = None, validation: Sequence[tuple[float, float]] = (),
               unigram: float | None = None) -> Axes:
    """Loss in nats per token against training steps, with the uniform guess's ln V as a line.

    Args:
        steps, losses: N training steps, and the loss of each.
        vocab_size: V.
        ax: where to draw; None makes new axes.
        validation: (step, loss) pairs of the validation text, drawn as a second curve.
        unigram: the entropy of the symbols' frequencies, drawn as a second line.
    Returns:
        The axes.
    """
    ax = ax or new_axes()[0]
    marker = "." if len(steps) < 20 else None  # a single loss would be no line
    ax.plot(steps, losses, color="0.45", linewidth=1.0, marker=marker, label="training")
    if validation:
        curve = zip(*validation, strict=True)
        ax.plot(*curve, color="C0", linewidth=2.0, marker="o", markersize=3, label="validation")
    uniform = float(np.log(vocab_size))
    ax.axhline(uniform, **_LEVEL, label=f"uniform guess: ln {vocab_size} = {uniform:.3f}")
    if unigram is not None:
        dotted = _LEVEL | {"linestyle": ":"}
        ax.axhline(unigram, **dotted, label=f"unigram entropy: {unigram:.3f}")
    ax.set(xlabel="step", ylabel="loss (nats per token)", ylim=(0, None))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(frameon=False)
    return ax


def loss_of_run(rows: Sequence[Mapping[str, float]], vocab_size: int, **options: Any) -> Axes:
    """`loss_curve` of a run's metrics.csv.

    Args:
        rows: as `minilstm.metrics.read_rows` returns them.
        vocab_size: V.
        options: ax and unigram, as for `loss_curve`.
    Returns:
        The axes.
    """
    trained = [row for row in rows if "train_loss" in row]
    steps, losses = [row["step"] for row in trained], [row["train_loss"] for row in trained]
    validation = [(row["step"], row["valid_loss"]) for row in rows if "valid_loss" in row]
    return loss_curve(steps, losses, vocab_size, validation=validation, **options)


def gates(text: Sequence[str], cache: ModelCache, axes: Sequence[Axes] | None = None) -> list[Axes]:
    """What one layer did while it read `text`: i, f, o, g and c, one picture each.

    Columns are time steps, rows hidden units. i, f, o run from 0 (black) to 1 (white); g and c
    from -1 to 1 and from -max|c| to max|c|.

    Args:
        text: the T tokens, which label the columns.
        cache: of `forward_with_cache` with inputs (T, 1); the top layer is shown.
        axes: five, where to draw; None makes new ones: beside each other for a short text, below
            each other for a longer one.
    Returns:
        The five axes.
    Raises:
        InputError: the cache is not of one sequence of T tokens.
    """
    T, B = cache.inputs.shape
    wanted = f"the cache must be of one sequence of {len(text)} tokens"
    require((T, B) == (len(text), 1), wanted, (T, B))
    layer = to_host(cache.layers[-1])
    # cell states after each step: what the next step started from, and the last by its equation
    c_last = layer.f[-1] * layer.c_prevs[-1] + layer.i[-1] * layer.g[-1]
    cs = [*layer.c_prevs[1:], c_last]
    largest = np.abs(cs).max()
    gate, signed, cell = (0, 1), (-1, 1), (-largest, largest)  # black, white
    panels = [("input gate i", layer.i, gate), ("forget gate f", layer.f, gate),
              ("output gate o", layer.o, gate), ("candidate g", layer.g, signed),
              ("cell state c", cs, cell)]
    if axes is None and T <= 8:
        axes = new_axes("ifogc", width=10, height=3.2)
    elif axes is None:
        axes = new_axes("i;f;o;g;c", width=3 + 0.22 * T, height=12)
    labels = ["↵" if token == "\n" else repr(token)[1:-1].replace("$", r"\$") for token in text]
    rotation = 90 if max(map(len, labels)) > 2 else 0
    for ax, (title, values, (low, high)) in zip(axes, panels, strict=True):
        grid = np.concatenate(values).T  # (H, T)
        image = ax.imshow(grid, cmap="gray", vmin=low, vmax=high, aspect="auto",
                          interpolation="nearest")  # fmt: skip
        ax.set_xticks(range(T), labels, rotation=rotation)
        ax.set(title=title, xlabel="token read", ylabel="hidden unit")
        ax.label_outer()  # axes in a row share "hidden unit", those in a column "token read"
        ax.figure.colorbar(image, ax=ax, location="bottom" if T <= 8 else "right", shrink=0.9)
    return list(axes)


def gradient_norms(params: Params, config: ModelConfig, ids: ArrayLike) -> np.ndarray:
    """How far back one loss is felt: ‖∂loss/∂h_t‖ and ‖∂loss/∂c_t‖ for every step t.

    The loss is that of the last token alone; so all of the gradient at h_t and c_t has come from
    step t+1, which is what `backward` returns of a step's initial state.

    Args:
        params, config: the model.
        ids: T + 1 tokens, T ≥ 2: T are read, the last is to be predicted.
    Returns:
        dh and dc in one array (2, T-1, L): for the states after steps 0 … T-2, layer by layer.
    """
    column = like(np.reshape(ids, (-1, 1)), params["fc.b"])
    caches, state = [], None
    for t in range(len(column) - 1):
        logits, state, cache = forward_with_cache(params, config, column[t : t + 1], state)
        caches.append(cache)
    _, dlogits = softmax_cross_entropy(logits, column[-1:])
    norms, dstate = [], None
    for cache in caches[:0:-1]:
        _, dstate = backward(dlogits, cache, dstate)
        norms.append([np.linalg.norm(to_host(d)[:, 0], axis=-1) for d in dstate])  # (2, L)
        dlogits = 0 * dlogits  # earlier predictions have no part in this loss
    return np.array(norms[::-1]).swapaxes(0, 1)


def gradient_flow(dh: np.ndarray, dc: np.ndarray, ax: Axes | None = None) -> Axes:
    """‖dh_t‖ and ‖dc_t‖ against t, on a logarithmic axis: a straight line is exponential decay.

    Args:
        dh, dc: (T, L), as `gradient_norms` returns them; the top layer is drawn.
        ax: where to draw; None makes new axes.
    Returns:
        The axes.
    """
    ax = ax or new_axes()[0]
    ax.semilogy(dh[:, -1], color="C0", label="‖dh_t‖")
    ax.semilogy(dc[:, -1], color="C1", linestyle="--", label="‖dc_t‖")
    ax.set(xlabel="step t; the gradient flows from right to left",
           ylabel="gradient of the last token's loss", title="top layer")  # fmt: skip
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(frameon=False)
    return ax


def gradient_error_curve(epsilons: ArrayLike, errors: ArrayLike, complex_step_error: float,
                         ax: Axes | None = None) -> Axes:
    """The U-shaped error of central differences over ε, and the complex step's as a line.

    The two slopes are the reason for the U: rounding ∝ 1/ε on the left, truncation ∝ ε² on the
    right. Both axes are logarithmic.

    Args:
        epsilons: (N,) step sizes ε.
        errors: (N,), the largest |analytic - numeric| at each.
        complex_step_error: the same of the complex step.
        ax: where to draw; None makes new axes.
    Returns:
        The axes.
    """
    ax = ax or new_axes()[0]
    ax.loglog(epsilons, errors, color="C0", marker="o", label="central differences")
    ax.axhline(complex_step_error, **_LEVEL, label=f"complex step: {complex_step_error:.0e}")
    epsilons, errors = np.asarray(epsilons), np.asarray(errors)
    best = int(np.argmin(errors))
    for text, n, shift, side in (("rounding ∝ 1/ε", best // 2, 12, "left"),
                                 ("truncation ∝ ε²", (best + len(errors)) // 2, -12, "right")):
        place = {"xytext": (shift, 4), "textcoords": "offset points", "ha": side}
        ax.annotate(text, (epsilons[n], errors[n]), **place)
    ax.set(xlabel="ε", ylabel="largest error of any entry")
    ax.legend(frameon=False, loc="upper center")
    return ax
