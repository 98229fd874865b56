"""The pictures and measured lines of docs/, from trained models; the site itself trains nothing.

    python tests/campaigns/pictures.py [PART ...] --run RUN --wiki RUN

RUN is a run of tiny Shakespeare (docs: preset shakespeare-hour), --wiki one of WikiText-2's
characters (wikitext2-chars-hour). It writes docs/pictures/*.png and *.svg, docs/snippets/*.md.
PART is one of those named by --help; without any, all are made. MINILSTM_DATA names the folder of
the texts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import minilstm as ml
from minilstm import inside, plots
from minilstm.nn.loss import softmax_cross_entropy

ROOT = Path(__file__).resolve().parents[2]
PICTURES, SNIPPETS = ROOT / "docs" / "pictures", ROOT / "docs" / "snippets"
COMMENT = "% Written by tests/campaigns/pictures.py.\n\n"
PASSAGES = 32  # over which curves are averaged


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--run", type=Path, help="a run of tiny Shakespeare")
    parser.add_argument("--wiki", type=Path, help="a run of WikiText-2's characters")
    args = parser.parse_args()
    if strange := set(args.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(strange)}")
    for name in args.parts or PARTS:
        print(name, flush=True)
        PARTS[name](args)


def save(ax: Any, name: str) -> None:
    plots.save(ax, PICTURES / name)


def snippet(name: str, text: str) -> None:
    SNIPPETS.mkdir(exist_ok=True)
    (SNIPPETS / f"{name}.md").write_text(COMMENT + text.strip() + "\n", encoding="utf-8")


def python(*arguments: object) -> str:
    """What a script of the repository prints."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


# --- hello, and the gradient check


def hello(args: argparse.Namespace) -> None:
    """What the first example prints after its training, and its picture."""
    printed = python("examples/train_hello.py", "--picture", PICTURES / "hello.png")
    after = printed[printed.index("what it expects") :]
    kept = [line for line in after.splitlines() if not line.startswith("picture of")]
    snippet("hello", "```text\n" + "\n".join(kept).strip() + "\n```")


def u_curve(args: argparse.Namespace) -> None:
    """The error of central differences over ε."""
    python("examples/check_gradients.py", "--picture", PICTURES / "u_curve.png")


# --- the graph of two steps


def graph(args: argparse.Namespace) -> None:
    """Two steps of the cell, unrolled; matplotlib draws boxes and arrows well enough."""
    (ax,) = plots.new_axes(width=11, height=5.2)
    ax.set(xlim=(-0.6, 11.2), ylim=(-0.9, 5))
    ax.set_axis_off()

    def node(x: float, y: float, text: str, shaded: bool = False) -> None:
        box = {"boxstyle": "round,pad=0.32", "fc": "0.85" if shaded else "w", "ec": "0.1"}
        ax.text(x, y, text, ha="center", va="center", fontsize=13, bbox=box, zorder=3)

    def arrow(a: tuple[float, float], b: tuple[float, float], bend: float = 0.0) -> None:
        style = {"arrowstyle": "-|>", "color": "0.35", "shrinkA": 15, "shrinkB": 17,
                 "connectionstyle": f"arc3,rad={bend}", "linewidth": 1.2}  # fmt: skip
        ax.annotate("", xy=b, xytext=a, arrowprops=style, zorder=2)

    c_row, h_row = 4.2, 0.9
    node(0, c_row, "$c_0$")
    node(0, h_row, "$h_0$")
    for step, left in ((1, 1.2), (2, 6.2)):
        x, z, gates, c, tanh_c, h = (
            (left + 0.4, -0.4), (left + 0.6, h_row), (left + 1.7, 2.3), (left + 2.6, c_row),
            (left + 3.4, 2.9), (left + 3.8, h_row),
        )  # fmt: skip
        c_prev, h_prev = (0 if step == 1 else 3.8, c_row), (0 if step == 1 else 5.0, h_row)
        node(*x, f"$x_{step}$")
        node(*z, f"$z_{step}$")
        node(*gates, "$i\\;\\; f\\;\\; g\\;\\; o$")
        node(*c, f"$c_{step}$", shaded=step == 1)
        node(*tanh_c, "$\\tanh$")
        node(*h, f"$h_{step}$", shaded=step == 1)
        arrow(x, z)
        arrow(h_prev, z)
        arrow(z, gates)
        arrow(c_prev, c)
        arrow(gates, c)
        arrow(c, tanh_c)
        arrow(tanh_c, h)
        arrow(gates, h)
        loss = (h[0] + 0.2, -0.5)
        ax.text(*loss, "loss", ha="center", va="center", fontsize=12, style="italic")
        arrow(h, loss)
    ax.text(4.9, c_row + 0.42, "read twice: two gradients add", ha="center", fontsize=11)
    ax.text(6.0, h_row + 0.42, "read twice", ha="center", fontsize=11)
    save(ax, "graph.svg")


