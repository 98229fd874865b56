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

from minilstm.backend import to_host
from minilstm.errors import InputError, require
from minilstm.model import ModelCache

Axes = Any  # matplotlib.axes.Axes, not imported here
_LEVEL = {"color": "0.2", "linestyle": "--", "linewidth": 1.0}  # a value to compare curves with
_AT_A_LINE = 80  # characters of a text that is drawn


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
               unigram: float | None = None, level: str = "token") -> Axes:
    """Loss in nats per token against training steps, with the uniform guess's ln V as a line.

    Args:
        steps, losses: N training steps, and the loss of each.
        vocab_size: V.
        ax: where to draw; None makes new axes.
        validation: (step, loss) pairs of the validation text, drawn as a second curve.
        unigram: the entropy of the symbols' frequencies, drawn as a second line.
        level: what a token is, for the label: char or word.
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
        label = f"unigram entropy: {unigram:.3f}"
        ax.axhline(unigram, **(_LEVEL | {"linestyle": ":", "label": label}))
    ax.set(xlabel="step", ylabel=f"loss (nats per {level})", ylim=(0, None))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(frameon=False)
    return ax


def loss_of_run(rows: Sequence[Mapping[str, float]], vocab_size: int, **options: Any) -> Axes:
    """`loss_curve` of a run's metrics.csv.

    Args:
        rows: as `minilstm.metrics.read_rows` returns them.
        vocab_size: V.
        options: ax, unigram and level, as for `loss_curve`.
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
    labels = [_label(token) for token in text]
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


def gradient_flow(dh: np.ndarray, dc: np.ndarray, ax: Axes | None = None) -> Axes:
    """‖dh_t‖ and ‖dc_t‖ against t, on a logarithmic axis: a straight line is exponential decay.

    Args:
        dh, dc: (T,), as `inside.gradient_norms` returns them.
        ax: where to draw; None makes new axes.
    Returns:
        The axes.
    """
    ax = ax or new_axes()[0]
    ax.semilogy(dh, color="C0", label="‖dh_t‖")
    ax.semilogy(dc, color="C1", linestyle="--", label="‖dc_t‖")
    ax.set(xlabel="step t; the gradient flows from right to left",
           ylabel="gradient of the last token's loss", title="top layer")  # fmt: skip
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(frameon=False)
    return ax


