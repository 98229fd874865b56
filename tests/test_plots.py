"""Pictures: what stands in the artists, not what the pixels look like; and never a window."""

import os
import subprocess
import sys

import numpy as np
import pytest
from handmade_models import random_model

from minilstm import InputError, forward_with_cache, plots

PNG, SVG, PDF = b"\x89PNG\r\n", b"<?xml", b"%PDF-"


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


# --- the loss


def test_the_loss_curve_shows_the_losses_and_the_uniform_guess():
    ax = plots.loss_curve(range(1, 4), [1.4, 0.9, 0.2], vocab_size=4)
    curve, uniform = ax.lines
    assert curve.get_xydata().tolist() == [[1, 1.4], [2, 0.9], [3, 0.2]]
    assert set(uniform.get_ydata()) == {np.log(4)}
    assert labels(ax) == ["training", "uniform guess: ln 4 = 1.386"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "loss (nats per token)")
    of_chars = plots.loss_curve([0], [1.0], vocab_size=4, level="char")
    assert of_chars.get_ylabel() == "loss (nats per char)"


def test_the_loss_starts_at_zero_and_the_uniform_guess_is_in_sight():
    bottom, top = plots.loss_curve(range(2), [0.3, 0.1], vocab_size=65).get_ylim()
    assert bottom == 0
    assert top > np.log(65)


def test_validation_is_a_second_curve_at_its_own_steps():
    ax = plots.loss_curve(range(4), [4, 3, 2, 1], 4, validation=[(1, 3.5), (3, 2.5)])
    _, validation, _ = ax.lines
    assert validation.get_xydata().tolist() == [[1, 3.5], [3, 2.5]]
    assert labels(ax)[1] == "validation"


def test_a_picture_is_drawn_into_the_axes_it_is_given():
    top, below = plots.new_axes("A;B")
    assert plots.loss_curve([0], [1.0], 4, ax=below) is below
    assert len(top.lines) == 0
    assert len(below.lines) == 2