# --- through time


def terms(args: argparse.Namespace) -> None:
    """The gradient of W_h while reading "hell": one term for each step, and the sum."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        options = ["--hidden-size", 16, "--steps", 30]
        python("-m", "minilstm", "train", "--preset", "hello", "--out", run, *options)
        model = ml.LanguageModel.load(run)
    ids = model.vocab.encode("hello")
    found = inside.gradient_terms(model.params, model.config, ids, "lstm0.W_h")
    save(plots.gradient_terms(found)[0], "terms.png")


def flow(args: argparse.Namespace) -> None:
    """How far back the last loss is felt: three forget biases and a plain RNN, new and trained."""
    corpus = ml.load_corpus("shakespeare", level="char")
    V, H, T, B, steps = len(corpus.vocab), 128, 64, 32, 1000
    axes = plots.new_axes("AB;CD", width=11, height=7.5)
    passages = np.stack([corpus.valid[n * 300 : n * 300 + T + 1] for n in range(PASSAGES)], axis=1)

    def draw(column: int, norms: list[np.ndarray], **style: Any) -> None:
        for ax, curve in zip(axes[column::2], norms, strict=False):
            ax.semilogy(curve, **{"color": "0.1"} | style)

    for bias, style in ((0, "-"), (1, "--"), (3, ":")):
        config = ml.ModelConfig(V, H, forget_bias=bias)
        params = ml.init_params(config, np.random.default_rng(0))
        optimizer, workspace, state, losses = ml.Adam(2e-3), ml.Workspace(), None, []
        line = {"linestyle": style, "label": f"LSTM, forget bias {bias}"}
        draw(0, lstm_norms(params, config, passages), **line)
        for inputs, targets, starts in batches(corpus.train, B, T, steps):
            state = None if starts else state
            loss, grads, state = ml.loss_and_grads(
                params, config, inputs, targets, state, workspace=workspace
            )
            ml.clip_by_global_norm(grads, 1.0)
            optimizer.step(params, grads)
            losses.append(float(loss))
        line["label"] += f": {np.mean(losses[-50:]):.2f} nats"
        draw(1, lstm_norms(params, config, passages), **line)
    rng, k = np.random.default_rng(0), 1 / math.sqrt(H)
    shapes = {"W_x": (V, H), "W_h": (H, H), "b": (H,), "W": (H, V), "c": (V,)}
    params = {n: rng.uniform(-k, k, shape).astype(np.float32) for n, shape in shapes.items()}
    optimizer, losses, line = (
        ml.Adam(2e-3),
        [],
        {"color": "0.6", "linewidth": 2.5, "label": "plain RNN"},
    )
    draw(0, [rnn_norms(params, passages)], **line)
    for inputs, targets, _ in batches(corpus.train, B, T, steps):
        loss, grads, _ = rnn_grads(params, inputs, targets)
        ml.clip_by_global_norm(grads, 1.0)
        optimizer.step(params, grads)
        losses.append(float(loss))
    line["label"] += f": {np.mean(losses[-50:]):.2f} nats"
    draw(1, [rnn_norms(params, passages)], **line)
    for ax, title in zip(axes, ("before training", f"after {steps:,} steps", "", ""), strict=True):
        ax.set(title=title, ylim=(1e-12, 10))
        ax.legend(frameon=False, loc="lower right")
    for ax in axes[2:]:
        ax.set(xlabel="step t; the loss is the last one's")
    axes[0].set(ylabel="‖∂loss_T/∂h_t‖")
    axes[2].set(ylabel="‖∂loss_T/∂c_t‖")
    save(axes[0], "flow.png")


def lstm_norms(params: Any, config: ml.ModelConfig, passages: np.ndarray) -> list[np.ndarray]:
    """The geometric means over the passages (T + 1, N) of ‖dh_t‖ and ‖dc_t‖."""
    norms = [inside.gradient_norms(params, config, ids) for ids in passages.T]
    return list(np.exp(np.log(np.array(norms) + 1e-300).mean(axis=0)))


def rnn_grads(
    params: dict[str, np.ndarray], ids: np.ndarray, targets: np.ndarray, only_last: bool = False
) -> tuple[float, dict[str, np.ndarray], np.ndarray]:
    """Loss and gradients of h_t = tanh(x_t W_x + h_{t-1} W_h + b) with an output layer, one-hot
    input (T, B), from a zero state; and ‖dh_t‖ (T, B) as it comes from step t+1."""
    W_x, W_h, b, W, c = (params[name] for name in ("W_x", "W_h", "b", "W", "c"))
    T, B = ids.shape
    h = np.zeros((T + 1, B, len(W_h)), W_h.dtype)
    for t in range(T):
        h[t + 1] = np.tanh(W_x[ids[t]] + h[t] @ W_h + b)
    loss, dlogits = softmax_cross_entropy(h[1:] @ W + c, targets)
    if only_last:
        dlogits[:-1] = 0
    dzs, norms, dh_next = np.empty_like(h[1:]), np.zeros((T, B)), np.zeros_like(h[0])
    for t in reversed(range(T)):
        norms[t] = np.linalg.norm(dh_next, axis=1)
        dzs[t] = (dlogits[t] @ W.T + dh_next) * (1 - h[t + 1] ** 2)
        dh_next = dzs[t] @ W_h.T
    rows, dW_x = dzs.reshape(T * B, -1), np.zeros_like(W_x)
    np.add.at(dW_x, ids.reshape(-1), rows)
    flat, out = dlogits.reshape(T * B, -1), h[1:].reshape(T * B, -1)
    dW_h = h[:-1].reshape(T * B, -1).T @ rows
    grads = {"W_x": dW_x, "W_h": dW_h, "b": rows.sum(0), "W": out.T @ flat, "c": flat.sum(0)}
    return loss, grads, norms


def rnn_norms(params: dict[str, np.ndarray], passages: np.ndarray) -> np.ndarray:
    """As `lstm_norms`: each passage's own loss, not its share of the batch's mean."""
    norms = rnn_grads(params, passages[:-1], passages[1:], only_last=True)[2][:-1]
    return np.exp(np.log(norms * passages[1:].size + 1e-300).mean(axis=1))


def batches(ids: np.ndarray, B: int, T: int, steps: int) -> Any:
    passes = (batch for _ in itertools.count() for batch in ml.contiguous_streams(ids, B, T))
    return itertools.islice(passes, steps)


def reach(args: argparse.Namespace) -> None:
    """Which states each loss looks back at, and what chunks of 16 would cut off."""
    model, text = shakespeare(args)
    ids = model.vocab.encode(text[:49])
    found = inside.gradient_reach(model.params, model.config, ids)
    save(plots.gradient_reach(found, chunk=16, text=text[:48]), "reach.png")


def truncation(args: argparse.Namespace) -> None:
    """The gradient of 512 predictions in chunks of T against the whole one: angle and length."""
    model, text = shakespeare(args)
    ids = model.vocab.encode(text)[: 512 * 16 + 1]
    streams = next(iter(ml.contiguous_streams(ids, 16, 512)))
    whole = chunked(model, *streams[:2], 512)
    lines = ["| chunk | angle to the whole gradient | length, of the whole's |", "|---|---|---|"]
    for T in (1, 4, 16, 64, 128, 256):
        g = chunked(model, *streams[:2], T)
        angle = math.degrees(
            math.acos(min(1, g @ whole / np.linalg.norm(g) / np.linalg.norm(whole)))
        )
        lines.append(f"| {T} | {angle:.1f}° | {np.linalg.norm(g) / np.linalg.norm(whole):.2f} |")
    snippet("truncation", "\n".join(lines))


def chunked(model: ml.LanguageModel, inputs: np.ndarray, targets: np.ndarray, T: int) -> np.ndarray:
    """All W_h's gradients of the mean loss, backward stopped at every T-th step, as one vector."""
    total, state = None, None
    for t in range(0, len(inputs), T):
        logits, state, cache = ml.forward_with_cache(
            model.params, model.config, inputs[t : t + T], state
        )
        _, dlogits = ml.softmax_cross_entropy(logits, targets[t : t + T])
        grads, _ = ml.backward(dlogits * (len(inputs[t : t + T]) / len(inputs)), cache)
        part = np.concatenate([g.ravel() for n, g in grads.items() if n.endswith("W_h")])
        total = part if total is None else total + part
    return total.astype(np.float64)


