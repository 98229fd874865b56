"""Is the backward pass right? Ask numerics: a table of every parameter, and a curve over ε."""

import numpy as np

from minilstm import cli, plots
from minilstm.cli.gradcheck import add_flags, random_problem, table, verdict
from minilstm.gradcheck import central_differences, complex_step


def main() -> None:
    parser = cli.Parser(__doc__)
    add_flags(parser)
    parser.add_argument("--picture", default="gradient_check.png", help="where to draw the curve")
    args = parser.parse_args()
    plots.check_path(args.picture)

    # A function f of a dict of arrays that returns one number, and its gradients by `backward`:
    # minilstm/cli/gradcheck.py makes them for a small random model.
    f, arrays, grads = random_problem(args)
    exact = complex_step(f, arrays, grads, raise_on_failure=False)
    quotient = central_differences(f, arrays, grads, raise_on_failure=False)
    print(table(exact, quotient))
    verdict(exact, quotient)

    epsilons = 10.0 ** np.arange(-13, 1)
    errors = []
    for eps in epsilons:
        report = central_differences(f, arrays, grads, eps=eps, raise_on_failure=False)
        errors.append(max(check.max_error for check in report.tensors.values()))
    complex_error = max(check.max_error for check in exact.tensors.values())
    best = int(np.argmin(errors))
    print(f"\ncentral differences are best at ε = {epsilons[best]:.0e}: {errors[best]:.1e}; "
          f"smaller ε loses to rounding, larger to curvature.")  # fmt: skip
    ax = plots.gradient_error_curve(epsilons, errors, complex_error)
    print(f"picture of the error over ε: {plots.save(ax, args.picture)}")


if __name__ == "__main__":
    cli.run(main)
