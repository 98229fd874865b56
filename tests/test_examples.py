"""The scripts of examples/, run as a newcomer runs them, and as one who mistypes."""

import ast
import io
import json
import math
import os
import re
import runpy
import subprocess
import sys
import time
import tokenize
from pathlib import Path

import numpy as np
import pytest

import minilstm as ml
from minilstm import cli, gradcheck, optim, plots

PACKAGE = Path(ml.__file__).parent
EXAMPLES = Path(__file__).parents[1] / "examples"
HELLO, SHAKESPEARE, GRADIENTS = "train_hello.py", "train_shakespeare.py", "check_gradients.py"
WORD_MODEL = "train_words.py"


def command(script, *arguments, folder, **environment):
    """Run a script in a process of its own, from another folder, on the package under test."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), **environment}
    return subprocess.run(
        [sys.executable, EXAMPLES / script, *arguments],
        capture_output=True, text=True, cwd=folder, env=environment,
    )  # fmt: skip


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """call(script, *arguments): the same in this process; exit code, stdout and stderr."""

    def call(script, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        with pytest.raises(SystemExit) as exit:
            runpy.run_path(str(EXAMPLES / script), run_name="__main__")
        out, err = capsys.readouterr()
        return exit.value.code, out, err

    return call


# --- train_hello.py


@pytest.fixture(scope="module")
def hello(tmp_path_factory):
    """What the command without arguments printed, made and took."""
    folder = tmp_path_factory.mktemp("hello")
    started = time.perf_counter()
    done = command(HELLO, folder=folder)
    return done, folder, time.perf_counter() - started


def test_hello_needs_no_arguments_no_help_and_under_ten_seconds(hello):
    done, _, seconds = hello
    assert (done.returncode, done.stderr) == (0, "")
    assert seconds < 10


def test_hello_ends_with_a_loss_near_zero_and_the_word(hello):
    *_, loss, greedy = hello[0].stdout.splitlines()
    assert re.fullmatch(r"final loss 0\.00\d\d nats", loss)
    assert greedy == "greedy: hello"


def test_hello_shows_the_first_loss_beside_the_uniform_guess(hello):
    lines = hello[0].stdout.splitlines()
    guess = lines.index("uniform guess: ln 4 = 1.386 nats per letter")
    step, loss = re.match(r"step +(\d+)  loss (\S+) nats", lines[guess + 1]).groups()
    assert step == "0"
    assert abs(float(loss) - math.log(4)) < 0.3


def test_hello_shows_a_loss_that_falls(hello):
    losses = [float(loss) for loss in re.findall(r"loss (\S+) nats  ", hello[0].stdout)]
    assert len(losses) == 10
    assert losses == sorted(losses, reverse=True)


def test_hello_shows_probabilities_after_every_prefix_and_says_what_needs_memory(hello):
    out = hello[0].stdout
    assert "l→l and l→o" in out
    rows = re.findall(r"^  (\w+) +→ (.*)   right: (\w)$", out, re.M)
    assert [(prefix, right) for prefix, _, right in rows] == [
        ("h", "e"), ("he", "l"), ("hel", "l"), ("hell", "o"),
    ]  # fmt: skip
    for _, chances, right in rows:
        percent = dict(re.findall(r"(\w) +(\S+) %", chances))
        assert list(percent) == list("ehlo")
        assert sum(map(float, percent.values())) == pytest.approx(100, abs=0.2)
        assert float(percent[right]) > 99


def test_hello_samples_at_three_temperatures(hello):
    samples = re.findall(r"^  temperature \S+: (.*)$", hello[0].stdout, re.M)
    assert len(samples) == 3
    assert all(re.fullmatch("h[ehlo]{4}", word) for line in samples for word in line.split())


def test_hello_draws_a_picture_and_says_where(hello):
    done, folder, _ = hello
    assert [path.name for path in folder.iterdir()] == ["hello.png"]
    assert (folder / "hello.png").read_bytes().startswith(b"\x89PNG")
    assert "picture of the loss and of the gates: hello.png" in done.stdout


def test_hello_prints_the_same_lines_again(hello, call):
    assert call(HELLO, "--seed", "0") == (0, hello[0].stdout, "")


def test_hello_is_learnt_from_ten_seeds(call, monkeypatch):
    monkeypatch.setattr(plots, "save", lambda ax, path: path)  # what takes longest
    starts = set()
    for seed in range(10):
        code, out, _ = call(HELLO, "--seed", str(seed))
        *_, loss, greedy = out.splitlines()
        assert (code, greedy) == (0, "greedy: hello")
        assert float(loss.split()[2]) < 0.01
        starts.add(re.search(r"step +0  loss (\S+)", out)[1])
    assert len(starts) == 10


def test_hello_after_one_step_has_not_learnt_and_says_so(call):
    code, out, _ = call(HELLO, "--steps", "1", "--picture", "new/folder/one.svg")
    assert code == 0
    assert 1.2 < float(out.splitlines()[-2].split()[2]) < 1.6
    assert Path("new/folder/one.svg").is_file()


def test_hello_trains_with_numpy_alone(tmp_path):
    """matplotlib comes when there is something to draw."""
    code = f"""
