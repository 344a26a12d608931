"""Float64 NumPy references, written from the papers and from nothing else.

No JAX, no Optax and no code of the package: one array in, one array out, every state variable in the open. They are
slow, long-winded and easy to check against the page they cite.
"""
