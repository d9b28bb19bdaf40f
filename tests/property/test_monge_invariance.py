"""What of Monge SAM is invariant and what is not: reparametrisation, layer rescaling, and the basin of a saddle."""

from math import sqrt

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import msam
from msam.data import find_dataset

pytestmark = pytest.mark.exact

RHO = 0.3


def monge_eps(gradient: Tensor, metric: Tensor) -> Tensor:
    """The perturbation of radius RHO in a metric, ``rho G^-1 g / sqrt(g^T G^-1 g)``, by a generic solver."""
    direction = torch.linalg.solve(metric, gradient)
    return RHO * direction / (gradient @ direction).sqrt()


def engine_eps(loss, point: Tensor, method=msam.MongeSAM) -> Tensor:
    """What the library's optimizer does at a point."""
    parameter = point.clone().requires_grad_()
    optimizer = method(torch.optim.SGD([parameter], lr=0.0), rho=RHO)
    seen = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        seen.append(parameter.detach().clone())
        found = loss(parameter)
        found.backward()
        return found

    optimizer.step(closure)
    return seen[1] - seen[0]


def bend(psi: Tensor) -> Tensor:
    """A smooth change of coordinates, far from orthogonal: each coordinate is stretched, and the next leans on it."""
    return torch.sinh(psi) + 0.3 * torch.roll(psi, 1) ** 2


@pytest.mark.parametrize("seed", range(8))
def test_monge_is_covariant_with_the_transported_metric_and_the_naive_form_is_not(seed: int):
    generator = torch.Generator().manual_seed(seed)
    psi = torch.randn(5, dtype=torch.float64, generator=generator)
    weights = torch.randn(5, dtype=torch.float64, generator=generator)

    def loss(theta: Tensor) -> Tensor:
        return (theta * weights).sum().sin() + 0.1 * theta.square().sum()

    theta = bend(psi)
    jacobian = torch.autograd.functional.jacobian(bend, psi)
    in_theta = engine_eps(loss, theta)
    gradient = torch.autograd.functional.jacobian(lambda at: loss(bend(at)), psi)
    whole = torch.autograd.functional.jacobian(loss, theta)
    transported = jacobian.T @ (torch.eye(5, dtype=torch.float64) + torch.outer(whole, whole)) @ jacobian
    torch.testing.assert_close(jacobian @ monge_eps(gradient, transported), in_theta, rtol=1e-10, atol=1e-12)
    # The code that just runs in psi has the metric I + g_psi g_psi^T there.
    naive = jacobian @ engine_eps(lambda at: loss(bend(at)), psi)
    assert (naive - in_theta).norm() > 0.05 * in_theta.norm()


def test_monge_eps_is_what_a_generic_solver_finds():
    point = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)

    def loss(at: Tensor) -> Tensor:
        return at.pow(4).sum() + at[0] * at[1]

    gradient = torch.autograd.functional.jacobian(loss, point)
    metric = torch.eye(3, dtype=torch.float64) + torch.outer(gradient, gradient)
    torch.testing.assert_close(engine_eps(loss, point), monge_eps(gradient, metric), rtol=1e-12, atol=1e-14)


class Digits:
    """A ReLU network of two layers on real digits, whose layers can be rescaled against each other."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        arrays = find_dataset("mfeat").load(["zer"])
        inputs = torch.as_tensor(arrays.inputs["zer"]).double()
        self.inputs = (inputs - inputs.mean(0)) / inputs.std(0)
        self.target = torch.as_tensor(arrays.target)
        self.network = nn.Sequential(nn.Linear(47, 16), nn.ReLU(), nn.Linear(16, 10)).double()

    def loss(self, network: nn.Module) -> Tensor:
        return cross_entropy(network(self.inputs[::5]), self.target[::5])

    def rescaled(self, factor: float) -> nn.Module:
        """The same function: the first layer times a factor, the second layer's matrix divided by it."""
        copy = nn.Sequential(nn.Linear(47, 16), nn.ReLU(), nn.Linear(16, 10)).double()
        copy.load_state_dict(self.network.state_dict())
        with torch.no_grad():
            copy[0].weight *= factor
            copy[0].bias *= factor
            copy[2].weight /= factor
        return copy

    def rise(self, network: nn.Module, **options) -> float:
        """``loss(theta + eps) - loss(theta)``, as the library's optimizer meets it."""
        seen: list[float] = []
        # T = |w| on biases too, without which nothing is invariant.
        base = torch.optim.SGD([{"params": list(network.parameters()), "adaptive": True}], lr=0.0)
        optimizer = msam.SharpnessAware(base, rho=RHO, combination=msam.combine.Replace(), **options)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = self.loss(network)
            loss.backward()
            seen.append(float(loss.detach()))
            return loss

        optimizer.step(closure)
        return seen[1] - seen[0]


@pytest.mark.parametrize("factor", [0.2, 2.0, 10.0])
def test_adaptive_monge_does_not_see_layer_rescaling_at_any_iterate_and_monge_does(factor: float):
    problem = Digits()
    trainer = msam.AdaptiveMongeSAM(torch.optim.SGD(problem.network.parameters(), lr=0.2), rho=0.1)

    def closure() -> Tensor:
        trainer.zero_grad()
        loss = problem.loss(problem.network)
        loss.backward()
        return loss

    adaptive = {"geometry": msam.geometry.AdaptiveMonge(eta=0.0)}
    first = float(problem.loss(problem.network).detach())
    for step in range(30):
        if step % 10 == 0:
            other = problem.rescaled(factor)
            assert float((problem.loss(other) - problem.loss(problem.network)).detach()) == pytest.approx(0.0, abs=1e-12)
            expected = problem.rise(problem.network, **adaptive)
            assert expected > 1e-4
            assert problem.rise(other, **adaptive) == pytest.approx(expected, rel=1e-8)
            plain = {"geometry": msam.geometry.Monge()}
            assert abs(problem.rise(other, **plain) / problem.rise(problem.network, **plain) - 1) > 0.05
        trainer.step(closure)
    assert float(problem.loss(problem.network).detach()) < first - 0.3


def test_a_training_run_of_adaptive_monge_is_not_invariant():
    """The outer step is Euclidean: after one step the two networks are other functions."""
    problem = Digits()
    losses = []
    for network in (problem.network, problem.rescaled(5.0)):
        base = torch.optim.SGD([{"params": list(network.parameters()), "adaptive": True}], lr=0.2)
        optimizer = msam.AdaptiveMongeSAM(base, rho=0.1, eta=0.0)

        def closure(network=network, optimizer=optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = problem.loss(network)
            loss.backward()
            return loss

        optimizer.step(closure)
        losses.append(float(problem.loss(network).detach()))
    assert abs(losses[0] - losses[1]) > 1e-3


@pytest.mark.parametrize("rho", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("method", [msam.SAM, msam.MongeSAM])
def test_the_saddles_basin_has_the_radius_of_the_theory_also_for_monge(method, rho: float):
    c = 2 * rho  # curvature -2
    radius = c if method is msam.SAM else sqrt((sqrt(1 + 4 * c * c) - 1) / 2)
    for factor, inside in ((0.98, True), (1.02, False)):
        y = torch.tensor([factor * radius / 2], dtype=torch.float64, requires_grad=True)  # the gradient's norm is 2 |y|
        optimizer = method(torch.optim.SGD([y], lr=1e-3), rho=rho)

        def closure(y=y, optimizer=optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = -y.square().sum()
            loss.backward()
            return loss

        start = float(y.detach())
        for _ in range(20):
            optimizer.step(closure)
        assert (float(y.detach()) < start) == inside
