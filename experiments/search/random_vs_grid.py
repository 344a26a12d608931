"""Random search compared with a grid of the same size."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from experiments import images
from experiments.claims import Claim, Control, Measurement, at_least, at_most, mean_over_seeds, near, ratio_over_seeds
from experiments.experiment import Experiment
from experiments.parts import journal, part
from jaxopt_study import figures, sweeps
from jaxopt_study.figures import Panel, pairs, panels
from jaxopt_study.problems import networks
from jaxopt_study.records import Record
from jaxopt_study.transforms import Transform, add_decayed_weights, chain, scale_by_learning_rate

BERGSTRA = "Bergstra and Bengio (2012), Random search for hyper-parameter optimization, section 1 and figure 1"
# By name: how many axes the search has, and how many of them matter.
SURFACES = {"one of two axes matters": (2, 1), "both axes matter": (2, 2), "there is one axis": (1, 1)}
ONE_OF_TWO, BOTH, ALONE = SURFACES


@dataclass(frozen=True)
class Config:
    """Synthetic surfaces whose best part is known, and a network with a hyperparameter that does nothing."""

    budgets: tuple[int, ...] = (4, 9, 16, 25, 36, 49, 64)  # squares: grids of two axes have no others
    budget: int = 25
    target: float = 0.05  # volume of the part of a surface that counts as found
    num_surfaces: int = 2000  # with the best part in a place of its own
    data: images.Images = "mnist"
    num_train: int = 400
    num_validation: int = 1_000
    widths: tuple[int, ...] = (100,) * 6
    batch_size: int | None = 100
    order: Literal["with_replacement", "reshuffle"] = "with_replacement"
    num_steps: int = 200
    levels: int = 4  # of each axis of the network's grid
    rates: tuple[float, float] = (2e-7, 0.2)  # six decades; moves up by the distance of two levels, two decades
    decays: tuple[float, float] = (1e-8, 1e-4)  # does nothing, says the experiment random_search
    num_places: int = 24  # of the grid
    seed: int = 0


PRESETS = {
    "smoke": Config(
        budgets=(9, 25), num_surfaces=400, data="digits", num_train=100, num_validation=500, widths=(20,) * 2,
        batch_size=None, order="reshuffle", num_steps=100, levels=3,
    ),
    "paper": Config(),
}  # fmt: skip


def run(config: Config, data_dir: Path | None) -> Mapping[str, Any]:
    """Search surfaces whose answer is known, then the learning rate and weight decay of a network."""
    surface_key, network_key = jax.random.split(jax.random.key(config.seed))
    place_key, draw_key = jax.random.split(surface_key)

    def surfaces() -> dict[str, Any]:
        drawn = _drawn(config, draw_key)
        return {name: _search_surfaces(config, *axes, drawn, key=place_key) for name, axes in SURFACES.items()}

    return {"surfaces": part("surfaces", surfaces), **_search_network(config, data_dir, network_key)}


def _drawn(config: Config, key: Any) -> dict[str, Float[np.ndarray, "surfaces trials axes"]]:
    """Draw the trials of the longest search on two axes; a shorter search has the first of them, and one axis, too."""
    random_key, sobol_key = jax.random.split(key)
    space, budget, count = _axes(2), max(config.budgets), config.num_surfaces
    random = sweeps.sample(space, count * budget, key=random_key)[1]
    sobol = [sweeps.sample(space, budget, sampler="sobol", key=one)[1] for one in jax.random.split(sobol_key, count)]
    return {"random": random.reshape(count, budget, 2), "Sobol": np.stack(sobol)}


def _axes(count: int) -> sweeps.Space:
    return sweeps.Space({f"axis_{i}": sweeps.uniform(0.0, 1.0) for i in range(count)})


def _search_surfaces(
    config: Config, num_axes: int, num_matter: int, drawn: Mapping[str, Any], *, key: Any
) -> dict[str, Any]:
    """Count on how many surfaces each sampler has a trial in the best part, a box in the axes that matter."""
    centres = np.asarray(jax.random.uniform(key, (config.num_surfaces, 1, num_matter)), np.float64)
    half = config.target ** (1 / num_matter) / 2
    hits: dict[str, Any] = {}
    for budget in config.budgets:
        tried = {"grid": sweeps.sample(_axes(num_axes), budget, sampler="grid")[1][None]}
        tried |= {name: points[:, :budget] for name, points in drawn.items()}
        for name, points in tried.items():
            inside = (np.abs(points[..., :num_matter] - centres) <= half).all(axis=-1).any(axis=-1)
            hits.setdefault(name, {})[str(budget)] = inside.astype(int) if budget == config.budget else inside.mean()
    return hits


def sgd(learning_rate: Any, weight_decay: Any, decades_up: Any) -> Transform:
    """Return gradient descent, at a learning rate that lies so many decades further up than its range says."""
    return chain(add_decayed_weights(weight_decay), scale_by_learning_rate(learning_rate * 10.0**decades_up))


def _search_network(config: Config, data_dir: Path | None, key: Any) -> dict[str, Any]:
    """Search with grids in many places, and with as many random trials in the same ranges."""
    dataset = images.load(
        config.data, data_dir, num_train=config.num_train, num_validation=config.num_validation, split="first"
    )
    problem = networks.mlp_classifier(dataset, widths=config.widths)
    low, high = config.rates
    budget, places = config.levels**2, config.num_places
    spacing = np.log10(high / low) / (config.levels - 1)
    moved = [float(x) for x in np.arange(places) * spacing / places]  # the phases of the grid, evenly
    decays = {ONE_OF_TWO: sweeps.log_uniform(*config.decays), ALONE: sweeps.choices(config.decays[0])}

    def trials(name: str, sampler: Any, top: float, steps: list[float], count: int) -> sweeps.Search:
        return sweeps.search(
            sgd,
            {
                "learning_rate": sweeps.log_uniform(low, top),
                "weight_decay": decays[name],
                "decades_up": sweeps.choices(*steps),
            },
            problem, sampler=sampler, num_trials=count, num_steps=config.num_steps, batch_size=config.batch_size,
            order=config.order, key=key, metric="validation_loss", journal=journal(f"{name}, {sampler}"),
        )  # fmt: skip

    enough = int(1.3 * budget * places * (1 + 1 / (config.levels - 1)))  # of the trials, lie in a search's own range
    found = {}
    for name in decays:
        grid = trials(name, "grid", high, moved, budget * places)
        stream = trials(name, "random", high * 10**spacing, [0.0], enough)
        found[name] = {"grid": [], "random": []}
        rates, start = np.array([one["learning_rate"] for one in stream.configs]), 0
        for up in moved:
            here = np.array([one["decades_up"] == up for one in grid.configs])
            inside = (rates >= low * 10**up) & (rates <= high * 10**up)
            chosen = start + np.flatnonzero(inside[start:])[:budget]  # the next trials that lie in this range
            if len(chosen) < budget:
                raise RuntimeError(f"{len(rates)} random trials are too few for {places} searches of {budget}.")
            start = chosen[-1] + 1
            found[name]["grid"].append(_best(grid, np.flatnonzero(here)))
            found[name]["random"].append(_best(stream, chosen))
    return {"network": found, "problem": dict(problem.metadata), "data_sha256": dataset.sha256}


def _best(found: sweeps.Search, which: Int[np.ndarray, " trials"]) -> dict[str, Any]:
    scores = found.scores[which]
    configs = [found.configs[i] for i in which]
    return {
        "best": np.nanmin(scores),
        "learning_rate": [float(f"{one['learning_rate'] * 10 ** one['decades_up']:.4g}") for one in configs],
        "weight_decay": [float(f"{one['weight_decay']:.4g}") for one in configs],
        "scores": [float(f"{score:.5g}") for score in scores],
    }


def expected_share(target: float, budget: int) -> float:
    """Return the probability that random trials hit an interval of given length, with a centre uniform in (0, 1).

    E(1 − (1 − ℓ)ⁿ), where ℓ is the length of the part inside (0, 1).
    """
    centres = (np.arange(100_000) + 0.5) / 100_000
    inside = np.minimum(centres + target / 2, 1) - np.maximum(centres - target / 2, 0)
    return float(np.mean(1 - (1 - inside) ** budget))


def claims(record: Record) -> list[Claim]:
    """Judge the advantage of random search over a grid, by surface and budget."""
    results, config = record.results, record.config
    budget, target = str(config["budget"]), config["target"]
    side = round(config["budget"] ** 0.5)

    def hits(surface: str, sampler: str) -> Float[np.ndarray, " surfaces"]:
        return np.array(results["surfaces"][surface][sampler][budget], dtype=float)

    def advantage(surface: str, of: str = "random", over: str = "grid") -> Measurement:
        return mean_over_seeds(hits(surface, of) - hits(surface, over))

    def ratio(name: str) -> Measurement:
        found = results["network"][name]
        grid, random = ([one["best"] for one in found[which]] for which in ("grid", "random"))
        return ratio_over_seeds(grid, random)

    share = expected_share(target, config["budget"])
    trials = f"{config['budget']} trials"
    network = config["levels"] ** 2
    return [
        Claim(
            f"Of two axes one matters: {trials} at random find the best {target:.0%} more often than a grid",
            advantage(ONE_OF_TWO),
            at_least(0.3, f"{BERGSTRA}: the grid has {side} different values of that axis, chance has {budget}"),
            Control("both axes matter", advantage(BOTH)),
            "Difference of the shares of surfaces. The part that counts has the same volume on all surfaces.",
        ),
        Claim(
            f"That share is the one that geometry gives, {share:.3f}",
            mean_over_seeds(hits(ONE_OF_TWO, "random")),
            near(share, 0.04, "E(1 − (1 − ℓ)ⁿ), ℓ the part of the interval inside; four standard errors"),
            Control("the grid", mean_over_seeds(hits(ONE_OF_TWO, "grid"))),
        ),
        Claim(
            "Where both axes matter random search has no advantage",
            advantage(BOTH),
            at_most(0.0, "a grid covers a square at least as evenly"),
            Control("one of two axes matters", advantage(ONE_OF_TWO)),
            "As above. The advice 'random instead of grid' rests on axes that do not matter.",
        ),
        Claim(
            "On a single axis random search has no advantage",
            advantage(ALONE),
            at_most(0.0, f"{budget} levels leave no gap of {target:.0%}"),
            Control("an axis that does nothing beside it", advantage(ONE_OF_TWO)),
            "As above.",
        ),
        Claim(
            "A scrambled Sobol sequence does better than chance where one axis matters",
            advantage(ONE_OF_TWO, "Sobol", "random"),
            at_least(0.03, "its points are spread evenly on every axis; the tolerance is ours"),
            Control("a grid", advantage(ONE_OF_TWO, "grid", "random")),
            f"As above, against {trials} at random: chance is not the reason why random search works.",
        ),
        Claim(
            f"A network, learning rate and a weight decay that does nothing: {network} trials at random end lower than "
            "a grid",
            ratio(ONE_OF_TWO),
            at_least(1.03, f"{BERGSTRA}; three percent of the validation loss is ours"),
            Control(f"the learning rate alone, {network} levels", ratio(ALONE)),
            f"Best validation loss of the grid over that at random, over {config['num_places']} places of the range. "
            "The random learning rates are the same with weight decay and without.",
        ),
        Claim(
            "The same network, the learning rate alone: no advantage",
            ratio(ALONE),
            at_most(1.03, "as above"),
            Control("weight decay beside it", ratio(ONE_OF_TWO)),
            "As above.",
        ),
    ]


def draw(record: Record) -> Mapping[str, Figure]:
    """Draw the shares of surfaces by budget, and the trials and results of both searches of the network."""
    results, config = record.results, record.config
    data = images.TITLES[config["data"]]
    network, which = results["network"], len(results["network"][ONE_OF_TWO]["grid"]) // 2
    ends = network[ONE_OF_TWO]["grid"][which]["learning_rate"]

    def tried(sampler: str) -> Figure:
        one = network[ONE_OF_TWO][sampler][which]
        scores = np.array(one["scores"])
        return figures.hyperparameter_scatter(
            {name: one[name] for name in ("learning_rate", "weight_decay")}, scores, ylabel="validation loss (nats)",
            chosen=int(np.nanargmin(scores)), log=("learning_rate", "weight_decay"), log_score=True,
            ranges={"learning_rate": (min(ends), max(ends)), "weight_decay": tuple(config["decays"])},
            title=f"{data}: {len(scores)} trials, {sampler}", columns=2,
        )  # fmt: skip

    def ended(name: str) -> tuple[list[float], list[float]]:
        grid, random = ([one["best"] for one in network[name][sampler]] for sampler in ("grid", "random"))
        return grid, random

    labels = {ONE_OF_TWO: "learning rate and weight decay", ALONE: "learning rate alone"}
    return {
        "surfaces": panels(
            config["budgets"],
            [
                Panel(name, {sampler: [[np.mean(hit) for hit in row.values()]] for sampler, row in found.items()},
                      smallest=0.0, largest=1.0)
                for name, found in results["surfaces"].items()
            ],
            xlabel="trials", title=f"Share of surfaces on which a search meets the best {config['target']:.0%}",
        ),
        "grid_trials": tried("grid"),
        "random_trials": tried("random"),
        "network": pairs(
            {label: ended(name) for name, label in labels.items()},
            settings=(f"grid of {config['levels'] ** 2}", f"{config['levels'] ** 2} at random"),
            labels=dict.fromkeys(labels.values(), ("", "")),
            xlabel=f"best validation loss (nats); one dot for each of {config['num_places']} places of the range",
            title=f"{data}: a grid and random search of equal size",
        ),
    }  # fmt: skip


EXPERIMENT = Experiment(
    question="Does random search beat a grid of the same size, and when does it not?",
    presets=PRESETS,
    run=run,
    claims=claims,
    figures=draw,
)
