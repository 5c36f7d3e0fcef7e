import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssenet_jax.report import charts

LABELS = {"title": "t", "x_label": "x", "y_label": "y"}


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=500),
    st.booleans(),
)
def test_every_point_lies_between_the_axes(values, log_y):
    chart = charts.line_chart({"a": (range(len(values)), values)}, log_y=log_y, **LABELS)
    (line,) = chart.lines
    assert 2 <= len(line.points) <= charts.MAX_POINTS
    for x, y in line.points:
        assert charts.LEFT - 0.01 <= x <= charts.WIDTH - charts.RIGHT + 0.01
        assert charts.TOP - 0.01 <= y <= charts.HEIGHT - charts.BOTTOM + 0.01
    assert 2 <= len(chart.y_ticks) <= 13


def test_larger_is_higher_and_the_best_point_is_said():
    chart = charts.line_chart({"a": ([0.1, 0.2, 0.3], [10.0, 40.0, 20.0])}, mark_best=True, **LABELS)
    (line,) = chart.lines
    heights = [y for _, y in line.points]
    assert heights[1] < heights[2] < heights[0]  # y of an SVG points down
    assert line.best == line.points[1]
    assert line.best_text == "40.0 at 0.2"


def test_ticks_are_round():
    chart = charts.line_chart({"a": ([0, 100], [0.312, 0.478])}, **LABELS)
    assert [tick.text for tick in chart.y_ticks] == ["0.3", "0.35", "0.4", "0.45", "0.5"]
    chart = charts.line_chart({"a": ([0, 100], [0.03, 0.7])}, log_y=True, **LABELS)
    assert [tick.text for tick in chart.y_ticks] == ["0.02", "0.05", "0.1", "0.2", "0.5", "1"]


def test_points_that_cannot_be_drawn_are_left_out():
    series = {"a": (range(5), [1.0, math.nan, 0.0, math.inf, 2.0]), "one": ([0], [1.0])}
    chart = charts.line_chart(series, log_y=True, **LABELS)
    assert [(line.name, len(line.points)) for line in chart.lines] == [("a", 2)]


@pytest.mark.parametrize("series", [{}, {"a": ([], [])}, {"a": ([1], [1.0])}])
def test_nothing_to_draw_gives_no_chart(series):
    assert charts.line_chart(series, **LABELS) is None
