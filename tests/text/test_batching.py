"""Batches: every pair once, one step ahead, nothing wrapped round, nothing lost in silence."""

import logging

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minilstm.errors import InputError
from minilstm.text.batching import contiguous_streams, random_windows, shuffled_windows

reproducible = settings(derandomize=True, deadline=None, max_examples=200)
sizes = {"N": st.integers(2, 90), "B": st.integers(1, 9), "T": st.integers(1, 12)}


def places(N):
    """A text whose ids are their own places, so that a batch shows where it was taken from."""
    return np.arange(N)


def scored_places(batches):
    return sorted(n for inputs, _, _ in batches for n in inputs.ravel().tolist())


def generator(seed=0):
    return np.random.default_rng(seed)


def every_scheme(ids, B, T, seed=0):
    return {
        "streams": contiguous_streams(ids, B, T),
        "random": random_windows(ids, B, T, 4, generator(seed)),
        "shuffled": shuffled_windows(ids, B, T, generator(seed)),
    }


# --- contiguous streams


@reproducible
@given(**sizes)
@example(N=5, B=32, T=50)  # "hello"
@example(N=2, B=1, T=1)
@example(N=43, B=4, T=5)  # 10 pairs per stream, two unscored, no short batch
def test_every_pair_is_scored_exactly_once(N, B, T):
    streams = contiguous_streams(places(N), B, T)
    assert streams.scored + streams.unscored == N - 1
    assert 0 <= streams.unscored < streams.batch_size
    assert scored_places(streams) == list(range(streams.scored))
    assert sum(targets.size for _, targets, _ in streams) == streams.scored


@reproducible
@given(**sizes, seed=st.integers(0, 3))
def test_each_target_is_the_token_after_its_input(N, B, T, seed):
    ids = generator(seed).permutation(N)  # so that the next token is not the next number
    after = dict(zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True))
    for batches in every_scheme(ids, B, T, seed).values():
        for inputs, targets, _ in batches:
            assert inputs.shape == targets.shape
            assert [after[n] for n in inputs.ravel().tolist()] == targets.ravel().tolist()


@reproducible
@given(**sizes)
def test_a_stream_is_one_contiguous_piece_of_the_text(N, B, T):
    streams = contiguous_streams(places(N), B, T)
    S = (N - 1) // streams.batch_size
    assert streams.batch_size * S == streams.scored
    columns = np.concatenate([inputs for inputs, _, _ in streams])  # (S, B)
    for b in range(streams.batch_size):
        assert columns[:, b].tolist() == list(range(b * S, (b + 1) * S))


@reproducible
@given(**sizes)
def test_chunks_have_full_length_but_for_the_last(N, B, T):
    streams = contiguous_streams(places(N), B, T)
    lengths = [len(inputs) for inputs, _, _ in streams]
    assert len(lengths) == len(streams)
    assert set(lengths[:-1]) <= {streams.seq_len}
    assert 1 <= lengths[-1] <= streams.seq_len
    assert sum(lengths) == (N - 1) // streams.batch_size


def test_last_target_is_the_last_character_of_the_text():
    batches = list(contiguous_streams(places(13), batch_size=3, seq_len=3))
    _, targets, _ = batches[-1]
    assert targets[-1, -1] == 12


def test_no_stream_wraps_round():
    ids = np.array([7, 1, 2, 3, 4, 5, 6])  # the first token stands nowhere else
    for B in (1, 2, 3):  # 7 = 1 x 7: with one stream a wrapped pair would find room
        for name, batches in every_scheme(ids, B, T=2).items():
            assert all(7 not in targets for _, targets, _ in batches), name


def test_a_short_last_chunk_is_used():
    shapes = [inputs.shape for inputs, _, _ in contiguous_streams(places(15), 2, 3)]
    assert shapes == [(3, 2), (3, 2), (1, 2)]


def test_pairs_that_fill_no_row_are_counted_as_unscored():
    streams = contiguous_streams(places(43), batch_size=4, seq_len=5)
    assert (streams.scored, streams.unscored, len(streams)) == (40, 2, 2)


def test_the_state_is_reset_at_the_first_chunk_of_each_pass_alone():
    streams = contiguous_streams(places(30), batch_size=2, seq_len=4)
    for _ in range(2):
        assert [starts for _, _, starts in streams] == [True, False, False, False]


