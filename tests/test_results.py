"""docs/results.md says what was measured, and the script that measures does what it says."""

import json
import math

import pytest
import results
import results_pages
from results import RESULTS, ROOT, ROWS


@pytest.mark.parametrize("name, page", [("results.md", results_pages.results_page),
                                        ("leaky_split.md", results_pages.leaky_page)])  # fmt: skip
def test_a_page_is_what_the_figures_make_it(name, page):
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == page()


def test_every_row_was_checked_in_pytorch_to_a_ten_thousandth_of_a_nat():
    files = [path for row in ROWS for path in RESULTS.glob(f"{row}-[0-9].json")]
    assert files
    for path in files:
        figures = json.loads(path.read_text(encoding="utf-8"))
        assert figures["pytorch_loss"] == pytest.approx(figures["best"]["loss"], abs=1e-4), path


def test_what_a_full_size_preset_took_is_within_a_fifth_of_what_info_predicts():
    files = sorted(RESULTS.glob("*-three-steps.json"))
    assert files
    for path in files:
        figures = json.loads(path.read_text(encoding="utf-8"))
        assert 0.8 < figures["measured_bytes"] / figures["predicted_bytes"] < 1.2, path


def test_a_row_is_trained_measured_and_read_by_pytorch(capsys):
    results.measure(ROWS["hello"], 1, ["steps=40", "threads=1"])
    figures = json.loads(capsys.readouterr().out)
    assert figures["steps"] == figures["best_step"] == 40
    assert 0 < figures["best"]["loss"] < math.log(4)
    assert figures["best"]["loss"] == figures["last"]["loss"]
    assert figures["pytorch_loss"] == pytest.approx(figures["best"]["loss"], abs=1e-5)
    assert figures["tokens_seen"] == 160
    assert all(text[0] == "h" and len(text) == 6 for text in figures["samples"].values())


def test_mean_and_worst_of_seeds_stand_in_one_cell():
    scores = [{"loss": loss, "perplexity": math.exp(loss)} for loss in (1.0, 1.5, 2.0)]
    cell = results_pages.mean_and_worst(scores, lambda score: f"{score['loss']:.2f}")
    assert cell == "1.50 (2.00)"
    assert results_pages.mean_and_worst([], str) == "–"