def test_one_symbol_and_one_step_make_a_picture(tmp_path):
    path = plots.save(plots.loss_curve([0], [0.0], vocab_size=1), tmp_path / "loss.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_axes_come_in_the_order_of_their_letters():
    axes = plots.new_axes("LLL;abc", width=9, height=4)
    assert [ax.get_label() for ax in axes] == ["L", "a", "b", "c"]
    assert axes[0].figure.get_size_inches().tolist() == [9, 4]


# --- the gates


def gates_of(text, **config):
    model = random_model(**config)
    ids = model.vocab.encode(text)[:, np.newaxis]
    _, (_, c), cache = forward_with_cache(model.params, model.config, ids)
    return plots.gates(text, cache), cache, c


def test_gates_are_shown_unit_by_unit_and_letter_by_letter():
    """Rows are units, columns are letters: sizes that differ, so that a transpose would show."""
    axes, cache, _ = gates_of("abba", hidden_size=3)
    top = cache.layers[-1]
    for ax, values in zip(axes, [top.i, top.f, top.o, top.g], strict=False):
        (image,) = ax.images
        assert image.get_array().shape == (3, 4)
        for t in range(4):
            np.testing.assert_array_equal(image.get_array()[:, t], values[t][0])


def test_the_cell_state_shown_is_that_after_each_letter():
    axes, cache, c = gates_of("abba", hidden_size=3)
    shown = axes[4].images[0].get_array()
    np.testing.assert_allclose(shown[:, -1], c[-1, 0], rtol=1e-12)
    np.testing.assert_array_equal(shown[:, 0], cache.layers[-1].c_prevs[1][0])
    # what the output gate lets out: h = o · tanh c
    np.testing.assert_allclose(
        axes[2].images[0].get_array() * np.tanh(shown), cache.hs[:, 0].T, rtol=1e-12
    )


def test_gates_have_fixed_scales_and_the_cell_state_a_symmetric_one():
    axes, _, _ = gates_of("abba")
    limits = [ax.images[0].get_clim() for ax in axes]
    assert limits[:4] == [(0, 1), (0, 1), (0, 1), (-1, 1)]
    largest = np.abs(axes[4].images[0].get_array()).max()
    assert limits[4] == (-largest, largest)
    assert {ax.images[0].get_cmap().name for ax in axes} == {"gray"}


def test_each_gate_is_named_and_each_column_has_its_letter():
    axes, _, _ = gates_of("abba")
    assert [ax.get_title() for ax in axes] == [
        "input gate i", "forget gate f", "output gate o", "candidate g", "cell state c",
    ]  # fmt: skip
    for ax in axes:
        assert [tick.get_text() for tick in ax.get_xticklabels()] == list("abba")
    assert axes[0].get_ylabel() == "hidden unit"


def test_letters_that_cannot_be_seen_are_written_as_escapes():
    _, cache, _ = gates_of("abba")
    axes = plots.gates("\n\ta ", cache)
    assert [tick.get_text() for tick in axes[0].get_xticklabels()] == ["↵", r"\t", "a", "␣"]


def test_the_cache_of_another_text_is_refused():
    _, cache, _ = gates_of("abba")
    with pytest.raises(InputError, match=r"one sequence of 3 tokens, got \(4, 1\)"):
        plots.gates("abb", cache)


# --- the gradient check


def test_the_error_curve_is_drawn_on_two_logarithmic_axes():
    epsilons = 10.0 ** np.arange(-9, 0)
    errors = 1e-16 / epsilons + epsilons**2
    ax = plots.gradient_error_curve(epsilons, errors, complex_step_error=2e-16)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    curve, exact = ax.lines
    np.testing.assert_array_equal(curve.get_xdata(), epsilons)
    np.testing.assert_array_equal(curve.get_ydata(), errors)
    assert set(exact.get_ydata()) == {2e-16}
    assert labels(ax) == ["central differences", "complex step: 2e-16"]


def test_each_branch_of_the_u_is_named_on_its_own_side():
    epsilons = 10.0 ** np.arange(-9, 0)
    errors = 1e-16 / epsilons + epsilons**2
    best = epsilons[np.argmin(errors)]
    ax = plots.gradient_error_curve(epsilons, errors, complex_step_error=1e-16)
    places = {note.get_text(): note.xy for note in ax.texts}
    assert places["rounding ∝ 1/ε"][0] < best < places["truncation ∝ ε²"][0]
    assert all(place in zip(epsilons, errors, strict=True) for place in places.values())


# --- files


@pytest.mark.parametrize("name, magic", [("a.png", PNG), ("a.svg", SVG), ("a.PDF", PDF)])
def test_the_suffix_names_the_format_and_missing_folders_are_made(tmp_path, name, magic):
    path = tmp_path / "new" / "folder" / name
    assert plots.save(plots.loss_curve([0, 1], [1.0, 0.5], 4), str(path)) == path
    assert path.read_bytes().startswith(magic)


@pytest.mark.parametrize("name", ["loss.xyz", "loss", "loss.png.bak", "", ".png"])
def test_another_suffix_is_refused_in_one_line(tmp_path, name):
    path = str(tmp_path / "new" / name) if name else name
    ax = plots.loss_curve([0], [1.0], 4)
    for refuse in (lambda: plots.save(ax, path), lambda: plots.check_path(path)):
        with pytest.raises(InputError) as error:
            refuse()
        assert str(error.value) == f"a picture must end in .png, .svg or .pdf, got {path!r}"
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_no_file_can_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    for name in ("file/loss.png", "file/new/loss.png", "folder.png"):
        path = tmp_path / name
        with pytest.raises(InputError, match=r"a place where it can be written, got '.*png'"):
            plots.check_path(path)


def test_a_folder_that_may_not_be_written_to_is_refused(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "access", lambda path, mode: asked.append((path, mode)))
    with pytest.raises(InputError, match=r"a place where it can be written, got '.*png'"):
        plots.check_path(tmp_path / "new" / "loss.png")
    assert asked == [(tmp_path, os.W_OK)]


def test_asking_makes_no_folder_and_leaves_a_picture_that_is_there(tmp_path):
    (tmp_path / "old.png").write_bytes(b"old")
    assert plots.check_path(tmp_path / "old.png") == tmp_path / "old.png"
    assert plots.check_path(str(tmp_path / "a" / "b" / "new.svg")) == tmp_path / "a/b/new.svg"
    assert [path.name for path in tmp_path.iterdir()] == ["old.png"]
    assert (tmp_path / "old.png").read_bytes() == b"old"


# --- imports


def modules_after(code, module):
    """The names of all modules loaded by `code` in a new interpreter that begin with `module`."""
    code += f"\nimport sys; print([m for m in sys.modules if m.startswith({module!r})])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.strip()


def test_matplotlib_is_not_imported_before_a_picture_is_drawn():
    code = "import minilstm, minilstm.plots; minilstm.plots.check_path('a.png')"
    assert modules_after(code, "matplotlib") == "[]"


def test_no_window_is_ever_opened_because_pyplot_is_never_imported(tmp_path):
    path = tmp_path / "a.png"
    code = f"from minilstm import plots; plots.save(plots.new_axes()[0], {str(path)!r})"
    assert modules_after(code, "matplotlib.pyplot") == "[]"
    assert path.is_file()


# --- a look inside


def test_the_reach_is_drawn_on_a_logarithmic_scale_and_what_a_chunk_cuts_off_is_crossed_out():
    reach = np.full((6, 6), np.nan)
    reach[np.tril_indices(6, -1)] = 10.0 ** -np.arange(15)
    ax = plots.gradient_reach(reach, chunk=2)
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array().filled(np.nan), reach)
    assert (image.norm.vmin, image.norm.vmax) == (1e-4, 1)
    corners = [(*patch.get_xy(), patch.get_width(), patch.get_height()) for patch in ax.patches]
    assert corners == [(-0.5, 1.5, 2, 2), (-0.5, 3.5, 4, 2)]
    assert plots.gradient_reach(reach).patches[:] == []
    labelled = plots.gradient_reach(reach, text="ab\ncde")
    for ticks in (labelled.get_xticklabels(), labelled.get_yticklabels()):
        assert [tick.get_text() for tick in ticks] == ["a", "b", "↵", "c", "d", "e"]


