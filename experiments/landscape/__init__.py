"""Landscape: symmetry, saddles, cliffs, long-term dependencies, local against global structure."""
