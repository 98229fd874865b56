"""docs/forward.md, backward.md and through_time.md say what minilstm/nn/lstm.py does: the tags, the
code, every number. They are read here as one page.

Three kinds of fenced block matter. `math` carries the equations and their tags, `python`
is code of lstm.py, `text` is the arithmetic of the worked example, in lines of the form

    name = formula = the same with numbers = value        or        name = value

The numbers are read from the page, never copied here. The given ones (the first `text` block) go
into two computations that know nothing of the page: a scalar forward in plain `cmath`, whose
derivatives come by complex step and so from no formula of backward's; and the package.
"""

import cmath
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from minilstm.nn import lstm

DOCS = Path(__file__).parents[1] / "docs"
PAGES = (DOCS / f"{name}.md" for name in ("forward", "backward", "through_time"))
DIRECTIVE = re.compile(r"^```\{.*?^```$", re.MULTILINE | re.DOTALL)  # is Sphinx's
PAGE = DIRECTIVE.sub("", "\n".join(page.read_text(encoding="utf-8") for page in PAGES))
SOURCE = Path(lstm.__file__).read_text(encoding="utf-8")

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TAG = re.compile(r"\(L\d+\)")
NUMBER = r"-?\d+(?:\.\d+)?"
NAME = r"[A-Za-z][A-Za-z_0-9]*(?:\[[ifgo]\])?"  # dz_f2, W_h[f]
A_NAME = re.compile(rf"(?<![A-Za-z_0-9]){NAME}(?![A-Za-z_0-9(])")  # tanh( is not a name
NUDGE = 0.01  # of W_h[f], in the page's own numeric check


def blocks(page, kind):
    return [body for fence, body in FENCE.findall(page) if fence == kind]


# ---- tags and code ------------------------------------------------------------------------------


def code_lines(text):
    """(code, tags) of each line that has code: spaces normalised, of comments only the tags."""
    lines = []
    for line in text.splitlines():
        code, _, comment = line.partition("#")
        if code.strip():
            lines.append((" ".join(code.split()), tuple(TAG.findall(comment))))
    return lines


def check_tags(page, source):
    in_source = {tag for _, tags in code_lines(source) for tag in tags}
    equations = re.findall(r"\\tag\{(L\d+)\}", "".join(blocks(page, "math")))
    assert sorted(f"({tag})" for tag in equations) == sorted(in_source), "equations on the page"
    prose = FENCE.sub("", page)
    assert set(TAG.findall(prose)) == in_source, "tags in the page's text"


def check_code(page, source):
    lines = code_lines(source)
    shown = []
    for block in blocks(page, "python"):
        excerpt = code_lines(block)
        n = len(excerpt)
        places = [k for k in range(len(lines)) if lines[k : k + n] == excerpt]
        assert places, f"not in lstm.py:\n{block}"
        shown += excerpt
    for code, tags in lines:
        assert not tags or (code, tags) in shown, f"not on the page: {code}  {tags}"


# ---- the worked example -------------------------------------------------------------------------


class Line(NamedTuple):
    """`name = formula = numbers = value`, or `name = value`."""

    name: str
    value: str
    formula: str | None = None
    numbers: str | None = None


def read_block(block):
    """The Lines of a `text` block. Nothing is skipped: what cannot be read is an error."""
    lines = []
    for line in re.sub(r"\n\s+=", " =", block).splitlines():  # a line may go on below
        parts = re.split(r"\s+=\s+", line.strip())
        if len(parts) == 4:
            name, formula, numbers, value = parts
            lines.append(Line(name, value, formula, numbers))
        else:  # name = value, one or more of them side by side
            words = line.split()
            names, equals, values = words[::3], words[1::3], words[2::3]
            readable = (
                len(words) % 3 == 0
                and set(equals) == {"="}
                and all(re.fullmatch(NAME, name) for name in names)
                and all(re.fullmatch(NUMBER, value) for value in values)
            )
            assert readable, f"cannot be read: {line!r}"
            lines += map(Line, names, values)
    return lines


def read_example(page):
    """The given values, and all Lines after them."""
    first, *rest = blocks(page, "text")
    given = {line.name: float(line.value) for line in read_block(first)}
    return given, [line for block in rest for line in read_block(block)]


