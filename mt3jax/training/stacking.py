"""Arrays of one shape updated together: a network has hundreds, of few shapes, and each would take tiny programs."""

from __future__ import annotations

import collections
from typing import Any

import jax
import jax.numpy as jnp
import optax


def by_shape(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """`rule`, which must treat every array by itself, applied to stacks of the arrays of one shape.

    The state is that of `rule`, unstacked, so that checkpoints and shardings know nothing of it.
    """

    def update(gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
        form: Any = jax.tree.structure(params)
        flat: tuple[list[Any], Any] = jax.tree.flatten(state, is_leaf=lambda tree: jax.tree.structure(tree) == form)
        trees, state_form = flat
        # What the state keeps of each array, and what of all together, such as the number of updates.
        axes = [0 if jax.tree.structure(tree) == form else None for tree in trees]
        kept = [jax.tree.leaves(tree) if axis == 0 else tree for tree, axis in zip(trees, axes, strict=True)]
        given, values = jax.tree.leaves(gradients), jax.tree.leaves(params)
        directions: list[Any] = [None] * len(values)
        new_kept: list[Any] = [[None] * len(values) if axis == 0 else None for axis in axes]

        state_axes = state_form.unflatten(axes)
        together = jax.vmap(rule.update, in_axes=(0, state_axes, 0), out_axes=(0, state_axes))
        for numbers in _numbers_by_shape(values):

            def stack(arrays: list[Any], numbers: list[int] = numbers) -> Any:
                return jnp.stack([arrays[number] for number in numbers])

            own = [stack(leaves) if axis == 0 else leaves for leaves, axis in zip(kept, axes, strict=True)]
            found, new_state = together(stack(given), state_form.unflatten(own), stack(values))
            for place, number in enumerate(numbers):
                directions[number] = found[place]
            for index, new in enumerate(state_form.flatten_up_to(new_state)):
                if axes[index] is None:
                    new_kept[index] = new
                    continue
                for place, number in enumerate(numbers):
                    new_kept[index][number] = new[place]
        rebuilt = [form.unflatten(new) if axis == 0 else new for new, axis in zip(new_kept, axes, strict=True)]
        return form.unflatten(directions), state_form.unflatten(rebuilt)

    return optax.GradientTransformation(rule.init, update)


def _numbers_by_shape(arrays: list[Any]) -> list[list[int]]:
    found = collections.defaultdict(list)
    for number, array in enumerate(arrays):
        found[array.shape].append(number)
    return list(found.values())
