"""Memory of a product: what is free, what one takes, and how many examples fit."""

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.core import Tracer
from jax.extend import core

from jaxopt_study._programs import inner_jaxprs

_ROOM = 8  # products: what a solve keeps, 2, an audit in double precision, 4, and vectors
_KEPT = 2  # products: a linearisation


class Need(NamedTuple):
    """Memory of one product with an operator, and what is free, in bytes; zeros where there is room for many.

    Attributes:
        product: Memory of one product.
        kept: Memory of a linearisation, which is kept for many products.
        free: Memory that is free.
        examples: Number of examples of a batch with ample room.
    """

    product: int = 0
    kept: int = 0
    free: int = 0
    examples: int = 0

    @property
    def is_ample(self) -> bool:
        """Whether there is room for everything that a solve or an audit holds at a time."""
        return _ROOM * self.product <= self.free


def need(op: Any, program: Any, batch: int, count: int) -> Need:
    """Return the memory that one product takes.

    A product takes less than all values of the loss together, so small programs are not compiled for this.

    Args:
        op: An operator of an empirical risk.
        program: The traced program of the loss of one batch.
        batch: Number of examples of a batch.
        count: Number of batches whose linearisations would be kept.

    Returns:
        The memory, from XLA's analysis of the compiled product; zeros if there is ample room, or if it is not known: on
        several devices, or without a derivative.
    """
    if _num_devices(op) > 1 or _ROOM * count * values_of(program) <= (free := free_memory()):
        return Need()
    leaves, structure = jax.tree.flatten(op)
    product = _bytes_of_product(structure, tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves))
    if product is None:
        return Need()
    examples = max(batch * free // (_ROOM * max(product, 1)), 1)
    return Need(product, _KEPT * count * product, free, 1 << examples.bit_length() - 1)  # a power of two


def values_of(program: Any) -> int:
    """Return the bytes of all values of a program, those of all iterations of its loops included."""
    total = 0
    for equation in getattr(program, "jaxpr", program).eqns:
        inner = inner_jaxprs(equation)
        if inner:
            total += equation.params.get("length", 1) * sum(map(values_of, inner))
        else:
            total += sum(map(_bytes, equation.outvars))
    return total


def free_memory() -> int:
    """Return the bytes that are free on the default device, or on the host where that is the device."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    measures = (of_machine, Path("/proc/meminfo")), (of_group, Path("/sys/fs/cgroup"))
    found = [size for measure, place in measures if (size := _if_readable(measure, place)) is not None]
    if found:
        return min(found)
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:  # no measure of what is free
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return 2**62


def _if_readable(measure: Callable[[Path], int], place: Path) -> int | None:
    try:
        return measure(place)
    except (OSError, ValueError, KeyError):  # another system, no limit ("max"), or an old kernel
        return None


def of_machine(path: Path) -> int:
    """Return the bytes that Linux counts as available in its file of memory."""
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines())
    return 1024 * int(lines["MemAvailable"].split()[0])


def of_group(root: Path) -> int:
    """Return the bytes that the limit of a control group, version 2 or 1, leaves; cached files are given up first."""
    limit, used, cached = "memory.max", "memory.current", "inactive_file"
    if not (root / limit).exists():
        root, limit, used, cached = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_" + cached
    stat = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
    return int((root / limit).read_text()) - int((root / used).read_text()) + int(stat[cached])


@lru_cache(maxsize=16)
def _bytes_of_product(structure: Any, leaves: tuple[jax.ShapeDtypeStruct, ...]) -> int | None:
    op = jax.tree.unflatten(structure, leaves)
    programs = (
        (lambda op, v: op.matvec(v)),
        (lambda op, v: jax.grad(lambda p: op.mean(lambda batch: op.batch_operator.forward(p, batch)))(v)),
    )
    for program in programs:  # the second for a loss without a forward derivative
        try:
            found = jax.jit(program).lower(op, op.like).compile().memory_analysis()
        except Exception:  # no derivative in this mode, or a loss that closes over traced values
            continue
        return None if found is None else found.temp_size_in_bytes + found.output_size_in_bytes
    return None


def _num_devices(op: Any) -> int:
    shardings = [x.sharding for x in jax.tree.leaves(op) if isinstance(x, jax.Array) and not isinstance(x, Tracer)]
    return max((len(sharding.device_set) for sharding in shardings), default=1)


def _bytes(variable: core.Var) -> int:
    size, dtype = getattr(variable.aval, "size", 0), getattr(variable.aval, "dtype", None)
    return size * getattr(dtype, "itemsize", 0)