def evaluate(formula, values):
    """A formula of the page at `values`."""
    code = A_NAME.sub(lambda m: f"values[{m[0]!r}]", formula)
    functions = {"σ": lambda z: 1 / (1 + cmath.exp(-z)), "tanh": cmath.tanh, "values": values}
    return eval(code.replace("·", "*").replace("²", "**2"), {"__builtins__": {}}, functions)


def scalar_forward(given, loss, nudge=None, by=0.0, cut=False):
    """All values of the two steps by name, as complex numbers. `loss` is the page's formula.

    nudge: the name of one value, to which `by` is added as soon as it is computed. What a step
    reads of the state before it has names of its own, such as "h1 into step 2".
    cut: step 2 takes the state as a constant, so that no nudge goes through it.
    """
    values = {}

    def keep(name, value):
        values[name] = value + (by if name == nudge else 0.0)
        return values[name]

    for name, value in given.items():
        keep(name, value)
    for t in (1, 2):
        x, h, c = values[f"x{t}"], values[f"h{t - 1}"], values[f"c{t - 1}"]
        h, c = keep(f"h{t - 1} into step {t}", h), keep(f"c{t - 1} into step {t}", c)
        if cut and t == 2:
            h, c = h.real, c.real
        for gate in "ifgo":
            z = x * values[f"W_x[{gate}]"] + h * values[f"W_h[{gate}]"] + values[f"b[{gate}]"]
            z = keep(f"z_{gate}{t}", z)
            keep(f"{gate}{t}", cmath.tanh(z) if gate == "g" else 1 / (1 + cmath.exp(-z)))
        c = keep(f"c{t}", values[f"f{t}"] * c + values[f"i{t}"] * values[f"g{t}"])
        tanh_c = keep(f"tanh_c{t}", cmath.tanh(c))
        keep(f"h{t}", values[f"o{t}"] * tanh_c)
    keep("loss", evaluate(loss, values))
    return values


def scalar_reference(given, loss):
    """Every name of the example: values from scalar_forward, gradients by complex step on it."""

    def gradient(name, cut=False):
        return scalar_forward(given, loss, name, 1e-20j, cut)["loss"].imag / 1e-20

    values = {name: value.real for name, value in scalar_forward(given, loss).items()}
    reference = values | {f"d{name}": gradient(name) for name in values}
    reference |= upstream(loss, values)
    reference |= {f"d{k}_next1": gradient(f"{k}1 into step 2") for k in "hc"}
    for name in ("c1", "W_h[f]", "b[i]"):
        stem, bracket, gate = name.partition("[")
        reference[f"d{stem}_cut{bracket}{gate}"] = gradient(name, cut=True)
    for name, by in (("loss_plus", NUDGE), ("loss_minus", -NUDGE)):
        reference[name] = scalar_forward(given, loss, "W_h[f]", by)["loss"].real
    reference["quotient"] = (reference["loss_plus"] - reference["loss_minus"]) / (2 * NUDGE)
    return reference


def upstream(loss, values):
    """What comes into backward: the slopes of the loss's own formula, all else fixed."""

    def slope(name):
        return evaluate(loss, values | {name: values[name] + 1e-20j}).imag / 1e-20

    return {"dhs1": slope("h1"), "dhs2": slope("h2"), "dh_next2": 0, "dc_next2": slope("c2")}


def spy(function, seen):
    """`function`, which now also appends its arguments and results to `seen`, as numbers."""

    def call(*arguments):
        results = function(*arguments)
        seen.append([array.item() for array in (*arguments, *results)])
        return results

    return call


FORWARD_NAMES = "z_i z_f z_g z_o c_prev h c i f g o tanh_c"  # cell_forward: arguments, results
BACKWARD_NAMES = "dh dc_next i f g o c_prev tanh_c dz_i dz_f dz_g dz_o dc_prev"


