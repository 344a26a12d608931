"""Small pictures of cards: SVG elements in the colours of the page, without Matplotlib."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from jaxopt_study._display._numbers import number

WIDTH, HEIGHT = 280, 120
LEFT, RIGHT, TOP, BOTTOM = 8, 8, 18, 16
MOST_POINTS = 160  # of a line
MOST_ROWS = 10  # intervals
ROW = 13  # height of an interval
LABEL = 96  # width of the labels of intervals
MOST_CELLS = 24  # of each side of a heat map


def curves(
    x: Any,
    lines: Sequence[Any],
    *,
    label: str,
    band: tuple[Any, Any] | None = None,
    marks: Sequence[float] = (),
    log_x: bool = False,
    log_y: bool = False,
    linear_within: float | None = None,
    xlabel: str = "",
) -> str:
    """Return a picture of curves, the first two in the two accents.

    Args:
        x: Horizontal positions, shape (K,).
        lines: Heights, each of shape (K,); what is not finite is left out.
        label: What the picture shows, for readers who do not see it.
        band: Lower and upper end of a band, each of shape (K,).
        marks: Positions of vertical lines.
        log_x: Whether the horizontal axis is logarithmic.
        log_y: Whether the vertical axis is logarithmic.
        linear_within: Distance from 0 beyond which the horizontal axis is logarithmic; None for a linear axis.
        xlabel: The horizontal quantity.

    Returns:
        An SVG element.
    """
    across = _scaled(x, log_x)
    heights = [_scaled(line, log_y) for line in lines]
    edges = [_scaled(edge, log_y) for edge in band] if band else []
    extra = _scaled(np.asarray(marks, float), log_x)
    if linear_within is not None:
        across, extra = np.arcsinh(across / linear_within), np.arcsinh(extra / linear_within)
    left, right = _limits(np.concatenate([across, extra]))
    bottom, top = _limits(np.concatenate(heights))
    at = lambda values: LEFT + (WIDTH - LEFT - RIGHT) * (values - left) / (right - left)
    up = lambda values: (
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (np.clip(values, bottom, top) - bottom) / (top - bottom)
    )
    parts = [f'<path class="f" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>']
    if edges:
        shown = np.flatnonzero(np.isfinite(across) & np.isfinite(edges[0]) & np.isfinite(edges[1]))
        shown = _thinned(shown)
        if len(shown) > 1:
            outline = [*zip(at(across[shown]), up(edges[0][shown]), strict=True)]
            outline += [*zip(at(across[shown]), up(edges[1][shown]), strict=True)][::-1]
            parts.append(f'<path class="af" fill-opacity=".2" d="M{"L".join(_point(p) for p in outline)}Z"/>')
    for index, height in reversed([*enumerate(heights)]):
        colour = "a" if index == 0 else "b"
        for piece in _pieces(np.isfinite(across) & np.isfinite(height)):
            piece = _thinned(piece)
            points = [_point(p) for p in zip(at(across[piece]), up(height[piece]), strict=True)]
            dashed = ' stroke-dasharray="4 2"' if index else ""
            parts.append(
                f'<path class="{colour}" fill="none" stroke-width="1.6"{dashed} d="M{"L".join(points)}"/>'
                if len(points) > 1
                else f'<circle class="{colour}f" cx="{points[0].split()[0]}" cy="{points[0].split()[1]}" r="2.5"/>'
            )
    parts += [
        f'<path class="b" stroke-dasharray="3 2" d="M{at(mark):.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
        for mark in extra[np.isfinite(extra)]
    ]
    if linear_within is not None:
        left, right = (linear_within * float(np.sinh(end)) for end in (left, right))
    parts += _ends((left, right), (bottom, top), log_x, log_y, xlabel)
    return _svg(parts, HEIGHT, label)


def density(density: Any, *, label: str, xlabel: str, marks: Sequence[float] = ()) -> str:
    """Return a picture of a `SpectralDensity` with its outliers.

    Args:
        density: The result.
        label: What the picture shows, for readers who do not see it.
        xlabel: The horizontal quantity.
        marks: Positions of further vertical lines.

    Returns:
        An SVG element.
    """
    grid, heights, errors = (np.asarray(x, float) for x in (density.grid, density.density, density.density_error))
    width, span = float(density.kernel_width), float(np.ptp(grid))
    marks = [*np.asarray(density.outliers.values, float)[: int(density.outliers.count)], *marks]
    far = [mark for mark in marks if np.isfinite(mark) and not grid[0] - span <= mark <= grid[-1] + span]
    return curves(
        grid,
        [heights],
        band=(np.maximum(heights - 2 * errors, 0), heights + 2 * errors),
        label=label,
        marks=marks,
        linear_within=2 * width if far and width > 0 else None,
        xlabel=xlabel,
    )


def scatter(
    x: Any, y: Any, *, label: str, chosen: Any = None, log_x: bool = False, log_y: bool = False, xlabel: str = ""
) -> str:
    """Return a picture of points, the chosen ones in the second accent.

    Args:
        x: Horizontal positions, shape (n,).
        y: Heights, shape (n,); what is not finite is left out.
        label: What the picture shows, for readers who do not see it.
        chosen: A mask of shape (n,); None for no chosen point.
        log_x: Whether the horizontal axis is logarithmic.
        log_y: Whether the vertical axis is logarithmic.
        xlabel: The horizontal quantity.

    Returns:
        An SVG element.
    """
    across, heights = _scaled(x, log_x), _scaled(y, log_y)
    shown = np.flatnonzero(np.isfinite(across) & np.isfinite(heights))
    shown = _thinned(shown)
    left, right = _limits(across[shown])
    bottom, top = _limits(heights[shown])
    chosen = np.zeros(len(across), bool) if chosen is None else np.asarray(chosen, bool)
    parts = [f'<path class="f" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>']
    for i in sorted(shown.tolist(), key=lambda i: chosen[i]):
        cx = LEFT + (WIDTH - LEFT - RIGHT) * (across[i] - left) / (right - left)
        cy = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (heights[i] - bottom) / (top - bottom)
        kind, radius, opacity = ("bf", 3.5, 1) if chosen[i] else ("af", 2.5, 0.7)
        parts.append(f'<circle class="{kind}" fill-opacity="{opacity}" cx="{cx:.1f}" cy="{cy:.1f}" r="{radius}"/>')
    parts += _ends((left, right), (bottom, top), log_x, log_y, xlabel)
    return _svg(parts, HEIGHT, label)


def intervals(
    rows: Sequence[tuple[str, float, float, float]], *, label: str, marks: Sequence[float] = (), log: bool = False
) -> str:
    """Return a picture of estimates with their intervals, one below the other.

    Args:
        rows: Name, estimate, lower and upper end; the first ten are drawn.
        label: What the picture shows, for readers who do not see it.
        marks: Positions of vertical lines, such as a limit.
        log: Whether the axis is logarithmic.

    Returns:
        An SVG element.
    """
    rows = list(rows)[:MOST_ROWS]
    numbers = _scaled([row[1:] for row in rows], log).reshape(-1, 3)
    extra = _scaled(np.asarray(marks, float), log)
    low, high = _limits(np.concatenate([numbers.ravel(), extra]))
    left = LABEL if any(row[0] for row in rows) else LEFT
    at = lambda value: left + (WIDTH - RIGHT - left) * (np.clip(value, low, high) - low) / (high - low)
    above = TOP // 2
    height = above + BOTTOM + ROW * max(len(rows), 1)
    parts = [f'<path class="f" d="M{left} {height - BOTTOM}H{WIDTH - RIGHT}"/>']
    parts += [
        f'<path class="b" stroke-dasharray="3 2" d="M{at(mark):.1f} {above - 4}V{height - BOTTOM}"/>'
        for mark in extra[np.isfinite(extra)]
    ]
    for place, (row, (middle, lower, upper)) in enumerate(zip(rows, numbers, strict=True)):
        y = above + ROW * (place + 0.5)
        name = row[0] if len(row[0]) <= 17 else f"{row[0][:16]}…"
        parts.append(_text(left - 6, y + 3.5, name, "end"))
        if not np.isnan([lower, upper]).any():
            parts.append(
                f'<path class="a" stroke-width="3" stroke-opacity=".5" d="M{at(lower) - 0.75:.1f} {y:.1f}'
                f'H{at(upper) + 0.75:.1f}"/>'
            )
        if np.isfinite(middle):
            parts.append(f'<circle class="af" cx="{at(middle):.1f}" cy="{y:.1f}" r="3"/>')
    ends = (10.0**low, 10.0**high) if log else (low, high)
    parts.append(_text(left, height - 4, number(float(ends[0]), 3)))
    parts.append(_text(WIDTH - RIGHT, height - 4, number(float(ends[1]), 3), "end"))
    return _svg(parts, height, label)


def complex_plane(values: Any, *, label: str) -> str:
    """Return a picture of complex numbers around the unit circle."""
    values = np.asarray(values, complex)
    values = values[np.isfinite(values)]
    reach = 1.15 * max(1.0, float(np.abs(values).max(initial=0.0)))
    middle, scale = 60.0, 56.0 / reach
    parts = [
        f'<circle class="f" cx="{middle}" cy="{middle}" r="{scale:.1f}"/>',
        f'<path class="f" d="M4 {middle}H116M{middle} 4V116"/>',
    ]
    parts += [
        f'<circle class="{"bf" if abs(value) > 1 else "af"}" cx="{middle + scale * value.real:.1f}" '
        f'cy="{middle - scale * value.imag:.1f}" r="3"/>'
        for value in values
    ]
    parts.append(_text(124, 14, "unit circle: stable inside"))
    return _svg(parts, HEIGHT, label)


def heat(matrix: Any, *, label: str) -> str:
    """Return a picture of a matrix: the first accent for positive entries, the second for negative ones."""
    matrix = np.asarray(matrix, float)
    rows, columns = (np.unique(np.linspace(0, n - 1, min(n, MOST_CELLS)).round().astype(int)) for n in matrix.shape)
    matrix = matrix[np.ix_(rows, columns)]
    size = np.abs(matrix[np.isfinite(matrix)]).max(initial=0.0) or 1.0
    side = min((HEIGHT - 8) / max(matrix.shape), 18.0)
    parts = [
        f'<rect class="{"af" if value >= 0 else "bf"}" x="{4 + side * j:.1f}" y="{4 + side * i:.1f}" '
        f'width="{side:.1f}" height="{side:.1f}" fill-opacity="{abs(value) / size:.2f}"/>'
        for i, row in enumerate(matrix)
        for j, value in enumerate(row)
        if np.isfinite(value)
    ]
    outline = f'width="{side * matrix.shape[1]:.1f}" height="{side * matrix.shape[0]:.1f}"'
    parts.append(f'<rect class="f" x="4" y="4" {outline}/>')
    return _svg(parts, 8 + side * matrix.shape[0], label)


def _ends(across: tuple[float, float], up: tuple[float, float], log_x: bool, log_y: bool, xlabel: str) -> list[str]:
    """Return the labels of the ends of both axes."""
    left, right = (10.0**end if log_x else end for end in across)
    bottom, top = (10.0**end if log_y else end for end in up)
    return [
        _text(LEFT, HEIGHT - 4, number(float(left), 3)),
        _text(WIDTH - RIGHT, HEIGHT - 4, number(float(right), 3), "end"),
        _text(WIDTH / 2, HEIGHT - 4, xlabel, "middle"),
        _text(LEFT, 10, f"↕ {number(float(bottom), 3)} to {number(float(top), 3)}"),
    ]


def _svg(parts: Sequence[str], height: float, label: str) -> str:
    size = f'width="{WIDTH}" height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(label)}" {size}>{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>' if text else ""


def _point(point: tuple[float, float]) -> str:
    return f"{point[0]:.1f} {point[1]:.1f}"


def _scaled(values: Any, log: bool) -> np.ndarray:
    values = np.asarray(values, float)
    if not log:
        return values
    return np.log10(values, where=values > 0, out=np.full(values.shape, np.nan))


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Return the ends of an axis that shows all finite numbers."""
    seen = values[np.isfinite(values)]
    low, high = (float(seen.min()), float(seen.max())) if seen.size else (0.0, 1.0)
    return (low, high) if high > low else (low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2)


def _pieces(shown: np.ndarray) -> list[np.ndarray]:
    """Return the places of a line, broken where a value is missing."""
    places = np.flatnonzero(shown)
    return [piece for piece in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if piece.size]


def _thinned(places: np.ndarray) -> np.ndarray:
    if len(places) <= MOST_POINTS:
        return places
    return places[np.linspace(0, len(places) - 1, MOST_POINTS).round().astype(int)]
