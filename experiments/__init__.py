"""Experiments in folders by chapter, one per module: a question, a configuration, a run, figures, claims that can fail.

`python -m experiments list` lists them; `python -m experiments run NAME --check` runs one and judges its claims. Every
module with an `EXPERIMENT` is found automatically. The experiments examine the statements of five lecture notes on
deep-learning optimization, 000–004, whose experiments come from Saito (2016), Deep Learning from Scratch, and whose
theory comes from Goodfellow, Bengio and Courville (2016), Deep Learning. Modules and claims call them "the notes" and
give the number; `statements.py` has what they say, in English.
"""

CHAPTERS = ("optimizers", "starts", "generalisation", "batches", "landscape", "curvature", "search")  # the notes' order
