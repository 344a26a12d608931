"""Arguments of the wrong kind meet the package's own error, in a process without a type checker."""

import json
import subprocess
import sys

import pytest

SETUP = """
import jax, jax.numpy as jnp, numpy as np, optax
from flax import linen, nnx
from jaxopt_study import curvature, dynamics, figures, optimizers, problems, records, training
from jaxopt_study.problems import Problem, datasets, networks
from jaxopt_study.training import *

KEY = jax.random.key(0)
X, LABELS = np.ones((6, 3)), np.arange(6) % 2
OP = curvature.from_matrix(jnp.diag(jnp.arange(1.0, 4.0)))
bowl = Problem("bowl", init=lambda key: jnp.ones(2), loss=lambda p, _: jnp.sum(p**2))
two = datasets.from_arrays(X, LABELS, num_classes=2)

PAIRS = {"values": [1.0], "residuals": [0.1], "converged": [True]}
PROBED = dict.fromkeys(["gain_sharpness", "linear", "quadratic", "realised"], [[1.0]])
PROBED |= {"step": [0], "limit": 2.0, "eigenvalues": [[[3.0]]]}
ONE, SIDE = np.zeros((2, 2)), ({"a": [1.0]}, {"a": (1.0, 0.5, 2.0)})
LOSS = lambda out, batch: jnp.mean(out)

def remembers(step, first):
    return Probe(lambda memory, *_: step(memory), 1, lambda *_: first)

def response(**options):
    return figures.response([1, 2], {"a": [1, 2]}, xlabel="x", ylabel="y", **options)

def paced(pace):
    order = Curriculum(np.arange(6.0), pace)
    return train(two_norm, optax.sgd(0.1), num_steps=5, batch_size=2, order=order, key=KEY, progress=False)

def scatter(**options):
    return figures.hyperparameter_scatter(**{"values": {"a": [1.0, 2.0]}, "scores": [1, 2], "ylabel": "y"} | options)

two_norm = Problem("norm", init=lambda key: jnp.ones(3), loss=lambda p, x: jnp.mean((x - p) ** 2), data=X)

def run(**options):
    return train(bowl, optax.sgd(0.1), **{"num_steps": 1, "key": KEY, "progress": False} | options)

def plain(data, **more):
    return Problem("mine", init=jnp.zeros, loss=lambda p, x: jnp.mean(p), data=data, **more)
"""

