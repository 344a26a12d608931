"""Summary of the stored results in benchmarks/README.md, as a table and a picture.

python benchmarks/overview.py
"""

import json
import re
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from sidebyside import RESULTS, table

from jaxopt_study.figures import COLOURS, SETTINGS, new_figure, render

README = Path(__file__).parent / "README.md"
PICTURE = Path(__file__).parent / "overview.png"
BEGIN, END = "<!-- The rows are written by overview.py. -->\n", "<!-- End of what is written. -->"
HEAD = "| Result | What | Reached | Target | Holds | Load |\n|---|---|---|---|---|---|\n"
# What is compared with a peer in time: a result, and what its checks' names end in.
PEERS = {
    "curvature_hvp.json": "PyHessian's form|torch's",
    "curvature_top5.json": "curvlinops|pyhessian|eigenthings|matfree",
    "curvature_slq_peers.json": "curvlinops|pyhessian|eigenthings|matfree",
    "curvature_trace.json": "pyhessian",
    "curvature_first_call.json": "eigenthings",
    "epoch.json": "torch fused",
    "first_epoch.json": "torch fused",
    "mlp_step.json": "torch fused",
    "resnet_step.json": "torch fused",
    "cnn.json": "python loop|torch",
    "search_book.json": "torch|the book's NumPy",
}


def ratios() -> list[tuple[str, float, float]]:
    """Return (what, time in times of the peer, target) of every stored comparison with a peer."""
    found = []
    for name, ends in PEERS.items():
        record = json.loads((RESULTS / name).read_text())
        for check in record["checks"]:
            if re.search(rf" / ({ends})$", check["name"]):
                label = f"{Path(name).stem.removeprefix('curvature_').replace('_', ' ')}: {check['name']}"
                found.append((label, check["value"], check["bound"]))
    return found


def picture() -> Figure:
    """Draw the time of every comparison with a peer in times of the peer's, best first, with its target."""
    rows = sorted(ratios(), key=lambda row: row[1])
    with matplotlib.rc_context(SETTINGS):
        figure = new_figure(8.0, 1.2 + 0.26 * len(rows))
        axes = figure.add_subplot()
        axes.axvline(1.0, color="#7F7F7F", linewidth=1.0)
        for place, (_, value, target) in enumerate(rows):
            reached = value <= target
            axes.plot([value], [place], "o", color=COLOURS[0 if reached else 1], markersize=6, zorder=3)
            axes.plot([target], [place], "|", color="black", markersize=11, markeredgewidth=1.6)
            axes.annotate(f"{value:.2f}", (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=9)
        axes.set_yticks(range(len(rows)), [label for label, _, _ in rows], fontsize=9)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("time / time of the peer   (left of 1: faster)")
        for colour, text in ((COLOURS[0], "target reached"), (COLOURS[1], "target missed")):
            axes.plot([], [], "o", color=colour, label=text)
        axes.plot([], [], "|", color="black", markersize=11, markeredgewidth=1.6, linestyle="none", label="target")
        figure.legend(loc="outside upper right", ncols=3, fontsize=9, frameon=False)
    return figure


def written(text: str) -> str:
    """Return the README with its rows as stored."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{HEAD}{table()}\n\n{END}{after}"


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
    PICTURE.write_bytes(render(picture()))