def test_a_pass_over_the_streams_can_be_repeated():
    streams = contiguous_streams(places(30), batch_size=2, seq_len=4)
    assert scored_places(streams) == scored_places(streams) == list(range(28))


# --- windows


@reproducible
@given(**sizes)
def test_shuffled_windows_score_every_pair_of_theirs_exactly_once(N, B, T):
    windows = shuffled_windows(places(N), B, T, generator())
    assert windows.scored + windows.unscored == N - 1
    assert 0 <= windows.unscored < windows.seq_len
    for _ in range(2):  # in the second pass too
        assert scored_places(windows) == list(range(windows.scored))


@reproducible
@given(**sizes)
def test_shuffled_windows_come_in_full_batches_but_for_the_last(N, B, T):
    windows = shuffled_windows(places(N), B, T, generator())
    shapes = [inputs.shape for inputs, _, _ in windows]
    assert len(shapes) == len(windows)
    assert set(shapes[:-1]) <= {(windows.seq_len, B)}
    assert {steps for steps, _ in shapes} == {windows.seq_len}
    assert sum(batch for _, batch in shapes) == (N - 1) // windows.seq_len


def test_each_pass_has_an_order_of_its_own():
    windows = shuffled_windows(places(200), 4, 2, generator())
    orders = [np.concatenate([inputs[0] for inputs, _, _ in windows]).tolist() for _ in range(2)]
    assert orders[0] != sorted(orders[0])
    assert orders[0] != orders[1]


def test_every_start_that_fits_is_drawn_and_equally_often():
    N, T, draws = 12, 5, 7000
    ((inputs, targets, _),) = random_windows(places(N), draws, T, steps=1, rng=generator())
    starts, counts = np.unique(inputs[0], return_counts=True)
    assert starts.tolist() == list(range(N - T))
    assert targets.max() == N - 1
    assert np.all(np.abs(counts - draws / (N - T)) < 150)  # 5 standard deviations


def test_a_window_is_contiguous():
    for name in ("random", "shuffled"):
        for inputs, _, _ in every_scheme(places(50), B=3, T=7)[name]:
            assert np.all(np.diff(inputs, axis=0) == 1), name


def test_random_windows_come_in_as_many_batches_as_steps():
    batches = list(random_windows(places(50), 3, 7, steps=5, rng=generator()))
    assert [inputs.shape for inputs, _, _ in batches] == [(7, 3)] * 5


def test_the_state_is_reset_at_every_window():
    for name in ("random", "shuffled"):
        batches = every_scheme(places(50), B=3, T=7)[name]
        assert {starts for _, _, starts in batches} == {True}, name


def test_the_generator_decides_the_windows():
    for name in ("random", "shuffled"):
        drawn = [
            [inputs.tolist() for inputs, _, _ in every_scheme(places(99), 3, 7, seed)[name]]
            for seed in (1, 1, 2)
        ]
        assert drawn[0] == drawn[1] != drawn[2], name


# --- what a batch is made of


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.uint64])
@pytest.mark.parametrize("B", [1, 3])
def test_batches_are_contiguous_arrays_of_their_own(dtype, B):
    ids = places(60).astype(dtype)
    ids.setflags(write=False)
    for name, batches in every_scheme(ids, B, T=7).items():
        for inputs, targets, starts in batches:
            assert type(starts) is bool, name
            for part in (inputs, targets):
                assert part.dtype == dtype, name
                assert part.flags.c_contiguous, name
                assert not np.shares_memory(part, ids), name


def test_a_list_and_a_strided_array_serve_as_ids():
    for ids in (list(range(0, 80, 2)), np.arange(80)[::2]):
        expected = every_scheme(np.arange(0, 80, 2), 3, 4)
        for name, batches in every_scheme(ids, 3, 4).items():
            for got, wanted in zip(batches, expected[name], strict=True):
                assert [np.asarray(part).tolist() for part in got] == [
                    np.asarray(part).tolist() for part in wanted
                ], name


# --- texts that are too small


SHORT = "{N} tokens are too few for {asked}: using {used}"


