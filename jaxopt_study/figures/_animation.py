"""`race_animation`: animation of optimizers on the contours of a planar problem."""

import io
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from PIL import Image

from jaxopt_study.figures._checks import check_style
from jaxopt_study.figures._contour_trajectories import checked_paths, crop, draw_contours, draw_landmarks
from jaxopt_study.figures._style import COLOURS, SETTINGS, appearances, new_figure
from jaxopt_study.problems import Problem


def race_animation(
    problem: Problem, paths: Mapping[str, Any], *, title: str = "", seconds: float | int = 6.0, dpi: float | int = 100
) -> bytes:
    """Draw optimizers moving over the contours of a planar problem, beside their losses, as an animated GIF.

    Every frame shows all optimizers at the same step. The last frame is shown for two seconds.

    Args:
        problem: A problem with a `domain`.
        paths: The paths by name, shape (points, 2), from the start.
        title: Title of the animation.
        seconds: Duration of one round, without the pause at the last frame.
        dpi: Dots per inch; the image is 9 inches wide.

    Returns:
        The contents of a GIF file, one frame per point.

    Raises:
        ValueError: As in `trajectories`.

    Example:
        >>> from jaxopt_study import problems
        >>> gif = race_animation(problems.planar.bowl(), {"a": [[-7, 2], [0, 0], [1, 1]]}, dpi=40)
        >>> gif[:6], Image.open(io.BytesIO(gif)).n_frames
        (b'GIF89a', 3)
    """
    check_style("race_animation", title=title, seconds=seconds, dpi=dpi)
    points = checked_paths("race_animation", problem, paths)
    looks = appearances(points)
    count = max(len(path) for path in points.values())
    lowest = min((minimum.value for minimum in problem.minima), default=None)
    losses = {name: np.asarray(problem.loss(jnp.asarray(path.T), None), dtype=float) for name, path in points.items()}
    starts = {name: values[0] for name, values in losses.items()}
    if not np.isfinite(list(starts.values())).all():
        raise ValueError(f"race_animation needs a finite loss at the start of every path; received {starts}.")
    highest = max(starts.values())
    with matplotlib.rc_context(SETTINGS):
        figure = new_figure(9.0, 4.0, dpi=dpi, layout=ConstrainedLayoutEngine(w_pad=0.12))
        plane, chart = figure.subplots(1, 2, width_ratios=(1.55, 1))
        draw_contours(plane, problem)
        plane.set(xlabel="x", ylabel="y")
        crop(plane, problem, points)
        tails, heads, curves = {}, {}, {}
        for name in points:
            (tails[name],) = plane.plot(
                [], [], **looks[name].line(marker=None, linestyle="-", linewidth=1.2, alpha=0.7)
            )
            (heads[name],) = plane.plot(
                [], [], **looks[name].line(linestyle="none", markersize=8), markeredgecolor="white", zorder=7
            )
            (curves[name],) = chart.plot(
                [], [], **looks[name].line(linestyle="-", markersize=5), markevery=[-1], clip_on=False
            )
        draw_landmarks(plane, problem, next(iter(points.values()))[0])
        finite = np.concatenate([values[np.isfinite(values)] for values in losses.values()])
        logarithmic = lowest == 0.0 and bool((finite > 0).any())
        if logarithmic:
            chart.set_yscale("log")
            finite = finite[finite > 0]
            chart.set_ylim(max(finite.min(), 1e-12) / 2, 2 * highest)
        elif finite.min() < highest:
            chart.set_ylim(finite.min(), highest)
        chart.set(xlabel="step", ylabel="loss f(x, y)", xlim=(0, max(count - 1, 1)))
        figure.legend(
            handles=[Line2D([], [], **looks[name].line(linestyle="-", markersize=6), label=name) for name in points],
            loc="outside lower center", ncols=min(len(points), 7), columnspacing=1.2, handlelength=2.6,
        )  # fmt: skip
        caption = figure.suptitle(title or problem.name, x=0.01, ha="left", fontsize=11)
        canvas = FigureCanvasAgg(figure)
        frames = []
        for step in range(count):
            for name, path in points.items():
                here = path[: step + 1]
                tails[name].set_data(*here.T)
                heads[name].set_data(*here[-1:].T)
                curves[name].set_data(np.arange(len(here)), losses[name][: step + 1])
            caption.set_text(f"{title or problem.name}: step {step}")
            canvas.draw()
            if step == 0:
                figure.set_layout_engine("none")  # the same layout in every frame
            frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    return _gif(frames, seconds)


# One palette for all frames, made of the drawn colours: colours neither flicker nor drift, and static regions take no
# space.
def _gif(frames: list[Image.Image], seconds: float) -> bytes:
    strengths = np.linspace(1, 0.1, 14)
    drawn = [255 - strength * (255 - 255 * np.array(to_rgb(colour))) for colour in COLOURS for strength in strengths]
    greys = [np.full(3, level) for level in np.linspace(0, 255, 32)]
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.round([*drawn, *greys]).astype(np.uint8).tobytes())
    flat = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    duration = [max(20, round(1000 * seconds / len(frames)))] * len(frames)
    duration[-1] += 2000
    gif = io.BytesIO()
    flat[0].save(gif, format="GIF", save_all=True, append_images=flat[1:], duration=duration, loop=0, disposal=1)
    return gif.getvalue()
