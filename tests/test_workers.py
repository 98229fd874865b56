"""A batch shared out to processes: the same numbers, and no process left behind."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
from closeness import assert_close

import minilstm as ml
from minilstm import evaluation, model, workers
from minilstm.threads import thread_limit, threads_now
from minilstm.workers import EVALUATION, TRAINING, shared_out, shares

T, V, H = 6, 11, 8
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="batches are shared out on Linux")


@pytest.fixture
def two_threads():
    """Of the matrix products, however many cores there are."""
    with thread_limit(2):
        yield


# --- the same numbers

CONFIGS = {
    "one-hot": ml.ModelConfig(V, H, 2),
    "every kind of dropout": ml.ModelConfig(
        V, H, 2, embedding_size=H, dropout=0.3, embedding_dropout=0.2, output_dropout=0.4,
        weight_drop=0.3),
    "locked": ml.ModelConfig(
        V, H, 2, embedding_size=5, dropout=0.3, output_dropout=0.4, locked_dropout=True),
    "tied": ml.ModelConfig(V, H, 1, embedding_size=H, tie_weights=True),
}  # fmt: skip


def share_out(monkeypatch, n):
    """Let every batch be shared out to n processes, or to as many as it has sequences."""

    def cuts(params, B, numbers, worth):
        m = min(n, B)
        return [slice(k * B // m, (k + 1) * B // m) for k in range(m)]

    for module in (model, evaluation):
        monkeypatch.setattr(module, "shares", cuts)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("B", [3, 7])
def test_a_batch_in_shares_has_the_loss_and_gradients_of_the_whole(config, B, monkeypatch):
    """With the same masks, a state carried, and weights that change in between."""
    inputs, targets = np.random.default_rng(1).integers(V, size=(2, T, B))
    found = {}
    for n in (1, 2, 3):
        share_out(monkeypatch, n)
        params = ml.init_params(config, np.random.default_rng(0), np.float64)
        workspace, state = ml.Workspace(), None
        for step in range(3):
            loss, grads, state = ml.loss_and_grads(
                params, config, inputs, targets, state, rng=np.random.default_rng(step),
                workspace=workspace)  # fmt: skip
            for name, p in params.items():
                p -= 0.1 * grads[name]
        grads = {name: g.copy() for name, g in grads.items()}
        found[n] = {"loss": loss, "h": state[0], "c": state[1], **grads}
    assert_close(found[2], found[1], tolerance=1e-13)
    assert_close(found[3], found[1], tolerance=1e-13)


def test_the_same_shares_give_the_same_bits(monkeypatch):
    config = CONFIGS["one-hot"]
    params = ml.init_params(config, np.random.default_rng(0))
    inputs, targets = np.random.default_rng(1).integers(V, size=(2, T, 8))
    share_out(monkeypatch, 2)
    first, again = (
        ml.loss_and_grads(params, config, inputs, targets, workspace=ml.Workspace())
        for _ in range(2)
    )
    assert first[0] == again[0]
    assert all(np.array_equal(g, again[1][name]) for name, g in first[1].items())


@pytest.mark.parametrize("window", [None, 4])
def test_an_evaluation_in_shares_scores_what_one_in_one_does(window, monkeypatch):
    config = CONFIGS["one-hot"]
    params = ml.init_params(config, np.random.default_rng(0), np.float64)
    ids = np.random.default_rng(1).integers(V, size=103)
    results = []
    for n in (1, 2, 3):
        share_out(monkeypatch, n)
        results.append(evaluation.evaluate(params, config, ids, streams=6, window=window))
    assert [r.tokens for r in results] == [102] * 3
    assert [r.accuracy for r in results] == [results[0].accuracy] * 3
    assert [r.loss for r in results] == pytest.approx([results[0].loss] * 3, rel=1e-14)


# --- which batches


def test_a_batch_with_enough_to_do_is_shared_out_and_a_small_or_a_wide_one_is_not(
    two_threads, monkeypatch
):
    def processes(T, B, H, V=65, L=1, worth=TRAINING):
        params = ml.init_params(ml.ModelConfig(V, H, L), np.random.default_rng(0))
        return len(shares(params, B, T * B * H * L, worth))

    assert processes(10, 1, 128) == processes(1000, 1, 128) == 1
    assert processes(50, 32, 128) == processes(64, 64, 256) == processes(64, 128, 512) == 2
    assert processes(64, 32, 160, L=2) == 2
    assert processes(100, 64, 2048) == 1  # 17 million parameters
    assert processes(35, 20, 100, V=20_000) == 1
    assert processes(50, 32, 128, worth=EVALUATION) == 1
    assert processes(1742, 64, 256, worth=EVALUATION) == 2
    with thread_limit(1):
        assert processes(64, 128, 512) == 1
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(sys, "platform", "darwin")
        assert processes(64, 128, 512) == 1
    found = []
    thread = threading.Thread(target=lambda: found.append(processes(64, 128, 512)))
    thread.start()
    thread.join()
    assert found == [1]


def test_the_shares_are_all_of_the_sequences_each_once():
    with thread_limit(3):
        params = {"fc.b": np.zeros(3)}
        cuts = shares(params, 7, 7 * TRAINING, TRAINING)
        assert [n for cut in cuts for n in range(7)[cut]] == list(range(7))
        assert len(cuts) == 3
        assert len(shares(params, 7, 2 * TRAINING, TRAINING)) == 2
        large = {"fc.b": np.zeros(5 * TRAINING)}
        assert shares(large, 7, 4 * TRAINING, TRAINING) == [slice(0, 7)]


# --- the processes


def ask(params, what, workspace):
    """Work to be shared out."""
    if what == "fail":
        raise ml.InputError("this share is wrong")
    if what == "interrupt":
        raise KeyboardInterrupt
    if what == "hang":
        time.sleep(60)
    time.sleep(0.05 * (what == "slow"))
    return (os.getpid(), what, threads_now()), {"p": 2 * params["p"] + (what == "slow")}


PARAMS = {"p": np.arange(3.0)}


def pid_of_another(workspace):
    (_, ((pid, *_), _)) = shared_out(ask, PARAMS, [("a",), ("b",)], workspace)
    return pid


def exists(pid):
    """Whether the process runs; one that waits for somebody to ask how it ended does not."""
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_the_first_share_is_done_here_the_others_in_processes_that_stay_each_with_one_thread(
    two_threads,
):
    workspace = ml.Workspace()
    first = shared_out(ask, PARAMS, [("a",), ("b",), ("c",)], workspace)
    again = shared_out(ask, PARAMS, [("d",), ("e",), ("f",)], workspace)
    pids = [pid for (pid, _, _), _ in first]
    assert pids[0] == os.getpid()
    assert len(set(pids)) == 3
    assert [answer for answer, _ in again] == [(pids[0], "d", 1), (pids[1], "e", 1),
                                               (pids[2], "f", 1)]  # fmt: skip
    assert all((grads["p"] == [0, 2, 4]).all() for _, grads in again)


def test_an_error_in_a_process_is_the_callers_and_the_next_call_is_none_the_worse(two_threads):
    workspace = ml.Workspace()
    with pytest.raises(ml.InputError, match="this share is wrong"):
        shared_out(ask, PARAMS, [("a",), ("fail",)], workspace)
    assert threads_now() == 2
    with pytest.raises(ml.InputError, match="this share is wrong"):
        shared_out(ask, PARAMS, [("fail",), ("a",)], workspace)
    (_, ((_, what, _), grads)) = shared_out(ask, {"p": np.ones(3)}, [("a",), ("b",)], workspace)
    assert what == "b"
    assert (grads["p"] == 2).all()


def test_an_answer_that_an_interruption_left_behind_is_not_taken_for_the_next():
    workspace = ml.Workspace()
    for long in ("slow", "hang"):
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            shared_out(ask, PARAMS, [("interrupt",), (long,)], workspace)
        (_, ((_, what, _), grads)) = shared_out(ask, PARAMS, [("a",), ("b",)], workspace)
        assert what == "b"
        assert (grads["p"] == [0, 2, 4]).all()
        assert time.monotonic() - started < 30


def test_a_process_that_is_killed_is_an_error_of_the_system():
    workspace = ml.Workspace()
    pid = pid_of_another(workspace)
    threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(ChildProcessError, match="a share of the batch was killed"):
        shared_out(ask, PARAMS, [("a",), ("hang",)], workspace)
    assert pid_of_another(workspace) != pid  # the next call has another


def test_a_process_ends_with_its_workspace():
    workspace = ml.Workspace()
    pid = pid_of_another(workspace)
    assert exists(pid)
    del workspace
    assert not exists(pid)


def test_what_ends_the_owner_politely_does_not_end_it_and_it_holds_no_file_but_its_pipe(tmp_path):
    """Ctrl-C in a terminal goes to both; the owner finishes its step, and needs it for that."""
    with (tmp_path / "open").open("w"):
        workspace, other = ml.Workspace(), ml.Workspace()
        pid, _ = pid_of_another(workspace), pid_of_another(other)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)
        assert pid_of_another(workspace) == pid
        for held in (pid, pid_of_another(other)):
            own = [fd for fd in os.listdir(f"/proc/{held}/fd") if int(fd) > 2]
            assert len(own) == 1


OWNER = """
import os, sys, time
import numpy as np
from minilstm import Workspace
from minilstm.workers import shared_out

