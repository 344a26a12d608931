"""`python -m jaxopt_study` is `jaxopt-study`."""

import sys

from jaxopt_study.cli import main

if __name__ == "__main__":
    sys.exit(main())
