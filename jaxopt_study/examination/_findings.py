"""Findings of an examination: what its results mean together, and what to try."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxopt_study import figures
from jaxopt_study.examination._rows import interval

Results = Mapping[str, Mapping[str, Any]]

FINE = 1e-3  # noise floor of products below which every result of an examination is of use


class Finding(NamedTuple):
    """A conclusion from one or several results.

    Attributes:
        subject: What it is about.
        text: The conclusion, with its numbers.
        advice: What to try; empty if nothing follows.
    """

    subject: str
    text: str
    advice: str = ""


def findings(results: Results, errors: Mapping[str, str]) -> tuple[Finding, ...]:
    """Return the conclusions that the results support.

    Args:
        results: Results by stage; stages may be missing.
        errors: Messages of the stages that failed.

    Returns:
        The conclusions, the most important first; results that are not resolved are said to be so.
    """
    found = [
        finding
        for rule in (_products, _step, _point, _prediction, _sharpness, _noise, _blocks)
        for finding in rule(results)
    ]
    found += [Finding("not measured", f"{stage}: {message}") for stage, message in errors.items()]
    return tuple(found)


def _products(results: Results) -> Iterator[Finding]:
    audit = results.get("audit")
    if audit is None or audit["verdict"] == "sound":
        return
    floor, messages = audit["noise_floor"], " ".join(audit["messages"])
    if audit["verdict"] == "unsound":
        advice = f"Correct the loss first: {messages}" if messages else ""
        yield Finding("audit", "The products are not those of a Hessian; nothing else was computed.", advice)
    else:
        text = f"The products are noisy: their error is {floor:.1e} of the norm, and no result is more accurate."
        fine = "That does for the results here; with parameters and data in float64 it is smaller if it is rounding."
        yield Finding("audit", text, fine if floor < FINE else messages)


def _step(results: Results) -> Iterator[Finding]:
    # By the eigenvalues of the step if they are known, and by the sharpness in units of the optimizer's limit.
    ratio = results["preconditioned"]["ratio"] if "preconditioned" in results else None
    stability = results.get("stability")
    if stability is not None and stability["kind"] != "unknown":
        radius = f"{stability['radius']:.4g} ± {stability['error']:.1g}"
        text = {
            "stable": f"The next step is stable: a deviation shrinks by a factor of {radius}.",
            "marginal": f"The next step keeps deviations along flat directions: the spectral radius is {radius}.",
            "escape": f"The next step leaves the point along negative curvature, by a factor of {radius} a step.",
            "oscillation": f"The next step overshoots: a deviation grows by a factor of {radius} a step.",
        }[stability["kind"]]
        advice = _smaller(ratio) if stability["kind"] == "oscillation" else ""
        if stability["kind"] == "escape":
            advice = "This is descent, not divergence; a smaller learning rate only slows it down."
        yield Finding("next step", text, advice)
    if ratio is None:
        return
    low, high = ratio
    share = f"the preconditioned sharpness is {interval(low, high)} times the optimizer's limit"
    if low > 1:
        yield Finding("learning rate", f"The learning rate is beyond the edge of stability: {share}.", _smaller(ratio))
    elif high < 1:
        room = f"Up to {1 / high:.3g} times the learning rate is stable at this point." if high > 0 else ""
        yield Finding("learning rate", f"The learning rate is below the edge of stability: {share}.", room)
    else:
        yield Finding(
            "learning rate", f"The learning rate is at the edge of stability, or not resolved from it: {share}.",
            "A narrower bracket (a larger budget) tells which.",
        )  # fmt: skip


def _smaller(ratio: Any) -> str:
    if ratio is None or not ratio[0] > 1:
        return "Lower the learning rate."
    return f"Divide the learning rate by at least {ratio[1]:.3g}, or expect the loss to oscillate."


def _point(results: Results) -> Iterator[Finding]:
    point = results.get("classification")
    if point is None:
        return
    gradient, limit = point["gradient_norm"], point["gradient_tol"]
    index = point["index"]
    negative = figures.count_range(*index["interval"])
    if point["verdict"] == "not critical":
        yield Finding(
            "kind of point",
            f"No critical point: ‖∇L‖ = {gradient:.2g} is above {limit:.2g}; {negative} eigenvalues are negative.",
        )
    else:
        yield Finding("kind of point", f"A {point['verdict']}, with {negative} negative eigenvalues.")
    if point["escape"]["seen"] and point["verdict"] != "not critical":
        yield Finding(
            "way down", f"Along a straight line the loss falls by {point['escape']['fall']:.3g}.",
            "Noise, or a step along this direction, leaves the point.",
        )  # fmt: skip


def _prediction(results: Results) -> Iterator[Finding]:
    step = results.get("accounting")
    if step is None:
        return
    realised, ratio, error = step["realised"], step["ratio"], step["ratio_error"]
    change = f"changes the loss by {realised:.3g}"
    predicted = step["linear"] + step["quadratic"]
    if not np.isfinite(ratio) or error > 0.5:
        text = f"The next step {change}, which is too small beside its rounding error to be compared with a prediction."
    elif abs(ratio - 1) <= max(0.1, 2 * error):
        text = f"The next step {change}; the quadratic model predicts {predicted:.3g}, so it describes this step."
    else:
        text = (
            f"The next step {change}, where the quadratic model predicts {predicted:.3g}: higher derivatives matter "
            "within one step."
        )
    advice = "" if realised <= 0 else "The loss rises: compare the learning rate with its limit above."
    yield Finding("change of the loss", text, advice)


def _sharpness(results: Results) -> Iterator[Finding]:
    bracket = results.get("sharpness")
    if bracket is None:
        return
    sure = f"{100 * bracket['confidence']:.3g} % confidence"
    rate = interval(*bracket["critical_learning_rate"])
    yield Finding(
        "sharpness",
        f"λmax is {interval(bracket['lower'], bracket['upper'])} ({sure}); gradient descent is stable below a learning "
        f"rate of {rate}.",
        "" if bracket.get("converged", True) else "The bracket is wider than asked for; give a larger budget.",
    )


def _noise(results: Results) -> Iterator[Finding]:
    noise = results.get("noise")
    if noise is None:
        return
    if not np.isfinite(noise["upper"]):  # the gradient is not resolved from its noise
        text = f"The noise of a batch equals the gradient at {noise['lower']:.3g} examples or more."
        yield Finding("batch noise", text, "Batches far below that are mostly noise here; averaging them helps.")
        return
    yield Finding(
        "batch noise",
        f"The noise of a batch equals the gradient at about {noise['noise_scale']:.3g} examples "
        f"({noise['lower']:.3g} to {noise['upper']:.3g}).",
        "Batches far above it save few steps; far below, a smaller learning rate or averaging helps.",
    )


def _blocks(results: Results) -> Iterator[Finding]:
    blocks = results.get("blocks")
    if blocks is None or len(blocks["names"]) < 2:
        return
    largest, least = (pick(blocks["eigenvalues"]) for pick in (np.argmax, np.argmin))
    top, low = blocks["eigenvalues"][largest], blocks["eigenvalues"][least]
    if not low - blocks["residuals"][least] > 0:
        return
    yield Finding(
        "layers",
        f"The largest curvature is in {blocks['names'][largest]} (λmax = {top:.3g}), {top / low:.3g} times that in "
        f"{blocks['names'][least]}.",
        "One learning rate for all layers is a compromise: adaptive methods, or a rate for each, help most here."
        if top > 10 * low
        else "",
    )
