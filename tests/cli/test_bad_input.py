"""What is wrong is quoted in one line, with an exit code, and nothing is written."""

import subprocess

import pytest
from running import ENVIRONMENT, call, command, files, nonsense

TEXTS = {
    "text.txt": nonsense(3000).encode(),
    "empty.txt": b"",
    "one.txt": b"a",
    "latin1.txt": "garçon".encode("latin-1"),
    "nul.txt": b"to be\0or not",
    "spaces.txt": b" \n " * 40,
    "bad.toml": b"[train]\nseqlen = 1\n",
    "type.toml": b'[train]\nlr = "fast"\n',
    "not.toml": b"lr: 1\n",
}
OK = ["--data", "text.txt", "--steps", "2", "--out", "new"]

# arguments, what the line must quote
TRAIN = [
    ([], "data must be given: a file or corpus, or a preset"),
    (["--out", "new"], "data must be given"),
    (["--data", "none.txt"], "got 'none.txt', which does not exist"),
    (["--data", "shakespear"], "got 'shakespear', which does not exist"),
    (["--data", "empty.txt"], "'empty.txt' is empty"),
    (["--data", "one.txt"], "at least 2 tokens to train on, got 1"),
    (["--data", "latin1.txt"], "'latin1.txt' has byte 0xe7 at offset 3"),
    (["--data", "nul.txt"], "'nul.txt' has a NUL"),
    (["--data", "."], "'.' is a folder"),
    (["--data", "spaces.txt", "--level", "word", "--out", "new"], "must have a word"),
    ([*OK, "--val-data", "none.txt"], "'none.txt' does not exist"),
    ([*OK, "--val-data", "empty.txt"], "'empty.txt' is empty"),
    ([*OK, "--level", "byte"], "level must be char or word, got 'byte'"),
    ([*OK, "--level", "word", "--tokenizer", "bpe"], "got 'bpe'"),
    ([*OK, "--min-count", "0"], "min_count must be a positive integer, got 0"),
    ([*OK, "--level", "word", "--min-count", "9999"], "count of 9999 or more"),
    ([*OK, "--keep", ""], "keep must be None or a non-empty str, got ''"),
    ([*OK, "--keep", "#"], "at least one character"),
    ([*OK, "--unknown", "e"], "character of the text"),
    ([*OK, "--hidden-size", "0"], "hidden_size must be a positive integer, got 0"),
    ([*OK, "--hidden-size", "1.5"], "hidden_size must be an integer, got '1.5'"),
    ([*OK, "--hidden-size", "9" * 30], "more memory than any machine has"),
    ([*OK, "--hidden-size", "9" * 4000], "more memory than any machine has"),
    ([*OK, "--batch-size", "9" * 30, "--batching", "random"], "more memory than any machine has"),
    ([*OK, "--num-layers", "-1"], "num_layers must be a positive integer, got -1"),
    ([*OK, "--embedding-size", "0"], "embedding_size must be a positive integer, got 0"),
    ([*OK, "--dropout", "1"], "dropout must be a finite number in [0, 1), got 1.0"),
    ([*OK, "--dropout", "nan"], "dropout must be a finite number in [0, 1), got nan"),
    ([*OK, "--weight-drop", "-0.1"], "weight_drop must be a finite number in [0, 1), got -0.1"),
    ([*OK, "--embedding-dropout", "0.1"], "embedding_dropout 0.1 needs an embedding"),
    ([*OK, "--tie-weights"], "tie_weights needs embedding_size = hidden_size = 128"),
    ([*OK, "--tie-weights=yes"], "--tie-weights"),
    ([*OK, "--init", "zeros"], "got 'zeros'"),
    ([*OK, "--forget-bias", "inf"], "forget_bias must be a finite number, got inf"),
    ([*OK, "--epochs", "2"], "at most one of steps, epochs and minutes"),
    (["--data", "text.txt", "--epochs", "0"], "epochs must be a finite number above 0"),
    (["--data", "text.txt", "--epochs", "1e300"], "at most 1e9, got 1e+300"),
    (["--data", "text.txt", "--minutes", "-1"], "minutes must be a finite number above 0"),
    (["--data", "text.txt", "--steps", "0"], "steps must be a positive integer, got 0"),
    ([*OK, "--batching", "sorted"], "batching must be one of streams, random, shuffled"),
    ([*OK, "--batch-size", "0"], "batch_size must be a positive integer, got 0"),
    ([*OK, "--seq-len", "-5"], "seq_len must be a positive integer, got -5"),
    ([*OK, "--optimizer", "lion"], "optimizer must be one of adam, adamw, sgd, got 'lion'"),
    ([*OK, "--momentum", "0.9"], "momentum is sgd's"),
    ([*OK, "--optimizer", "sgd", "--momentum", "1"], "in [0, 1), got 1.0"),
    ([*OK, "--lr", "-1"], "lr must be a finite number from 0 up, got -1.0"),
    ([*OK, "--lr", "nan"], "lr must be a finite number from 0 up, got nan"),
    ([*OK, "--lr", "fast"], "lr must be a number, got 'fast'"),
    ([*OK, "--lr"], "argument --lr: expected one argument"),
    ([*OK, "--schedule", "linear"], "got 'linear'"),
    ([*OK, "--decay-factor", "1"], "decay_factor must be a finite number between 0 and 1"),
    ([*OK, "--clip", "0"], "clip must be a finite number above 0, got 0.0"),
    ([*OK, "--eval-every", "0"], "eval_every must be a positive integer, got 0"),
    ([*OK, "--patience", "0"], "patience must be a positive integer, got 0"),
    ([*OK, "--seed", "-1"], "seed must be an integer from 0 up, got -1"),
    ([*OK, "--threads", "0"], "threads must be a positive integer, got 0"),
    ([*OK, "--device", "gpu"], "device must be auto, cpu or cuda, got 'gpu'"),
    ([*OK, "--dtype", "float16"], "dtype must be float32 or float64, got 'float16'"),
    ([*OK, "--temperature", "0"], "temperature must be a finite number above 0, got 0.0"),
    ([*OK, "--top-k", "100"], "top_k must be at most the vocabulary's 27, got 100"),
    ([*OK, "--top-p", "0"], "top_p must be above 0 and at most 1, got 0.0"),
    ([*OK, "--hiden-size", "3"], "unrecognized arguments: --hiden-size 3"),
    ([*OK, "--hidden", "3"], "unrecognized arguments: --hidden 3"),
    ([*OK, "--resume", "--force"], "not allowed with argument"),
    ([*OK, "--preset", "helo"], "unknown preset 'helo'; did you mean 'hello'?"),
    ([*OK, "--config", "none.toml"], "cannot read the config 'none.toml'"),
    ([*OK, "--config", "not.toml"], "'not.toml' is not TOML"),
    ([*OK, "--config", "bad.toml"], "unknown setting 'seqlen' in [train]; did you mean 'seq_len'?"),
    ([*OK, "--config", "type.toml"], "lr must be a number, got 'fast'"),
    ([*OK, "--set", "lr"], "--set must be like hidden_size=128, got 'lr'"),
    ([*OK, "--set", "leraning=1"], "unknown setting 'leraning'; "),
    ([*OK, "--set", "lr=1", "--lr", "2"], "lr must be said once, got 1.0 and 2.0"),
    ([*OK, "--init-from", "none"], "want the folder of a run, got 'none'"),
    ([*OK, "a.txt"], "unrecognized arguments: a.txt"),
    ([*OK, "--batching", "random", "--fresh-every", "4"], "got fresh_every 4 and random"),
    ([*OK, "--stepz", "3"], "unrecognized arguments: --stepz 3; did you mean --steps?"),
    ([*OK, "--hidden_size=3"], "--hidden_size=3; did you mean --hidden-size? (see minilstm train"),
]
ON_A_RUN = [
    (["sample"], "the following arguments are required: RUN"),
    (["sample", "none"], "want the folder of a run, got 'none'"),
    (["sample", "run", "--prompt", ""], "the prompt must be a text of at least one token, got ''"),
    (["sample", "run", "--prompt", "É"], "'É' at index 0"),
    (["sample", "run", "--length", "-1"], "length must be an integer from 0 up, got -1"),
    (["sample", "run", "--length", "long"], "invalid int value: 'long'"),
    (["sample", "run", "--temperature", "0"], "temperature must be a finite number above 0, got 0"),
    (["sample", "run", "--temperature", "nan"], "temperature must be a finite number above 0"),
    (["sample", "run", "--top-k", "0"], "top_k must be a positive integer, got 0"),
    (["sample", "run", "--top-k", "28"], "top_k must be at most the vocabulary's 27, got 28"),
    (["sample", "run", "--top-p", "0"], "top_p must be above 0 and at most 1, got 0.0"),
    (["sample", "run", "--top-p", "1.1"], "top_p must be above 0 and at most 1, got 1.1"),
    (["sample", "run", "--stop", ""], "stop must be a non-empty text or None, got ''"),
    (["sample", "run", "--seed", "-1"], "seed must be an integer from 0 up, got -1"),
    (["sample", "run", "--device", "tpu"], "device must be auto, cpu or cuda, got 'tpu'"),
    (["eval", "none"], "want the folder of a run, got 'none'"),
    (["eval", "run", "--data", "none.txt"], "got 'none.txt', which does not exist"),
    (["eval", "run", "--split", "dev"], "invalid choice: 'dev'"),
    (["eval", "run", "--streams", "0"], "streams must be a positive integer, got 0"),
    (["info", "none"], "want the folder of a run, got 'none'"),
    (["plot", "none", "--what", "loss", "--out", "x.png"], "want the folder of a run, got 'none'"),
    (["gradcheck", "--layers", "0"], "--layers must be a positive integer, got 0"),
    (["gradcheck", "--seed", "-1"], "--seed must be an integer from 0 up, got -1"),
    (["tarin"], "invalid choice: 'tarin'"),
    ([], "required: VERB"),
]


