# ruff: noqa: ARG001, ARG005 - all metrics and schedules take the same arguments
"""Monge's perturbation: its closed form against a generic solver, its limits, covariance, and the saddle's stability radii."""

from math import sqrt

import numpy as np
import pytest
import torch
from scipy.linalg import solve
from scipy.optimize import minimize
from torch import Tensor

import msam
from cases import sgd
from msam.geometry import AdaptiveMonge, DiagonalMetric, Geometry, Monge
from problems import Problem, all_same_bits

pytestmark = pytest.mark.exact

RHO = 0.4


def generic(gradient: Tensor, metric: Tensor) -> Tensor:
    """``max g.eps`` subject to ``eps' G eps <= rho^2`` for dense G: stationarity is ``2 mu G eps = g``, the bound gives mu."""
    direction = solve(metric.numpy(), gradient.numpy(), assume_a="pos")
    return torch.from_numpy(RHO * direction / np.sqrt(gradient.numpy() @ direction))


def engine_eps(geometry: Geometry, gradient: Tensor, weights: Tensor) -> Tensor:
    """What the engine does on a linear loss."""
    parameter, seen = weights.clone().requires_grad_(), []
    base = torch.optim.SGD([{"params": [parameter], "adaptive": True}], lr=0.0)
    optimizer = msam.SharpnessAware(base, rho=RHO, geometry=geometry, combination=msam.combine.Replace())

    def closure() -> Tensor:
        optimizer.zero_grad()
        seen.append(parameter.detach().clone())
        loss = gradient @ parameter
        loss.backward()
        return loss

    optimizer.step(closure)
    return seen[1] - seen[0]


def entries(size: int) -> Tensor:
    return torch.linspace(0.5, 3.0, size, dtype=torch.float64)


def diagonal(gradients, parameters, group) -> list[Tensor]:
    return [entries(len(parameter)) for parameter in parameters]


FORMS = {
    "monge": (Monge, lambda w: torch.ones_like(w)),
    "adaptive_monge": (lambda alpha: AdaptiveMonge(0.1, alpha), lambda w: (w.abs() + 0.1) ** -2),
    "diagonal": (lambda alpha: DiagonalMetric(diagonal, alpha), lambda w: entries(len(w))),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("size", [1, 3, 8])
def test_monge_closed_form_is_what_a_generic_solver_finds(form: str, alpha: float, size: int):
    build, entries_of = FORMS[form]
    gradient = torch.randn(size, dtype=torch.float64)
    weights = torch.rand(size, dtype=torch.float64) + 0.5 if form == "adaptive_monge" else torch.zeros(size).double()
    metric = torch.diag(entries_of(weights)) + alpha**2 * torch.outer(gradient, gradient)
    eps = engine_eps(build(alpha), gradient, weights)
    torch.testing.assert_close(eps, generic(gradient, metric), rtol=1e-12, atol=1e-12)
    assert float(eps @ metric @ eps) == pytest.approx(RHO**2, rel=1e-12)


def test_monge_closed_form_is_where_a_search_ends():
    gradient = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    metric = (torch.eye(3, dtype=torch.float64) + torch.outer(gradient, gradient)).numpy()
    ball = {"type": "ineq", "fun": lambda eps: RHO**2 - eps @ metric @ eps, "jac": lambda eps: -2 * metric @ eps}
    slope = -gradient.numpy()
    found = minimize(
        lambda eps: slope @ eps, np.full(3, 0.01), jac=lambda _: slope, constraints=ball, method="SLSQP", tol=1e-14
    )
    eps = engine_eps(Monge(), gradient, torch.zeros(3, dtype=torch.float64))
    np.testing.assert_allclose(found.x, eps.numpy(), rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_monge_limits_are_sam_and_gradient_descent(alpha: float):
    at = torch.zeros(3, dtype=torch.float64)
    unit = torch.tensor([2.0, -1.0, 2.0], dtype=torch.float64) / 3
    torch.testing.assert_close(engine_eps(Monge(alpha), 1e-9 * unit, at), RHO * unit, rtol=1e-12, atol=0)
    for length in (1e6, 1e9):
        eps = engine_eps(Monge(alpha), length * unit, at)
        torch.testing.assert_close(eps, RHO / (alpha * length) * unit, rtol=1e-11, atol=0)
        assert float(eps @ (length * unit)) <= RHO / alpha * (1 + 1e-12)


def test_monge_covariance_under_a_linear_change_of_coordinates():
    """With theta = A psi, the metric A'A + g_psi g_psi' in psi gives the same point; code that just runs in psi does not."""
    change = torch.randn(4, 4, dtype=torch.float64) + 3 * torch.eye(4, dtype=torch.float64)
    gradient, at = torch.randn(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    pulled = change.T @ gradient
    transported = change.T @ change + torch.outer(pulled, pulled)
    in_theta = engine_eps(Monge(), gradient, at)
    torch.testing.assert_close(change @ generic(pulled, transported), in_theta, rtol=1e-12, atol=1e-12)
    naive = change @ engine_eps(Monge(), pulled, at)
    assert (naive - in_theta).norm() > 0.05 * in_theta.norm()


@pytest.mark.parametrize("alpha", [0.0, lambda step: 0.0], ids=["number", "schedule"])
@pytest.mark.parametrize(("method", "simple"), [(msam.MongeSAM, msam.SAM), (msam.AdaptiveMongeSAM, msam.ASAM)])
def test_monge_alpha_0_is_sam_bitwise(alpha, method, simple):
    monge, sam = Problem(), Problem()
    monge.step(None, method(sgd(monge), rho=0.3, alpha=alpha), times=5)
    sam.step(None, simple(sgd(sam), rho=0.3), times=5)
    assert all_same_bits(monge.parameters, sam.parameters)


CURVATURES = torch.tensor([2.0, 0.5, -0.7, -3.0], dtype=torch.float64)


def stability_radius(alpha: float, c: float) -> float:
    """The n at which ``n sqrt(1 + alpha^2 n^2) = c``."""
    return sqrt((sqrt(1 + 4 * alpha**2 * c**2) - 1) / 2) / alpha if alpha else c


@pytest.mark.parametrize("mode", [2, 3])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("rho", [0.1, 0.5, 2.0])
def test_monge_saddle_has_the_stability_radii_of_the_theory(rho: float, alpha: float, mode: int):
    """On ``l = x'Hx / 2`` the flow contracts a negative mode iff the gradient is shorter than the radius; alpha = 0 is SAM."""
    radius = stability_radius(alpha, rho * abs(float(CURVATURES[mode])))
    for factor, inside in ((0.999, True), (1.001, False)):
        slope = torch.nn.functional.normalize(torch.tensor([1.0, -2.0, 1.5, 0.5]).double(), dim=0) * factor * radius
        x = (slope / CURVATURES).requires_grad_()
        start = x.detach().clone()
        optimizer = msam.MongeSAM(torch.optim.SGD([x], lr=1e-3), rho=rho, alpha=alpha)

        def closure(x=x, optimizer=optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = (CURVATURES * x.square()).sum() / 2
            loss.backward()
            return loss

        optimizer.step(closure)
        moved = x.detach().abs() - start.abs()
        assert (float(moved[mode]) < 0) == inside
        assert (moved[:2] < 0).all(), "positive modes always contract"
