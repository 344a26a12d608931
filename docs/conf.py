"""Configuration of the site. `make docs` builds it; warnings are errors."""

import os
import re
import sys
from importlib import metadata
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from building import written  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402
from sphinx.util import logging  # noqa: E402

project = "jaxopt_study"
author = "The authors of jaxopt_study"
release = version = metadata.version("jaxopt-study")

extensions = ["myst_nb", "sphinx_copybutton", "building.links", "building.mathematics"]
exclude_patterns = ["building", "written", "_build"]
suppress_warnings = ["ref.python"]  # a name that two packages define: `Space` of sweeps and of block Lanczos
default_role = "code"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks are shown as they are stored; the tests execute them
nb_merge_streams = True
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # no scripts from elsewhere
html_math_renderer = "mathml"
python_maximum_signature_line_length = 90
toc_object_entries_show_parents = "hide"
add_module_names = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

smartquotes = False  # "LA" is an argument

html_theme = "furo"
html_title = "jaxopt_study"
html_static_path = ["_static"]
html_extra_path = ["written/site"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "github-dark"

_ELSEWHERE = re.compile(r"""<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=["'](?:https?:)?//[^"']+""")


def _refuse_network(app: Sphinx, error: Exception | None) -> None:
    """Warn of every script, style, picture or font that a page would load from a network."""
    if error is None:
        for page in sorted(Path(app.outdir).rglob("*.html")):
            for found in set(_ELSEWHERE.findall(page.read_text(encoding="utf-8"))):
                logging.getLogger(__name__).warning("%s loads from a network: %s", page.name, found)


def setup(app: Sphinx) -> None:
    """Write the pages whose source is elsewhere, and look at what was built."""
    written.write_all()
    app.connect("build-finished", _refuse_network)
