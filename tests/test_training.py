"""How many steps fit into the time there is, asked of a clock that the tests set."""

import math
from types import SimpleNamespace

import pytest

from minilstm import training
from minilstm.errors import InputError
from minilstm.training import steps_within


@pytest.fixture
def step(monkeypatch):
    """step(*seconds): a training step whose calls take so long by the clock, the last for ever.

    `step.calls` counts them.
    """
    now = 0.0
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: now))

    def of(*seconds):
        def step():
            nonlocal now
            now += seconds[min(step.calls, len(seconds) - 1)]
            step.calls += 1

        step.calls = 0
        return step

    return of


def test_steps_of_half_a_second_fit_twice_into_each_second(step):
    assert steps_within(3.0, step(0.5)) == 360
    assert steps_within(0.25, step(0.5)) == 30


def test_a_part_of_a_step_is_not_begun(step):
    assert steps_within(1.0, step(25.0)) == 2


def test_the_first_two_calls_are_not_timed(step):
    assert steps_within(1.0, step(30.0, 20.0, 0.5)) == 120


def test_the_median_ignores_a_step_that_was_disturbed(step):
    # a mean of the ten would be 1.45 s
    assert steps_within(1.0, step(0.5, 0.5, 0.5, 0.5, 10.0, 0.5)) == 120


def test_it_takes_as_many_trials_as_asked_and_two_more(step):
    slow = step(1.0)
    steps_within(1.0, slow, trials=3)
    assert slow.calls == 5


def test_trials_go_on_for_a_fiftieth_of_the_time_but_not_without_end(step):
    quick, quicker = step(0.5), step(0.5)
    steps_within(10.0, quick)  # 12 s
    assert quick.calls == 2 + 24
    steps_within(1e9, quicker)
    assert quicker.calls == 2 + 500


def test_there_is_always_one_step(step):
    assert steps_within(0.001, step(100.0)) == 1
    assert steps_within(5e-324, step(100.0)) == 1


@pytest.mark.parametrize("minutes", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_minutes_that_no_clock_shows_are_refused_before_a_step_is_tried(step, minutes):
    untried = step(1.0)
    with pytest.raises(InputError, match=f"finite number above 0, got {minutes}$"):
        steps_within(minutes, untried)
    assert untried.calls == 0
