"""The tree is what CONTRIBUTING says: private modules, one public path for each object, and no circles."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "jaxopt_study"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
# The command line answers signals and reads arguments before the imports that take seconds.
LATE = {
    "jaxopt_study": {"jaxopt_study.examination"},
    "jaxopt_study.cli._main": {"jaxopt_study.cli._app"},
    "jaxopt_study.cli._app": {
        f"jaxopt_study.cli.{module}"
        for module in (
            "_ablate",
            "_compare",
            "_compilation_cache",
            "_curvature",
            "_listings",
            "_network",
            "_runner",
            "_search",
        )
    },
}


def imports(path, *, inside_functions):
    """Yield (module, name) of what a file imports from this package, at its top or inside its functions.

    What only a type checker imports counts as imported at the top.
    """
    tree = ast.parse(path.read_text())
    checked = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    top = {id(node) for node in [*tree.body, *(inner for block in checked for inner in block.body)]}
    for node in ast.walk(tree):
        ours = isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jaxopt_study"
        if ours and (id(node) in top) is not inside_functions:
            yield from ((node.module, alias.name) for alias in node.names)


def imported_modules(path, **options):
    """Return the modules of this package that a file imports, where a name may itself be a module."""
    found = set()
    for module, name in imports(path, **options):
        found.add(f"{module}.{name}" if f"{module}.{name}" in MODULES else module)
    return found


def stage(module):
    """Return the package at the top to which a module belongs: "curvature" of `jaxopt_study.curvature.points`."""
    return module.split(".")[1] if "." in module else ""


def private(module):
    return any(part.startswith("_") and not part.startswith("__") for part in module.split("."))


@pytest.mark.parametrize("module", MODULES)
def test_packages_use_each_other_through_their_public_path(module):
    for other in imported_modules(MODULES[module], inside_functions=False):
        shared = other.count(".") == 1  # the modules at the top, which every package uses
        assert shared or not private(other) or stage(other) == stage(module), f"{module} imports {other}"


@pytest.mark.parametrize("folder", ["experiments", "benchmarks", "notebooks", "docs"])
def test_what_stands_on_the_package_uses_its_public_path(folder):
    for path in (ROOT / folder).rglob("*.py"):
        for other in imported_modules(path, inside_functions=False):
            assert not private(other), f"{path.relative_to(ROOT)} imports {other}"


def test_nothing_of_the_package_is_imported_inside_a_function():
    late = {module: imported_modules(path, inside_functions=True) for module, path in MODULES.items()}
    assert {module: found for module, found in late.items() if found} == LATE


def test_no_modules_import_each_other_in_a_circle():
    graph = {
        module: imported_modules(path, inside_functions=False) & MODULES.keys() for module, path in MODULES.items()
    }
    left = dict(graph)
    while left:  # what imports nothing that is left can be loaded
        free = [module for module, others in left.items() if not (others & left.keys()) - {module}]
        assert free, f"circles among {sorted(left)}"
        for module in free:
            del left[module]


def test_no_module_is_hidden_by_an_object_of_its_name():
    for module, path in MODULES.items():
        if path.name == "__init__.py" and module != "jaxopt_study":
            package = importlib.import_module(module)
            for child in MODULES:
                parent, _, name = child.rpartition(".")
                if parent == module:
                    assert getattr(package, name, None) in (None, importlib.import_module(child)), child


def public_objects():
    """Yield (module, name, object) of everything that a module declares public."""
    for module in MODULES:
        if not private(module):
            package = importlib.import_module(module)
            yield from ((module, name, getattr(package, name)) for name in getattr(package, "__all__", ()))


def test_every_package_declares_its_public_names():
    for module, path in MODULES.items():
        if path.name == "__init__.py":
            package = importlib.import_module(module)
            assert len(set(package.__all__)) == len(package.__all__), module
            assert all(hasattr(package, name) for name in package.__all__), module
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom):  # `name as name`: for other stages only
                    shared = {alias.name for alias in node.names if alias.asname == alias.name}
                    assert not shared & set(package.__all__), module


def test_a_name_stands_for_one_object():
    objects = {}
    for _, name, value in public_objects():
        objects.setdefault(name, set()).add(id(value))
    # The optimizer and the atom that it is named after.
    assert {name for name, others in objects.items() if len(others) > 1} == {"nesterov", "nesterov_lookahead"}


def test_every_public_object_has_one_path():
    paths = {}
    for module, name, value in public_objects():
        paths.setdefault(id(value), []).append(f"{module}.{name}")
    assert [several for several in paths.values() if len(several) > 1] == []


def test_lazy_names_have_the_module_that_a_type_checker_sees():
    """The table by which `figures` loads its modules late names what its block for type checkers imports."""
    tree = ast.parse(MODULES["jaxopt_study.figures"].read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    figures = importlib.import_module("jaxopt_study.figures")
    assert {name: f"jaxopt_study.figures.{module}" for name, module in figures._MODULES.items()} == seen
    assert set(figures.__all__) <= seen.keys()
    assert all(getattr(figures, name).__module__ == seen[name] for name in figures.__all__)
