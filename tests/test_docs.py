"""The pages say what the package does: their tags, names, flags and numbers exist, and their code
runs."""

import ast
import doctest
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import museum
import numpy as np
import pytest

import minilstm as ml
from minilstm import __main__ as command_line
from minilstm import cli

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SNIPPETS = sorted(DOCS.glob("snippets/*.md"))
PAGES = sorted([ROOT / "README.md", *DOCS.glob("*.md"), *DOCS.glob("source/*.md")])
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

ids_of_pages = {"ids": [str(page.relative_to(ROOT)) for page in PAGES]}


def text_of(page):
    return page.read_text(encoding="utf-8")


# --- tags; those of lstm.py are test_derivation.py's


@pytest.mark.parametrize(
    "letter, page, source",
    [
        ("E", "forward.md", "nn/embedding.py"),
        ("S", "backward.md", "nn/loss.py"),
        ("N", "models.md", "optim.py"),
        ("A", "models.md", "optim.py"),
    ],
)
def test_every_tag_of_a_source_is_an_equation_of_its_page_and_the_other_way_round(
    letter, page, source
):
    equations = re.findall(rf"\\tag\{{({letter}\d+)\}}", text_of(DOCS / page))
    tags = re.findall(rf"\(({letter}\d+)\)", text_of(ROOT / "minilstm" / source))
    assert sorted(equations) == sorted(set(tags)) != []


def test_no_page_has_an_equation_twice_and_no_tag_is_nobodys():
    equations = [tag for page in PAGES for tag in re.findall(r"\\tag\{(\w+)\}", text_of(page))]
    assert len(equations) == len(set(equations))
    assert {tag[0] for tag in equations} == set("LESNA")


# --- names and flags


def known_flags():
    """Every flag of the command line and of the scripts that the pages name."""
    sources = [*(ROOT / "examples").glob("*.py"), *(ROOT / "tests" / "campaigns").glob("*.py")]
    flags = {flag for path in sources for flag in re.findall(r'"(--[a-z][a-z-]*)"', text_of(path))}
    for verb in command_line._VERBS.values():
        parser = cli.Parser()
        verb.add_flags(parser)
        flags |= set(parser._option_string_actions)
    return flags


OF_OTHERS = {"--depth"}  # flags of programs that are not ours


@pytest.mark.parametrize("page", PAGES, **ids_of_pages)
def test_every_flag_that_a_page_names_exists(page):
    named = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", text_of(page)))
    assert named - known_flags() - OF_OTHERS <= {"--json", "--help"}


@pytest.mark.parametrize("page", PAGES, **ids_of_pages)
def test_every_flag_of_a_verb_on_a_page_is_one_of_that_verbs(page):
    for name, rest in re.findall(r"minilstm (\w+)((?: [^`\n#|]*)?)", text_of(page)):
        if name in command_line._VERBS:
            parser = cli.Parser()
            command_line._VERBS[name].add_flags(parser)
            named = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", rest))
            assert named <= {*parser._option_string_actions, "--help"}, f"{name} {rest}"


@pytest.mark.parametrize("page", PAGES, **ids_of_pages)
def test_every_public_name_that_a_page_mentions_exists(page):
    for name in set(re.findall(r"\b(?:ml|minilstm)\.([A-Za-z_]+)\b", text_of(page))):
        assert hasattr(ml, name) or (ROOT / "minilstm" / f"{name}.py").exists(), name


@pytest.mark.parametrize("page", PAGES, **ids_of_pages)
def test_every_file_that_a_page_names_exists(page):
    text = text_of(page)
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text)
    for link in links:
        assert (page.parent / link).exists(), link
    for path in re.findall(r"`((?:minilstm|tests|examples|docs)/[\w./-]+\.\w+)`", text):
        assert (ROOT / path).exists(), path


# --- code


@pytest.mark.parametrize("page", PAGES, **ids_of_pages)
def test_the_examples_on_a_page_run_and_print_what_stands_there(page, tmp_path, monkeypatch):
    from sybil import Sybil
    from sybil.parsers.markdown import PythonCodeBlockParser

    vocab = ml.CharVocabulary.from_text("".join(map(chr, range(32, 127))))
    config = ml.ModelConfig(len(vocab), hidden_size=4)
    params = ml.init_params(config, np.random.default_rng(0))
    ml.LanguageModel(config, params, vocab).save(
        tmp_path / "runs" / "first"
    )  # which README's example loads
    monkeypatch.chdir(tmp_path)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    sessions = PythonCodeBlockParser(doctest_optionflags=flags)
    sessions.codeblock_parser.language = "pycon"
    parsers = [sessions] + ([PythonCodeBlockParser()] if page.name == "README.md" else [])
    for example in Sybil(parsers).parse(page):
        example.evaluate()