def package_values(given, loss, monkeypatch):
    """What lstm_forward and lstm_backward say of the same numbers, by name."""
    forwards, backwards = [], []
    monkeypatch.setattr(lstm, "cell_forward", spy(lstm.cell_forward, forwards))
    monkeypatch.setattr(lstm, "cell_backward", spy(lstm.cell_backward, backwards))

    def run(steps, state, given=given):
        x = np.array([given[f"x{t}"] for t in steps]).reshape(-1, 1, 1)
        W_x, W_h, b = (np.array([given[f"{n}[{k}]"] for k in "ifgo"]) for n in ("W_x", "W_h", "b"))
        return lstm.lstm_forward(x, state, W_x[None], W_h[None], b)

    def column(*numbers):
        return np.array(numbers, dtype=float).reshape(-1, 1, 1)

    start = column(given["h0"])[0], column(given["c0"])[0]
    _, _, cache = run((1, 2), start)
    values = {}
    for t, numbers in zip((1, 2), forwards, strict=True):
        values |= zip([f"{name}{t}" for name in FORWARD_NAMES.split()], numbers, strict=True)
    assert (values["c_prev1"], values["c_prev2"]) == (given["c0"], values["c1"])
    values["loss"] = evaluate(loss, values)

    values |= upstream(loss, values)
    dhs = column(values["dhs1"], values["dhs2"])
    into = column(values["dh_next2"])[0], column(values["dc_next2"])[0]
    dx, (dh_0, dc_0), grads = lstm.lstm_backward(dhs, into, cache)
    for t, numbers in zip((2, 1), backwards, strict=True):
        values |= zip([f"{name}{t}" for name in BACKWARD_NAMES.split()], numbers, strict=True)
    assert values["dc_prev2"] == values["dc_next1"]
    values |= zip(("dx1", "dx2"), dx.flat, strict=True)
    values |= {"dh0": dh_0.item(), "dc0": dc_0.item()}
    for name, gradient in grads._asdict().items():
        values |= zip([f"d{name}[{gate}]" for gate in "ifgo"], gradient.flat, strict=True)

    # The two steps as two chunks: what the second sends to the first, and what the cut drops.
    nothing = column(0)[0], column(0)[0]
    _, middle, cache_1 = run((1,), start)
    _, _, cache_2 = run((2,), middle)
    _, (dh_1, _), late = lstm.lstm_backward(dhs[1:], into, cache_2)
    _, _, early = lstm.lstm_backward(dhs[:1], nothing, cache_1)
    values["dh_next1"] = dh_1.item()
    values["dW_h_cut[f]"] = early.W_h[0, 1] + late.W_h[0, 1]
    values["db_cut[i]"] = early.b[0] + late.b[0]

    for name, by in (("loss_plus", NUDGE), ("loss_minus", -NUDGE)):
        hs, (_, c2), _ = run((1, 2), start, given | {"W_h[f]": given["W_h[f]"] + by})
        values[name] = evaluate(loss, {"h1": hs.flat[0], "h2": hs.flat[1], "c2": c2.item()})
    values["quotient"] = (values["loss_plus"] - values["loss_minus"]) / (2 * NUDGE)
    return values


# What stays inside cell_backward, where only the scalar reference can see it.
INSIDE_THE_CELL = {f"{k}{t}" for k in ("do", "dtanh_c", "dc", "df", "di", "dg") for t in (1, 2)}
INSIDE_THE_CELL |= {"dc1_cut"}


def loss_formula(lines):
    (formula,) = [line.formula for line in lines if line.name == "loss"]
    return formula


def assert_printed(line, value, by):
    decimals = len(line.value.partition(".")[2])
    assert line.value == f"{value:.{decimals}f}", f"{line.name} = {line.value}, but {by}: {value!r}"


def check_values(page, source):
    """Every value is that of the scalar reference, to the printed digits."""
    given, lines = read_example(page)
    reference = scalar_reference(given, loss_formula(lines))
    for line in lines:
        assert_printed(line, reference[line.name], "plain scalar arithmetic")


def check_working(page, source):
    """Every formula gives its value, and the numbers beside it are the formula's own."""
    given, lines = read_example(page)
    exact = scalar_reference(given, loss_formula(lines))
    printed = {line.name: line.value for line in read_block(blocks(page, "text")[0])}

    def bare(text):  # without the brackets round a negative number, and those of a function
        return re.sub(rf"\(({NUMBER})\)", r"\1", re.sub(rf"\(({NUMBER})\)", r"\1", text))

    for line in lines:
        assert line.name not in printed, f"{line.name} occurs twice"
        if line.formula is not None:
            assert_printed(line, evaluate(line.formula, exact).real, line.formula)
            substituted = A_NAME.sub(lambda m: f"({printed[m[0]]})", line.formula)
            terms = [evaluate(term, exact).real for term in line.formula.split(" + ")]
            added = " + ".join(f"({term:.6f})" for term in terms)
            assert bare(line.numbers) in (bare(substituted), bare(added)), f"beside {line.name}"
        printed[line.name] = line.value