import runpy, sys
from minilstm import plots
plots.new_axes = lambda *arguments, **options: sys.exit(" ".join(sys.modules))
sys.argv = ["train_hello.py", "--steps", "2"]
runpy.run_path({str(EXAMPLES / HELLO)!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert {"minilstm", "numpy"} <= loaded
    assert not loaded & {"matplotlib", "tqdm", "torch", "cupy", "scipy", "PIL"}


@pytest.mark.parametrize("script", [HELLO, SHAKESPEARE, WORD_MODEL, GRADIENTS])
def test_help_says_what_the_script_is_for_and_names_the_defaults(call, script):
    code, out, err = call(script, "--help")
    assert (code, err) == (0, "")
    docstring = ast.get_docstring(ast.parse((EXAMPLES / script).read_text()))
    assert docstring.split() == re.split(r"\n\n", out)[1].split()
    assert "--seed" in out
    assert "(default: 0)" in out


# --- train_shakespeare.py

SMALL = [
    "--hidden-size", "24", "--num-layers", "1", "--batch-size", "8", "--seq-len", "16",
    "--lr", "0.02", "--device", "cpu",
]  # fmt: skip
LAST_LINE = (
    r"{} loss (\d+\.\d{{4}}) nats/char, (\d+\.\d{{4}}) bits/char, "
    r"perplexity (\d+\.\d{{3}}), accuracy (\d+\.\d) %"
)


WORDS = ["the", "king", "is", "dead", "long", "live", "queen\n"]


def nonsense(words):
    """A text of a few words in random order: something to learn, and nothing to download."""
    rng = np.random.default_rng(0)
    return " ".join(rng.choice(WORDS, size=words))


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.txt").write_text(nonsense(2000))
    return "text.txt"


def test_shakespeare_learns_a_text_and_reports_how_well(text, tmp_path):
    done = command(
        SHAKESPEARE, "--data", text, "--steps", "30", *SMALL, "--picture", "a.png", folder=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")  # no progress bar where nobody looks
    losses = re.findall(r"^step .* training (\S+)  validation (\S+) nats", done.stdout, re.M)
    assert len(losses) == 10
    (training, validation), (last_training, last_validation) = losses[0], losses[-1]
    assert float(last_training) < float(training) - 0.3
    assert float(last_validation) < float(validation) - 0.3
    assert (tmp_path / "a.png").is_file()

    loss, bits, perplexity, _ = map(
        float, re.fullmatch(LAST_LINE.format("validation"), done.stdout.splitlines()[-1]).groups()
    )
    assert perplexity == pytest.approx(math.exp(loss), abs=2e-3)
    assert bits == pytest.approx(loss / math.log(2), abs=2e-4)
    assert abs(loss - float(last_validation)) < 0.1  # the same text, with 64 cold starts or one
    guess = re.search(r"a uniform guess costs ln (\d+) = (\S+) nats per character", done.stdout)
    assert float(guess[2]) == pytest.approx(math.log(int(guess[1])), abs=1e-3)
    assert loss < float(guess[2]) - 0.3


def test_shakespeare_holds_out_the_last_tenth(call, text, tmp_path):
    whole = len((tmp_path / text).read_text())
    _, out, _ = call(SHAKESPEARE, "--data", text, "--steps", "1", *SMALL)
    train, validate = int(0.9 * whole), whole - int(0.9 * whole)
    assert f"{train:,} characters to train on, {validate:,} to validate on" in out
    assert f"one pass over {validate - 1:,} targets" in out


def test_shakespeare_prints_the_same_lines_for_the_same_seed(call, text):
    def lines(seed):
        _, out, _ = call(SHAKESPEARE, "--data", text, "--steps", "12", "--seed", seed, *SMALL)
        return re.sub(r"in \d+ s", "in … s", out)

    assert lines("3") == lines("3") != lines("4")


def test_shakespeare_trains_for_the_minutes_it_is_given(call, text):
    started = time.perf_counter()
    code, out, _ = call(SHAKESPEARE, "--data", text, "--minutes", "0.01", *SMALL)
    assert code == 0
    assert time.perf_counter() - started < 5
    steps = int(re.search(r"; ([\d,]+) steps, ", out)[1].replace(",", ""))
    assert steps > 10
    assert f"trained {steps:,} steps in " in out


def test_shakespeare_samples_from_its_own_vocabulary(call, text, tmp_path):
    _, out, _ = call(SHAKESPEARE, "--data", text, "--steps", "1", *SMALL)
    written = (tmp_path / text).read_text()
    samples = re.findall(r"temperature \S+ ---\n(.{301})\n", out, re.DOTALL)
    assert len(samples) == 2
    for sample in samples:
        assert set(sample) <= set(written)
        assert sample[0] == written[0]


def test_characters_that_only_the_last_tenth_has_are_read_as_unknown(call, tmp_path):
    # a file may hold U+FFFD itself, where something went wrong before
    (tmp_path / "text.txt").write_text("\ufffd" + nonsense(300) + "\N{SNOWMAN} end")
    code, out, _ = call(SHAKESPEARE, "--data", "text.txt", "--steps", "2", *SMALL)
    assert code == 0
    assert "valid: outside the vocabulary are '\N{SNOWMAN}'; 1 of " in out
    assert "<unk>" not in out.partition("--- a sample")[2]  # it is never said


def test_a_text_too_short_to_hold_a_tenth_out_is_trained_on_whole(call, tmp_path):
    (tmp_path / "text.txt").write_text("hello")
    code, out, _ = call(SHAKESPEARE, "--data", "text.txt", "--steps", "3", *SMALL)
    assert code == 0
    assert "too short to hold anything out" in out
    assert re.fullmatch(LAST_LINE.format("training"), out.splitlines()[-1])


def test_a_text_of_one_symbol_is_learnt_already(call, tmp_path):
    (tmp_path / "text.txt").write_text("a" * 100)
    code, out, _ = call(SHAKESPEARE, "--data", "text.txt", "--steps", "2", *SMALL)
    assert code == 0
    assert "1 distinct: a uniform guess costs ln 1 = 0.000 nats" in out
    assert re.fullmatch(LAST_LINE.format("validation"), out.splitlines()[-1])[1] == "0.0000"


# --- train_words.py


def test_a_word_model_learns_to_do_better_than_word_frequencies(text, tmp_path):
    done = command(
        WORD_MODEL, "--data", text, "--steps", "60", "--hidden-size", "16", folder=tmp_path
    )
    assert done.returncode == 0
    assert f"perplexity of a uniform guess: {len(WORDS) + 1}; " in done.stdout  # and <unk>
    first, *_, last = map(float, re.findall(r"training (\S+)  perplexity", done.stdout))
    assert last < first - 0.1
    loss, perplexity = re.search(r" (\S+) nats per word, perplexity (\S+),", done.stdout).groups()
    assert float(perplexity) == pytest.approx(math.exp(float(loss)), abs=0.06)
    assert float(perplexity) < len(WORDS) + 0.5  # the words are drawn at random: 7 is the best
    for sample in re.findall(r"temperature \S+ ---\n(.*)\n", done.stdout):
        assert len(sample.split()) == 61
        assert set(sample.split()) <= {word.strip() for word in WORDS}


def test_a_word_model_prints_the_same_lines_for_the_same_seed(call, text):
    def lines(seed):
        small = ("--data", text, "--steps", "5", "--hidden-size", "8", "--seed", seed)
        return call(WORD_MODEL, *small)[1]

    assert lines("3") == lines("3") != lines("4")


# --- check_gradients.py


def test_gradients_are_right_entry_by_entry_and_the_error_is_drawn(tmp_path):
    done = command(GRADIENTS, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    config = ml.ModelConfig(vocab_size=6, hidden_size=4, num_layers=2, embedding_size=3)
    entries = {name: math.prod(shape) for name, shape in config.parameter_shapes().items()}
    entries |= {"h_0": 2 * 2 * 4, "c_0": 2 * 2 * 4}
    rows = re.findall(r"^(\S+) +(\d+)  (\S+) +(\S+) +(\S+)  ok$", done.stdout, re.M)
    assert {name: int(count) for name, count, *_ in rows} == entries
    for _, _, norm, exact, by_hand in rows:
        assert float(norm) > 1e-3
        assert float(exact) < 1e-12
        assert 1e-14 < float(by_hand) < 1e-7  # seen to be worse than the complex step
    assert "every entry passes" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["gradient_check.png"]


def test_a_gradient_off_by_a_thousandth_fails_and_is_named(call, tmp_path, monkeypatch):
    def wrong(dlogits, cache, dstate=None):
        grads, dstate = right(dlogits, cache, dstate)
        grads["lstm0.W_h"] *= 1.001
        return grads, dstate

    right = ml.backward
    monkeypatch.setattr(ml, "backward", wrong)
    code, out, err = call(GRADIENTS, "--layers", "1", "--one-hot")
    assert (code, err) == (1, "error: the gradient is wrong of lstm0.W_h\n")
    assert re.search(r"^lstm0.W_h .* WRONG$", out, re.M)
    assert re.search(r"^lstm0.W_h\[\d, \d+\]: analytic", out, re.M)
    assert "every entry passes" not in out
    assert not list(tmp_path.iterdir())  # no curve is drawn of what is wrong


# --- bad input

BAD_FILES = {
    "empty.txt": b"",
    "one.txt": b"a",
    "binary": bytes(range(256)),
    "nul.txt": b"to be\0or not",
    "latin1.txt": "garçon".encode("latin-1"),
}
TEXT = ("--data", "good.txt")
PICTURE = "a picture must end in .png, .svg or .pdf"
PLACE = "a picture needs a place where it can be written"

# script, arguments, and what its one line must quote: what was wanted, what came
BAD_INPUT = [
    (HELLO, ("--steps", "0"), "--steps must be a positive integer", "got 0"),
    (HELLO, ("--steps", "-1"), "--steps must be a positive integer", "got -1"),
    (HELLO, ("--steps", "1.5"), "--steps: invalid int value", "'1.5'"),
    (HELLO, ("--seed", "-1"), "--seed must be an integer from 0 up", "got -1"),
    (HELLO, ("--device", "gpu"), "device must be auto, cpu or cuda", "got 'gpu'"),
    (HELLO, ("--picture", "x.xyz"), PICTURE, "got 'x.xyz'"),
    (HELLO, ("--picture", "good.txt/x.png"), PLACE, "got 'good.txt/x.png'"),
    (HELLO, ("--picture", "folder.png"), PLACE, "got 'folder.png'"),
    (HELLO, ("--temperature", "2"), "unrecognized arguments", "--temperature 2"),
    (HELLO, ("--step", "5"), "unrecognized arguments", "--step 5"),
    (HELLO, ("world",), "unrecognized arguments", "world"),
    (SHAKESPEARE, ("--data", "empty.txt"), "want a UTF-8 text file", "'empty.txt' is empty"),
    (SHAKESPEARE, ("--data", "one.txt"), "need at least 2 tokens", "got 1"),
    (SHAKESPEARE, ("--data", "binary"), "want a UTF-8 text file", "'binary' has byte 0x80"),
    (SHAKESPEARE, ("--data", "nul.txt"), "want a UTF-8 text file", "'nul.txt' has a NUL character"),
    (SHAKESPEARE, ("--data", "latin1.txt"), "want a UTF-8 text file", "byte 0xe7 at offset 3"),
    (SHAKESPEARE, ("--data", "none.txt"), "want a text file or one of", "got 'none.txt'"),
    (SHAKESPEARE, ("--data", "folder.png"), "want a UTF-8 text file", "'folder.png' is a folder"),
    (SHAKESPEARE, (*TEXT, "--steps", "0"), "--steps must be a positive integer", "got 0"),
    (SHAKESPEARE, (*TEXT, "--steps", "-1"), "--steps must be a positive integer", "got -1"),
    (SHAKESPEARE, (*TEXT, "--minutes", "0"), "minutes must be a finite number above 0", "got 0"),
    (SHAKESPEARE, (*TEXT, "--minutes", "-2"), "minutes must be a finite number above 0", "-2"),
    (SHAKESPEARE, (*TEXT, "--minutes", "nan"), "minutes must be a finite number above 0", "nan"),
    (SHAKESPEARE, (*TEXT, "--minutes", "inf"), "minutes must be a finite number above 0", "inf"),
    (SHAKESPEARE, (*TEXT, "--minutes", "one"), "--minutes: invalid float value", "'one'"),
    (SHAKESPEARE, (*TEXT, "--batch-size", "0"), "batch_size must be a positive integer", "got 0"),
    (SHAKESPEARE, (*TEXT, "--seq-len", "0"), "seq_len must be a positive integer", "got 0"),
    (SHAKESPEARE, (*TEXT, "--hidden-size", "0"), "hidden_size must be a positive integer", "got 0"),
    (SHAKESPEARE, (*TEXT, "--num-layers", "-1"), "num_layers must be a positive integer", "got -1"),
    (SHAKESPEARE, (*TEXT, "--lr", "nan"), "lr must be a finite number", "got nan"),
    (SHAKESPEARE, (*TEXT, "--lr", "-1"), "lr must be a finite number", "got -1.0"),
    (SHAKESPEARE, (*TEXT, "--seed", "-1"), "--seed must be an integer from 0 up", "got -1"),
    (SHAKESPEARE, (*TEXT, "--device", "gpu"), "device must be auto, cpu or cuda", "got 'gpu'"),
    (SHAKESPEARE, (*TEXT, "--picture", "x.xyz"), PICTURE, "got 'x.xyz'"),
    (SHAKESPEARE, (*TEXT, "--picture", "good.txt/x.png"), PLACE, "got 'good.txt/x.png'"),
    (SHAKESPEARE, (*TEXT, "--hidden", "8"), "unrecognized arguments", "--hidden 8"),
    (WORD_MODEL, (*TEXT, "--steps", "0"), "--steps must be a positive integer", "got 0"),
    (WORD_MODEL, ("--data", "wikitext"), "wikitext2", "got 'wikitext'"),
    (WORD_MODEL, ("--data", "empty.txt"), "want a UTF-8 text file", "'empty.txt' is empty"),
    (WORD_MODEL, (*TEXT, "--hidden-size", "0"), "hidden_size must be a positive integer", "got 0"),
    (GRADIENTS, ("--layers", "0"), "--layers must be a positive integer", "got 0"),
    (GRADIENTS, ("--seed", "-1"), "--seed must be an integer from 0 up", "got -1"),
    (GRADIENTS, ("--picture", "x.xyz"), PICTURE, "got 'x.xyz'"),
    (GRADIENTS, ("--epsilon", "1"), "unrecognized arguments", "--epsilon 1"),
]


@pytest.fixture
def folder(tmp_path):
    """Where the bad files are, and a good one."""
    for name, data in BAD_FILES.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "good.txt").write_text(nonsense(1000))
    (tmp_path / "folder.png").mkdir()
    return tmp_path


def assert_one_line_of_error(err, *quoted):
    """One line on stderr, after argparse's usage where it was argparse that refused."""
    usage, _, line = err.rstrip("\n").rpartition("\n")
    assert line.startswith("error: ")
    assert not usage or usage.startswith("usage: ")
    assert err.count("error:") == 1
    for text in quoted:
        assert text in line


@pytest.mark.parametrize(
    "script, arguments, wanted, got",
    BAD_INPUT,
    ids=[f"{script} {' '.join(arguments)}" for script, arguments, *_ in BAD_INPUT],
)
def test_bad_input_is_quoted_before_anything_is_trained_or_written(
    call, folder, monkeypatch, script, arguments, wanted, got
):
    def too_late(*arguments):
        pytest.fail("work was done before the input was refused")

    monkeypatch.setattr(optim.Adam, "step", too_late)
    monkeypatch.setattr(gradcheck, "complex_step", too_late)
    before = sorted(folder.rglob("*"))
    code, _, err = call(script, *arguments)
    assert code == 2
    assert_one_line_of_error(err, wanted, got)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("script", [HELLO, SHAKESPEARE])
def test_cuda_without_a_device_says_what_is_missing(call, folder, script):
    if ml.choose_device("auto") == "cuda":
        pytest.skip("there is a device here")
    code, _, err = call(script, "--device", "cuda", *(TEXT if script == SHAKESPEARE else ()))
    assert code == 2
    assert_one_line_of_error(err, "device cuda", "CuPy", "--device cpu")


@pytest.mark.parametrize(
    "script, arguments",
    [
        (HELLO, ["--picture", "x.xyz"]),
        (SHAKESPEARE, ["--data", "latin1.txt"]),
        (GRADIENTS, ["--layers", "0"]),
    ],
)
def test_a_shell_sees_exit_code_two_and_no_traceback(folder, script, arguments):
    done = command(script, *arguments, folder=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert_one_line_of_error(done.stderr)


@pytest.mark.parametrize(
    "failure, code, line",
    [
        (ml.InputError("want this, got that"), 2, "error: want this, got that\n"),
        (PermissionError(13, "Permission denied", "a.png"), 1, "Permission denied: 'a.png'\n"),
        (MemoryError("Unable to allocate 43.7 TiB"), 1, "error: Unable to allocate 43.7 TiB\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_a_failure_is_one_line_and_an_exit_code(capsys, failure, code, line):
    def main():
        raise failure

    with pytest.raises(SystemExit) as exit:
        cli.run(main)
    assert exit.value.code == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") is not isinstance(failure, KeyboardInterrupt)
    assert err.endswith(line)
    assert err.count("\n") == 1


def test_a_terminal_without_arrows_gets_escapes_not_a_traceback(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("from minilstm import cli; cli.run(lambda: print('l→o'))")
    done = command(script, folder=tmp_path, PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stdout) == (0, "l\\u2192o\n")


def test_a_bug_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        cli.run(lambda: 1 / 0)


def test_the_benchmark_measures_both_sides_and_says_so(folder):
    done = command("benchmark.py", "--against", "torch", "--rows", "hello", "--rounds", "1",
                   "--json", "speed.json", folder=folder)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "geometric mean of the training rows" in done.stdout
    report = json.loads((folder / "speed.json").read_text())
    (hello,) = report["rows"]
    assert hello["milliseconds"].keys() == hello["peak_bytes"].keys() == {"ours", "torch"}
    assert min(hello["peak_bytes"].values()) > 0
    assert hello["ratio"] == pytest.approx(report["geometric_mean"])
    ours, torch = hello["milliseconds"].values()
    assert hello["ratio"] == pytest.approx(torch / ours)
    assert hello["tokens_per_second"] == pytest.approx(1e4 / ours)


# --- what fits on a page


def code_lines(source):
    """The number of lines that hold code: no blank lines, no comments, no docstrings."""
    held = set()
    nothing = {
        tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
        tokenize.ENDMARKER,
    }  # fmt: skip
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in nothing:
            held.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        may_have_one = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if may_have_one and ast.get_docstring(node) is not None:
            held -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(held)


def test_blank_lines_comments_and_docstrings_are_not_counted_as_code():
    source = '''"""A module,

in three lines."""

x = """a text
is code"""  # with a comment

# a comment
def f():
    """One."""
    return (
        x
    )
'''
    assert code_lines(source) == 6


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("nn/*.py")), ids=lambda path: path.name)
def test_a_page_of_nn_is_read_in_a_sitting(path):
    assert code_lines(path.read_text()) <= 200


def test_the_package_grows_no_larger_than_it_is():
    """3,000 lines are its limit, which the faster form and the look inside have broken."""
    counts = {path: code_lines(path.read_text()) for path in PACKAGE.rglob("*.py")}
    total, (longest, most) = sum(counts.values()), max(counts.items(), key=lambda item: item[1])
    assert 500 < total <= 3831, f"{total} lines of code, {most} of them in {longest.name}"


def test_hello_is_about_eighty_lines_with_the_training_step_in_them():
    source = (EXAMPLES / HELLO).read_text()
    assert code_lines(source) <= 85
    steps = (
        "ml.contiguous_streams(", "state = None if starts else state", "ml.forward_with_cache(",
        "ml.softmax_cross_entropy(", "ml.backward(", "ml.clip_by_global_norm(", "optimizer.step(",
    )  # fmt: skip
    places = [source.index(step) for step in steps]
    assert places == sorted(places)
