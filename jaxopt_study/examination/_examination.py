"""`Examination`: what was measured at a point, its table, figure, page and file."""

import html
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from jaxopt_study import figures, records
from jaxopt_study._display import Card, card_html
from jaxopt_study._display import density as picture_of_density
from jaxopt_study.examination._findings import Finding
from jaxopt_study.examination._rows import edge_and_rate, interval, table_rows
from jaxopt_study.files import check_place

_HEAD = ("quantity", "value", "error", "products")


@dataclass(frozen=True)
class Examination:
    """Curvature, stability and next step at a point, each with its error.

    Attributes:
        results: Results by stage, as plain values: the fields of the functions of `curvature` and `dynamics`.
        errors: Messages of the stages that failed.
        seconds: Time of each stage, compilation included.
        size: Number of parameters.
        budget: The budget.
        precision: Matmul precision of the products.
        findings: What the results mean together, in words, and what to try.
        batch_size: Number of examples that a product took at a time, given or chosen; None for all at once, or for the
            batches of a loader.
    """

    results: Mapping[str, Mapping[str, Any]]
    errors: Mapping[str, str]
    seconds: Mapping[str, float]
    size: int
    budget: str
    precision: str
    findings: tuple[Finding, ...] = field(default=())
    batch_size: int | None = None

    @property
    def num_matvecs(self) -> int:
        """Number of products with the Hessian."""
        return sum(int(result["num_matvecs"]) for result in self.results.values())

    @property
    def title(self) -> str:
        """Size, cost and time in one line."""
        batches = "" if self.batch_size is None else f" in batches of {self.batch_size:,}"
        return (
            f"{self.size:,} parameters, {self.num_matvecs:,} products{batches}, {sum(self.seconds.values()):.1f} s "
            f'(budget "{self.budget}")'
        )

    def __str__(self) -> str:
        rows = [_HEAD, *table_rows(self.results)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        told = [f"- {finding.text} {finding.advice}".rstrip() for finding in self.findings]
        return "\n".join([f"Examination: {self.title}", "", *lines, "", *told])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        notes = [f"{subject}. {text} {advice}".rstrip() for subject, text, advice in self.findings]
        density = self.results.get("spectral_density")
        picture = None if density is None else lambda: _picture(density)
        return card_html(Card(f"Examination: {self.title}", [*table_rows(self.results)], _HEAD, notes, picture))

    def plot(self, ax: Any = None) -> Any:
        """Draw the spectral density with the optimizer's limit in one axes; `figure` draws all of the spectrum.

        Args:
            ax: Axes to draw in; None makes a figure with one.

        Returns:
            The axes.

        Raises:
            ValueError: If the budget did not include the spectral density.
        """
        if "spectral_density" not in self.results:
            raise ValueError(
                f'An examination draws its spectrum; that of the budget {self.budget!r} has none. Use budget="minutes".'
            )
        return figures.plot_density(self.results["spectral_density"], ax, edge=edge_and_rate(self.results)[0])

    def to_pandas(self) -> Any:
        """Return the table as a pandas frame, one row for each quantity."""
        import pandas as pd

        return pd.DataFrame(list(table_rows(self.results)), columns=list(_HEAD)).set_index("quantity")

    def figure(self) -> Any:
        """Draw the spectrum with the optimizer's limit.

        Returns:
            A Matplotlib figure.

        Raises:
            ValueError: If the budget did not include the spectrum.
        """
        if not {"eigenpairs", "spectral_density"} & set(self.results):
            raise ValueError(
                f'An examination draws its spectrum; that of the budget {self.budget!r} has none. Use budget="minutes".'
            )
        (edge, rate), title = edge_and_rate(self.results), self.title.replace("$", r"\$")  # no formulas of a file
        if edge is None and "preconditioned" in self.results:
            title += f"\npreconditioned sharpness / threshold: {interval(*self.results['preconditioned']['ratio'])}"
        return figures.spectrum(self.results, title=title, edge=edge, rate=rate)

    def save(self, path: str | Path) -> Path:
        """Write the examination as a record.

        Args:
            path: Name of the file; ".json" is customary.

        Returns:
            The path.

        Raises:
            PathError: If the file cannot be written.
        """
        content = {
            "stages": self.results, "errors": self.errors, "seconds": self.seconds, "size": self.size,
            "findings": [finding._asdict() for finding in self.findings],
        }  # fmt: skip
        config = {"budget": self.budget, "precision": self.precision, "batch_size": self.batch_size}
        return records.save(records.Record("examination", "examination", config=config, results=content), path)

    @classmethod
    def load(cls, path: str | Path) -> "Examination":
        """Read an examination that `save` has written.

        Args:
            path: The file.

        Returns:
            The examination.

        Raises:
            RecordError: If the file holds something else.
        """
        record = records.load(path)
        try:
            results, config = record.results, record.config
            batch_size = config.get("batch_size")
            found = cls(
                results=results["stages"], errors={name: str(told) for name, told in results["errors"].items()},
                seconds={name: float(time) for name, time in results["seconds"].items()},
                size=int(results["size"]), budget=str(config["budget"]), precision=str(config["precision"]),
                findings=tuple(Finding(**{k: str(v) for k, v in one.items()}) for one in results["findings"]),
                batch_size=None if batch_size is None else int(batch_size),
            )  # fmt: skip
            str(found)  # reads every number that a table shows
        except records.MALFORMED as error:
            raise records.RecordError(
                f"{path} does not hold an examination ({type(error).__name__}: {error}). Save it again."
            ) from error
        return found

    def report(self, path: str | Path) -> Path:
        """Write one page with findings, table and figure, which needs no other file and no network.

        Args:
            path: Name of the page, such as "report.html".

        Returns:
            The path.

        Raises:
            PathError: If the file cannot be written.
        """
        path = check_place(path)
        picture = ""
        if {"eigenpairs", "spectral_density"} & set(self.results):
            image = b64encode(figures.render(self.figure(), dpi=150)).decode()
            picture = f'<img alt="spectrum" src="data:image/png;base64,{image}">'
        page = _PAGE.format(
            style=_STYLE, title=html.escape(self.title), findings=self._findings(), picture=picture, table=self._table()
        )
        return records.write_atomically(path, page.encode())

    def _findings(self) -> str:
        items = "".join(
            f"<li><b>{html.escape(subject)}.</b> {html.escape(text)} <i>{html.escape(advice)}</i></li>"
            for subject, text, advice in self.findings
        )
        return f"<ul>{items}</ul>"

    def _table(self) -> str:
        def row(cells: tuple[str, ...], kind: str) -> str:
            return "<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in cells) + "</tr>"

        body = "".join(row(cells, "td") for cells in table_rows(self.results))
        return f'<table style="text-align:left">{row(_HEAD, "th")}{body}</table>'


def _picture(density: Mapping[str, Any]) -> str:
    """Return the small picture of a spectral density that is held as plain values."""
    apart = [value for value in density["outliers"]["values"] if np.isfinite(value)]
    outliers = SimpleNamespace(values=apart, count=len(apart))
    found = SimpleNamespace(**{name: density[name] for name in _DRAWN}, outliers=outliers)
    return picture_of_density(found, label="spectral density; dashed lines are outliers", xlabel="λ")


_DRAWN = ("grid", "density", "density_error", "kernel_width")
_STYLE = """:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;
padding:1rem}table{border-collapse:collapse}td,th{padding:.2rem 1rem .2rem 0;text-align:left;vertical-align:top}
img{max-width:100%;background:#fff}.wide{overflow-x:auto}"""
_PAGE = """<!doctype html><html lang=en><head><meta charset=utf-8>
<meta name=viewport content="width=device-width,initial-scale=1"><title>Examination</title><style>{style}</style></head>
<body><h1>Examination of a point</h1><p>{title}</p>{findings}{picture}<div class=wide>{table}</div></body></html>
"""
