"""Style of all figures: a colour-blind safe palette, dash patterns and markers."""

import io
import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxopt_study._checks import check_choice, describe_argument
from jaxopt_study.figures._checks import check_names, check_style

# Okabe and Ito's palette, without the yellow, which is hard to see on white paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1)))
MARKERS = "osD^vPX*<>"
# Fixed appearances of the common optimizers in every figure, as positions in the list of appearances. Other names, such
# as a user's own optimizer, get the remaining positions.
KNOWN = {"sgd": 0, "momentum": 1, "adagrad": 2, "adam": 3, "rmsprop": 4, "nesterov": 5, "adadelta": 7}
KNOWN |= {"gd": KNOWN["sgd"], "heavy ball": KNOWN["momentum"]}
SHOWN_DPI = 160  # of a figure in a notebook
MOST_DOTS = 2**16  # Matplotlib's limit
METADATA: Mapping[str, Any] = {"Software": None}  # equal figures give equal bytes, whatever the version of Matplotlib
_NUMBERED = re.compile(r"\s+[\d.]+(e[-+]?\d+)?$")

SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with Matplotlib
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.7,
    "legend.frameon": False,
    "savefig.dpi": 200,
}


@dataclass(frozen=True)
class Appearance:
    """The appearance of one name, the same in every figure.

    Attributes:
        color: A colour.
        linestyle: A dash pattern of Matplotlib.
        marker: A marker.
    """

    color: str
    linestyle: Any
    marker: str

    def line(self, **changes: Any) -> dict[str, Any]:
        """Return the arguments for `Axes.plot`."""
        return {"color": self.color, "linestyle": self.linestyle, "marker": self.marker, "markersize": 4, **changes}


def appearances(names: Iterable[str]) -> dict[str, Appearance]:
    """Return a distinct colour, dash pattern and marker for each name, always the same for the common optimizers.

    A name is that of a common optimizer if it equals it up to case, alone or followed by a number, as in "SGD .01".
    Other names get the remaining appearances, in their order. If there is no common optimizer, or one occurs more than
    once, as with two learning rates, all names are treated alike.

    Args:
        names: The names in the order of the legend; the same names get the same appearances in every figure.

    Returns:
        The appearances by name. The first 33 are all different.

    Example:
        >>> looks = appearances(str(i) for i in range(40))
        >>> len({(look.color, look.linestyle) for look in looks.values()})
        40
        >>> appearances(["Adam", "mine"])["Adam"] == appearances(["sgd", "adam 0.01"])["adam 0.01"]
        True
    """
    names = list(dict.fromkeys(check_names("appearances", "names", names)))
    known = {name: KNOWN.get(_NUMBERED.sub("", name).lower()) for name in names}
    places = {name: place for name, place in known.items() if place is not None}
    if len(set(places.values())) < len(places):
        places = {}
    left = (i for i in itertools.count() if not places or i not in KNOWN.values())
    places |= {name: next(left) for name in [name for name in names if name not in places]}
    return {
        name: Appearance(*(looks[places[name] % len(looks)] for looks in (COLOURS, DASHES, MARKERS))) for name in names
    }


class ShownAxes(Axes):
    """Axes that show their figure in a notebook, so that the last line of a cell may be `result.plot()`."""

    def _repr_png_(self) -> Any:
        return self.figure._repr_png_()  # pyright: ignore[reportAttributeAccessIssue]


class ShownFigure(Figure):
    """A figure that shows itself in a notebook, without pyplot and without a magic."""

    def add_subplot(self, *args: Any, **kwargs: Any) -> Axes:
        """Return new axes, as `Figure.add_subplot` does; rectilinear ones show the figure in a notebook."""
        if not {"projection", "polar", "axes_class"} & set(kwargs) and not (args and isinstance(args[0], Axes)):
            kwargs["axes_class"] = ShownAxes
        return super().add_subplot(*args, **kwargs)

    def _repr_png_(self) -> Any:
        size = self.get_size_inches() * SHOWN_DPI / 2  # twice the dots, for sharp screens
        picture = render(self, dpi=SHOWN_DPI)
        return picture, {"width": round(size[0]), "height": round(size[1])}


def new_figure(width: float | int = 8.0, height: float | int = 4.5, **options: Any) -> Figure:
    """Make an empty figure without a window.

    Args:
        width: Width in inches; 8 fill a page.
        height: Height in inches.
        **options: Arguments of `Figure`.

    Returns:
        The figure, with constrained layout; in a notebook it shows itself. Draw into it inside
        `matplotlib.rc_context(SETTINGS)`.

    Raises:
        TypeError: If Matplotlib does not know an option, or a size is not a number.
        ValueError: If Matplotlib rejects an option's value, or a size is out of range.
    """
    check_style("new_figure", width=width, height=height)
    settings = {"layout": "constrained", "facecolor": "white", **options}
    try:
        figure = ShownFigure(figsize=(width, height), **settings)
    except Exception as error:
        kind = TypeError if isinstance(error, TypeError | AttributeError) else ValueError
        raise kind(f"new_figure: Matplotlib's Figure rejects the options {sorted(options)}: {error}") from error
    FigureCanvasAgg(figure)
    return figure


def render(figure: Figure, *, format: str = "png", dpi: float | int = 200) -> bytes:
    """Render a figure to bytes.

    Args:
        figure: The figure.
        format: "png", "svg" or "pdf".
        dpi: Dots per inch, for "png".

    Returns:
        The contents of a file in that format.

    Example:
        >>> render(new_figure(1, 1))[1:4]
        b'PNG'
    """
    if not isinstance(figure, Figure):
        raise TypeError(f"render needs figure to be a Matplotlib Figure; received {describe_argument(figure)}.")
    check_style("render", dpi=dpi)
    check_choice("render", "format", format, ("png", "svg", "pdf"))
    dots = dpi * figure.get_size_inches()
    if format == "png" and not (dots.min() >= 1 and dots.max() < MOST_DOTS):
        raise ValueError(
            f"render needs 1 to {MOST_DOTS - 1} dots on each side; received {dots[0]:.0f} × {dots[1]:.0f}. Change dpi, "
            "or the size of the figure."
        )
    picture = io.BytesIO()
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(picture, format=format, dpi=dpi, metadata=dict(METADATA) if format == "png" else None)
    return picture.getvalue()
