"""Types of one leaf of a tree, whose gradient, statistic and parameter have the same shape."""

from jaxtyping import Array, Float, Inexact

Leaf = Inexact[Array, "*leaf"]  # real or complex
RealLeaf = Float[Array, "*leaf"]