def test_the_terms_of_a_gradient_stand_above_their_sum_on_one_scale():
    terms = np.random.default_rng(0).normal(size=(3, 2, 8))
    axes = plots.gradient_terms(terms)
    shown = [ax.images[0].get_array() for ax in axes]
    np.testing.assert_array_equal(shown[:3], terms)
    np.testing.assert_allclose(shown[3], terms.sum(axis=0))
    assert len({ax.images[0].get_clim() for ax in axes}) == 1
    assert axes[-1].get_title().startswith("their sum: dW_h, norm ")
    H = terms.shape[2] // 4  # a line between gate and gate, and each gate's name below its middle
    for ax in axes:
        assert [line.get_xdata()[0] for line in ax.lines] == [k * H - 0.5 for k in (1, 2, 3)]
    assert [tick.get_text() for tick in axes[-1].get_xticklabels()] == list("ifgo")
    np.testing.assert_allclose(axes[-1].get_xticks(), [k * H + (H - 1) / 2 for k in range(4)])
    with pytest.raises(InputError, match="at most 25 steps, got 26"):
        plots.gradient_terms(np.zeros((26, 2, 8)))


def test_under_each_token_stand_the_likeliest_next_and_what_came_is_framed():
    odds = np.array([[0.1, 0.6, 0.3], [0.7, 0.1, 0.2]])
    ax = plots.next_tokens("ab", odds, ["a", "b", " "], top=2)
    assert [text.get_text() for text in ax.texts] == ["b", "a", "␣", "␣"]
    np.testing.assert_array_equal(ax.images[0].get_array(), [[0.6, 0.7], [0.3, 0.2]])
    (frame,) = ax.patches  # b came after a; what came after b is not known
    assert frame.get_xy() == (-0.45, -0.45)


def test_saturation_is_the_share_of_steps_in_which_a_gate_is_nearly_open_or_shut():
    _, cache, _ = gates_of("abbacab", hidden_size=3)
    axes = plots.saturation(cache)
    f = np.concatenate(cache.layers[-1].f)
    points = axes[1].lines[-1]
    np.testing.assert_array_equal(points.get_xdata(), (f > 0.9).mean(axis=0))
    np.testing.assert_array_equal(points.get_ydata(), (f < 0.1).mean(axis=0))
    assert [ax.get_title() for ax in axes] == ["input gate i", "forget gate f", "output gate o"]


def test_coloured_text_has_a_shade_and_a_sign_for_each_character():
    text = "ab\nc" + "d" * 90
    values = np.linspace(-1, 1, len(text))
    ax = plots.coloured_text(text, values)
    grid = ax.images[0].get_array()
    assert grid.shape == (3, 80)  # a line of the text, and one that is too long
    np.testing.assert_allclose(grid[0, :3], values[:3])
    np.testing.assert_allclose(grid[1, :80], values[3:83])
    assert grid[0, 3:].mask.all()
    assert [sign.get_text() for sign in ax.texts][:4] == ["a", "b", "↵", "c"]