def test_there_are_examples_to_run():
    assert sum(text_of(page).count("```pycon") for page in PAGES) >= 12
    assert text_of(ROOT / "README.md").count("```python\n") == 1


EXCERPT = re.compile(r"```{literalinclude} (\S+)\n:pyobject: (\w+)\n:lines: ([\d, -]+)\n")
EXCERPTS = [(page, *found) for page in PAGES for found in EXCERPT.findall(text_of(page))]


@pytest.mark.parametrize("page, file, name, lines", EXCERPTS, ids=[e[2] for e in EXCERPTS])
def test_an_excerpt_of_a_function_is_the_function_without_its_docstring(page, file, name, lines):
    source = text_of((page.parent / file).resolve())
    (found,) = (n for n in ast.parse(source).body if getattr(n, "name", "") == name)
    whole, shown = ast.get_source_segment(source, found).splitlines(), []
    for first, dash, last in (part.strip().partition("-") for part in lines.split(",")):
        shown += whole[int(first) - 1 : int(last) if last else len(whole) if dash else int(first)]
    del found.body[0]  # its docstring
    assert ast.unparse(ast.parse("\n".join(shown))) == ast.unparse(found)


def test_there_are_excerpts():
    assert len(EXCERPTS) >= 2


# --- numbers


SPEEDS = {
    **{name: name for name in ("hello", "small", "deep", "windows", "wiki-chars", "wiki-words")},
    "2,000 characters sampled": "sampling-chars",
    "2,000 words sampled": "sampling-words",
    "111,540 characters scored, 64 streams": "evaluation",
    "the same in one pass": "evaluation-1",
}


@pytest.mark.parametrize("label", SPEEDS)
def test_readmes_table_of_speeds_is_the_recorded_benchmark(label):
    rows = {row["row"]: row for row in json.loads(text_of(DOCS / "benchmark.json"))["rows"]}
    row = rows[SPEEDS[label]]
    (line,) = re.findall(rf"^\| {label} \|.*$", text_of(ROOT / "README.md"), re.M)
    *_, ours, theirs, ratio, memory = [cell.strip() for cell in line.split("|")[1:-1]]
    ms = (row["milliseconds"][side] for side in ("ours", "torch"))
    assert (ours, theirs) == tuple(f"{x:.1f}" if x < 10 else f"{x:.0f}" for x in ms)
    assert ratio == f"{row['ratio']:.2f}"
    peaks = row.get("peak_bytes") or {}
    assert memory == " / ".join(f"{peaks[side] / 1e6:.0f}" for side in peaks)


def test_an_exhibit_without_effect_in_training_is_marked_so_and_no_other():
    seen = json.loads(text_of(DOCS / "museum.json"))
    for bug in museum.BUGS:
        if figures := seen["bugs"].get(bug.name):
            assert json.loads(figures["recipe"]) == bug.recipe, bug.name
            right = seen["right"][figures["recipe"]][0]
            assert ({name: figures.get(name) for name in right} == right) is bug.unseen, bug.name


def test_the_museum_counts_how_many_bugs_the_loss_does_not_tell():
    seen = json.loads(text_of(DOCS / "museum.json"))
    above = [
        figures["valid"] - max(run["valid"] for run in seen["right"][figures["recipe"]])
        for figures in seen["bugs"].values()
    ]
    counts = re.findall(r"\b(?:Of the|training,|and) (\d+)\b", text_of(DOCS / "museum.md"))
    told = [len(above), sum(x <= 0 for x in above), sum(x < 0.1 for x in above)]
    assert counts == [str(n) for n in told]


def recorded(preset):
    """The validation losses of a preset's rows."""
    files = sorted((DOCS / "results").glob(f"{preset}-[0-9].json"))
    return [json.loads(text_of(file))["best"]["loss"] for file in files]


def test_readmes_losses_of_presets_are_the_recorded_ones():
    readme = text_of(ROOT / "README.md")
    three, (hour,) = recorded("shakespeare"), recorded("shakespeare-hour")
    bold = r"^\| \*\*([\d.]+)\*\* .*"
    (line,) = re.findall(bold + r"`shakespeare` below.*worst ([\d.]+)", readme, re.M)
    assert line == (f"{sum(three) / len(three):.3f}", f"{max(three):.3f}")
    assert re.findall(bold + "`shakespeare-hour`", readme, re.M) == [f"{hour:.3f}"]


