"""The templates of this folder's pages, and how they write figures."""

import jinja2


def template(name: str) -> jinja2.Template:
    """A page template of this folder; what it is given is escaped, and what it is not given is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ssenet_jax.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=_percent, points=_points, over=_over)
    return environment.get_template(name)


def _percent(fraction: float | None) -> str:
    """A fraction as percent to one decimal; a dash where it is undefined."""
    return "–" if fraction is None else f"{100 * fraction:.1f}"


def _points(fraction: float) -> str:
    """A difference of two fractions in signed points."""
    return f"{100 * fraction:+.1f}".replace("-", "−")


def _over(gain: float, title: str) -> str:
    """A gain in words."""
    return f"{abs(100 * gain):.1f} points {'above' if gain >= 0 else 'below'} the {title}"
