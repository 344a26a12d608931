"""Display of results: a short table in a terminal, and a card with a small picture in a notebook."""

from jaxopt_study._display._card import Card as Card
from jaxopt_study._display._card import NotShownError as NotShownError
from jaxopt_study._display._card import array as array
from jaxopt_study._display._card import displayed as displayed
from jaxopt_study._display._card import plotted as plotted
from jaxopt_study._display._card import products as products
from jaxopt_study._display._card import scalar as scalar
from jaxopt_study._display._card import tabulated as tabulated
from jaxopt_study._display._card import work as work
from jaxopt_study._display._html import card_html as card_html
from jaxopt_study._display._numbers import around as around
from jaxopt_study._display._numbers import bounds as bounds
from jaxopt_study._display._numbers import count as count
from jaxopt_study._display._numbers import extent as extent
from jaxopt_study._display._numbers import memory as memory
from jaxopt_study._display._numbers import number as number
from jaxopt_study._display._numbers import percent as percent
from jaxopt_study._display._numbers import seconds as seconds
from jaxopt_study._display._numbers import several as several
from jaxopt_study._display._numbers import with_error as with_error
from jaxopt_study._display._picture import complex_plane as complex_plane
from jaxopt_study._display._picture import curves as curves
from jaxopt_study._display._picture import density as density
from jaxopt_study._display._picture import heat as heat
from jaxopt_study._display._picture import intervals as intervals
from jaxopt_study._display._picture import scatter as scatter
from jaxopt_study._display._significant_digits import decimals_apart as decimals_apart
from jaxopt_study._display._significant_digits import digits_apart as digits_apart
from jaxopt_study._display._text import card_text as card_text

__all__: list[str] = []  # for the other stages only
