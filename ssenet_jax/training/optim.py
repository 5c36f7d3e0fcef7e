"""Poly schedule and SGD, with learning rate, decay and freezing set per parameter path."""

import difflib
import heapq
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import tree_map_with_path

Groups = Sequence[tuple[str, float, float]]
"""Rows of (regex over the whole parameter path, learning rate multiplier, weight decay); the first match wins."""


class SgdState(NamedTuple):
    step: jax.Array
    momentum: dict


def poly_schedule(base_lr: float, total_steps: int, power: float) -> Callable[[jax.Array], jax.Array]:
    """Learning rate base_lr * (1 - step / total_steps) ** power, changed at every step.

    Past the end the rate of the last step stays, as in the authors' optimizer.

    Args:
        base_lr: rate at step 0.
        total_steps: number of steps, at least 1.
        power: 0.9 in the paper; 0 keeps the rate constant.

    Returns:
        A function from the number of finished steps, an integer scalar, to a float32 scalar.
    """
    if total_steps < 1:
        raise ValueError(f"total_steps is {total_steps}; a poly schedule needs at least 1 step")

    # a table, because float32 powers on a device are off in the last digits
    rates = (base_lr * (1 - np.arange(total_steps) / total_steps) ** power).astype(np.float32)
    return lambda step: jnp.asarray(rates)[jnp.minimum(step, total_steps - 1)]


def path_name(path: Sequence) -> str:
    """The "/"-joined name of a leaf; nested dicts and dicts of joined names give the same one."""
    return "/".join(str(getattr(key, "key", key)) for key in path)


def match_groups(params: dict, groups: Groups) -> dict:
    """The (multiplier, weight decay) of every parameter.

    Args:
        params: tree of parameters; only its paths are read.
        groups: rows (regex, multiplier, weight decay). A regex has to match the whole path.

    Returns:
        A dict from path to (multiplier, weight decay), in the order of the leaves.

    Raises:
        ValueError: for paths that no row covers (all are listed) and for a row that is not usable.
    """
    rows = [_compile_row(row) for row in groups]
    table = {path: next((row[1:] for row in rows if row[0].fullmatch(path)), None) for path in flatten(params)}
    missing = [path for path, row in table.items() if row is None]
    if missing:
        raise ValueError(
            f"no row of the parameter groups covers {', '.join(missing)}; add one, for example ('.*', 1.0, 0.0)"
        )
    return table


def check_patterns(paths: Iterable[str], patterns: Iterable[str]) -> None:
    """Sees that every regex matches a parameter, whether or not an earlier row takes it.

    A layer may or may not have a bias, so a regex that would match the bias of a layer is right for either.

    Args:
        paths: of all parameters of a network.
        patterns: regexes over whole paths, as in `Groups`.

    Raises:
        ValueError: names the first regex without a match and the paths that are nearest to it.
    """
    paths = list(paths)
    possible = {*paths, *(f"{path.rpartition('/')[0]}/bias" for path in paths)}
    for pattern in patterns:
        if not any(re.fullmatch(pattern, path) for path in possible):
            near = ", ".join(heapq.nlargest(3, paths, key=lambda path: _likeness(pattern, path)))
            raise ValueError(f"the regex {pattern!r} over parameter paths matches none; the nearest are {near}")


def _likeness(pattern: str, path: str) -> float:
    """How far the letters of a regex agree with the start of a path."""
    letters = re.sub(r"\\.|[^\w/]", "", pattern)
    return difflib.SequenceMatcher(None, letters, path[: len(letters) + 1], autojunk=False).ratio()


def _compile_row(row):
    try:
        pattern, multiplier, decay = row
        compiled, multiplier, decay = re.compile(pattern), float(multiplier), float(decay)
    except (TypeError, ValueError, re.error) as e:
        raise ValueError(
            f"the parameter group {row!r} is not a row (regex, learning rate multiplier, weight decay): {e}"
        ) from e
    if multiplier < 0 or decay < 0:
        raise ValueError(f"the parameter group {row!r} has a negative multiplier or weight decay; 0 freezes")
    return compiled, multiplier, decay


def split_trainable(params: dict, groups: Groups) -> tuple[dict, dict]:
    """Parts a tree of parameters in what is trained and what is frozen (multiplier 0).

    Differentiating with respect to the first part alone saves the backward pass of a frozen front.

    Returns:
        Two flat dicts from path to array; `merge` puts them together again.

    Raises:
        ValueError: see `match_groups` and `check_patterns`.
    """
    table = match_groups(params, groups)
    leaves = flatten(params)
    check_patterns(leaves, [pattern for pattern, *_ in groups])
    trainable = {path: leaf for path, leaf in leaves.items() if table[path][0] != 0}
    frozen = {path: leaf for path, leaf in leaves.items() if table[path][0] == 0}
    return trainable, frozen


def flatten(tree: dict) -> dict:
    """The flat dict from "/"-joined path to leaf of a tree."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def merge(*parts: dict) -> dict:
    """The nested tree of flat dicts from "/"-joined path to leaf; the inverse of `flatten`."""
    tree: dict = {}
    for part in parts:
        for path, leaf in part.items():
            *parents, name = path.split("/")
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[name] = leaf
    return tree


def sgd(
    params: dict, groups: Groups, *, base_lr: float, total_steps: int, power: float = 0.9, momentum: float = 5e-4
) -> optax.GradientTransformation:
    """Stochastic gradient descent with momentum and a poly schedule, in PyTorch's order of operations.

    d = g + decay * p;  buffer = momentum * buffer + d;  p = p - lr * multiplier * buffer.
    The decay goes through the momentum, and the buffer starts as the first d. A multiplier of 0 gives updates
    of exactly zero, decay included.

    Args:
        params: tree of parameters, nested or flat; only its paths are read.
        groups: rows (regex, multiplier, weight decay); see `match_groups`.
        base_lr: rate at step 0 of a group with multiplier 1.
        total_steps: length of the schedule.
        power: exponent of the poly schedule.
        momentum: factor of the buffer. The authors' code passes the weight decay here, hence 5e-4.

    Raises:
        ValueError: see `match_groups`.
    """
    table = match_groups(params, groups)
    schedules = {scale: poly_schedule(base_lr * scale, total_steps, power) for scale, _ in table.values() if scale}

    def init(params):
        return SgdState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(gradients, state, params):
        rates = {multiplier: schedule(state.step) for multiplier, schedule in schedules.items()}

        def accumulate(path, gradient, buffer, param):
            return momentum * buffer + gradient + table[path_name(path)][1] * param

        def scale(path, buffer):
            multiplier = table[path_name(path)][0]
            return -rates[multiplier] * buffer if multiplier else jnp.zeros_like(buffer)

        buffers = tree_map_with_path(accumulate, gradients, state.momentum, params)
        return tree_map_with_path(scale, buffers), SgdState(state.step + 1, buffers)

    return optax.GradientTransformation(init, update)
