"""Small errors put into a module's source, one at a time: what a careless hand does.

There are two kinds. Of the atoms, whose modules are small and run by themselves, every mutant of some kinds is made. Of
other modules, in which one function calls another across files and compiled programs, `Edit` describes mutants one by
one, and each is held to the tests that ought to notice it.

A mutant of an atom is a copy of the module's syntax tree with one change inside a function's body: an ε on the other
side of its root, a count off by one, β for 1 − β, or a wrong operator. Checks of arguments, error messages, annotations
and defaults are left alone: they are not mathematics.
"""

import ast
import copy
import inspect
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
DECAYS = {"decay", "rate", "gamma", "coming", "kept", "fresh", "now", "b1", "b2"}
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Gt: ast.Lt,
    ast.Lt: ast.Gt,
    ast.GtE: ast.Gt,
    ast.LtE: ast.Gt,
}
SWAPPED_FUNCTIONS = {"maximum": "minimum", "minimum": "maximum"}


def execute(tree: ast.Module, module: ModuleType) -> dict[str, Any]:
    """Execute a syntax tree in the place of a module, beside it, and return its names."""
    names: dict[str, Any] = {"__name__": module.__name__, "__file__": module.__file__}
    exec(compile(tree, f"<copy of {module.__name__}>", "exec"), names)
    return names


def unchanged(module: ModuleType) -> dict[str, Any]:
    """Return the names of a copy without a change: what every check must pass, or killing means nothing."""
    return execute(ast.parse(inspect.getsource(module)), module)


class Mutant(NamedTuple):
    """One changed copy of a module."""

    function: str  # the outermost function or class that was changed
    label: str  # function: original → changed
    tree: ast.Module


def mutants(module: ModuleType) -> Iterator[Mutant]:
    """Yield every mutant of a module's functions and methods."""
    tree = ast.parse(inspect.getsource(module))
    for index, node in enumerate(tree.body):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("check_"):
            continue
        for path in _places(node):
            original = _get(node, path)
            for changed in _changes(original):
                body = copy.copy(tree)
                body.body = list(tree.body)
                body.body[index] = _replaced(node, path, changed)
                label = f"{node.name}: {ast.unparse(original)} → {ast.unparse(changed)}"
                yield Mutant(node.name, label, ast.fix_missing_locations(body))


def _changes(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp):
        if type(node.op) in OPERATORS:
            yield ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
        if isinstance(node.op, ast.Add) and _is_root(node.left):  # √x + ε → √(x + ε)
            yield _call(node.left, ast.BinOp(node.left.args[0], ast.Add(), node.right))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        yield node.operand
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in OPERATORS:
        yield ast.Compare(node.left, [OPERATORS[type(node.ops[0])]()], node.comparators)
    elif isinstance(node, ast.Call):
        yield from _call_changes(node)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        if node.id in DECAYS:  # β → 1 − β
            yield ast.BinOp(ast.Constant(1), ast.Sub(), node)
        if node.id in ("eps", "eps_root"):  # each ε in the other's place
            yield ast.Constant(0.0)


def _call_changes(node: ast.Call) -> Iterator[ast.expr]:
    name = _name(node)
    if name in ("increment", "safe_increment"):
        yield node.args[0]
        yield ast.BinOp(node, ast.Add(), ast.Constant(1))
    elif name == "at_step":  # the schedule one step late
        late = ast.BinOp(node.args[1], ast.Add(), ast.Constant(1))
        yield ast.Call(node.func, [node.args[0], late], [])
    elif name == "complement":
        yield node.args[0]
    elif name == "one_minus_power":
        yield ast.BinOp(ast.Constant(1), ast.Sub(), node)
    elif name in SWAPPED_FUNCTIONS:
        yield ast.Call(ast.Attribute(node.func.value, SWAPPED_FUNCTIONS[name], ast.Load()), node.args, node.keywords)
    elif _is_root(node) and isinstance(node.args[0], ast.BinOp) and isinstance(node.args[0].op, ast.Add):
        inside = node.args[0]  # √(x + ε) → √x + ε
        yield ast.BinOp(_call(node, inside.left), ast.Add(), inside.right)


def _name(node: ast.AST) -> str:
    function = node.func if isinstance(node, ast.Call) else None
    return getattr(function, "attr", getattr(function, "id", ""))


def _is_root(node: ast.AST) -> bool:
    return _name(node) == "sqrt"


def _call(like: Any, argument: ast.expr) -> ast.Call:
    return ast.Call(like.func, [argument], [])


