"""Layout of a sweep's lanes over the devices, and the choice of the vectorised width."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxopt_study._checks import check_integer
from jaxopt_study._programs import equations, inner_jaxprs

TRIALS = "trials"  # the mesh axis of the lanes


class Speed(NamedTuple):
    """The speed of one device.

    Attributes:
        operation: Seconds per operation of a traced program, the overhead even of the smallest one.
        flop: Seconds per floating-point operation in a large matrix product.
    """

    operation: float
    flop: float


@dataclass(frozen=True)
class Layout:
    """The layout of the lanes of one call.

    Attributes:
        mesh: Device mesh with the axis "trials"; other axes divide the examples of every lane.
        width: Number of lanes vectorised on each device, ≥ 1; 1 runs a lane without `vmap`.
    """

    mesh: Mesh
    width: int = 1

    @property
    def lanes_per_call(self) -> int:
        """The number of lanes per call of the program."""
        return self.mesh.shape[TRIALS] * self.width

    @property
    def sharding(self) -> NamedSharding:
        """The sharding of the lanes."""
        return NamedSharding(self.mesh, PartitionSpec(TRIALS))

    def placed(self, shared: dict[str, Any]) -> dict[str, Any]:
        """Return the shared arguments on the devices: training examples along the other axes, the rest replicated.

        Args:
            shared: Arrays by name; "examples" has "data".

        Returns:
            The placed arrays. Examples whose number the other axes do not divide are replicated, too.
        """
        axes = batch_axes(self.mesh)
        parts = self.mesh.size // self.mesh.shape[TRIALS]
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        divided = NamedSharding(self.mesh, PartitionSpec(axes)) if axes else everywhere

        def put(path: Any, values: Any) -> Any:
            is_data = [getattr(step, "key", None) for step in path[:2]] == ["examples", "data"]
            return place(values, divided if is_data and len(values) % parts == 0 else everywhere)

        return jax.tree.map_with_path(put, shared)

    def describe(self) -> dict[str, Any]:
        """Return a description for records: equal descriptions on equal machines give bitwise equal results."""
        kind = self.mesh.devices.flat[0].device_kind
        return {"axes": dict(self.mesh.shape), "width": self.width, "device": kind}


def batch_axes(mesh: Mesh) -> tuple[str, ...]:
    """Return the axes of a mesh that divide the examples."""
    return tuple(name for name in mesh.axis_names if name != TRIALS)


def place(values: Any, sharding: NamedSharding) -> jax.Array:
    """Return a host array of every process as one array on the devices of all processes."""
    if jax.process_count() == 1:
        return jax.device_put(values, sharding)
    values = np.asarray(values)
    return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])


def use_cpu_cores(count: int | None = None) -> int:
    """Make JAX treat the processor's cores as separate devices, so that a sweep runs one trial per core.

    On a CPU, one trial per core is faster than vectorising unless the network is tiny. Call it before JAX initialises
    its devices: at the top of a program, before the first array.

    Args:
        count: Number of devices; None takes the number of cores available to this process.

    Returns:
        The number of devices.

    Raises:
        RuntimeError: If JAX is already initialised with another number of CPU devices.
        ValueError: If the count is not positive.
    """
    count = usable_cores() if count is None else check_integer("use_cpu_cores", "count", count, 1)
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:
        present = len(jax.devices("cpu"))
        if present != count:
            raise RuntimeError(
                f"JAX is already initialised with {present} CPU devices. Call use_cpu_cores({count}) before anything "
                f"uses JAX, or set the environment variable JAX_NUM_CPU_DEVICES={count}."
            ) from None
    return count


def default_mesh() -> Mesh:
    """Return a mesh of all devices of all processes with the single axis "trials"."""
    return jax.make_mesh((jax.device_count(),), (TRIALS,), axis_types=(AxisType.Auto,))


def automatic(mesh: Mesh) -> Mesh:
    """Return a mesh of the same devices with automatic axes, which a sweep needs."""
    return Mesh(mesh.devices, mesh.axis_names)


def choose_width(jaxpr: Any, *, lanes_per_device: int, speed: Speed | None = None) -> int:
    """Return the number of lanes to vectorise, from the cost of one lane's step and the speed of the machine.

    On a CPU even the smallest operation costs a tenth of a microsecond or more. Lanes are vectorised until this
    overhead is a small part of the total, and no further, because beyond that they only compete for the cache; if it is
    small for one lane already, not at all, because a vectorised program takes half as long again to compile. All calls
    have about as many lanes, so that few are computed twice to fill the last one. On an accelerator all lanes are
    vectorised, up to 4,096.

    Args:
        jaxpr: The program of one lane.
        lanes_per_device: Number of lanes per device.
        speed: Speed of a device; None measures it on this machine, once per process.

    Returns:
        The width.
    """
    if jax.default_backend() != "cpu" or lanes_per_device == 1:
        return _balanced(4096, lanes_per_device)
    speed = measured_speed() if speed is None else speed
    operations, work = _cost(jaxpr)
    overhead, work = operations * speed.operation, work * speed.flop
    width = 1
    while work < _ALREADY_SMALL * overhead and width * work < _SMALL_PART * overhead and width < 4096:
        width *= 2
    return _balanced(width, lanes_per_device)


def _balanced(most: int, lanes: int) -> int:
    """Return the smallest width with which lanes take as few calls as with the largest."""
    return -(-lanes // max(1, -(-lanes // most)))


@cache
def measured_speed() -> Speed:
    """Return the measured speed of a device for small operations and for large matrix products.

    Large products use all cores, which the devices of one processor share.

    Cost: two small programs are compiled and run, about a third of a second, once in a process.
    """
    with jax.default_device(jax.local_devices()[0]):
        small, operations, _ = _timed(_training_step, tuple(jnp.ones(shape) for shape in _SMALL), 500)
        large, _, flops = _timed(lambda x: jnp.tanh(x @ x), jnp.zeros((_LARGE, _LARGE)), 10)
    return Speed(small / operations, large / flops * len(jax.local_devices()))


# Ratios of work to overhead, found by benchmarks/search.py widths.
_SMALL_PART = 16
_ALREADY_SMALL = 4
_SMALL = ((4, 8), (8, 8), (8, 4))  # layers of a network with negligible arithmetic
_LARGE = 256


def _training_step(params: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    def loss(params: tuple[jax.Array, ...]) -> jax.Array:
        x = jnp.ones((4, 4))
        for weights in params:
            x = jnp.tanh(x @ weights)
        return jnp.mean(x**2)

    return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params))


def _timed(step: Callable[[Any], Any], start: Any, times: int) -> tuple[float, float, float]:
    """Return the seconds per step of a loop, with its operations and work."""

    def loop(x: Any) -> Any:
        return jax.lax.fori_loop(0, times, lambda _, x: step(x), x)

    operations, work = _cost(jax.make_jaxpr(loop)(start).jaxpr)
    compiled = jax.jit(loop).lower(start).compile()
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(compiled(start))
        seconds.append(time.perf_counter() - began)
    return min(seconds) / times, operations, work


def usable_cores() -> int:
    """Return the number of cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cost(jaxpr: Any) -> tuple[float, float]:
    """Return operations and work of the most expensive loop body of a program, or of the whole program without loops.

    Work counts the floating-point operations of matrix products; an element written by another operation counts as ten.
    """
    loops = [_total(body) for body in _loop_bodies(jaxpr)]
    # An operation costs about as much as 10⁴ floating-point operations; the choice of the loop hardly depends on this
    # number.
    return max(loops, key=lambda cost: 1e4 * cost[0] + cost[1], default=_total(jaxpr))


