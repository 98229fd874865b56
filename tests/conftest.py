"""Tests that need what a machine may lack say so with a marker, and nobody misses that they do.

    @pytest.mark.gpu     needs a CUDA device that CuPy can see
    @pytest.mark.cupy    needs CuPy installed, no device
    @pytest.mark.browser needs Chromium, and what the extra `docs` installs

Where it is missing they are skipped, and the run ends with one line on how many were *not run*.
MINILSTM_REQUIRE_GPU=1, MINILSTM_REQUIRE_CUPY=1 and MINILSTM_REQUIRE_BROWSER=1 make each of them
fail instead.

CuPy is asked here, not minilstm.backend: a fault in the code under test must not be able to
skip its own tests.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
from collections import Counter
from collections.abc import Callable

import pytest


@functools.cache
def cupy_is_missing() -> str | None:
    """What is missing for a test marked `cupy`; None if nothing is."""
    try:
        import cupy  # noqa: F401
    except ImportError as error:
        return f"CuPy cannot be imported here ({error})"
    return None


@functools.cache
def gpu_is_missing() -> str | None:
    """What is missing for a test marked `gpu`; None if nothing is."""
    if missing := cupy_is_missing():
        return missing
    import cupy

    return None if cupy.is_available() else "CuPy finds no CUDA device here"


@functools.cache
def browser_is_missing() -> str | None:
    """What is missing for a test marked `browser`; None if nothing is."""
    for module in ("sphinx", "playwright"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed"
    return None if shutil.which("chromium") else "there is no chromium"


# marker: its name in the summary, the switch that demands it, the check
NEEDS: dict[str, tuple[str, str, Callable[[], str | None]]] = {
    "gpu": ("GPU", "MINILSTM_REQUIRE_GPU", gpu_is_missing),
    "cupy": ("CuPy", "MINILSTM_REQUIRE_CUPY", cupy_is_missing),
    "browser": ("browser", "MINILSTM_REQUIRE_BROWSER", browser_is_missing),
}
not_run = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[not_run] = Counter()


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, (_, switch, check) in NEEDS.items():
        if item.get_closest_marker(marker) and (missing := check()):
            if os.environ.get(switch) == "1":
                pytest.fail(f"{switch}=1, but {missing}", pytrace=False)
            item.config.stash[not_run][marker] += 1
            pytest.skip(missing)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for marker, (name, switch, check) in NEEDS.items():
        if count := config.stash[not_run][marker]:
            tests = "test was" if count == 1 else "tests were"
            terminalreporter.write_line(
                f"{count} {name} {tests} NOT RUN: {check()} ({switch}=1 makes that a failure)",
                yellow=True,
            )
