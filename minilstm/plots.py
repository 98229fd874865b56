"""Pictures. matplotlib is imported when the first one is drawn, and never shows a window.

Each function draws into the axes it is given, or into new ones of its own, and returns the axes;
`save` writes their figure to a file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from minilstm.backend import to_host
from minilstm.errors import InputError
from minilstm.model import ModelCache

Axes = Any  # matplotlib.axes.Axes, not imported here
_SUFFIXES = (".png", ".svg", ".pdf")


def new_axes(mosaic: str = "A", width: float = 7.0, height: float = 4.0) -> list[Axes]:
    """Axes in a new figure without a window.

    Args:
        mosaic: one letter per axes, rows apart by ";": "AAA;BCD" is a wide one above three.
        width, height: in inches.
    Returns:
        The axes, in the order in which their letters first occur.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
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
    if target.suffix.lower() not in _SUFFIXES:
        raise InputError(f"a picture must end in .png, .svg or .pdf, got {str(path)!r}")
    # `save` makes the folders that are missing; the nearest that is there must let it.
    nearest = next(p for p in (target, *target.absolute().parents) if p.exists())
    if nearest.is_dir() is (nearest is target) or not os.access(nearest, os.W_OK):
        raise InputError(f"a picture needs a place where it can be written, got {str(path)!r}")
    return target


def loss_curve(
    steps: Sequence[float],
    losses: Sequence[float],
    vocab_size: int,
    ax: Axes | None = None,
    validation: Sequence[tuple[float, float]] = (),
    unigram: float | None = None,
) -> Axes:
    """Loss in nats per token against training steps, with the uniform guess's ln V as a line.

    Args:
        steps, losses: N training steps, and the loss of each.
        vocab_size: V.
        ax: where to draw; None makes new axes.
        validation: (step, loss) pairs of the validation text, drawn as a second curve.
    Returns:
        The axes.
    """
    ax = ax if ax is not None else new_axes()[0]
    ax.plot(steps, losses, color="0.45", linewidth=1.0, label="training")
    if validation:
        ax.plot(*zip(*validation, strict=True), color="C0", linewidth=2.0, marker="o",
                markersize=3, label="validation")  # fmt: skip
    uniform = float(np.log(vocab_size))
    ax.axhline(uniform, color="0.2", linestyle="--", linewidth=1.0,
               label=f"uniform guess: ln {vocab_size} = {uniform:.3f}")  # fmt: skip
    if unigram is not None:
        ax.axhline(unigram, color="0.2", linestyle=":", linewidth=1.0,
                   label=f"unigram entropy: {unigram:.3f}")  # fmt: skip
    ax.set(xlabel="step", ylabel="loss (nats per token)")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
    return ax


def gates(text: Sequence[str], cache: ModelCache, axes: Sequence[Axes] | None = None) -> list[Axes]:
    """What one layer did while it read `text`: i, f, o, g and c, one picture each.

    Columns are time steps, rows hidden units. i, f, o run from 0 (black) to 1 (white); g and c
    from -1 to 1 and from -max|c| to max|c|.

    Args:
        text: the T tokens, which label the columns.
        cache: of `forward_with_cache` with inputs (T, 1); the top layer is shown.
        axes: five, where to draw; None makes new ones.
    Returns:
        The five axes.
    Raises:
        InputError: the cache is not of one sequence of T tokens.
    """
    T, B = cache.inputs.shape
    if len(text) != T or B != 1:
        raise InputError(f"the cache must be of one sequence of {len(text)} tokens, got {(T, B)}")
    layer = to_host(cache.layers[-1])
    # cell states after each step: what the next step started from, and the last by its equation
    c_last = layer.f[-1] * layer.c_prevs[-1] + layer.i[-1] * layer.g[-1]
    panels = [
        ("input gate i", np.stack(layer.i), (0, 1)),
        ("forget gate f", np.stack(layer.f), (0, 1)),
        ("output gate o", np.stack(layer.o), (0, 1)),
        ("candidate g", np.stack(layer.g), (-1, 1)),
        ("cell state c", np.stack([*layer.c_prevs[1:], c_last]), None),
    ]
    axes = list(axes) if axes is not None else new_axes("ifogc", width=10, height=3.2)
    for ax, (title, values, limits) in zip(axes, panels, strict=True):
        grid = values[:, 0].T  # (H, T)
        low, high = limits or (-np.abs(grid).max(), np.abs(grid).max())
        image = ax.imshow(grid, cmap="gray", vmin=low, vmax=high, aspect="auto")
        ax.set_xticks(range(T), [repr(s)[1:-1] for s in text])
        ax.set(title=title, xlabel="letter read")
        ax.figure.colorbar(image, ax=ax, location="bottom", shrink=0.9)
    axes[0].set_ylabel("hidden unit")
    return list(axes)


def gradient_error_curve(
    epsilons: ArrayLike,
    errors: ArrayLike,
    complex_step_error: float,
    ax: Axes | None = None,
) -> Axes:
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
    ax = ax if ax is not None else new_axes()[0]
    ax.loglog(epsilons, errors, color="C0", marker="o", label="central differences")
    ax.axhline(complex_step_error, color="0.2", linestyle="--",
               label=f"complex step: {complex_step_error:.0e}")  # fmt: skip
    epsilons, errors = np.asarray(epsilons), np.asarray(errors)
    best = int(np.argmin(errors))
    ax.annotate("rounding ∝ 1/ε", (epsilons[best // 2], errors[best // 2]), xytext=(12, 4),
                textcoords="offset points")  # fmt: skip
    right = (best + len(errors)) // 2
    ax.annotate("truncation ∝ ε²", (epsilons[right], errors[right]), xytext=(-12, 4),
                textcoords="offset points", horizontalalignment="right")  # fmt: skip
    ax.set(xlabel="ε", ylabel="largest error of any entry")
    ax.legend(frameon=False, loc="upper center")
    return ax