def _loop_bodies(jaxpr: Any) -> list[Any]:
    bodies = []
    for equation in jaxpr.eqns:
        inner = inner_jaxprs(equation)
        if equation.primitive.name in ("scan", "while"):
            bodies += inner
        else:
            bodies += [body for program in inner for body in _loop_bodies(program)]
    return bodies


def _total(jaxpr: Any) -> tuple[float, float]:
    operations = work = 0.0
    for equation in equations(jaxpr):
        if inner_jaxprs(equation):
            continue  # counted by what is inside
        operations += 1
        size = float(sum(getattr(out.aval, "size", 0) for out in equation.outvars))
        work += _products(equation, size) if equation.primitive.name in _CONTRACTIONS else 10.0 * size
    return operations, work


_CONTRACTIONS = (
    "dot_general",
    "conv_general_dilated",
    "convolution_in_tiles",
    "convolution_in_tiles_images",
    "convolution_in_tiles_kernels",
)


def _products(equation: core.JaxprEqn, size: float) -> float:
    if "geometry" in equation.params:
        return 2.0 * equation.params["geometry"].products
    left: Any = equation.invars[0].aval
    right: Any = equation.invars[1].aval
    if equation.primitive.name == "dot_general":
        ((contracted, _), _) = equation.params["dimension_numbers"]
        return 2.0 * size * float(np.prod([left.shape[axis] for axis in contracted], dtype=float))
    kernel = equation.params["dimension_numbers"].rhs_spec
    return 2.0 * size * right.size / right.shape[kernel[0]]
