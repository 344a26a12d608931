"""The code of the documentation runs, and the site is written from the package without losing anything.

`make docs` builds the site with warnings as errors: links, names in backticks, and that no page loads from a network.
"""

import contextlib
import importlib
import io
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tyro
from building import commands, docstrings, source

import jaxopt_study
from experiments.__main__ import parser
from experiments.experiment import discover
from jaxopt_study.cli import COMMANDS
from tests import code_blocks

DOCS = Path(__file__).parents[1] / "docs"
WRITTEN = {"written", "reference", "_build"}  # pages that the build writes
PAGES = [
    path
    for path in sorted(DOCS.rglob("*.md"))
    if path.relative_to(DOCS).parts[0] not in WRITTEN and path != DOCS / "gallery" / "study.md"
]
LONG = {"index", "how_to/bring_your_own_model", "how_to/diagnose_a_diverging_run", "how_to/run_on_a_cluster"}


ALONE = "how_to/run_on_a_cluster"  # its first line must come before JAX has started


def marked(path):
    name = path.relative_to(DOCS).with_suffix("").as_posix()
    return pytest.param(path, id=name, marks=pytest.mark.slow if name in LONG else [])


@pytest.mark.parametrize("path", [marked(path) for path in PAGES])
def test_the_code_of_a_page_runs_and_prints_what_it_shows(path):
    if path.relative_to(DOCS).with_suffix("").as_posix() != ALONE:
        code_blocks.run_all(path)
        return
    command = [sys.executable, "-m", "tests.code_blocks", str(path)]
    done = subprocess.run(command, cwd=DOCS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_pages_have_code():
    assert {marked(path).id for path in PAGES} >= LONG
    assert sum(len(code_blocks.blocks(path)) > 0 for path in PAGES) >= 12


def test_every_public_package_has_a_page():
    packages = {
        found.name.removeprefix("jaxopt_study.")
        for found in pkgutil.walk_packages(jaxopt_study.__path__, "jaxopt_study.")
        if found.ispkg and "._" not in found.name and getattr(importlib.import_module(found.name), "__all__", ())
    }
    assert packages - {"cli"} - source.PACKAGES.keys() == set()


def names(command):
    return {name for option in command.options for name in re.findall(r"--[\w-]+|^[A-Z]+\b", option.name)}


@pytest.mark.parametrize("options", COMMANDS, ids=lambda options: options.__name__.lower())
def test_the_page_on_the_command_line_has_every_option_that_the_help_shows(options):
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        tyro.cli(options, args=["--help"])
    heads = re.findall(r"^[│ ] ((?:--[a-z]|[A-Z]{2}).*?)(?:  | *│?$)", shown.getvalue(), flags=re.MULTILINE)
    asked = {word for head in heads for word in re.findall(r"--[a-z][\w-]*|^[A-Z]+", head)}
    shared = {option.name.split()[0] for option in commands.shared_options()}
    (command,) = [one for one in commands.of_the_package() if one.name == options.__name__.lower()]
    listed = names(command) | (shared if "--resume" in asked else set())
    assert {word for word in asked if not word.startswith("--no-")} == listed | ({"--output"} & asked)
    assert all(option.meaning for option in command.options)


def test_the_page_on_the_command_line_has_the_commands_of_the_experiments():
    found = {command.name: names(command) for command in commands.of_the_experiments()}
    assert found.keys() == {"list", "report", "run", "judge"}
    assert found["run"] == {"NAME", "--check", "--out", "--preset", "--resume", "--data-dir"}


def test_every_command_has_an_example_that_it_accepts():
    for command in commands.of_the_package():
        program, *words = shlex.split(command.example)
        assert (program, words[0]) == ("jaxopt-study", command.name)
        (options,) = [one for one in COMMANDS if one.__name__.lower() == command.name]
        assert isinstance(tyro.cli(options, args=words[1:]), options)
    for command in commands.of_the_experiments():
        *program, name = shlex.split(command.example)[:4]
        assert (program, name) == (["python", "-m", "experiments"], command.name)
        assert parser(list(discover())).parse_args(shlex.split(command.example)[3:]).command == command.name


def test_every_atom_has_a_place_on_the_cheat_sheet():
    assert source.OTHER not in source.chapters("transforms")


def test_every_figure_is_in_the_gallery():
    text = (DOCS / "gallery" / "figures.ipynb").read_text(encoding="utf-8")
    functions = [item for item in source.public("figures") if source.signature(item.value).endswith("-> Figure")]
    missing = [item.name for item in functions if f"figures.{item.name}(" not in text]
    assert set(missing) <= {"new_figure"}  # an empty one
    assert len(functions) > 12


def test_a_signature_is_written_as_in_the_source():
    found = source.everything()["jaxopt_study.transforms.bias_correction"]
    assert source.signature(found.value).startswith("(decay: ScalarLike")
    assert source.signature(found.value).endswith(") -> Transform")


def test_a_formula_is_the_first_indented_block_of_the_body():
    text = """Do it.

    With x:

        y = |x| * x_

    Args:
        x: A number, `jnp.sqrt(2)` or *more*.
    """
    assert docstrings.formula(text) == "y = |x| * x_"
    written = docstrings.rst(text)
    assert "   y = |x| * x_" in written  # as it stands
    assert r":param x: A number, ``jnp.sqrt(2)`` or \*more\*." in written


def test_a_text_with_a_colon_is_not_taken_for_a_type():
    assert ":returns: The pairs. Memory: two vectors." in docstrings.rst(
        "Do it.\n\nReturns:\n    The pairs. Memory: two vectors."
    )