TABLE = [
    ("run(evaluate_every=2.0)", "TypeError", "evaluate_every to be an integer ≥ 1; received 2.0. Give 2."),
    ("run(evaluate_batch_size=[3])", "TypeError", "evaluate_batch_size to be an integer ≥ 1; received a list"),
    ("run(early_stopping=5)", "TypeError", "early_stopping to be an EarlyStopping or None; received 5"),
    ("run(probe=5)", "TypeError", "probe to be a Probe, a CurvatureProbe or a function"),
    ("run(evaluate_on=3)", "TypeError", "evaluate_on to be one or several of"),
    ("run(progress=3)", "TypeError", "progress to be None, True, False or a function"),
    ("run(key=None)", "TypeError", "key to be a random key of JAX; received None"),
    ("run(num_steps=None)", "TypeError", "num_steps to be an integer ≥ 0; received None"),
    ("train('bowl', optax.sgd(0.1), num_steps=1, key=KEY)", "TypeError", "train needs a Problem; received 'bowl'"),
    ("train(bowl, None, num_steps=1, key=KEY)", "TypeError", "train needs an optimizer with init and update"),
    ("train(bowl, nnx.Optimizer(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), optax.sgd(0.1), wrt=nnx.Param), num_steps=1, "
     "key=KEY)", "TypeError", "Give optimizer.tx"),
    ("evaluate(None, jnp.ones(2))", "TypeError", "evaluate needs a Problem"),
    ("evaluate(bowl, jnp.ones(2), on=3)", "ValueError", "one of 'train', 'validation', 'test'"),
    ("evaluate(bowl, jnp.ones(2), on='train', batch_size='16')", "TypeError", "batch_size to be an integer"),
    ("evaluate(bowl, jnp.ones(2), {}, on='train')", "ValueError", "needs model_state to be None"),
    ("CurvatureProbe(every=1.5)", "TypeError", "every to be an integer ≥ 1; received 1.5"),
    ("CurvatureProbe(measure='nope')", "TypeError", "measure to be a function of (Hessian, key), or None"),
    ("CurvatureProbe(gains=1)", "TypeError", "gains to be True or False; received 1"),
    ("CurvatureProbe(data='some')", "ValueError", "data to be one of 'all', 'batch'; received 'some'"),
    ("EarlyStopping(patience=2.0)", "TypeError", "patience to be an integer ≥ 1; received 2.0. Give 2."),
    ("EarlyStopping(metric=3)", "TypeError", "metric to be a name"),
    ("EarlyStopping(min_delta='0')", "TypeError", "min_delta to be a finite real number ≥ 0"),
    ("Probe(3)", "TypeError", "fn to be a function of"),
    ("Probe(print, every='often')", "TypeError", "every to be an integer ≥ 1; received 'often'"),
    ("Curriculum('hard', print)", "TypeError", "one number per training example; received 'hard'"),
    ("Curriculum(jnp.zeros(3), 1.0)", "TypeError", "pace to be a function of the step"),
    ("LinearPace(0.1, 2.5)", "TypeError", "num_steps to be an integer ≥ 1; received 2.5"),
    ("shuffle(jnp.arange(3), 3.0, key=KEY)", "TypeError", "num_examples to be an integer; received 3.0. Give 3."),
    ("shuffle(jnp.arange(9), 3, key=KEY)", "ValueError", "positions from 0 to 2; received 0 to 8"),
    ("shuffle(jnp.arange(3), 3, key=3)", "TypeError", "key to be a random key"),
    ("batch_indices('random', KEY, 0, 2, 3)", "ValueError", "order to be one of 'reshuffle'"),
    # Problems
    ("Problem(3, init=jnp.zeros, loss=print)", "TypeError", "name to be text; received 3"),
    ("Problem('p', init=3, loss=print)", "TypeError", "init to be a function of a key"),
    ("Problem('p', init=jnp.zeros, loss=None)", "TypeError", "loss to be a function of (params, batch)"),
    ("plain(X, metrics=[print])", "TypeError", "metrics to be a mapping"),
    ("plain(X, metrics={'m': 3})", "TypeError", "metrics['m'] to be a function"),
    ("plain(X, domain=((1.0, 1.0), (0.0, 0.0)))", "ValueError", "lower and an upper corner"),
    ("plain(X, spectrum=['a'])", "TypeError", "spectrum to be real numbers"),
    ("plain({'x': X, 'y': 'text'})", "TypeError", "must be an array of numbers; received 'text'"),
    ("plain({'x': X, 'y': np.array(['a'] * 6)})", "TypeError", "Encode text and categories as integers"),
    ("plain(np.array([[1], [1, 2]], dtype=object))", "TypeError", "of numbers; received one of object"),
    ("plain(np.array(['2020-01-01'], dtype='datetime64[D]'))", "TypeError", "times as numbers"),
    ("plain([[1, 2], [3]])", "ValueError", "convert it to an array with np.asarray"),
    ("plain(np.array([[np.nan]]))", "ValueError", "has NaN or infinity"),
    ("plain({'x': X, 'y': np.ones(5)})", "ValueError", "a common leading axis of examples"),
    ("plain({'x': X}, validation={'z': X})", "ValueError", "must have the structure of data"),
    ("plain({'x': X}, validation={'x': X[0]})", "ValueError", "must have as many axes as data"),
    ("problems.from_pytree({'w': jnp.array(jnp.nan)}, print)", "ValueError", "needs finite parameters"),
    ("problems.from_pytree({'w': 'no'}, print)", "ValueError", "found no floating array"),
    ("problems.from_pytree(jnp.ones(2), None)", "TypeError", "loss to be a function of (params, batch)"),
    ("problems.from_linen(linen.Dense, print, {'x': X})", "TypeError", "needs an instance of a Linen module"),
    ("problems.from_nnx(3, print)", "TypeError", "an nnx.Module or a function of nnx.Rngs"),
    ("problems.random_rotation(1.5, key=KEY)", "TypeError", "dim to be an integer ≥ 1; received 1.5"),
    ("problems.random_rotation(0, key=KEY)", "ValueError", "dim to be an integer ≥ 1; received 0"),
    ("problems.random_rotation(2, key=0)", "TypeError", "key to be a random key"),
    ("problems.quadratic('steep')", "TypeError", "spectrum to be real numbers"),
    ("problems.quadratic([1j])", "TypeError", "spectrum to be real numbers"),
    ("problems.quadratic([1.0], center=['a'])", "TypeError", "center to be real numbers"),
    ("problems.noisy_quadratic(1.5)", "TypeError", "dim to be an integer ≥ 1; received 1.5"),
    ("problems.least_squares([[1.0], [1.0, 2.0]], [1.0, 2.0])", "ValueError", "numbers that form one array"),
    ("problems.linear_regression(20.0)", "TypeError", "num_examples to be an integer ≥ 1; received 20.0. Give 20."),
    ("problems.linear_regression(noise=np.nan)", "ValueError", "noise to be a finite real number ≥ 0; received nan"),
    ("problems.linear_network(hidden=2.5)", "TypeError", "hidden to be integers"),
    ("problems.linear_network(sizes=(5, 6, 7))", "ValueError", "sizes to be two integers"),
    ("problems.deep_linear_network(depth=2.5)", "TypeError", "depth to be an integer ≥ 2; received 2.5"),
    ("problems.planar.bowl(start='here')", "TypeError", "start to be real numbers"),
    # Data sets
    ("datasets.from_arrays(X, LABELS + 0.5, num_classes=2)", "ValueError", "Labels of 'arrays' must be integers"),
    ("datasets.from_arrays(X, LABELS, num_classes=1)", "ValueError", "must lie in 0…0"),
    ("datasets.from_arrays(X * np.nan, LABELS, num_classes=2)", "ValueError", "has NaN or infinity"),
    ("datasets.from_arrays(X, LABELS, num_classes=2.0)", "TypeError", "num_classes to be an integer ≥ 1"),
    ("datasets.from_arrays(X, LABELS, num_train=2.5)", "TypeError", "num_train to be an integer"),
    ("datasets.from_arrays(X, LABELS, seed=-1)", "ValueError", "seed to be an integer ≥ 0"),
    ("datasets.from_arrays([[1], [1, 2]], [0, 1])", "ValueError", "lists of different lengths"),
    ("datasets.from_arrays(X, list('ababab'), num_classes=2)", "TypeError", "must be an array of numbers"),
    ("datasets.from_arrays(1j * X, LABELS)", "TypeError", "must be real numbers; received complex128"),
    ("datasets.Dataset('d', {'x': X, 'y': LABELS * 1.0}, num_classes=2)", "ValueError", "must be integers"),
    ("datasets.Dataset('d', X)", "TypeError", 'must be {"x": inputs, "y": targets}'),
    ("datasets.Dataset('d', {'x': X, 'y': LABELS}, validation={'x': X[:, :2], 'y': LABELS})", "ValueError",
     "of the training part's shape"),
    ("datasets.damped_cosine(num_train=2.5)", "TypeError", "num_train to be an integer; received 2.5"),
    ("datasets.damped_cosine(noise=np.nan)", "ValueError", "noise to be a finite real number"),
    ("datasets.adding(num_steps='5')", "TypeError", "num_steps to be an integer"),
    ("datasets.temporal_order(num_steps=20.0)", "TypeError", "num_steps to be an integer ≥ 0; received 20.0. Give 20."),
    # Networks
    ("networks.MLP(2, widths=(0,))", "ValueError", "widths[0] to be an integer ≥ 1; received 0"),
    ("networks.MLP(2, widths=8)", "TypeError", "widths to be a sequence of integers"),
    ("networks.MLP(2, widths=(1.5,))", "TypeError", "widths[0] to be an integer ≥ 1; received 1.5"),
    ("networks.MLP(-1)", "ValueError", "num_outputs to be an integer ≥ 1; received -1"),
    ("networks.MLP(2, dropout=-1)", "ValueError", "dropout to be a real number in [0, 1); received -1"),
    ("networks.CNN(2, dropout=2)", "ValueError", "dropout to be a real number in [0, 1); received 2"),
    ("networks.RNN(2, dropout=1.0)", "ValueError", "dropout to be a real number in [0, 1); received 1.0"),
    ("networks.MLP(2, dropout=np.nan)", "ValueError", "dropout to be a real number in [0, 1); received nan"),
    ("networks.MLP(2, normalisation='bach')", "ValueError", "normalisation to be one of None, 'batch'"),
    ("networks.MLP(2, num_groups=0)", "ValueError", "num_groups to be an integer ≥ 1"),
    ("networks.MLP(2, activation=3)", "TypeError", "An activation must be a name or a function; received 3"),
    ("networks.MLP(2, initialiser=-0.1)", "ValueError", "std to be a finite real number ≥ 0"),
    ("networks.initialisers.he('big')", "TypeError", "gain to be a finite real number; received 'big'"),
    ("networks.CNN(2, channels=(0,))", "ValueError", "channels[0] to be an integer ≥ 1"),
    ("networks.CNN(2, kernel_size=(3,))", "ValueError", "kernel_size to be two integers"),
    ("networks.CNN(2, pool=0)", "ValueError", "pool to be an integer ≥ 1; received 0"),
    ("networks.Conv(2, strides=(0, 1))", "ValueError", "strides[0] to be an integer ≥ 1"),
    ("networks.convolve(jnp.ones((1, 3, 3, 2)), jnp.ones((2, 2, 1, 1)))", "ValueError", "convolve needs x of shape"),
    ("networks.max_pool(jnp.ones((1, 3, 3, 2)), 4)", "ValueError", "height and width at least size=4"),
    ("networks.mlp_classifier(two, label_smoothing=-0.1)", "ValueError", "label_smoothing to be a real number in [0"),
    ("networks.mlp_classifier(two, label_smoothing=1.0)", "ValueError", "label_smoothing to be a real number in [0"),
    ("networks.mlp_classifier(two, weight_decay=np.nan)", "ValueError", "weight_decay to be a finite real number ≥ 0"),
    ("networks.mlp_classifier('two')", "TypeError", "A network needs a Dataset"),
    ("networks.classifier(networks.MLP, two)", "TypeError", "needs an instance of a Linen module"),
    ("networks.cross_entropy(jnp.zeros((2, 3)), jnp.array([0, 3]))", "ValueError", "labels from 0 to 2"),
    ("networks.cross_entropy(jnp.zeros((2, 3)), jnp.array([0.0, 1.0]))", "TypeError", "labels to be integers"),
    ("networks.accuracy(jnp.zeros((2, 3)), jnp.array([-1, 1]))", "ValueError", "labels from 0 to 2; received -1 to 1"),
    # Orders and probes
    ("shuffle(None, 10, key=KEY)", "TypeError", "position to be 32-bit integers; received None"),
    ("shuffle([[1], [1, 2]], 10, key=KEY)", "TypeError", "position to be 32-bit integers; received a list"),
    ("shuffle([1, 2], 10, key=KEY, epoch=2**40)", "TypeError", "epoch to be 32-bit integers"),
    ("shuffle([1, 2], 10, key=KEY, epoch=[1, 2, 3])", "ValueError", "or integers of shape (2,)"),
    ("batch_indices('with_replacement', KEY, jnp.nan, 2, 5)", "TypeError", "step to be an integer ≥ 0; received nan"),
    ("batch_indices('with_replacement', KEY, -1, 2, 5)", "ValueError", "step to be an integer ≥ 0; received -1"),
    ("batch_indices('with_replacement', KEY, 2**40, 2, 5)", "ValueError", "step to be an integer from 0 to 2147483647"),
    ("batch_indices('reshuffle', KEY, 0, 2, 5)", "TypeError", "what order.init(key, 5) of this order returned"),
    ("batch_indices('with_replacement', 'x', 0, 2, 5)", "TypeError", "state to be a random key of JAX"),
    ("batch_indices(LinearPace(0.5, 3), KEY, 0, 2, 5)", "ValueError", "an object with init(key, num_examples)"),
    ("paced(lambda t: jnp.nan)", "ValueError", "pace(0) to be a finite real number > 0; received nan"),
    ("paced(lambda t: 1.0 - t)", "ValueError", "pace(2) to be a finite real number > 0"),
    ("paced(lambda t: jnp.ones(3))", "TypeError", "pace to return one real number"),
    ("paced(lambda t: 'fast')", "TypeError", "pace to return one real number; it returned 'fast'"),
    ("linear_curriculum(None, start=0.5, num_steps=3)", "TypeError", "one number per training example; received None"),
    ("linear_curriculum({}, start=0.5, num_steps=3)", "TypeError", "one number per training example; received a dict"),
    ("linear_curriculum(print, start=0.5, num_steps=3)", "TypeError", "one number per training example"),
    ("CurvatureProbe(roles=3)", "TypeError", "do not pass `roles`, which `train` detects; received 3"),
    ("run(probe=lambda *_: {'a': 'text'})", "TypeError", "received 'text' from the function <lambda>['a']"),
    # Known answers, widths
    ("problems.CriticalPoint(None, 0.0, 'minimum')", "ValueError", "params with at least one array"),
    ("problems.CriticalPoint(jnp.ones(2), 'x', 'minimum')", "TypeError", "value to be a finite real number"),
    ("problems.CriticalPoint(jnp.ones(2), 0.0, 'zzz')", "ValueError", "kind to be one of 'minimum', 'saddle'"),
    ("problems.CriticalPoint(jnp.ones(2), 0.0, 'saddle', -3.5)", "TypeError", "index to be an integer ≥ 0"),
    ("problems.CriticalPoint(jnp.ones(2), 0.0, 'saddle', -3)", "ValueError", "index to be an integer ≥ 0"),
    ("plain(None, spectrum=-1)", "ValueError", "spectrum to be eigenvalues in ascending order; received -1"),
    ("plain(None, spectrum=[2, 1])", "ValueError", "spectrum to be eigenvalues in ascending order"),
    ("problems.linear_network(hidden=b'ab')", "TypeError", "hidden to be integers ≥ 1; received b'ab'"),
    ("problems.linear_network(sizes=b'ab')", "TypeError", "sizes to be integers ≥ 1; received b'ab'"),
    ("networks.MLP(2, widths=b'ab')", "TypeError", "widths to be a sequence of integers ≥ 1"),
    # Integers that 32 bits do not hold: a count is refused
    ("curvature.eigenpairs(OP, 1, key=KEY, max_matvecs=2**40)", "ValueError", "max_matvecs to be an integer from 2 to"),
    ("curvature.spectral_density(OP, key=KEY, num_probes=2**40)", "ValueError", "num_probes to be an integer from 2"),
    ("curvature.spectral_density(OP, key=KEY, grid=2**40)", "TypeError", "grid to be an array of numbers"),
    ("curvature.from_matrix(2**40)", "TypeError", "a square matrix of real numbers; received 1099511627776"),
    ("curvature.hessian(bowl.loss, jnp.ones(2), 2**40)", "TypeError", "must be arrays; received 1099511627776"),
    ("dynamics.stability_threshold(optax.sgd(0.1), num_steps=2**31 - 1)", "ValueError", "integer from 1 to 10000"),
    ("EarlyStopping(patience=2**31)", "ValueError", "patience to be an integer from 1 to 2147483647"),
    ("Probe(print, every=10**5000)", "ValueError", "received an integer of 16,610 bits"),
    ("LinearPace(0.5, 10**400)", "ValueError", "num_steps to be an integer from 1 to 2147483647"),
    ("problems.noisy_quadratic(3, batch_size=10**400)", "ValueError", "batch_size to be an integer from 1 to"),
    # Figures: mappings, numbers in them, flags, texts, counts
    ("figures.learning_curves([0], [[1.0]], ylabel='l')", "TypeError", "curves to be a mapping; received a list"),
    ("figures.learning_curves([0], {'a': 'x'}, ylabel='l')", "TypeError", "curves['a'] to be real numbers"),
    ("figures.learning_curves([], {'a': [[]]}, ylabel='l')", "ValueError", "a sequence of one or more numbers"),
    ("response(marks=3)", "TypeError", "marks to be a mapping; received 3"),
    ("response(marks={'b': (1, 2)})", "ValueError", "marks to be a point (x, y) by the name of a curve"),
    ("response(mark_label=1j)", "TypeError", "mark_label to be text; received 1j"),
    ("response(log_x='no')", "TypeError", "log_x to be True or False"),
    ("figures.performance_profiles([1, 2], 'x')", "TypeError", "shares to be a mapping"),
    ("figures.performance_profiles([1], {'a': [1]}, num_problems='x')", "TypeError", "num_problems to be an integer"),
    ("figures.budget_curves([1, 2], 3, ylabel='l')", "TypeError", "curves to be a mapping"),
    ("figures.trajectories('x', {'a': [[0, 0]]})", "TypeError", "problem to be a Problem; received 'x'"),
    ("figures.trajectories(problems.planar.bowl(), 3)", "TypeError", "paths to be a mapping"),
    ("figures.trajectories(problems.planar.bowl(), {}, together='x')", "TypeError", "together to be True or False"),
    ("scatter(values=3)", "TypeError", "values to be a mapping"),
    ("scatter(chosen=-1)", "ValueError", "chosen to be an integer from 0 to 1; received -1"),
    ("scatter(chosen=2)", "ValueError", "chosen to be an integer from 0 to 1; received 2"),
    ("scatter(intervals=([1.0], [2.0]))", "ValueError", "each with 2 entries, one per trial, and lower ≤ upper"),
    ("scatter(ranges={'a': 3})", "ValueError", "ranges['a'] must be (lower, upper)"),
    ("scatter(choices={'a': [3]})", "ValueError", "choices['a'] to include all values"),
    ("scatter(log='a')", "TypeError", "log to be a list of hyperparameters"),
    ("scatter(edges={'b': 'low'})", "ValueError", "the names of edges to be one of 'a'"),
    ("figures.Panel(3, {'a': [[1.0]]})", "TypeError", "Panel needs title to be text"),
    ("figures.Panel('t', 3)", "TypeError", "Panel needs curves to be a mapping"),
    ("figures.Panel('t', {'a': [[1.0]]}, level='x')", "TypeError", "Panel needs level to be a finite real number"),
    ("figures.panels([0], [3])", "TypeError", "shown to be a list of Panels; received 3"),
    ("figures.render('x')", "TypeError", "figure to be a Matplotlib Figure; received 'x'"),
    ("figures.new_figure(1e300)", "ValueError", "width to be a real number in (0, 300]"),
    ("figures.comparison(3, 3, xlabel='x')", "TypeError", "default to be (scores, intervals); received 3"),
    ("figures.pairs({'a': 3}, settings=('b', 'c'), labels={}, xlabel='x')", "ValueError", "labels for ['a']"),
    ("figures.curvature_along_runs({'a': {}})", "ValueError", "measured['a'] with ['eigenvalues'"),
    ("figures.curvature_along_runs({'a': {**PROBED, 'eigenvalues': [[3.0]]}})", "ValueError", "(1, 1) and one for the"),
    ("figures.curvature_along_runs({'a': {**PROBED, 'limit': [2.0]}})", "ValueError", "['limit'] to be one number"),
    ("figures.curvature_along_runs({'a': {**PROBED, 'step': [np.nan]}})", "ValueError", "['step'] to be finite"),
    ("figures.curvature_along_runs({'a': {**PROBED, 'linear': 'x'}})", "TypeError", "['linear'] to be real numbers"),
    ("figures.new_figure(nonsense=1)", "TypeError", "Matplotlib's Figure rejects the options ['nonsense']"),
    ("figures.new_figure(layout='nonsense')", "ValueError", "Matplotlib's Figure rejects the options ['layout']"),
    ("figures.new_figure(facecolor=object())", "ValueError", "Matplotlib's Figure rejects the options ['facecolor']"),
    ("figures.new_figure(figsize=(1, 1))", "TypeError", "Matplotlib's Figure rejects the options ['figsize']"),
    ("figures.new_figure(None)", "TypeError", "width to be a real number in (0, 300]; received None"),
    ("figures.render(figures.new_figure(1, 1), dpi=None)", "TypeError", "dpi to be a real number in [10, 10000]"),
    ("figures.render(figures.new_figure(1, 1), dpi=0.5)", "ValueError", "dpi to be a real number in [10, 10000]"),
    ("figures.render(figures.new_figure(300, 1), dpi=10000)", "ValueError", "1 to 65535 dots on each side"),
    ("figures.render(figures.new_figure(0.01, 1), dpi=10)", "ValueError", "1 to 65535 dots on each side"),
    ("figures.ablation(3, [(0.2, 0.1, 0.3)], xlabel='x')", "TypeError", "names to be a list of texts; received 3"),
    ("figures.ablation('a', [(0.2, 0.1, 0.3)], xlabel='x')", "TypeError", "names to be a list of texts; received 'a'"),
    ("figures.ablation([3], [(0.2, 0.1, 0.3)], xlabel='x')", "TypeError", "a list of texts; received 3 in it"),
    ("figures.ablation(['a'], [(0.2, 0.1, 0.3)], xlabel='x', better='no')",
     "TypeError", "better to be a list of 2 texts"),
    ("figures.ablation(['a'], [(0.2, 0.1, 0.3)], xlabel='x', level=None)", "TypeError", "level to be a real number in"),
    ("figures.appearances('adam')", "TypeError", "names to be a list of texts; received 'adam'"),
    ("figures.comparison(SIDE, SIDE, xlabel='x', headings=('a',))", "ValueError", "headings to be 2 texts; received 1"),
    ("figures.comparison((({'a': 1.0}), SIDE[1]), SIDE, xlabel='x')",
     "ValueError", "one score per seed of 'a' in default"),
    ("figures.difference_matrix(np.eye(2), ONE, ONE, ONE, ONE, unit='x')", "TypeError", "names to be a list of texts"),
    ("figures.top_curves([0], None, [[[1.0]]], titles={0: 'a'}, ylabel='l')",
     "TypeError", "titles to be a list of texts"),
    ("figures.learning_curves([0], {'a': [[1.0]]}, ylabel='l', smallest=2, largest=1)",
     "ValueError", "smallest < largest"),
    ("figures.learning_curves([0], {'a': [[1.0]]}, ylabel='l', log=True, smallest=0)", "ValueError", "number > 0"),
    ("figures.learning_curves([1, 0], {'a': [[1.0, 2.0]]}, ylabel='l')",
     "ValueError", "steps to be finite and increasing"),
    ("figures.learning_curves([0, np.inf], {'a': [[1.0, 2.0]]}, ylabel='l')", "ValueError", "finite and increasing"),
    ("figures.learning_curves([0], {'a': np.zeros((0, 1))}, ylabel='l')", "ValueError", "the shape (seeds, 1)"),
    ("figures.budget_curves([2, 1], {'a': np.ones((3, 2))}, ylabel='l')",
     "ValueError", "k to be finite and increasing"),
    ("figures.performance_profiles([0.5, 1], {'a': [0, 1]})",
     "ValueError", "tau must be ≥ 1 (the best solver has the factor 1); received 0.5"),
    ("figures.Panel('t', {'a': 1.0})", "ValueError", "the shape (seeds, K); received ()"),
    ("figures.pairs({'a': ([1], [2])}, settings=(1, 2), labels={'a': ('b', 'c')}, xlabel='x')",
     "TypeError", "settings to"),
    ("figures.trajectories(problems.planar.bowl(), {'a': [[np.nan, 0.0]]})", "ValueError", "a finite start"),
    ("figures.race_animation(problems.planar.bowl(), {'a': [[1e30, 0.0]]})",
     "ValueError", "a finite loss at the start"),
    ("figures.race_animation(problems.planar.bowl(), {'a': [[1.0, 0.0]]}, seconds=1e30)", "ValueError", "in (0, 600]"),
    ("scatter(maybe_best=[[True], [False, True]])", "TypeError", "maybe_best to be True or False, shape (2,)"),
    ("scatter(maybe_best=[0.25, 0.75])", "TypeError", "maybe_best to be True or False, shape (2,)"),
    ("scatter(maybe_best=[True])", "ValueError", "maybe_best to be True or False, shape (2,); received shape (1,)"),
    ("scatter(log=['b'])", "ValueError", "the names of log to be one of 'a'; received 'b'"),
    ("scatter(ranges={'a': (2.0, 1.0)})", "ValueError", "ranges['a'] must be (lower, upper), lower ≤ upper"),
    ("scatter(intervals=([2.0, 3.0], [1.0, 2.0]))", "ValueError", "2 entries, one per trial, and lower ≤ upper"),
    ("scatter(values={'a': None})", "TypeError", "values['a'] to be a sequence; received None"),
    ("scatter(choices={'a': 'xy'})", "TypeError", "choices['a'] to be a sequence; received 'xy'"),
    ("figures.parallel_coordinates({'a': [1.0]}, [1.0], score_label='l', maybe_best=1.0)",
     "TypeError", "True or False"),
    ("figures.spectrum({'eigenpairs': PAIRS}, edge='x')", "TypeError", "edge to be a real number; received 'x'"),
    ("figures.spectrum({'eigenpairs': PAIRS}, edge=np.nan)", "ValueError", "edge to be a real number; received nan"),
    ("figures.spectrum({'eigenpairs': PAIRS}, edge=True)", "TypeError", "edge to be a real number; received True"),
    ("figures.spectrum({'eigenpairs': PAIRS}, rate=-1)",
     "ValueError", "rate to be a finite real number ≥ 0; received -1"),
    ("figures.spectrum({'eigenpairs': 3})", "TypeError", "results['eigenpairs'] to be a mapping; received 3"),
    ("figures.spectrum({'eigenpairs': {'values': [1.0]}})", "ValueError", "results['eigenpairs'] with ['residuals']"),
    ("figures.spectrum({'eigenpairs': PAIRS | {'residuals': [-1.0]}})", "ValueError", "residuals ≥ 0"),
    ("figures.spectrum({'eigenpairs': PAIRS | {'values': [1.0, 2.0]}})", "ValueError", "numbers of one shape"),
    ("figures.spectrum({'eigenpairs': PAIRS | {'converged': 'yes'}})",
     "TypeError", "['converged'] to be True or False"),
    # A probe that remembers
    ("run(probe=remembers(lambda m: (m, 0.0), 'x'))", "TypeError", "init of the probe to return arrays; received 'x'"),
    ("run(probe=remembers(lambda m: m, np.zeros(2)))", "TypeError", "(new memory, measurement); received an array"),
    ("run(probe=remembers(lambda m: None, 0.0))", "TypeError", "(new memory, measurement); received None"),
    ("run(probe=remembers(lambda m: (m + 0.5, m), 0))", "ValueError", "an array int32[]; received an array float32[]"),
    ("run(probe=remembers(lambda m: ((m, m), m), 0.0))", "ValueError", "must match the structure that the probe's"),
    ("run(probe=remembers(lambda m: (np.zeros(3), m), np.zeros(2)))", "ValueError", "must match that of the probe's"),
    # What is given by name
    ("optimizers.rprop(min_step_size=2.0, max_step_size=1.0)", "ValueError", "rprop needs max_step_size to be"),
    ("networks.describe(3)", "TypeError", "describe needs a Linen module; received 3"),
    ("two_norm.mode_of({})", "ValueError", "has the metrics 'loss'"),
    ("problems.from_linen(linen.Dense(1), LOSS, X, rng_names='dropout')", "TypeError", "a tuple of names of random"),
    ("problems.from_nnx(lambda rngs: None, LOSS, X)", "TypeError", "must return an nnx.Module; it returned None"),
    ("datasets.read_idx('labels', 'sounds')", "ValueError", "kind to be one of 'images', 'labels'; received 'sounds'"),
    ("datasets.load_idx('mnist')", "TypeError", "archive to be an IdxArchive; received 'mnist'"),
    ("datasets.from_arrays(X, LABELS, split=np.eye(2))", "ValueError", "received an array float64[2, 2]"),
    ("OP.matvec(np.ones(2))", "ValueError", "must have shape (3,); received (2,)"),
    ("optimizers.sgd(0.1).to_json(indent=1.5)", "TypeError", "indent to be an integer from 0 to 100; received 1.5"),
    ("records.plain({'key': KEY})", "ValueError", "value['key'] cannot be written as JSON"),
    # Figures
    ("figures.learning_curves([0], {'a': [[1.0]]}, ylabel=3)", "TypeError", "ylabel to be text; received 3"),
    ("figures.learning_curves([0], {'a': [[1.0]]}, ylabel='l', log='yes')", "TypeError", "log to be True or False"),
    ("figures.ablation(['a'], [(0.2, 0.1, 0.3)], xlabel='x', level=95)", "ValueError", "level to be a real number in"),
    ("figures.ablation(['a'], [(0.2, 0.1, 0.3)], xlabel='x', level='x')", "TypeError", "level to be a real number in"),
    ("figures.new_figure(-1)", "ValueError", "width to be a real number in (0, 300]"),
    ("figures.render(figures.new_figure(1, 1), format='exe')", "ValueError", "format to be one of 'png', 'svg', 'pdf'"),
]  # fmt: skip

SCRIPT = """
import json, sys, traceback, warnings
warnings.simplefilter("error")
for expression in json.loads(sys.argv[1]):
    try:
        eval(expression)
        print(json.dumps(["accepted", ""]))
    except Exception as error:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        print(json.dumps([kinds, str(error), frames[-1]]))
"""


@pytest.fixture(scope="module")
def answers():
    expressions = json.dumps([expression for expression, *_ in TABLE])
    done = subprocess.run(
        [sys.executable, "-c", SETUP + SCRIPT, expressions], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(zip([expression for expression, *_ in TABLE], map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize(("expression", "kind", "message"), TABLE, ids=[row[0] for row in TABLE])
def test_a_wrong_argument_meets_the_packages_own_error(answers, expression, kind, message):
    kinds, text, *frame = answers[expression]
    assert kind in kinds
    assert message in text
    assert "jaxopt_study" in frame[0]