# --- a look inside


def shakespeare(args: argparse.Namespace) -> tuple[ml.LanguageModel, str]:
    """The model, and the validation text."""
    if args.run is None:
        sys.exit("this part needs --run")
    return ml.LanguageModel.load(args.run), valid_text("shakespeare")


def valid_text(name: str) -> str:
    corpus = ml.load_corpus(name, level="char")
    return corpus.vocab.decode(corpus.valid)


def loss(args: argparse.Namespace) -> None:
    python("-m", "minilstm", "plot", args.run, "--what", "loss", "--out", PICTURES / "loss.png")


def looks(args: argparse.Namespace) -> None:
    """Expected characters, gates, saturation."""
    model, text = shakespeare(args)
    line = max((row for row in text.splitlines()[:200] if len(row) <= 34), key=len)
    before = text[: text.index(line)][-400:]
    ids = model.vocab.encode(before + line)
    logits, _, cache = ml.forward_with_cache(model.params, model.config, ids[:, None])
    rows = logits[-len(line) :, 0].astype(np.float64)
    odds = np.exp(rows - rows.max(axis=1, keepdims=True))
    odds /= odds.sum(axis=1, keepdims=True)
    save(plots.next_tokens(line, odds, model.vocab.symbols), "next_tokens.png")
    ids, units = model.vocab.encode(line), slice(0, 40)
    _, _, cache = ml.forward_with_cache(model.params, model.config, ids[:, None])
    top = cache.layers[-1]
    gates = {
        name: [a[:, units] for a in getattr(top, name)] for name in ("i", "f", "g", "o", "c_prevs")
    }
    cache = cache._replace(layers=[top._replace(**gates)])
    save(plots.gates(line, cache)[0], "gates.png")
    ids = model.vocab.encode(text[:5000])
    _, _, cache = ml.forward_with_cache(model.params, model.config, ids[:, None])
    save(plots.saturation(cache)[0], "saturation.png")


