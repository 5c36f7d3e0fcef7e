"""The geometry of a line chart: numbers in, coordinates of an SVG out. The report's template draws them."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 40
MAX_POINTS = 200


class Tick(NamedTuple):
    """A mark on an axis: where it is in the SVG and what it says."""

    at: float
    text: str


class Line(NamedTuple):
    """One curve: its points in the SVG, and its best point with what to say about it, if asked for."""

    name: str
    points: list[tuple[float, float]]
    best: tuple[float, float] | None
    best_text: str

    @property
    def path(self) -> str:
        """The `points` attribute of an SVG polyline."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)


class Chart(NamedTuple):
    """Everything the template needs to draw one chart."""

    title: str
    summary: str
    x_label: str
    y_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[Line]


def line_chart(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log_y: bool = False,
    mark_best: bool = False,
) -> Chart | None:
    """Lays out a line chart.

    Points that cannot be drawn are left out: non-finite ones, and with `log_y` those that are not positive.

    Args:
        series: name -> (x values, y values).
        title: heading of the chart.
        x_label: what x is.
        y_label: what y is.
        log_y: a logarithmic y axis.
        mark_best: mark the largest y of each series and say it in the legend.
    Returns:
        The chart, or None when no series has two points.
    """
    drawable = {name: _drawable(xs, ys, log_y) for name, (xs, ys) in series.items()}
    drawable = {name: points for name, points in drawable.items() if len(points) > 1}
    if not drawable:
        return None
    every = [point for points in drawable.values() for point in points]
    x_low, x_high = min(x for x, _ in every), max(x for x, _ in every)
    x_high = x_high if x_high > x_low else x_low + 1
    y_values = (_log_ticks if log_y else _linear_ticks)(min(y for _, y in every), max(y for _, y in every))
    scale = math.log10 if log_y else float
    y_low, y_high = scale(y_values[0]), scale(y_values[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low)
        up = (scale(y) - y_low) / (y_high - y_low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    x_values = [x for x in _linear_ticks(x_low, x_high) if x_low <= x <= x_high]
    lines = []
    for name, points in drawable.items():
        x, y = max(points, key=lambda point: point[1])
        best = place(x, y) if mark_best else None
        lines.append(Line(name, [place(*point) for point in points], best, f"{y:.1f} at {x:g}"))
    ends = "; ".join(f"{line.name}: {points[0][1]:.3g} to {points[-1][1]:.3g}"
                     for line, points in zip(lines, drawable.values(), strict=True))  # fmt: skip
    return Chart(
        title=title,
        summary=f"{y_label} over {x_label}. First to last, {ends}",
        x_label=x_label,
        y_label=y_label,
        x_ticks=[Tick(place(x, y_values[0])[0], f"{x:,.5g}") for x in x_values],
        y_ticks=[Tick(place(x_low, y)[1], f"{y:g}") for y in y_values],
        lines=lines,
    )


def _drawable(xs: Sequence[float], ys: Sequence[float], log_y: bool) -> list[tuple[float, float]]:
    """The finite points in order of x, a long series as the means of equal stretches."""
    points = sorted((x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y) and (y > 0 or not log_y))
    stretch = math.ceil(len(points) / MAX_POINTS)
    groups = [points[start : start + stretch] for start in range(0, len(points), stretch or 1)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def _linear_ticks(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten that enclose the range."""
    # a range that the labels could not tell apart counts as one value
    span = high - low if high - low > 1e-5 * abs(high) else abs(high) or 1.0
    decade = 10 ** math.floor(math.log10(span / 4))
    step = next(factor * decade for factor in (1, 2, 5, 10) if factor * decade >= span / 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [float(f"{i * step:.9g}") for i in range(first, max(last, first + 1) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten, or the powers alone, that enclose the range."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    if last - first > 3:
        return [10.0**decade for decade in range(first, last + 1)]
    steps = [factor * 10.0**decade for decade in range(first, last + 1) for factor in (1, 2, 5)]
    start = max((i for i, step in enumerate(steps) if step <= low), default=0)
    stop = next((i for i, step in enumerate(steps) if step >= high), len(steps) - 1)
    return [float(f"{step:.3g}") for step in steps[start : max(stop, start + 1) + 1]]
