"""Import times: the command line's help loads no JAX, and the stages load nothing that they may not need."""

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "jaxopt_study"
STAGES = sorted(
    path.stem
    for path in PACKAGE.iterdir()
    if (path.is_dir() or path.suffix == ".py") and not path.stem.startswith("_") and path.stem != "cli"
)
PEERS = "import flax, jax, optax"
# Each takes from a tenth of a second to as long as JAX.
HEAVY = {
    "IPython", "PIL", "flax.nnx", "matplotlib", "optuna", "pandas", "pooch", "rich", "scipy.linalg", "scipy.optimize",
    "scipy.sparse", "scipy.special", "scipy.stats", "sklearn", "tyro",
}  # fmt: skip


def loaded(code):
    """Return the modules that a fresh process has loaded after running some code."""
    code = f"{code}\nimport sys\nsys.stderr.write(' '.join(sys.modules))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(process.stderr.split())


def test_the_stages_load_nothing_heavy_that_jax_optax_and_flax_do_not():
    stages = loaded(f"from jaxopt_study import {', '.join(STAGES)}")
    assert "jaxopt_study.sweeps" in stages
    assert not HEAVY & (stages - loaded(PEERS))


def test_a_figure_loads_matplotlib_when_it_is_asked_for():
    assert "matplotlib" in loaded("from jaxopt_study.figures import trajectories")


@pytest.mark.parametrize("command", ["", "compare", "search", "ablate", "curvature", "explain", "--version"])
def test_the_help_of_the_command_line_does_not_wait_for_jax(command):
    asked = [command] if command == "--version" else [*command.split(), "--help"]
    modules = loaded(
        "from contextlib import suppress\n"
        "from jaxopt_study.cli import main\n"
        f"with suppress(SystemExit):\n    main({asked})"
    )
    assert "tyro" in modules
    assert not (HEAVY - {"tyro"} | {"flax", "jax", "numpy", "optax", "scipy"}) & modules


def test_a_mistake_in_the_arguments_is_shown_without_jax():
    code = "from contextlib import suppress\nfrom jaxopt_study.cli import main\nimport io, sys\n"
    code += "own, sys.stderr = sys.stderr, io.StringIO()\nwith suppress(SystemExit):\n    main(['search'])\n"
    assert "jax" not in loaded(f"{code}sys.stderr = own")
