"""Check every gradient numerically.

Every entry of every gradient of a small model is compared with the complex step and with central
differences. examples/check_gradients.py asks the same, and draws how the error depends on ε.
"""

from typing import Any

import numpy as np

import minilstm as ml
from minilstm.cli import Args, FailedError, Parser, show
from minilstm.errors import check_count, check_positive_int
from minilstm.gradcheck import Arrays, Report

Problem = tuple[Any, Arrays, Arrays]  # f, where to ask for it, its gradients there


def add_flags(parser: Parser) -> None:
    parser.add_argument("--layers", type=int, default=2, help="L")
    parser.add_argument("--one-hot", action="store_true", help="one-hot input, no embedding")
    parser.add_argument("--seed", type=int, default=0, help="of weights, ids and states")


def main(args: Args) -> None:
    problem = random_problem(args)
    exact = ml.gradcheck.complex_step(*problem, raise_on_failure=False)
    quotient = ml.gradcheck.central_differences(*problem, raise_on_failure=False)
    show(table(exact, quotient))
    verdict(exact, quotient)


def random_problem(args: Args) -> Problem:
    """A model's loss as a function, where to ask for it, and the gradients that backward makes.

    They are what `minilstm.gradcheck`'s checks take; the sizes are shown.
    """
    L = check_positive_int("--layers", args.layers)
    check_count("--seed", args.seed)
    # Small, all sizes different, and everything random, the initial state too: zeros hide bugs.
    T, B, V, E, H = 5, 2, 6, None if args.one_hot else 3, 4
    rng = np.random.default_rng(args.seed)
    config = ml.ModelConfig(V, H, L, E)
    params = ml.init_params(config, rng, dtype=np.float64)
    inputs, targets = rng.integers(0, V, (2, T, B))
    h_0, c_0, w_h, w_c = rng.standard_normal((4, L, B, H))
    show(f"L = {L}, T = {T}, B = {B}, V = {V}, E = {E}, H = {H}, float64\n")

    # A scalar that depends on all there is: the loss, and the final h and c in random directions.
    def f(a: dict[str, Any]) -> Any:
        logits, (h, c) = ml.forward(a, config, inputs, (a["h_0"], a["c_0"]))
        loss, _ = ml.softmax_cross_entropy(logits, targets)
        return loss + (w_h * h).sum() + (w_c * c).sum()

    logits, _, cache = ml.forward_with_cache(params, config, inputs, (h_0, c_0))
    _, dlogits = ml.softmax_cross_entropy(logits, targets)
    grads, (dh_0, dc_0) = ml.backward(dlogits, cache, dstate=(w_h, w_c))
    return f, params | {"h_0": h_0, "c_0": c_0}, grads | {"h_0": dh_0, "c_0": dc_0}


def table(exact: Report, quotient: Report) -> str:
    """Every tensor, and the largest error of any of its entries by either method."""
    lines = ["parameter    entries  ‖gradient‖   complex step  central ε=1e-5  verdict"]
    for name, check in exact.tensors.items():
        by_hand = quotient.tensors[name]
        errors = f"{check.max_error:13.1e} {by_hand.max_error:15.1e}"
        right = "ok" if check.passed and by_hand.passed else "WRONG"
        lines.append(f"{name:12} {check.entries:7} {check.norm:11.4e} {errors}  {right}")
    lines.append("\nThe two errors are the largest |analytic - numeric| of any entry.")
    return "\n".join(lines)


def verdict(exact: Report, quotient: Report) -> None:
    """Say that every entry passes; or show the worst of each tensor that fails: FailedError."""
    failed = [check for r in (exact, quotient) for check in r.tensors.values() if not check.passed]
    if failed:
        show("\n".join(map(str, failed)))
        names = ", ".join(dict.fromkeys(check.name for check in failed))
        raise FailedError(f"the gradient is wrong of {names}")
    show("every entry passes: complex step within 1e-12 of the tensor's largest gradient,\n"
         "central differences within 1e-9 + 1e-5 · |gradient|")  # fmt: skip
