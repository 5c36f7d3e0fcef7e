"""What the values of a config may be, looked at when a run starts and not after its first training."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ssenet_jax.artifacts import flatten


class Rule(NamedTuple):
    """What the values of some keys have to be.

    Attributes:
        keys: a regex over whole dotted keys.
        holds: of a value.
        words: how a message says it.
    """

    keys: str
    holds: Callable[[Any], bool]
    words: str


def _number(low: float, high: float = math.inf, *, above: bool = False) -> Callable[[Any], bool]:
    """A finite number from low, or above it, to high."""
    return lambda value: (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and (value > low if above else value >= low)
        and value <= high
    )


def _each(holds: Callable[[Any], bool], fewest: int = 1) -> Callable[[Any], bool]:
    return lambda values: len(values) >= fewest and all(map(holds, values))


def _range(low: float) -> Callable[[Any], bool]:
    """Two numbers above low, the smaller first."""
    return lambda values: len(values) == 2 and low < values[0] <= values[1] < math.inf


def _drawn(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """A number, or two between which each step draws."""
    return lambda value: all(map(holds, value)) and len(value) == 2 if isinstance(value, list) else holds(value)


def _turns(value: Any) -> bool:
    low, high = value if isinstance(value, list) and len(value) == 2 else (value, value)
    return isinstance(low, int) and isinstance(high, int) and low <= high


def _matrix(value: Any) -> bool:
    rows = value if isinstance(value, list) else ()
    return len(rows) == 2 and all(
        isinstance(row, list) and len(row) == 3 and all(map(_number(-math.inf), row)) for row in rows
    )


def _one_of(*names: str) -> Callable[[Any], bool]:
    return lambda value: value in names


POSITIVE, COUNT, SHARE = _number(0, above=True), _number(1), _number(0, 1)
SCALES = _each(_number(0, 16, above=True))

RULES = (
    Rule(r"seed|data\.scenes\.seed", _number(0, 2**32 - 1), "from 0 to 4294967295"),
    Rule(r"dtype", _one_of("float32", "bfloat16"), "float32 or bfloat16"),
    Rule(r"data\.on_error", _one_of("raise", "skip"), "raise or skip"),
    Rule(
        r"data\.scenes\.num_.*|(?!inference).*\.batch_size|.*\.(accumulate|crop|log_every|checkpoint_every|keep)",
        COUNT,
        "at least 1",
    ),
    Rule(r"data\.scenes\.size", _number(32), "at least 32 pixels"),
    Rule(
        r"inference\.batch_size|measure\..*|mesh\.data"
        r"|.*\.(steps|min_steps|epochs|picture_every|iterations|workers|max_side|examples)",
        _number(0),
        "0 or more",
    ),
    Rule(r"inference\.bucket", COUNT, "at least 1 pixel"),
    Rule(r"model\.width", _number(0, 16, above=True), "above 0"),
    Rule(r"model\.norm", _one_of("frozen", "batch"), "frozen or batch"),
    Rule(
        r"model\.dropout",
        lambda value: _number(0)(value) and value < 2,
        "0 or more and below 2: it multiplies rates of up to 0.5",
    ),
    Rule(r".*\.lr", POSITIVE, "above 0"),
    Rule(r".*\.(momentum|power|weight_decay)|(ser|seam)\.eta|.*compat_.*", _number(0), "0 or more"),
    Rule(r".*\.(brightness|contrast|saturation|brightness_shift)|(ser|seam)\.eta_warmup", SHARE, "from 0 to 1"),
    Rule(r".*\.hue", _number(0, 0.5), "from 0 to 0.5"),
    Rule(r"classifier\.long_edge|segmenter\.scale", _range(0), "two numbers above 0, the smaller first"),
    Rule(r"segmenter\.rounds", lambda value: value in (0, 1), "0 or 1"),
    Rule(r"ser\.p", COUNT, "at least 1"),
    Rule(r"ser\.rate", _drawn(_number(0, above=True)), "a number above 0, or a range (low, high) of such"),
    Rule(r"ser\.(degrees|shift)", _drawn(_number(-math.inf)), "a number, or a range (low, high)"),
    Rule(r"ser\.quarter_turns", _turns, "a whole number, or a range (low, high) of such, the smaller first"),
    Rule(r"ser\.matrix", _matrix, "two rows of three numbers"),
    Rule(r"ser\.normalize", _one_of("max", "none"), "max or none"),
    Rule(r"ser\.draw", _one_of("one", "all"), "one or all"),
    Rule(r"ser\.classes", _one_of("all", "present"), "all or present"),
    Rule(r"ser\.cam_size", _one_of("image", "feature"), "image or feature"),
    Rule(r"seam\.rate", _number(0, 1, above=True), "above 0 and at most 1"),
    Rule(r"(cam|segment)\.scales", SCALES, "one or more numbers above 0 and at most 16"),
    Rule(r"crf\.(alpha_.*|sxy_.*|srgb)|segment\.background_weight", POSITIVE, "above 0"),
    Rule(r"crf\.backend", _one_of("auto", "jax", "pydensecrf"), "auto, jax or pydensecrf"),
    Rule(r"(affinity|segmenter)\.init", _one_of("weights", "classifier"), "weights or classifier"),
    Rule(r"affinity\.radius", _number(2), "at least 2 cells"),
    Rule(r"affinity\.stride", lambda value: value in (1, 2, 4, 8), "1, 2, 4 or 8 pixels"),
    Rule(r"(affinity|random_walk)\.border", _one_of("full", "reference"), "full or reference"),
    Rule(r"random_walk\.features", _one_of("affinity", "classifier"), "affinity or classifier"),
    Rule(r"random_walk\.beta", POSITIVE, "above 0"),
    Rule(r"random_walk\.method", _one_of("auto", "stencil", "chebyshev", "dense"), "auto, stencil, chebyshev or dense"),
    Rule(r"labels\.background", _one_of("constant", "power"), "constant or power"),
    Rule(r"labels\.unreviewed", _one_of("walk", "cam"), "walk or cam"),
    Rule(r"labels\.alpha", _number(0), "0 or more"),
    Rule(r"evaluate\.alpha", SHARE, "from 0 to 1"),
    Rule(r"evaluate\.alphas", _each(SHARE), "one or more numbers from 0 to 1"),
)


def _fits(rule: Rule, value: Any) -> bool:
    try:
        return rule.holds(value)
    except TypeError:  # a file may have null, or a word, where a rule expects numbers
        return False


def check(config: Mapping) -> None:
    """Raises a ValueError that names every value of a config that cannot work, and what it may be."""
    wrong = []
    for key, value in flatten(config).items():
        for rule in RULES:
            if re.fullmatch(rule.keys, key) and not _fits(rule, value):
                shown = tuple(value) if isinstance(value, list) else value
                wrong.append(f"{key} is {shown!r}; it must be {rule.words}")
    for name, section in config.items():
        if hasattr(section, "items") and "epochs" in section and not section["epochs"] and not section["steps"]:
            wrong.append(f"{name}.epochs and {name}.steps are both 0; set one of them")
    affinity = config["affinity"]
    if not wrong and affinity["crop"] % affinity["stride"]:
        wrong.append(
            f"affinity.crop is {affinity['crop']}; it must be a multiple of affinity.stride, {affinity['stride']}"
        )
    if wrong:
        raise ValueError("; ".join(wrong))
