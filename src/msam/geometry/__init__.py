"""Geometries: which perturbation solves the inner maximisation. Pure mathematics on tensors, no model."""

from msam.errors import InvalidValueError
from msam.geometry.adaptive import Adaptive, AdaptiveMonge, Fisher
from msam.geometry.base import Geometry
from msam.geometry.diagonal import DiagonalMetric
from msam.geometry.euclidean import Euclidean, Unnormalised
from msam.geometry.memory import Memory
from msam.geometry.momentum import Friendly, Momentum
from msam.geometry.monge import Monge

GEOMETRIES: dict[str, type[Geometry]] = {
    "euclidean": Euclidean,
    "unnormalised": Unnormalised,
    "monge": Monge,
    "adaptive": Adaptive,
    "adaptive_monge": AdaptiveMonge,
    "fisher": Fisher,
    "friendly": Friendly,
    "momentum": Momentum,
}
"""Names that stand for a geometry with its defaults. `DiagonalMetric` has none: its metric is the user's."""


def find_geometry(geometry: Geometry | str) -> Geometry:
    """Return a geometry, given it or its name.

    Args:
        geometry: A geometry, or one of `GEOMETRIES`.

    Returns:
        The geometry; by name, with its defaults.

    Raises:
        InvalidValueError: If the name is unknown.

    Example:
        >>> find_geometry("monge")
        Monge(alpha=1.0)
    """
    if isinstance(geometry, Geometry):
        return geometry
    if not isinstance(geometry, str) or geometry not in GEOMETRIES:
        raise InvalidValueError(f"the geometry must be one of {list(GEOMETRIES)} or a Geometry, found {geometry!r}")
    return GEOMETRIES[geometry]()


__all__ = [
    "GEOMETRIES",
    "Adaptive",
    "AdaptiveMonge",
    "DiagonalMetric",
    "Euclidean",
    "Fisher",
    "Friendly",
    "Geometry",
    "Memory",
    "Momentum",
    "Monge",
    "Unnormalised",
    "find_geometry",
]
