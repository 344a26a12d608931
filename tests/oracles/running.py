"""Run a transformation of the package on a gradient stream, in double precision, as one compiled scan."""

import jax
import jax.numpy as jnp
import numpy as np
import optax


def traced_staircase(count):
    """`gradients.staircase`, written so that it can be traced."""
    return jnp.asarray([0.1, 0.02, 0.05])[(count // 60) % 3]


def run_transform(transform, grads, params):
    """Return the parameters, the updates and the whole state after each step, stacked along a leading time axis.

    Gradients may be any pytree with leading time axis; everything is float64.
    """
    with jax.enable_x64(True):

        def body(carry, grad):
            current, state = carry
            updates, state = transform.update(grad, state, current)
            current = optax.apply_updates(current, updates)
            return (current, state), (current, updates, state)

        def program(start, stream):
            return jax.lax.scan(body, (start, transform.init(start)), stream)[1]

        double = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=jnp.float64), (params, grads))
        return _execute(program, *double)


def run_outputs(transform, grads, params):
    """Return the outputs and the whole state after each step, with the parameters held where they are."""
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=jnp.float64), (params, grads))

        def body(state, grad):
            updates, state = transform.update(grad, state, double[0])
            return state, (updates, state)

        def program(stream):
            return jax.lax.scan(body, transform.init(double[0]), stream)[1]

        return _execute(program, double[1])


def run_on_function(transform, gradient, params, num_steps, point):
    """Evaluate the gradient at `point(params, state)` before each step; return parameters and state after each."""
    with jax.enable_x64(True):

        def body(carry, _):
            current, state = carry
            updates, state = transform.update(gradient(point(current, state)), state, current)
            current = optax.apply_updates(current, updates)
            return (current, state), (current, state)

        def program(start):
            return jax.lax.scan(body, (start, transform.init(start)), None, length=num_steps)[1]

        return _execute(program, jnp.asarray(params, dtype=jnp.float64))


def states_of(state, class_name):
    """All states of a class inside an optimizer state, in the order of the chain."""
    found = []

    def is_leaf(node):
        if type(node).__name__ == class_name:
            found.append(node)
            return True
        return False

    jax.tree.leaves(state, is_leaf=is_leaf)
    return found


_COMPILED = {}


def _execute(program, *arguments):
    """Compile and run; a program that was met before, to the letter, is not compiled again."""
    lowered = jax.jit(program).lower(*arguments)
    key = lowered.as_text(), lowered.out_tree
    if key not in _COMPILED:
        _COMPILED[key] = lowered.compile()
    return jax.tree.map(_host, _COMPILED[key](*arguments))


def _host(leaf):
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)