def _places(function: ast.FunctionDef | ast.ClassDef) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every expression in the body of a function and of the functions inside it."""

    def walk(node: ast.AST, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.arguments | ast.AnnAssign):
            return
        if isinstance(node, ast.Call) and (
            _name(node).startswith("check_") or _name(node) in ("isinstance", "concrete")
        ):
            return
        if isinstance(node, ast.expr):
            yield path
        for field, value in ast.iter_fields(node):
            if field in ("decorator_list", "returns", "type_params"):
                continue
            if isinstance(value, list):
                for i, item in enumerate(value):
                    if isinstance(item, ast.AST):
                        yield from walk(item, (*path, (field, i)))
            elif isinstance(value, ast.AST):
                yield from walk(value, (*path, (field, None)))

    for i, statement in enumerate(function.body):
        yield from walk(statement, (("body", i),))


def _get(node: Any, path: tuple[Any, ...]) -> Any:
    for field, i in path:
        node = getattr(node, field) if i is None else getattr(node, field)[i]
    return node


def _replaced(node: Any, path: tuple[Any, ...], new: ast.AST) -> Any:
    """Copy the nodes along the path only, so that a mutant is cheap."""
    if not path:
        return ast.copy_location(new, node)
    (field, i), rest = path[0], path[1:]
    clone = copy.copy(node)
    if i is None:
        setattr(clone, field, _replaced(getattr(node, field), rest, new))
    else:
        items = list(getattr(node, field))
        items[i] = _replaced(items[i], rest, new)
        setattr(clone, field, items)
    return clone


def survivors(module: ModuleType, checks: dict[str, Callable[[Any], None]]) -> tuple[list[str], int]:
    """Run each mutant against the check of the function it changed; return those not noticed, and how many there were.

    A function without a check of its own, such as a private one, is held to all of the module's checks.
    """
    alive, count = [], 0
    for mutant in mutants(module):
        count += 1
        chosen = [checks[mutant.function]] if mutant.function in checks else list(checks.values())
        try:
            names = execute(mutant.tree, module)
            for check in chosen:
                check(names)
        except Exception:  # a mutant may fail in any way; failing is what is asked of it
            continue
        alive.append(mutant.label)
    return alive, count


class Edit(NamedTuple):
    """A change of one line that somebody might make, and the default tests that must notice it.

    It is applied to the text of a copy of the package, not to a syntax tree, because code that JAX compiles is known by
    its functions: a copy in a process of its own shares no compiled program with the original.
    """

    module: str  # relative to the package
    original: str  # a fragment that occurs once in the module
    changed: str
    tests: tuple[str, ...]  # node ids, relative to `tests`

    @property
    def label(self) -> str:
        """What is changed, in one line."""
        return f"{self.module}: {' '.join(self.original.split())} → {' '.join(self.changed.split())}"

    def apply(self, package: Path) -> None:
        """Write the changed module; raise ValueError if the fragment does not occur exactly once."""
        path = package / self.module
        source = path.read_text()
        if source.count(self.original) != 1:
            raise ValueError(
                f"{self.module} has the fragment {self.original!r} {source.count(self.original)} times, not once. "
                "Write the edit anew for the source as it is."
            )
        path.write_text(source.replace(self.original, self.changed))


def copied(folder: Path) -> Path:
    """Copy what running tests needs into a folder, and return it."""
    for name in ("jaxopt_study", "tests"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy2(ROOT / name, folder / name)
    return folder


def run_tests(jobs: Iterable[tuple[Path, Iterable[str]]]) -> list[tuple[int | None, str]]:
    """Run tests of copies one after the other; return pytest's exit status, None for a signal, and output of each."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "oracles" / "forking.py"],
        input=json.dumps([(str(root), list(tests)) for root, tests in jobs]),
        # An edit changes what is computed, optimized or not.
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"The tests of the copies were not run: {done.stderr[-2000:]}")
    return [(status, output) for status, output in map(json.loads, done.stdout.splitlines())]


def unnoticed(edits: list[Edit], *, together: int = 2) -> list[str]:
    """Apply each edit to a copy of its own and run its tests; describe those that no test noticed.

    Args:
        edits: The edits.
        together: How many processes work at them.

    Returns:
        For each edit that was not noticed, what happened instead. A copy without an edit comes first in each process:
        its tests must pass, or failing means nothing.
    """

    def share(edits: list[Edit]) -> list[str]:
        with tempfile.TemporaryDirectory() as folder:
            roots = [copied(Path(folder) / str(number)) for number in range(len(edits) + 1)]
            for root, edit in zip(roots[1:], edits, strict=True):
                edit.apply(root / "jaxopt_study")
            everything = dict.fromkeys(test for edit in edits for test in edit.tests)
            (status, output), *rest = run_tests(
                [(roots[0], everything), *((root, edit.tests) for root, edit in zip(roots[1:], edits, strict=True))]
            )
        found = [] if status == 0 else [f"without an edit pytest ended with {status}\n{output}"]
        for edit, (status, output) in zip(edits, rest, strict=True):
            if status not in (1, None):  # a test failed, or a loop did not end
                end = "survived" if status == 0 else f"pytest ended with {status}"
                found.append(f"{end}: {edit.label}\n{output}")
        return found

    with ThreadPoolExecutor(together) as pool:
        return [line for lines in pool.map(share, [edits[i::together] for i in range(together)]) for line in lines]