def ask(params, what, workspace):
    return os.getpid(), params

workspace = Workspace()
print(shared_out(ask, {"p": np.ones(1)}, [(1,), (2,)], workspace)[1][0], flush=True)
if sys.argv[1] == "wait":
    time.sleep(60)
"""


@pytest.mark.parametrize("how", ["wait", "end"])
def test_none_outlives_its_owner_whether_that_is_killed_or_comes_to_its_end(how):
    with subprocess.Popen([sys.executable, "-c", OWNER, how], stdout=subprocess.PIPE) as owner:
        pid = int(owner.stdout.readline())
        if how == "wait":
            assert exists(pid)
            owner.kill()
        assert owner.wait() == (-signal.SIGKILL if how == "wait" else 0)
    until = time.monotonic() + 5
    while exists(pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert not exists(pid)


def test_a_fork_of_its_owner_has_processes_of_its_own():
    workspace = ml.Workspace()
    pid = pid_of_another(workspace)
    read, write = os.pipe()
    if (fork := os.fork()) == 0:
        try:
            os.write(write, str(pid_of_another(workspace)).encode())
        finally:
            os._exit(0)
    assert int(os.read(read, 20)) != pid
    os.waitpid(fork, 0)
    assert pid_of_another(workspace) == pid
    for fd in (read, write):
        os.close(fd)


def test_arrays_that_are_shared_have_the_layout_asked_for_on_lines_of_the_cache():
    layout = (("a", (2, 3), "<f4"), ("b", (5,), "<f8"), ("c", (), "<f4"), ("d", (0,), "<f4"))
    arrays = workers._shared(layout)
    assert {name: (a.shape, a.dtype.str) for name, a in arrays.items()} == {
        name: (shape, dtype) for name, shape, dtype in layout}  # fmt: skip
    assert all(a.ctypes.data % 64 == 0 and a.flags.writeable for a in arrays.values() if a.size)


def test_where_no_process_is_to_be_had_the_shares_are_done_one_after_the_other(monkeypatch):
    def none_left():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", none_left)
    workspace = ml.Workspace()
    answers = shared_out(ask, PARAMS, [("a",), ("b",)], workspace)
    assert [(pid, what) for (pid, what, _), _ in answers] == [
        (os.getpid(), "a"), (os.getpid(), "b")]  # fmt: skip
    assert all((grads["p"] == [0, 2, 4]).all() for _, grads in answers)


def test_no_process_stays_behind_a_training_that_has_ended(monkeypatch):
    share_out(monkeypatch, 2)
    begun, begin = [], workers.Worker
    monkeypatch.setattr(
        workers, "Worker", lambda *args: begun.append(weakref.ref(made := begin(*args))) or made
    )
    corpus = ml.load_corpus("hello")
    config = ml.ModelConfig(len(corpus.vocab), 4)
    params = ml.init_params(config, np.random.default_rng(0))
    trained = ml.LanguageModel(config, params, corpus.vocab)
    gc.disable()
    try:
        ml.train(trained, corpus, ml.TrainConfig(steps=2, batch_size=2, seq_len=2))
        assert begun
        assert all(worker() is None for worker in begun)
    finally:
        gc.enable()
