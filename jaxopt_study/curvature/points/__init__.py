"""Critical points: Morse index, classification and search."""

__all__: list[str] = []  # public names are those of `jaxopt_study.curvature`