def test_readmes_figures_of_the_script_are_the_recorded_ones():
    readme = text_of(ROOT / "README.md")
    seeds = json.loads(text_of(DOCS / "results" / "example.json"))["seeds"].values()
    losses, steps, seconds = ([seed[key] for seed in seeds] for key in ("loss", "steps", "seconds"))
    told = re.findall(r"^\| \*\*([\d.]+)\*\* .*this, 3 minutes.*worst ([\d.]+)", readme, re.M)
    assert told == [(f"{sum(losses) / 3:.3f}", f"{max(losses):.3f}")]
    ran, took = f"{min(steps):,} to {max(steps):,} steps", f"{min(seconds)} to {max(seconds)}"
    assert re.search(rf"{ran} .* in {took} seconds", " ".join(readme.split()))
    said = readme.split("It sounds like this")[1].split("```text\n")[1].split("\n```")[0]
    assert said.strip() in next(iter(seeds))["sample"]


def test_the_page_of_reliability_is_what_its_figures_make_it_and_all_of_them_are_good():
    import reliability

    assert text_of(DOCS / "reliability.md") == reliability.page()
    seen = json.loads(text_of(DOCS / "reliability.json"))
    assert seen["kills"]["times"] >= 200
    assert all(name.endswith("same to the last bit") for name in seen["kills"]["outcomes"])
    assert seen["damage"]["times"] >= 2000
    assert seen["damage"]["others"] == []
    assert seen["damage"]["slowest_ms"] < 1000
    assert seen["long"]["steps"] >= 20_000
    assert seen["long"]["growth"] < 0.01
    assert seen["long"]["files_early"] == seen["long"]["files_late"]


# --- the museum


def test_every_exhibit_is_on_the_page_and_every_one_that_trains_was_trained():
    shown = re.findall(r"^```\{museum\} (\S+)$", text_of(DOCS / "museum.md"), re.M)
    assert set(shown) == {bug.file for bug in museum.BUGS}
    seen = json.loads(text_of(DOCS / "museum.json"))
    untrained = {bug.name for bug in museum.BUGS} - set(seen["bugs"])
    files = {bug.file for bug in museum.BUGS if bug.name in untrained}
    assert files == {"gradcheck.py", "torch_weights.py"}


# --- the exercise


def test_the_worked_gru_passes_its_own_check(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "gru.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(ml.__file__).parents[1])},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("every gradient is right\n")


def test_the_worked_gru_is_pytorchs():
    import torch

    gru = runpy.run_path(str(ROOT / "examples" / "gru.py"))
    T, B, D, H = 5, 3, 4, 6
    module = torch.nn.GRU(D, H, dtype=torch.float64)
    rng = np.random.default_rng(0)
    sizes = (T, B, D), (B, H), (T, B, H), (B, H)
    x, h_0, dhs, dh_T = (rng.normal(size=size) for size in sizes)
    weights = {name: p.detach().numpy() for name, p in module.named_parameters()}
    W_x, W_h = weights["weight_ih_l0"].T.copy(), weights["weight_hh_l0"].T.copy()
    hs, cache = gru["gru_forward"](x, h_0, W_x, W_h, weights["bias_ih_l0"], weights["bias_hh_l0"])
    dx, dh_0, grads = gru["gru_backward"](dhs, dh_T, cache)

    tx, th = torch.tensor(x, requires_grad=True), torch.tensor(h_0[None], requires_grad=True)
    ths, th_T = module(tx, th)
    ((ths * torch.tensor(dhs)).sum() + (th_T[0] * torch.tensor(dh_T)).sum()).backward()
    np.testing.assert_allclose(hs, ths.detach().numpy(), rtol=0, atol=1e-14)
    theirs = {name: p.grad.numpy() for name, p in module.named_parameters()}
    pairs = [
        (dx, tx.grad.numpy()),
        (dh_0, th.grad.numpy()[0]),
        (grads["W_x"], theirs["weight_ih_l0"].T),
        (grads["W_h"], theirs["weight_hh_l0"].T),
        (grads["b_x"], theirs["bias_ih_l0"]),
        (grads["b_h"], theirs["bias_hh_l0"]),
    ]
    for ours, other in pairs:
        np.testing.assert_allclose(ours, other, rtol=0, atol=1e-12 * np.abs(other).max())
