"""The markers `gpu` and `cupy`: what a run says, and when it fails.

Each case is a pytest run of its own, in a folder with a copy of conftest.py and a module `cupy`
that plays a machine: CuPy absent, CuPy without a device, CuPy with one.
"""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

NO_CUPY = "raise ModuleNotFoundError(\"No module named 'cupy'\", name='cupy')"
NO_DEVICE = "def is_available(): return False"
DEVICE = "def is_available(): return True"

SUITE = """
import pytest

@pytest.mark.gpu
def test_on_device(): pass

@pytest.mark.gpu
def test_on_device_too(): pass

@pytest.mark.cupy
def test_with_cupy(): pass

def test_anywhere(): pass
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """run(cupy, *switches): the suite on a machine with that `cupy`, those switches set to 1."""

    def run(cupy: str, *switches: str) -> pytest.RunResult:
        pytester.makeconftest(Path(__file__).with_name("conftest.py").read_text())
        pytester.makepyprojecttoml(
            '[tool.pytest.ini_options]\nmarkers = ["gpu", "cupy"]\naddopts = "--strict-markers"'
        )
        pytester.makepyfile(cupy=cupy, test_suite=SUITE)
        monkeypatch.setenv("PYTHONPATH", str(pytester.path))  # ahead of a real CuPy
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # five times faster
        for switch in ("MINILSTM_REQUIRE_GPU", "MINILSTM_REQUIRE_CUPY"):
            monkeypatch.delenv(switch, raising=False)
        for switch in switches:
            monkeypatch.setenv(switch, "1")
        return pytester.runpytest_subprocess("test_suite.py")

    return run


def test_without_cupy_the_summary_counts_gpu_and_cupy_tests_as_not_run(run):
    result = run(NO_CUPY)
    result.assert_outcomes(passed=1, skipped=3)
    result.stdout.fnmatch_lines(
        ["2 GPU tests were NOT RUN: *", "1 CuPy test was NOT RUN: *", "=* 1 passed, 3 skipped in *"]
    )
    assert result.ret == 0


def test_without_a_device_cupy_tests_run_and_gpu_tests_are_counted_as_not_run(run):
    result = run(NO_DEVICE)
    result.assert_outcomes(passed=2, skipped=2)
    result.stdout.fnmatch_lines(["2 GPU tests were NOT RUN: CuPy finds no CUDA device here *"])
    result.stdout.no_fnmatch_line("*CuPy test*NOT RUN*")
    assert result.ret == 0


def test_with_a_device_everything_runs_and_nothing_is_said(run):
    result = run(DEVICE, "MINILSTM_REQUIRE_GPU", "MINILSTM_REQUIRE_CUPY")
    result.assert_outcomes(passed=4)
    result.stdout.no_fnmatch_line("*NOT RUN*")
    assert result.ret == 0


@pytest.mark.parametrize(
    "cupy, switch, outcomes",
    [
        (NO_CUPY, "MINILSTM_REQUIRE_CUPY", {"passed": 1, "errors": 1, "skipped": 2}),
        (NO_CUPY, "MINILSTM_REQUIRE_GPU", {"passed": 1, "errors": 2, "skipped": 1}),
        (NO_DEVICE, "MINILSTM_REQUIRE_GPU", {"passed": 2, "errors": 2}),
    ],
    ids=["cupy, none", "gpu, no cupy", "gpu, no device"],
)
def test_a_switch_turns_each_skip_into_a_failure(run, cupy, switch, outcomes):
    result = run(cupy, switch)
    result.assert_outcomes(**outcomes)
    result.stdout.fnmatch_lines([f"*{switch}=1, but *"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED
