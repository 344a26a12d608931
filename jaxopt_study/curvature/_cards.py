"""Card of an audit."""

from typing import Any

from jaxopt_study._display import Card, count, number, products, scalar


def audit(found: Any) -> Card:
    """Return the card of an `Audit`."""
    show = lambda gap: "not checked" if gap is None else f"{scalar(gap):.1e}"
    rows = [
        ("norm, at least", number(scalar(found.norm)), ""),
        ("symmetry gap", show(found.symmetry), ""),
        ("linearity gap", show(found.linearity), ""),
        ("repeatability gap", show(found.repeatability), ""),
        ("other batches", show(found.partition), ""),
        ("against float64", show(found.rounding), ""),
        ("noise floor", show(found.noise_floor), "largest gap; all are relative to ‖H‖"),
        products(found),
    ]
    title = (
        f"Audit: {found.verdict}; {count(found.size)} coordinates, {found.dtype}, matmul precision {found.precision}"
    )
    return Card(title, rows, notes=found.messages)
