"""Search: samplers, halving, and the search itself with its result."""
