"""The spatial operator A of a training step, as the section `ser` of a config names it."""

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssenet_jax import equivariance

RATES = 4  # a range of sizes is compiled for this many of them, its ends included
_KEY_OF = {"dy": "shift", "dx": "shift", "k": "quarter_turns", "matrix_2x3": "matrix"}  # where they differ
_SHAPES = ("rate", "k")  # arguments that decide the result's shape: no traced value will do

Operator = Callable[[jax.Array], jax.Array]


class Choice(NamedTuple):
    """One compiled form of the operator.

    Attributes:
        probability: that a step takes it.
        build: from a step's key to the operator.
    """

    probability: float
    build: Callable[[jax.Array], Operator]


def choices(names: Sequence[str], draw: str, arguments: Mapping[str, Any]) -> list[Choice]:
    """The forms of the operator among which each step draws.

    A range of an argument is drawn from anew each step. A range of `rate` changes the shape of the second branch, so
    it is compiled for four rates at equal distances from its low to its high end, and a range of `quarter_turns` for
    each number in it; every form costs a compilation.

    Args:
        names: functions of `equivariance`.
        draw: of several names each step takes "one" or, in their order, "all".
        arguments: numbers, or ranges (low, high), by the keys of the section `ser`.

    Raises:
        ValueError: an unknown name or draw, or an argument that the section does not have.
    """
    if draw not in ("one", "all"):
        raise ValueError(f"ser.draw is {draw!r}; it must be 'one' or 'all'")
    if not names:
        raise ValueError("ser.operators names none; for a training without a second branch set regulariser='none'")
    each = [_forms(name, arguments) for name in names]
    if draw == "one":
        return [Choice(1 / len(each) / len(forms), form) for forms in each for form in forms]
    together = list(itertools.product(*each))
    return [Choice(1 / len(together), _one_after_the_other(forms)) for forms in together]


def drawn(choices: Sequence[Choice], seed: int) -> Callable[[int], int]:
    """From the number of steps done to the index of the choice that the next step takes, on every process the same."""
    probabilities = [choice.probability for choice in choices]
    return lambda done: int(np.random.default_rng((seed, done)).choice(len(choices), p=probabilities))


def _one_after_the_other(forms: Sequence[Callable[[jax.Array], Operator]]) -> Callable[[jax.Array], Operator]:
    if len(forms) == 1:
        return forms[0]
    return lambda key: equivariance.compose(
        *(form(part) for form, part in zip(forms, jax.random.split(key, len(forms)), strict=True))
    )


def _forms(name: str, arguments: Mapping[str, Any]) -> list[Callable[[jax.Array], Operator]]:
    function = getattr(equivariance, name, None)
    if not inspect.isfunction(function) or name.startswith("_"):
        raise ValueError(f"ser.operators names {name!r}; it must name functions of ssenet_jax.equivariance")
    parameters = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    values = {p.name: _value(name, p, arguments) for p in parameters}
    static = [key for key in values if key in _SHAPES and _is_range(values[key])]
    grids = itertools.product(*([(key, value) for value in _grid(key, values[key])] for key in static))
    return [_form(function, values | dict(fixed)) for fixed in grids]


def _value(name: str, parameter: inspect.Parameter, arguments: Mapping[str, Any]) -> Any:
    key = _KEY_OF.get(parameter.name, parameter.name)
    if key in arguments:
        value = arguments[key]
        if not (isinstance(value, int | float) or _is_range(value) or key == "matrix"):
            raise ValueError(f"ser.{key} is {value!r}; it must be a number, or a range (low, high)")
        return value
    if parameter.default is parameter.empty:
        raise ValueError(f"ser.operators names {name!r}, whose argument {parameter.name} has no key ser.{key}")
    return parameter.default


def _form(function: Callable[..., Operator], values: Mapping[str, Any]) -> Callable[[jax.Array], Operator]:
    def build(key: jax.Array) -> Operator:
        drawn = {}
        for index, (name, value) in enumerate(values.items()):
            if _is_range(value):
                low, high = value
                value = jax.random.uniform(jax.random.fold_in(key, index), (), jnp.float32, low, high)
            drawn[name] = value
        return function(**drawn)

    return build


def _is_range(value: Any) -> bool:
    return isinstance(value, Sequence) and len(value) == 2 and all(isinstance(end, int | float) for end in value)


def _grid(name: str, ends: Sequence[float]) -> list:
    low, high = ends
    return list(range(int(low), int(high) + 1)) if name == "k" else np.linspace(low, high, RATES).tolist()
