"""Closed forms in float64: quadratics, and Monge's perturbation against a general maximiser."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import msam
from msam.geometry import Euclidean, Monge

pytestmark = pytest.mark.exact

# Float64 rounding of a handful of operations on numbers of order one.
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def quadratic_steps(optimizer_of, matrix: Tensor, start: Tensor, steps: int) -> list[Tensor]:
    theta = torch.nn.Parameter(start.clone())
    optimizer = optimizer_of(torch.optim.SGD([theta], lr=0.1))
    path = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = 0.5 * theta @ matrix @ theta
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
        path.append(theta.detach().clone())
    return path


def positive_definite(size: int) -> Tensor:
    root = torch.randn(size, size, dtype=torch.float64)
    return root @ root.T / size + 0.1 * torch.eye(size, dtype=torch.float64)


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("rho", [0.05, 1.5])
def test_sam_on_a_quadratic(size: int, rho: float):
    matrix, theta = positive_definite(size), torch.randn(size, dtype=torch.float64)
    for found in quadratic_steps(lambda base: msam.SAM(base, rho=rho), matrix, theta, steps=4):
        g = matrix @ theta
        theta = theta - 0.1 * (g + rho * matrix @ g / g.norm())
        torch.testing.assert_close(found, theta, **CLOSE)


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_monge_sam_on_a_quadratic(size: int, alpha: float):
    matrix, theta = positive_definite(size), torch.randn(size, dtype=torch.float64)
    for found in quadratic_steps(lambda base: msam.MongeSAM(base, rho=0.7, alpha=alpha), matrix, theta, steps=4):
        g = matrix @ theta
        n = g.norm()
        theta = theta - 0.1 * (g + 0.7 * matrix @ g / (n * (1 + alpha**2 * n**2).sqrt()))
        torch.testing.assert_close(found, theta, **CLOSE)


def maximiser(g: Tensor, metric: Tensor, rho: float) -> Tensor:
    """max g'd subject to d'Gd <= rho^2: with G = C C' and u = C'd it is a Euclidean ball for C^-1 g."""
    factor = torch.linalg.cholesky(metric)
    inner = torch.linalg.solve_triangular(factor, g[:, None], upper=False)
    return torch.linalg.solve_triangular(factor.T, rho * inner / inner.norm(), upper=True)[:, 0]


@given(
    size=st.integers(1, 8),
    length=st.floats(0.01, 10),
    alpha=st.floats(0, 3),
    rho=st.floats(0.01, 3),
    seed=st.integers(0, 2**31),
)
def test_monge_solves_its_constrained_maximisation(size: int, length: float, alpha: float, rho: float, seed: int):
    torch.manual_seed(seed)
    g = torch.nn.functional.normalize(torch.randn(size, dtype=torch.float64), dim=0) * length
    metric = torch.eye(size, dtype=torch.float64) + alpha**2 * torch.outer(g, g)
    eps = rho * Monge(alpha).scale(g.norm()) * g
    # The Cholesky factor's condition is up to 30, which costs the maximiser that many roundings.
    torch.testing.assert_close(eps, maximiser(g, metric, rho), rtol=1e-12, atol=1e-12)
    assert float(eps @ metric @ eps) == pytest.approx(rho**2, rel=1e-12)


def test_no_point_of_the_monge_ball_gains_more():
    g = torch.randn(5, dtype=torch.float64)
    metric = torch.eye(5, dtype=torch.float64) + torch.outer(g, g)
    best = float(g @ (0.5 * Monge().scale(g.norm()) * g))
    directions = torch.randn(2000, 5, dtype=torch.float64)
    on_the_ball = 0.5 * directions / (directions @ metric * directions).sum(1, keepdim=True).sqrt()
    assert float((on_the_ball @ g).max()) <= best * (1 + 1e-12)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_monge_is_sam_for_small_gradients_and_gradient_descent_for_large_ones(alpha: float):
    for norm in (1e-12, 1e-9):
        n = torch.tensor(norm, dtype=torch.float64)
        assert float(Monge(alpha).scale(n) * n) == pytest.approx(1.0, rel=1e-14)
    for norm in (1e9, 1e12):
        n = torch.tensor(norm, dtype=torch.float64)
        # To leading order the length is 1 / (alpha n); the next term is smaller by (alpha n)^-2.
        assert float(Monge(alpha).scale(n) * n) == pytest.approx(1 / (alpha * norm), rel=1e-12)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("norm", [1e-3, 1.0, 1e3])
def test_linear_gain_stays_below_rho_over_alpha(alpha: float, norm: float):
    n = torch.tensor(norm, dtype=torch.float64)
    gain = float(Monge(alpha).scale(n) * n * n)
    assert gain < 1 / alpha
    assert gain == pytest.approx(norm / math.sqrt(1 + alpha**2 * norm**2), rel=1e-14)


def test_alpha_zero_is_sam_bitwise():
    matrix, start = positive_definite(6).float(), torch.randn(6)
    sam = quadratic_steps(lambda base: msam.SAM(base, rho=0.3), matrix, start, steps=20)
    monge = quadratic_steps(lambda base: msam.MongeSAM(base, rho=0.3, alpha=0.0), matrix, start, steps=20)
    assert all(torch.equal(a, b) for a, b in zip(sam, monge, strict=True))
    n = torch.tensor(0.3)
    assert torch.equal(Monge(0.0).scale(n), Euclidean().scale(n))
