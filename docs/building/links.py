"""Names in backticks as links to the reference; a name of the package that does not exist is a warning of the build."""

import inspect
import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

from building import source

_LOGGER = logging.getLogger(__name__)
_PACKAGES = "|".join(map(re.escape, sorted(source.PACKAGES, reverse=True)))  # `problems.planar` before `problems`
_DOTTED = re.compile(rf"(?:{source.PACKAGE}\.)?({_PACKAGES})((?:\.\w+)+)(?:\(.*\))?", re.DOTALL)


def target(text: str) -> str | None:
    """Return the full path of what a piece of code names, "" if it names nothing, None if it names no package.

    Args:
        text: Code in a line of text, such as `curvature.sharpness` or `sweeps.search(…)`.

    Returns:
        The path of the public object; of its class if an attribute is named.
    """
    if not (found := _DOTTED.fullmatch(text)):
        return None
    package, names = found[1], found[2].strip(".").split(".")
    path = f"{source.PACKAGE}.{package}.{names[0]}"
    if path in source.everything():
        value = source.everything()[path].value
        return path if not names[1:] or hasattr(value, names[1]) or names[1] in source.fields(value) else ""
    return None if inspect.ismodule(getattr(source.module(package), names[0], None)) else ""


class LinkedNames(SphinxTransform):
    """Make a literal that names a public object a reference to it."""

    default_priority = 500

    def apply(self, **_: Any) -> None:
        """Replace the literals of a document."""
        for node in list(self.document.findall(nodes.literal)):
            if isinstance(node.parent, nodes.reference | addnodes.pending_xref):
                continue
            path = target(node.astext())
            if path == "":
                _LOGGER.warning("%s is not a public name of the package", node.astext(), location=node, type="names")
            elif path:
                node.replace_self(reference(path, node.deepcopy()))


def reference(path: str, shown: nodes.Node) -> addnodes.pending_xref:
    """Return a reference to a public object, to be resolved when all pages are read."""
    return addnodes.pending_xref("", shown, refdomain="py", reftype="obj", reftarget=path, refexplicit=True)


def resolve(app: Sphinx, env: Any, node: addnodes.pending_xref, shown: nodes.Element) -> nodes.Node | None:
    """Return a link to the public object that a docstring names, in its own package first; None if there is none."""
    if node.get("refdomain") != "py":
        return None
    name = node.get("reftarget", "").removesuffix("()").lstrip(".")
    here = node.get("py:module") or source.PACKAGE
    for path in (f"{here}.{name}", f"{source.PACKAGE}.{name}", *_unique(name)):
        if path in source.everything():
            found = env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, "obj", path, node, shown)
            if found is not None:
                return found
    return None


def _unique(name: str) -> list[str]:
    paths = [path for path in source.everything() if path.endswith(f".{name}")]
    return paths if len(paths) == 1 and (name[:1].isupper() or "_" in name) else []


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect both to the build.

    Returns:
        What may run in parallel.
    """
    app.add_transform(LinkedNames)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
