"""Search: random search, grids, and the ranges that decide what they find."""
