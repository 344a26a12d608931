"""Bad arguments of public functions end in this package's own error, and what is accepted is a decision.

Every public function is called with a table of bad values, one argument at a time, and so are the methods of operators,
problems and results. `abuse/accepted.json` lists what is accepted, each entry read by a person: a default that is None,
a schedule where a number is expected, a large but finite rate. What is not listed there must be refused by a `raise` of
this package: that Python refuses None + 1 in one of its lines tells a user nothing.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.abuse.valid_calls import METHODS, public_functions

ROOT = Path(__file__).parents[1]
ACCEPTED = json.loads((ROOT / "tests" / "abuse" / "accepted.json").read_text())

INTERNAL = {
    "__init__", "__main__", "__pycache__", "_checks", "_display", "_plain_values", "_programs", "cli", "files",
    "linalg", "types",
}  # fmt: skip


def test_every_public_module_is_a_stage():
    found = (ROOT / "jaxopt_study").iterdir()
    modules = {path.stem for path in found if path.is_dir() or path.suffix == ".py"} - INTERNAL
    assert modules == {stage.partition(".")[0] for stage in ACCEPTED}


@pytest.mark.parametrize("stage", ACCEPTED)
def test_every_public_function_has_a_valid_call_and_every_entry_names_one(stage):
    called = public_functions(stage).keys() | {
        name.removeprefix(f"{stage}.") for name in METHODS if name.rsplit(".", 2)[0] == stage
    }
    assert {entry.rpartition(".")[0] for entry in ACCEPTED[stage]} <= called


@pytest.mark.slow
@pytest.mark.parametrize("stage", ACCEPTED)
def test_bad_arguments_are_refused_at_the_door(stage, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.abuse.run", stage],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout.splitlines()[-1])
    raw = {
        f"{argument} = {label}": outcome
        for argument, outcomes in found.items()
        for label, outcome in outcomes.items()
        if outcome != "accepted"
    }
    assert not raw, f"errors of other packages: {json.dumps(raw, indent=1)}"
    accepted = {argument: sorted(outcomes) for argument, outcomes in found.items()}
    known = ACCEPTED[stage]
    unknown = {
        argument: sorted(set(labels) - set(known.get(argument, ())))
        for argument, labels in accepted.items()
        if set(labels) - set(known.get(argument, ()))
    }
    assert not unknown, f"accepted, and not listed in tests/abuse/accepted.json: {json.dumps(unknown, indent=1)}"