def assert_refused(done, quoted, code=2):
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert quoted in done.err


@pytest.fixture
def texts(folder):
    for name, data in TEXTS.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("arguments, quoted", TRAIN)
def test_training_is_refused_before_anything_is_written(cli, texts, arguments, quoted):
    before = files(texts)
    assert_refused(cli("train", *arguments), quoted)
    assert files(texts) == before
    assert not (texts / "new").exists()


@pytest.mark.parametrize("arguments, quoted", ON_A_RUN)
def test_other_verbs_refuse_in_one_line_too(trained, on_run, arguments, quoted):
    before = files(trained)
    assert_refused(on_run(*arguments), quoted)
    assert files(trained) == before


def test_there_are_more_than_sixty_cases():
    assert len(TRAIN) + len(ON_A_RUN) > 60


def test_a_place_that_cannot_be_written_to_is_named(cli, texts):
    done = cli("train", *OK[:-1], "text.txt/run")
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith("error: ")
    assert "text.txt/run" in done.err


def test_a_model_too_large_for_the_memory_is_one_line(cli, texts, monkeypatch):
    def refuse(*_):
        raise MemoryError("Unable to allocate 7.45 TiB")

    monkeypatch.setattr("minilstm.init_params", refuse)
    assert_refused(cli("train", *OK), "Unable to allocate 7.45 TiB", code=1)


