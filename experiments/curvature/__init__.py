"""Curvature: conditioning, the edge of stability, outliers of the spectrum."""
