"""One flat name for each setting: from presets, TOML files and flags, typed and in order."""

import string
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilstm import settings
from minilstm.errors import InputError
from minilstm.model import ModelConfig
from minilstm.train_config import TrainConfig

NAMES = list(settings.setting_types())


def test_every_field_of_the_configs_is_a_setting_with_a_line_of_help():
    of_model = {field.name for field in fields(ModelConfig)} - {"vocab_size"}
    assert of_model | {field.name for field in fields(TrainConfig)} <= set(NAMES)
    helps = settings.helps()
    assert helps.keys() - {"vocab_size"} == set(NAMES)
    assert all(helps.values())
    assert helps["decay_every"] == "of step: how many steps it keeps a rate"


def test_every_setting_but_the_text_has_a_default():
    assert set(NAMES) - settings.defaults().keys() == {"data"}
    assert settings.complete({"data": "x"})["hidden_size"] == 128
    with pytest.raises(InputError, match=r"^data must be given"):
        settings.complete({"hidden_size": 64})


# --- presets

PUBLISHED = {  # as their authors gave them
    "hello": {
        "data": "hello", "embedding_size": None, "num_layers": 1, "hidden_size": 128,
        "optimizer": "adam", "lr": 1e-3, "batching": "streams", "batch_size": 1, "seq_len": 10,
        "steps": 500, "temperature": 0.7,
    },
    "shakespeare": {"data": "shakespeare", "weight_decay": 1e-6, "optimizer": "adam"},
    "shakespeare-windows": {
        "data": "shakespeare", "embedding_size": 512, "hidden_size": 512, "num_layers": 1,
        "batching": "random", "batch_size": 128, "seq_len": 256, "optimizer": "adamw", "lr": 3e-4,
        "steps": 10_000,
    },
    "wikitext2-chars": {
        "data": "wikitext2-raw", "level": "char", "embedding_size": 512, "embedding_dropout": 0.5,
        "num_layers": 1, "hidden_size": 2048, "batching": "random", "batch_size": 512,
        "seq_len": 100, "optimizer": "adam", "lr": 2e-3, "clip": 5.0, "steps": 500,
    },
    "wikitext2-words": {
        "data": "wikitext2", "level": "word", "tokenizer": "basic_english", "embedding_size": 800,
        "num_layers": 2, "hidden_size": 512, "dropout": 0.65, "output_dropout": 0.65,
        "init": "xavier_orthogonal", "optimizer": "adam", "lr": 1e-3, "batch_size": 128,
        "seq_len": 50, "batching": "shuffled", "epochs": 50.0,
    },
}  # fmt: skip
ON_A_CPU = ["shakespeare-windows-cpu", "wikitext2-chars-cpu", "wikitext2-words-cpu"]
AN_HOUR = ["shakespeare-hour", "wikitext2-chars-hour", "wikitext2-words-hour"]


def test_there_are_five_systems_three_of_them_for_minutes_and_three_for_an_hour_of_a_cpu():
    assert settings.preset_names() == sorted([*PUBLISHED, *ON_A_CPU, *AN_HOUR])
    assert all(settings.read_preset(preset)["minutes"] == 60 for preset in AN_HOUR)


@pytest.mark.parametrize("preset", PUBLISHED)
def test_a_preset_has_the_published_settings(preset):
    merged = settings.complete(settings.read_preset(preset))
    assert {name: merged[name] for name in PUBLISHED[preset]} == PUBLISHED[preset]


@pytest.mark.parametrize("preset", [*PUBLISHED, *ON_A_CPU, *AN_HOUR])
def test_a_preset_makes_configs_and_begins_with_what_it_is(preset):
    merged = settings.complete(settings.read_preset(preset))
    for table, kind in settings.TABLES.items():
        more = {"vocab_size": 65} if kind is ModelConfig else {}
        kind(**settings.of_table(table, merged), **more)
    text = (settings.PRESETS / f"{preset}.toml").read_text()
    comment = text.partition("\n\n[data]")[0]
    assert all(line.startswith("#") for line in comment.splitlines())
    assert ("Published" in comment) == (preset in PUBLISHED)
    assert ("Changed" in comment) == (preset not in AN_HOUR)


def test_an_unknown_preset_is_named_with_the_nearest():
    with pytest.raises(InputError, match=r"^unknown preset 'shakespear'; did you mean"):
        settings.read_preset("shakespear")
    with pytest.raises(InputError, match=r"^unknown preset '../hello'; did you mean 'hello'"):
        settings.read_preset("../hello")


# --- TOML


