"""The bug museum: bugs of published LSTMs, put back one at a time, and the tests that must notice.

Each exhibit of museum.py patches one place of the shipped source in a copy of the package, and its
`caught_by` runs against that copy in a process of its own, where it must fail, by assertion. All of
these tests together pass on an unpatched copy.

Most of these bugs survive training: the loss falls, only not as far. What is written under
`survives_because` is why.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from museum import BUGS, Bug, copy_of_the_package

TESTS = Path(__file__).resolve().parent

# Runs pytest on the copy in the working directory; prints {test: how it ended} as its last line.
RUN = """
import json, sys
from pathlib import Path
import minilstm, pytest

if Path(minilstm.__file__).resolve().parent != Path.cwd() / "minilstm":
    sys.exit(f"not the copy: {minilstm.__file__}")

class Endings(dict):
    def pytest_runtest_makereport(self, item, call):
        if call.excinfo is not None:
            failed = issubclass(call.excinfo.type, (AssertionError, pytest.fail.Exception))
            self[item.nodeid] = "assertion" if failed else call.excinfo.typename
        elif call.when == "call":
            self[item.nodeid] = "passed"

endings = Endings()
code = pytest.main(sys.argv[1:], plugins=[endings])
print("\\n" + json.dumps(endings))
sys.exit(code)
"""


def endings_in(folder, tests):
    """Run these tests against the copy in folder: pytest's exit code, and how each test ended."""
    options = ["-q", "--tb=short", "-p", "no:cacheprovider", f"--rootdir={TESTS.parent}"]
    options += [f"--config-file={TESTS.parent / 'pyproject.toml'}"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
        "PYTEST_ADDOPTS": "",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # they take longer to load than most tests here
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    run = subprocess.run(
        [sys.executable, "-c", RUN, *options, *(str(TESTS / test) for test in tests)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    try:
        return run.returncode, json.loads(run.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        pytest.fail(f"no verdict:\n{run.stdout}\n{run.stderr}", pytrace=False)


@pytest.fixture(scope="module")
def verdicts(request, tmp_path_factory):
    """Bug -> future of `endings_in`, for the bugs that this run asks for; two at a time."""

    def verdict(bug, folder):
        copy_of_the_package(folder, bug)
        return endings_in(folder, bug.caught_by)

    selected = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    bugs = [params["bug"] for params in selected if isinstance(params.get("bug"), Bug)]
    with ThreadPoolExecutor(max_workers=2) as pool:
        yield {bug: pool.submit(verdict, bug, tmp_path_factory.mktemp("bug")) for bug in bugs}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_put_back_is_noticed(bug, verdicts):
    code, endings = verdicts[bug].result()
    for test in bug.caught_by:
        ended = [how for nodeid, how in endings.items() if nodeid.startswith(f"tests/{test}")]
        assert "assertion" in ended, f"{test} does not notice: {ended}"
    assert set(endings.values()) <= {"assertion", "passed"}
    assert code == pytest.ExitCode.TESTS_FAILED


def test_without_a_bug_all_of_these_tests_pass(tmp_path):
    copy_of_the_package(tmp_path)
    code, endings = endings_in(tmp_path, sorted({test for bug in BUGS for test in bug.caught_by}))
    assert {nodeid: how for nodeid, how in endings.items() if how != "passed"} == {}
    assert code == pytest.ExitCode.OK


def test_no_two_exhibits_are_the_same():
    assert len({bug.name for bug in BUGS}) == len(BUGS)
    assert len({(bug.file, bug.old, bug.new) for bug in BUGS}) == len(BUGS)
