"""Is the backward pass right? Ask numerics: a table of every parameter, and a curve over ε."""

from typing import Any

import numpy as np

import minilstm as ml
from minilstm import cli, plots
from minilstm.errors import check_count, check_positive_int
from minilstm.gradcheck import central_differences, complex_step


def main() -> None:
    parser = cli.parser(__doc__)
    parser.add_argument("--layers", type=int, default=2, help="L")
    parser.add_argument("--one-hot", action="store_true", help="one-hot input, no embedding")
    parser.add_argument("--seed", type=int, default=0, help="of weights, ids and states")
    parser.add_argument("--picture", default="gradient_check.png", help="where to draw the curve")
    args = parser.parse_args()
    check_positive_int("--layers", args.layers)
    check_count("--seed", args.seed)
    plots.check_path(args.picture)

    # Small, all sizes different, and everything random, the initial state too: zeros hide bugs.
    T, B, V, E, H = 5, 2, 6, None if args.one_hot else 3, 4
    rng = np.random.default_rng(args.seed)
    config = ml.ModelConfig(V, H, args.layers, E)
    params = ml.init_params(config, rng, dtype=np.float64)
    inputs, targets = rng.integers(0, V, (2, T, B))
    h_0, c_0, w_h, w_c = rng.standard_normal((4, args.layers, B, H))

    # A scalar that depends on all there is: the loss, and the final h and c in random directions.
    def f(a: dict[str, Any]) -> Any:
        logits, (h, c) = ml.forward(a, config, inputs, (a["h_0"], a["c_0"]))
        loss, _ = ml.softmax_cross_entropy(logits, targets)
        return loss + (w_h * h).sum() + (w_c * c).sum()

    logits, _, cache = ml.forward_with_cache(params, config, inputs, (h_0, c_0))
    _, dlogits = ml.softmax_cross_entropy(logits, targets)
    grads, (dh_0, dc_0) = ml.backward(dlogits, cache, dstate=(w_h, w_c))
    arrays = params | {"h_0": h_0, "c_0": c_0}
    grads = grads | {"h_0": dh_0, "c_0": dc_0}

    exact = complex_step(f, arrays, grads, raise_on_failure=False)
    quotient = central_differences(f, arrays, grads, raise_on_failure=False)
    print(f"L = {args.layers}, T = {T}, B = {B}, V = {V}, E = {E}, H = {H}, float64\n")
    print(f"{'parameter':12} {'entries':>7} {'‖gradient‖':>11} "
          f"{'complex step':>13} {'central ε=1e-5':>15}")  # fmt: skip
    for name, check in exact.tensors.items():
        print(f"{name:12} {check.entries:7} {check.norm:11.4e} "
              f"{check.max_error:13.1e} {quotient.tensors[name].max_error:15.1e}")  # fmt: skip
    print("\nThe last two columns are the largest |analytic - numeric| of any entry.")

    epsilons = 10.0 ** np.arange(-13, 0.5, 0.5)
    errors = []
    for eps in epsilons:
        report = central_differences(f, arrays, grads, eps=eps, raise_on_failure=False)
        errors.append(max(check.max_error for check in report.tensors.values()))
    complex_error = max(check.max_error for check in exact.tensors.values())
    best = int(np.argmin(errors))
    print(f"central differences are best at ε = {epsilons[best]:.0e}: {errors[best]:.1e}; "
          f"smaller ε loses to rounding, larger to curvature.")  # fmt: skip
    ax = plots.gradient_error_curve(epsilons, errors, complex_error)
    print(f"picture of the error over ε: {plots.save(ax, args.picture)}")
    exact.raise_if_failed()
    quotient.raise_if_failed()
    print("every entry passes: complex step within 1e-12 of the tensor's largest gradient,")
    print("central differences within 1e-9 + 1e-5 · |gradient|")


if __name__ == "__main__":
    cli.run(main)
