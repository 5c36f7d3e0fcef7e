"""What the names in any weight file must be."""

from collections.abc import Iterable

from ssenet_jax.messages import quoted


def check_names(names: Iterable[str]) -> None:
    """Raises ValueError for a name that occurs twice, or that holds characters which a terminal does not print."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"the name {quoted(name)} occurs twice")
        if not name.isprintable():
            raise ValueError(f"the name {quoted(name)} holds control characters")
        seen.add(name)