# ---- the tests ----------------------------------------------------------------------------------


def test_the_page_has_the_blocks_that_the_tests_read():
    """A parser that finds nothing checks nothing. Change these counts with the page."""
    assert {fence for fence, _ in FENCE.findall(PAGE)} == {"math", "python", "text", "pycon"}
    assert len(re.findall("^```", PAGE, re.MULTILINE)) == 2 * len(FENCE.findall(PAGE))
    assert len(blocks(PAGE, "python")) == 15
    given, lines = read_example(PAGE)
    assert (len(given), len(lines)) == (16, 73)
    assert sum(line.formula is not None for line in lines) == 64
    assert len({tag for _, tags in code_lines(SOURCE) for tag in tags}) == 9
    assert sum(bool(tags) for _, tags in code_lines(SOURCE)) == 22


def test_page_and_source_have_the_same_tags():
    check_tags(PAGE, SOURCE)


def test_the_code_on_the_page_is_the_source_and_every_tagged_line_is_derived():
    check_code(PAGE, SOURCE)


def test_every_number_of_the_example_agrees_with_plain_scalar_arithmetic():
    check_values(PAGE, SOURCE)


def test_every_line_of_the_example_can_be_followed_with_a_pencil():
    check_working(PAGE, SOURCE)


def test_every_number_of_the_example_agrees_with_the_package(monkeypatch):
    given, lines = read_example(PAGE)
    values = package_values(given, loss_formula(lines), monkeypatch)
    assert {line.name for line in lines} - values.keys() == INSIDE_THE_CELL
    for line in lines:
        if line.name in values:
            assert_printed(line, values[line.name], "the package")


@pytest.mark.parametrize(
    "check, old, new",
    [
        (check_tags, r" \tag{L6}", ""),
        (check_tags, r"\tag{L6}", r"\tag{L7}"),
        (check_tags, "**(L6)**", "**(L10)**"),
        (check_code, "dtanh_c = dh_t * tanh_c, dh_t * o ", "dtanh_c = dh_t * tanh_c, dh_t "),
        (check_code, "dz_f = df * f * (1 - f)                              # (L2)\n", ""),
        (check_code, "dg * (1 - g * g)                              # (L3)", "dg * (1 - g * g)"),
        (check_values, "=  2.477726", "=  2.477727"),
        (check_values, "dc1_cut = 1.099441", "dc1_cut = 1.099442"),
        (check_values, "W_h[f] = 0.5", "W_h[f] = 0.6"),
        (check_working, "= 0.843706·(1 - (-0.505671)²)", "= 0.843706·(1 - (-0.505672)²)"),
        (check_working, "= 0.157940 + 0.122560", "= 0.157941 + 0.122560"),
        (check_working, "= df2·f2·(1 - f2)", "= df2·f2·(1 + f2)"),
        (check_working, "i1      = σ(z_i1)", "i1 ~ σ(z_i1)"),
    ],
)
def test_a_broken_page_is_noticed(check, old, new):
    assert PAGE.count(old) == 1
    with pytest.raises(AssertionError):
        check(PAGE.replace(old, new), SOURCE)


@pytest.mark.parametrize(
    "check, old, new",
    [
        (check_tags, "(L8)", ""),
        (check_tags, "(L8)", "(L10)"),
        (check_code, "dc_t = dc_next + dtanh_c", "dc_t = dtanh_c"),
        (check_code, "dh_next = dzs[t] @ W_h.T  #", "dh_next = dzs[t] @ W_h.T * 1  #"),
        (check_code, "f = sigmoid(z_f) ", "f = sigmoid(z_f)  # (L2)\n    f = 1.0 * f "),
    ],
)
def test_a_changed_source_is_noticed(check, old, new):
    assert SOURCE.count(old) >= 1
    with pytest.raises(AssertionError):
        check(PAGE, SOURCE.replace(old, new))