def test_a_file_is_read_table_by_table(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text('[data]\ndata = "a.txt"\n[train]\nlr = 1\nclip = "none"\n[run]\ndevice="cpu"\n')
    assert settings.read_toml(str(file)) == {
        "data": "a.txt", "lr": 1.0, "clip": None, "device": "cpu",
    }  # fmt: skip
    assert isinstance(settings.read_toml(str(file))["lr"], float)


@pytest.mark.parametrize(
    "text, message",
    [
        ("lr = 1", r"unknown table 'lr'; did you mean 'lr' in \[train\]\?"),
        ("hiden_size = 1", r"table 'hiden_size'; did you mean 'hidden_size' in \[model\]\?"),
        ("[trian]\nlr = 1", r"unknown table 'trian'; did you mean 'train'\?"),
        ("train = 1", "train must be a table, got 1"),
        ("[train]\nlearning_rate = 1", "unknown setting 'learning_rate' in .train.; there are"),
        ("[train]\nseqlen = 1", r"unknown setting 'seqlen' in \[train\]; did you mean 'seq_len'\?"),
        ("[model]\nlr = 1", r"'lr' in \[model\]; did you mean 'lr' in \[train\]\?"),
        ("[model]\nseqlen = 1", r"'seqlen' in \[model\]; did you mean 'seq_len' in \[train\]\?"),
        ("[model]\nvocab_size = 5", "unknown setting 'vocab_size'"),
        ("[train]\nsteps = 1.5", "steps must be an integer or none, got 1.5"),
        ("[train]\nsteps = true", "steps must be an integer or none, got True"),
        ("[train]\nlr = '0.1'", "lr must be a number, got '0.1'"),
        ("[train]\nlr = 'none'", "lr must be a number, got 'none'"),
        ("[train]\nlr = [1]", r"lr must be a number, got \[1\]"),
        ("[train]\nlr = 1979-05-27", "lr must be a number, got datetime.date"),
        (f"[train]\nlr = {'9' * 400}", "lr must be a number, got 9999"),
        ("[model]\ntie_weights = 1", "tie_weights must be true or false, got 1"),
        ("[data]\ndata = 5", "data must be a text, got 5"),
        ("[train", "mine is not TOML"),
        ("[train]\nlr = 1\nlr = 2", "mine is not TOML"),
        (f"x = {'[' * 5000}", "mine is not TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(text, message):
    with pytest.raises(InputError, match=message) as error:
        settings.parse_toml(text, "mine")
    assert str(error.value).startswith("mine")
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "latin").write_bytes(b"\xe7")
    for path in (tmp_path / "none.toml", tmp_path, tmp_path / "latin", "nul\0"):
        with pytest.raises(InputError, match=r"^cannot read the config '"):
            settings.read_toml(str(path))


VALUES = {
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    str: st.text(st.characters(exclude_categories=["Cs"])).filter(lambda s: s != "none"),
    type(None): st.none(),
}


def values_of(name):
    _, kinds = settings.setting_types()[name]
    return st.one_of(*(VALUES[kind] for kind in kinds))


@given(st.fixed_dictionaries({}, optional={name: values_of(name) for name in NAMES}))
def test_settings_written_as_toml_are_read_back(chosen):
    assert settings.parse_toml(settings.to_toml(chosen), "mine") == chosen


# --- flags and --set


@given(st.sampled_from(NAMES).flatmap(lambda name: st.tuples(st.just(name), values_of(name))))
def test_what_is_spelled_is_parsed_back(pair):
    name, value = pair
    parsed = settings.parse(name, settings.spell(value))
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("hidden_size", "1.5", "hidden_size must be an integer, got '1.5'"),
        ("hidden_size", "none", "hidden_size must be an integer, got 'none'"),
        ("hidden_size", "9" * 5000, "hidden_size must be an integer, got '9999"),
        ("steps", "many", "steps must be an integer or none, got 'many'"),
        ("lr", "", "lr must be a number, got ''"),
        ("tie_weights", "yes", "tie_weights must be true or false, got 'yes'"),
        ("hidensize", "1", "unknown setting 'hidensize'; did you mean 'hidden_size'"),
        ("vocab_size", "1", "unknown setting 'vocab_size'"),
    ],
)
def test_what_a_flag_cannot_mean_is_quoted(name, text, message):
    with pytest.raises(InputError, match=f"^{message}"):
        settings.parse(name, text)


def test_a_later_source_wins_and_says_alone_how_long():
    preset, file, flags = {"steps": 500, "lr": 0.1, "seed": 1}, {"lr": 0.2}, {"minutes": 3.0}
    assert settings.merge(preset, file, flags) == {"lr": 0.2, "seed": 1, "minutes": 3.0}
    assert settings.merge(preset, {"minutes": None}) == {**preset, "minutes": None}
    merged = settings.complete(settings.merge({"data": "x"}, preset, flags))
    assert (merged["steps"], merged["epochs"], merged["minutes"]) == (None, None, 3.0)
    assert list(merged) == NAMES


# --- config.json


def test_recorded_settings_are_checked_again():
    recorded = settings.complete({"data": "x"})
    assert settings.check_recorded(recorded, "there") == recorded
    for bad in (
        None, [], {}, recorded | {"lr": "1"}, recorded | {"more": 1}, recorded | {"data": None},
        {name: value for name, value in recorded.items() if name != "lr"},
    ):  # fmt: skip
        with pytest.raises(InputError, match=r"^there: "):
            settings.check_recorded(bad, "there")


def test_flags_are_spelled_in_small_letters_and_dashes():
    assert all(set(name) <= {*string.ascii_lowercase, "_"} for name in NAMES)