@pytest.mark.parametrize(
    ("N", "asked", "used"),
    [
        (5, (32, 50), (1, 4)),  # "hello": one stream, and not even that one full
        (2, (1, 2), (1, 1)),
        (101, (32, 50), (2, 50)),
        (100, (32, 50), (1, 50)),
        (1600, (32, 50), (31, 50)),
        (1601, (32, 50), None),  # exactly B T pairs
    ],
)
def test_a_text_too_small_is_served_with_fewer_streams_and_says_so(N, asked, used, caplog):
    streams = contiguous_streams(places(N), *asked)
    assert (streams.batch_size, streams.seq_len) == (used or asked)
    assert scored_places(streams) == list(range(streams.scored))
    sizes = ["batch_size={}, seq_len={}".format(*size) for size in (asked, used or asked)]
    said = [SHORT.format(N=N, asked=sizes[0], used=sizes[1])] if used else []
    assert [record.getMessage() for record in caplog.records] == said
    assert {(record.name, record.levelno) for record in caplog.records} <= {
        ("minilstm", logging.WARNING)
    }


@pytest.mark.parametrize("name", ["random", "shuffled"])
@pytest.mark.parametrize(("N", "T_used"), [(5, 4), (50, 49), (51, 50)])
def test_a_text_shorter_than_a_window_is_one_window_and_says_so(name, N, T_used, caplog):
    if name == "random":
        batches = random_windows(places(N), 2, 50, 4, generator())
    else:
        batches = shuffled_windows(places(N), 2, 50, generator())
    assert {len(inputs) for inputs, _, _ in batches} == {T_used}
    asked, used = "batch_size=2, seq_len=50", f"batch_size=2, seq_len={T_used}"
    said = [SHORT.format(N=N, asked=asked, used=used)] if T_used < 50 else []
    assert [record.getMessage() for record in caplog.records] == said


def test_a_warning_is_given_once_not_at_every_pass(caplog):
    streams = contiguous_streams(places(5), 32, 50)
    list(streams), list(streams)
    assert len(caplog.records) == 1


# --- what is refused


NO_PAIR = "need at least 2 tokens to have one (input, target) pair, got "
NO_ROW = "ids must be a 1-D array of integers, got "


@pytest.mark.parametrize("scheme", ["streams", "random", "shuffled"])
@pytest.mark.parametrize(
    ("ids", "B", "T", "message"),
    [
        (np.arange(1), 1, 1, NO_PAIR + "1"),
        ([], 1, 1, NO_PAIR + "0"),
        (np.zeros((3, 3), int), 1, 1, NO_ROW + "2-D int64"),
        (np.zeros(9), 1, 1, NO_ROW + "1-D float64"),
        (np.zeros(9, bool), 1, 1, NO_ROW + "1-D bool"),
        ("hello", 1, 1, NO_ROW + "0-D <U5"),
        (np.arange(9), 0, 1, "batch_size must be a positive integer, got 0"),
        (np.arange(9), True, 1, "batch_size must be a positive integer, got True"),
        (np.arange(9), 1, -3, "seq_len must be a positive integer, got -3"),
        (np.arange(9), 1, 2.0, "seq_len must be a positive integer, got 2.0"),
        (np.arange(9), 1, np.arange(99), "seq_len must be a positive integer, got array("),
    ],
)
def test_what_does_not_fit_is_refused_at_once_in_one_line(scheme, ids, B, T, message):
    with pytest.raises(InputError) as refused:  # before the first batch is asked for
        {
            "streams": lambda: contiguous_streams(ids, B, T),
            "random": lambda: random_windows(ids, B, T, 1, generator()),
            "shuffled": lambda: shuffled_windows(ids, B, T, generator()),
        }[scheme]()
    assert str(refused.value).startswith(message)
    assert str(refused.value) == message or message.endswith("array(")
    assert len(str(refused.value).splitlines()) == 1


def test_sizes_may_be_integers_of_numpy():
    streams = contiguous_streams(places(30), np.int64(2), np.uint8(4))
    assert (type(streams.batch_size), type(streams.seq_len), len(streams)) == (int, int, 4)


def test_windows_need_steps():
    with pytest.raises(InputError, match=r"^steps must be a positive integer, got 0$"):
        random_windows(places(9), 1, 1, 0, generator())