def test_control_characters_in_what_came_are_spelled_out_in_the_message(cli, texts):
    for arguments in (
        ["train", "--\x1b[31mlr", "1"],
        ["train", *OK, "--init", "\x1b]0;title\x07"],
        ["train", "--data", "\x9b31m.txt"],
        ["train", "--data", "text.txt", "--preset", "\x1b[2J"],
        ["sample", "\x1b[2J\n"],
    ):
        done = cli(*arguments)
        assert done.code == 2
        assert not {c for c in done.err.removesuffix("\n") if not c.isprintable()}


def test_a_shell_sees_the_exit_code_and_no_traceback(texts):
    done = subprocess.run(
        command("train", "--data", "latin1.txt"),
        cwd=texts, env=ENVIRONMENT, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: want a UTF-8 text file, but 'latin1.txt' has byte 0xe7")
    assert done.stderr.count("\n") == 1


def test_unusual_texts_are_no_bad_input(cli, texts, capsys):
    (texts / "odd.txt").write_bytes(
        b"\xef\xbb\xbf" + "👩‍👩‍👧 e\u0301 שלום\r\nto be\r\n".encode() * 40
    )
    done = cli("train", "--data", "odd.txt", "--hidden-size", "4", "--steps", "2", "--out", "new")
    assert done.code == 0
    assert "the byte order mark was dropped" in done.err
    assert "line ends CR LF were read as LF" in done.err
    assert call(capsys, "sample", "new", "--prompt", "שלום").code == 0