def gradient_reach(reach: np.ndarray, ax: Axes | None = None, chunk: int | None = None,
                   text: Sequence[str] = ()) -> Axes:
    """How far back each loss looks, as a picture; darker is more, each shade a factor.

    Args:
        reach: (T, T), ‖∂loss_t/∂h_s‖ as `inside.gradient_reach` returns it.
        ax: where to draw; None makes new axes.
        chunk: truncated BPTT's T: what lies in another chunk than its loss is crossed out.
        text: the T tokens read, to label both axes.
    Returns:
        The axes.
    Raises:
        InputError: no gradient is above 0, or one is infinite: there is nothing to shade.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle

    T, largest = len(reach), np.nanmax(reach)
    require(0 < largest < np.inf, "want a finite gradient above 0", largest)
    ax = ax or new_axes(width=6.2, height=5)[0]
    scale = LogNorm(vmin=max(np.nanmin(reach), 1e-4 * largest), vmax=largest)
    image = ax.imshow(reach, cmap="gray_r", norm=scale, interpolation="nearest")
    ax.figure.colorbar(image, ax=ax, label="‖∂loss_t/∂h_s‖")
    for first in range(chunk, T, chunk) if chunk else ():
        ax.add_patch(Rectangle((-0.5, first - 0.5), first, min(chunk or T, T - first), fill=False,
                               hatch="xxx", edgecolor="C3", linewidth=1))  # crossed out
    ax.set(xlabel="s: the state h_s", ylabel="t: the loss of step t's prediction")
    if text:
        ax.set_xticks(range(T), [_label(token) for token in text], fontsize=6)
        ax.set_yticks(range(T), [_label(token) for token in text], fontsize=6)
    return ax


def gradient_terms(terms: np.ndarray, axes: Sequence[Axes] | None = None) -> list[Axes]:
    """The gradient of a weight as a sum over the steps: one picture for each term, and the total.

    Args:
        terms: (T, rows, columns), as `inside.gradient_terms` returns them.
        axes: T + 1 of them; None makes new ones, one below the other.
    Returns:
        The axes; the total's is the last.
    """
    (T, _, columns), total = terms.shape, terms.sum(axis=0)
    letters = "abcdefghijklmnopqrstuvwxyz"[: T + 1]
    require(T < 26, "each term has a picture of its own: at most 25 steps", T)
    axes = axes or new_axes(";".join(letters), width=7, height=1.1 + 1.25 * (T + 1))
    largest = np.abs([*terms, total]).max()
    titles = [*(f"step {t}: h_{t - 1}ᵀ dz_{t}" for t in range(1, T + 1)), "their sum: dW_h"]
    for ax, title, term in zip(axes, titles, [*terms, total], strict=True):
        image = ax.imshow(term, cmap="gray", vmin=-largest, vmax=largest, aspect="auto",
                          interpolation="nearest")  # fmt: skip
        ax.set(title=f"{title}, norm {np.linalg.norm(term):.2g}", ylabel="h")
        ax.set_xticks([(k + 0.5) * columns / 4 - 0.5 for k in range(4)], list("ifgo"))
        ax.label_outer()
        for gate in range(1, 4):
            ax.axvline(gate * columns / 4 - 0.5, color="C3", linewidth=0.8)
    axes[-1].set(xlabel="columns of dz, gate by gate; mid-grey is 0")
    axes[-1].figure.colorbar(image, ax=list(axes), shrink=0.6)
    return list(axes)


def next_tokens(text: Sequence[str], probabilities: np.ndarray, symbols: Sequence[str],
                ax: Axes | None = None, top: int = 5) -> Axes:
    """What the model expected after each token: the likeliest ones under it, darker for likelier.

    What came next is framed, where it is among them.

    Args:
        text: T tokens.
        probabilities: (T, V), of the token after each.
        symbols: the V symbols.
        ax: where to draw; None makes new axes.
        top: rows.
    Returns:
        The axes.
    """
    from matplotlib.patches import Rectangle

    T, top = len(text), min(top, len(symbols))
    ax = ax or new_axes(width=1.5 + 0.3 * T, height=1 + 0.3 * top)[0]
    best = np.argsort(-probabilities, axis=1)[:, :top]  # (T, top)
    shades = np.take_along_axis(probabilities, best, axis=1).T  # (top, T)
    image = ax.imshow(shades, cmap="gray_r", vmin=0, vmax=1, aspect="auto")
    for (row, t), p in np.ndenumerate(shades):
        symbol = symbols[int(best[t, row])]
        ax.text(t, row, _label(symbol), ha="center", va="center", color="w" if p > 0.5 else "k")
        if t + 1 < T and symbol == text[t + 1]:
            ax.add_patch(Rectangle((t - 0.45, row - 0.45), 0.9, 0.9, fill=False, edgecolor="C3"))
    ax.set_xticks(range(T), [_label(token) for token in text])
    ax.set_yticks(range(top), [f"{row + 1}." for row in range(top)])
    ax.xaxis.tick_top()
    ax.set(title="token read", ylabel="expected next")
    ax.figure.colorbar(image, ax=ax, label="probability")
    return ax


def saturation(cache: ModelCache, axes: Sequence[Axes] | None = None) -> list[Axes]:
    """How often each unit's gates are nearly shut and nearly open: a point for each unit.

    To the right: above 0.9 in that share of the steps; upwards: below 0.1. A unit in the corner of
    "always open" keeps all it ever wrote; on the diagonal it is always one or the other.

    Args:
        cache: of `forward_with_cache`; the top layer is shown.
        axes: three, where to draw; None makes new ones.
    Returns:
        The axes of i, f and o.
    Source:
        Karpathy, Johnson & Fei-Fei 2015.
    """
    layer = to_host(cache.layers[-1])
    axes = axes or new_axes("ifo", width=10, height=3.8)
    for ax, name, steps in zip(axes, ("input gate i", "forget gate f", "output gate o"),
                               (layer.i, layer.f, layer.o), strict=True):  # fmt: skip
        values = np.concatenate(steps)  # (T·B, H)
        shut, opened = (values < 0.1).mean(axis=0), (values > 0.9).mean(axis=0)
        ax.plot([0, 1], [1, 0], color="0.7", linewidth=0.8)
        ax.plot(opened, shut, "o", color="0.1", markersize=4, alpha=0.4, markeredgewidth=0)
        ax.set(title=name, xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal",
               xlabel="share of steps above 0.9", ylabel="share of steps below 0.1")  # fmt: skip
        ax.label_outer()
    return list(axes)


def coloured_text(text: str, values: ArrayLike, ax: Axes | None = None) -> Axes:
    """The text with each character's background from black (-1) to white (1).

    Args:
        text: N characters.
        values: (N,), such as one cell's tanh(c_t), each between -1 and 1.
        ax: where to draw; None makes new axes.
    Returns:
        The axes.
    Source:
        Karpathy, Johnson & Fei-Fei 2015.
    """
    places, row, column = [], 0, 0
    for sign in text:
        places.append((row, column))
        row, column = (row, column + 1) if column + 1 < _AT_A_LINE else (row + 1, 0)
        if sign == "\n" and column > 0:
            row, column = row + 1, 0
    rows, columns = (max(of_all) + 1 for of_all in zip(*places, strict=True))
    ax = ax or new_axes(width=1.5 + 0.12 * columns, height=0.6 + 0.24 * rows)[0]
    grid = np.full((rows, columns), np.nan)
    for place, value in zip(places, np.asarray(values), strict=True):
        grid[place] = value
    image = ax.imshow(grid, cmap="gray", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    for (row, column), sign in zip(places, text, strict=True):
        ink = "w" if grid[row, column] < 0 else "k"
        ax.text(column, row, _label(sign) if sign != " " else "", color=ink, ha="center",
                va="center", family="monospace", fontsize=8)  # fmt: skip
    ax.set_axis_off()
    ax.figure.colorbar(image, ax=ax, label="tanh c", pad=0.01, fraction=0.03, shrink=0.6)
    return ax


def _label(token: str) -> str:
    """A token as a label: white space is seen, and nothing is taken for mathematics."""
    return {"\n": "↵", " ": "␣"}.get(token, repr(token)[1:-1].replace("$", r"\$"))


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
