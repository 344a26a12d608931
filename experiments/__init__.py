"""One file per experiment: a question, a configuration, a run, figures, and claims that can fail.

`python -m experiments list` names them; `python -m experiments run NAME --check` runs one and judges its claims. A new
module with an `EXPERIMENT` is found without being listed anywhere.
"""
