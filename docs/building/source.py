"""The public objects of the package, with signatures as their source writes them."""

import ast
import dataclasses
import functools
import importlib
import inspect
import textwrap
from types import ModuleType
from typing import Any

PACKAGE = "jaxopt_study"
# One page each, in the order of the data's path. `linalg` shows modules instead of names.
PACKAGES = {
    "transforms": "Atoms",
    "optimizers": "Named optimizers",
    "problems": "Problems",
    "problems.planar": "Planar problems",
    "problems.networks": "Networks",
    "problems.datasets": "Data sets",
    "problems.augmentations": "Augmentations",
    "training": "Training",
    "curvature": "Curvature",
    "dynamics": "Dynamics",
    "sweeps": "Search, comparison, ablation",
    "figures": "Figures",
    "records": "Records",
    "linalg": "Krylov methods",
}
# Parts of a page, by the modules that define its names; a part of a package that is not here has the module's title.
CHAPTERS: dict[str, dict[str, tuple[str, ...]]] = {
    "transforms": {
        "Composition": ("_composition", "_elementwise", "_functions"),
        "Statistics of the gradient": ("_statistics", "_bias_correction", "_gradient_difference", "_averaging"),
        "Momentum and look-ahead": ("_momentum", "_nesterov", "_dampening", "_gradient_point"),
        "Adaptive scaling": (
            "_scale_by_adam", "_scale_by_rms", "_scale_by_adan", "_scale_by_lion", "_adaptive", "_factored", "_rprop"
        ),
        "Newton's method": ("_newton",),
        "Limits": ("_clipping", "_projections"),
        "Steps, decay and noise": ("_steps", "_noise"),
        "Schedules": ("_schedules",),
        "Telemetry": ("_tap",),
        "Values: printing, JSON, and constructors of one's own": (
            "_constructors", "_expression", "_from_json", "_spec"
        ),
    },
    "curvature": {
        "Operators": ("operators",),
        "Spectra": ("spectrum",),
        "Points and directions": ("points",),
        "Trust": ("_audit", "_noise_floor"),
    },
    "sweeps": {
        "Search": ("_search",),
        "Comparison and ablation": ("_compare",),
        "Search spaces": ("_space",),
        "Statistics of scores": ("_statistics",),
        "Execution": ("_execution",),
    },
}  # fmt: skip
OTHER = "Further names"


@dataclasses.dataclass(frozen=True)
class Public:
    """A public object: where it is imported from, what it is, and its source."""

    package: str  # "jaxopt_study.curvature"
    name: str
    value: Any

    @property
    def path(self) -> str:
        """Its full public path."""
        return f"{self.package}.{self.name}"

    @property
    def doc(self) -> str:
        """Its docstring; empty for an alias."""
        own = inspect.isclass(self.value) or inspect.isroutine(self.value)
        return (inspect.getdoc(self.value) or "") if own else ""

    @property
    def module(self) -> str:
        """The module that defines it."""
        return getattr(self.value, "__module__", self.package)


def module(package: str) -> ModuleType:
    """Return a package by its short name, "" for the root."""
    return importlib.import_module(f"{PACKAGE}.{package}" if package else PACKAGE)


def public(package: str) -> list[Public]:
    """Return what a package declares public, modules left out."""
    owner = module(package)
    values = {name: getattr(owner, name) for name in owner.__all__}
    return [Public(owner.__name__, name, value) for name, value in values.items() if not inspect.ismodule(value)]


def public_of_module(owner: ModuleType) -> list[Public]:
    """Return functions and classes that a module defines itself, without a leading underscore."""
    return [
        Public(owner.__name__, name, value)
        for name, value in vars(owner).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == owner.__name__
    ]


@functools.cache
def everything() -> dict[str, Public]:
    """Return every public object by its full path."""
    found = [item for package in ("", *PACKAGES) if package != "linalg" for item in public(package)]
    krylov = module("linalg")
    found += [item for name in krylov.__all__ for item in public_of_module(getattr(krylov, name))]
    return {item.path: item for item in found}


def _node(value: Any) -> Any:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(value)))).body[0]
    except (OSError, TypeError, SyntaxError):
        return None


def signature(value: Any, *, method: bool = False) -> str:
    """Return a function's arguments and result as the source writes them: `(decay: ScalarLike, *, …) -> Transform`."""
    node = _node(value)
    if not isinstance(node, ast.FunctionDef):
        return str(inspect.signature(value)) if callable(value) else ""
    if method and node.args.args:
        node.args.args = node.args.args[1:]
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(node.args)}){result}"


def fields(value: type) -> dict[str, str]:
    """Return the types of a class's fields, with their defaults, as the source writes them."""
    found: dict[str, str] = {}
    for base in reversed([base for base in value.__mro__ if base.__module__.startswith(PACKAGE)]):
        for node in getattr(_node(base), "body", ()):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                default = f" = {ast.unparse(node.value)}" if isinstance(node.value, ast.Constant) else ""
                found[node.target.id] = ast.unparse(node.annotation) + default
    return found


def members(value: type) -> list[tuple[str, Any]]:
    """Return the public methods and properties that a class of the package documents, inherited ones included."""
    found: dict[str, Any] = {}
    for base in reversed([base for base in value.__mro__ if base.__module__.startswith(PACKAGE)]):
        for name, member in vars(base).items():
            inner = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            kind = isinstance(inner, property | functools.cached_property) or inspect.isfunction(inner)
            if kind and not name.startswith("_") and inspect.getdoc(inner):
                found[name] = inner
    return list(found.items())


def chapters(package: str) -> dict[str, list[Public]]:
    """Return a package's public objects by the parts of its page; one part without a title for a small package."""
    titles = CHAPTERS.get(package)
    if titles is None:
        return {"": public(package)}
    part = {name: title for title, names in titles.items() for name in names}
    found: dict[str, list[Public]] = {title: [] for title in titles}
    for item in public(package):
        name = item.module.removeprefix(item.package).strip(".").split(".")[0]
        found.setdefault(part.get(name, OTHER), []).append(item)
    return {title: items for title, items in found.items() if items}