def cells(args: argparse.Namespace) -> None:
    """The cells that follow something best, found on one part of the text, seen on another."""
    lines = ["| feature | text | cell | r, where it was sought | r, on the next characters |",
             "|---|---|---|---|---|"]  # fmt: skip
    texts = {"tiny Shakespeare": shakespeare(args)}
    if args.wiki is not None:
        texts["WikiText-2"] = ml.LanguageModel.load(args.wiki), valid_text("wikitext2")
    pictures = {"tiny Shakespeare": ("line", "word"), "WikiText-2": ("brackets", "quotes")}
    for name, (model, text) in texts.items():
        N = 40_000
        states = inside.cell_states(model.params, model.config, model.vocab.encode(text[: 2 * N]))
        found = inside.search(states[:N], text[:N])
        again = inside.search(states[N:], text[N : 2 * N])
        for feature in pictures[name]:
            if feature in found and feature in again:
                _, layer, unit, r = found[feature][0]
                r_2 = next(f.r for f in again[feature] if (f.layer, f.unit) == (layer, unit))
                lines.append(
                    f"| {feature} | {name} | layer {layer}, unit {unit} | {r:.2f} | {r_2:.2f} |"
                )
                sign = {"brackets": "(", "quotes": '"'}.get(feature, "\n")
                start = 1 + text.rindex("\n" if sign == "\n" else " ", 0, text.index(sign, N) + 1)
                shown = slice(start, start + 800)
                ax = plots.coloured_text(
                    text[shown], states[shown, layer, unit] * math.copysign(1, r)
                )
                if feature != "word":  # no page shows it
                    save(ax, f"cell_{feature}.png")
    snippet("cells", "\n".join(lines))


def temperatures(args: argparse.Namespace) -> None:
    model, _ = shakespeare(args)
    columns = []
    for temperature in (0.2, 0.5, 1.0):
        text = model.generate("KING ", 260, temperature=temperature, seed=1)
        columns.append(f"**{temperature}**\n\n```text\n{text.rstrip()}\n```")
    snippet("temperatures", "\n\n".join(columns))


