"""Geometries: which perturbation solves the inner maximisation. Pure mathematics on tensors, no model."""

from msam.geometry.base import Geometry
from msam.geometry.euclidean import Euclidean
from msam.geometry.monge import Monge

__all__ = ["Euclidean", "Geometry", "Monge"]
