"""Experiments in folders by chapter, one per module: a question, a configuration, a run, figures, claims that can fail.

`python -m experiments list` lists them; `python -m experiments run NAME --check` runs one and judges its claims. Every
module with an `EXPERIMENT` is found automatically. Several experiments test statements of study notes on Saito (2016),
Deep Learning from Scratch; claims call them "the notes".
"""

CHAPTERS = ("optimizers", "starts", "generalisation", "batches", "landscape", "curvature", "search")  # the notes' order