def brackets(args: argparse.Namespace) -> None:
    """How often a bracket that the model is given is closed within 400 characters."""
    if args.wiki is None:
        sys.exit("this part needs --wiki")
    model, N, most = ml.LanguageModel.load(args.wiki), 200, 400
    real = valid_text("wikitext2")
    places = [m.end() for m in re.finditer(r"\( [A-Za-z]", real)]
    distances = [real.find(")", place) - place for place in places]
    closed = [d for d in distances if 0 <= d < most]
    lines = [f"| | closed within {most} characters | after, median |", "|---|---|---|",
             f"| the validation text itself, {len(places)} brackets | "
             f"{100 * len(closed) / len(places):.0f} % | {np.median(closed):.0f} |"]  # fmt: skip
    for temperature in (0.2, 0.5, 0.8, 1.0, 1.2):
        after = []
        for seed in range(N):
            made = model.generate("( The", most, temperature=temperature, seed=seed, stop=")")
            after.append(len(made) - 5 if ")" in made[5:] else None)
        closed = [d for d in after if d is not None]
        median = f"{np.median(closed):.0f}" if closed else "–"
        share = f"{100 * len(closed) / N:.0f} %"
        lines.append(
            f"| temperature {temperature}, {N} continuations of `( The` | {share} | {median} |"
        )
    snippet("brackets", "\n".join(lines))


def held(args: argparse.Namespace) -> None:
    """The same with one cell held at zero behind the prompt: the one that follows brackets, and
    five others of its layer, each alone."""
    if args.wiki is None:
        sys.exit("this part needs --wiki")
    model, text = ml.LanguageModel.load(args.wiki), valid_text("wikitext2")[:40_000]
    states = inside.cell_states(model.params, model.config, model.vocab.encode(text))
    _, layer, unit, _ = inside.search(states, text)["brackets"][0]
    drawn = np.random.default_rng(0).choice(model.config.hidden_size, 6, replace=False)
    others = [int(other) for other in drawn if other != unit][:5]
    lines = ["| temperature | no cell held | the cell for brackets | each of five others |",
             "|---|---|---|---|"]  # fmt: skip
    for temperature in (0.2, 0.5, 1.0):
        free, without = (share_closed(model, temperature, layer, of) for of in (None, unit))
        rest = [share_closed(model, temperature, layer, other) for other in others]
        lines.append(f"| {temperature} | {free:.0f} % | {without:.0f} % "
                     f"| {min(rest):.0f} to {max(rest):.0f} % |")  # fmt: skip
    snippet("held", "\n".join(lines))


def share_closed(
    model: ml.LanguageModel, temperature: float, layer: int, unit: int | None, N: int = 200
) -> float:
    """Per cent of N continuations of `( The` that have a `)` among their first 400 characters."""
    rng, (start, close) = np.random.default_rng(0), map(model.vocab.encode, ("( The", ")"))
    inputs, state, closed = np.tile(start[:, None], N), None, np.zeros(N, bool)
    for _ in range(400):
        logits, state = ml.forward(model.params, model.config, inputs, state)
        if unit is not None:
            state[1][layer, :, unit] = 0
        scores = logits[-1].astype(np.float64) / temperature
        sums = np.exp(scores - scores.max(axis=1, keepdims=True)).cumsum(axis=1)  # (N, V)
        inputs = (sums > rng.random((N, 1)) * sums[:, -1:]).argmax(axis=1)[None]  # (1, N)
        closed |= inputs[0] == close
    return 100 * float(closed.mean())


def two_bugs(args: argparse.Namespace) -> None:
    """The two bugs of docs/proving.md after 500 steps, from docs/museum.json, and after 4,000."""
    from bugs_in_training import trained
    from museum import BUGS

    seen = json.loads((ROOT / "docs" / "museum.json").read_text(encoding="utf-8"))
    right, long = sorted(run["valid"] for run in seen["right"]), 4000
    names = ("forget gate without the derivative of its sigmoid",
             "dc = for dc +=: dc_next is left out")  # fmt: skip
    bugs = {None: None} | {bug.name: bug for bug in BUGS if bug.name in names}
    with ThreadPoolExecutor(max_workers=2) as pool:
        later = dict(
            zip(bugs, pool.map(lambda bug: trained(bug, long), bugs.values()), strict=True)
        )
    lines = [
        f"| validation loss, nats per character | after {seen['steps']} steps | after {long:,} |",
        "|---|---|---|",
        f"| the right code | {right[0]:.3f} to {right[-1]:.3f} (3 seeds) "
        f"| {later[None]['valid']:.3f} |",
    ]
    for name in names:
        valid = seen["bugs"][name]["valid"]
        lines.append(f"| {name} | {valid:.3f} | {later[name]['valid']:.3f} |")
    snippet("two_bugs", "\n".join([*lines, f"| a uniform guess | {math.log(65):.3f} | |"]))


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    part.__name__: part
    for part in (hello, u_curve, graph, terms, flow, reach, truncation, loss, looks, cells,
                 temperatures, brackets, held, two_bugs)
}  # fmt: skip


if __name__ == "__main__":
    main()
