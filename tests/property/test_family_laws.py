"""The family's laws: reductions to SAM and to each other, constrained maximisers, invariance under rescaled layers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import msam
from cases import sgd
from msam.geometry.vectors import global_dot
from msam.optim.engine.schedule import WhenSteep
from problems import Problem, all_same_bits

pytestmark = pytest.mark.exact


def is_vector(parameter: Tensor) -> bool:
    return parameter.ndim == 1


BITWISE = {
    "monge_alpha_0": ((msam.MongeSAM, {"alpha": 0.0}), (msam.SAM, {})),
    "adaptive_monge_alpha_0": ((msam.AdaptiveMongeSAM, {"alpha": 0.0}), (msam.ASAM, {})),
    "look_k_1": ((msam.LookSAM, {"k": 1}), (msam.SAM, {})),
    "ae_forced": ((msam.AESAM, {"interval": WhenSteep(1, first=-1e9, last=-1e9)}), (msam.SAM, {})),
    "friendly_sigma_0": ((msam.FriendlySAM, {"sigma": 0.0}), (msam.SAM, {})),
    "interval_1": ((msam.SAM, {"interval": 1}), (msam.SAM, {})),
    "constant_radius": ((msam.SAM, {"rho_schedule": "constant"}), (msam.SAM, {"rho_schedule": lambda _: 1.0})),
}
CLOSELY = {
    "fisher_eta_0": ((msam.FisherSAM, {"eta": 0.0}), (msam.SAM, {})),
    "gsam_alpha_0": ((msam.GSAM, {"alpha": 0.0, "rho_schedule": "constant"}), (msam.SAM, {})),
    "wsam_half": ((msam.WSAM, {"gamma": 0.5, "decouple": False}), (msam.SAM, {})),
    "asam_of_vectors": (
        (msam.ASAM, {"eta": 0.01, "perturb": lambda p: p.ndim == 1}),
        (msam.SAM, {"perturb": lambda p: p.ndim == 1}),
    ),
}


def ends(pair, seed: int, rho: float, dtype: torch.dtype) -> list[list[Tensor]]:
    found = []
    for build, options in pair:
        problem = Problem(dtype)
        torch.manual_seed(seed)
        problem.inputs = {name: torch.randn_like(x) for name, x in problem.inputs.items()}
        problem.step(None, build(sgd(problem), rho=rho, **options), times=4)
        found.append(problem.copy_parameters())
    return found


@pytest.mark.parametrize("name", BITWISE)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**31), rho=st.floats(1e-3, 1.0))
def test_reductions_that_are_bitwise(name: str, seed: int, rho: float):
    assert all_same_bits(*ends(BITWISE[name], seed, rho, torch.float32))


@pytest.mark.parametrize("name", CLOSELY)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**31), rho=st.floats(1e-3, 1.0))
def test_reductions_to_rounding(name: str, seed: int, rho: float):
    """They compute the same number by other operations."""
    torch.testing.assert_close(*ends(CLOSELY[name], seed, rho, torch.float64), rtol=1e-10, atol=1e-12)


def test_gamma_zero_is_the_base():
    problem, plain = Problem(torch.float64), Problem(torch.float64)
    problem.step(None, msam.WSAM(sgd(problem), rho=0.3, gamma=0.0), times=4)
    plain.step(None, sgd(plain), times=4)
    assert all_same_bits(problem.parameters, plain.parameters)


# -- constrained maximisers ----------------------------------------------------------------------------------------------


def engine_eps(build, g: Tensor, w: Tensor) -> Tensor:
    """The perturbation of a linear loss g . w, from the engine itself."""
    parameter, seen = nn.Parameter(w.clone()), []
    optimizer = build(torch.optim.SGD([parameter], lr=0.0))

    def closure() -> Tensor:
        optimizer.zero_grad()
        seen.append(parameter.detach().clone())
        loss = (g * parameter).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return (seen[1] - seen[0]).flatten()


def maximiser(g: Tensor, metric: Tensor, rho: float) -> Tensor:
    """max g.eps subject to eps' G eps <= rho^2: with G = C C' and u = C' eps it is a Euclidean ball for C^-1 g."""
    factor = torch.linalg.cholesky(metric)
    inner = torch.linalg.solve_triangular(factor, g[:, None], upper=False)
    return torch.linalg.solve_triangular(factor.T, rho * inner / inner.norm(), upper=True)[:, 0]


FORMS = {
    "asam": (lambda base, rho: msam.ASAM(base, rho=rho, eta=0.1), lambda _, w: torch.diag((w.abs() + 0.1) ** -2)),
    "fisher": (lambda base, rho: msam.FisherSAM(base, rho=rho, eta=0.5), lambda g, _: torch.diag(1 + 0.5 * g**2)),
    "adaptive_monge": (
        lambda base, rho: msam.AdaptiveMongeSAM(base, rho=rho, eta=0.1, alpha=1.5),
        lambda g, w: torch.diag((w.abs() + 0.1) ** -2) + 1.5**2 * torch.outer(g, g),
    ),
}


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=25)
@given(size=st.integers(1, 7), rho=st.floats(0.01, 3), length=st.floats(0.01, 10), seed=st.integers(0, 2**31))
def test_eps_solves_the_methods_own_maximisation(name: str, size: int, rho: float, length: float, seed: int):
    torch.manual_seed(seed)
    build, form = FORMS[name]
    g, w = torch.randn(1, size, dtype=torch.float64) * length, torch.randn(1, size, dtype=torch.float64)
    metric = form(g[0], w[0])
    eps = engine_eps(lambda base: build(base, rho), g, w)
    # The quadratic form's condition is up to 1e6 here, and theta + eps was rounded to theta's precision.
    torch.testing.assert_close(eps, maximiser(g[0], metric, rho), rtol=1e-8, atol=1e-10)
    assert float(eps @ metric @ eps) == pytest.approx(rho**2, rel=1e-8)
    directions = torch.randn(200, size, dtype=torch.float64)
    rivals = rho * directions / (directions @ metric * directions).sum(1, keepdim=True).sqrt()
    assert float((rivals @ g[0]).max()) <= float(g[0] @ eps) * (1 + 1e-8)


# -- rescaled layers -----------------------------------------------------------------------------------------------------


def perturbed_loss(build, factor: float) -> tuple[float, float]:
    """The losses at theta and at theta + eps of a two-layer ReLU network whose layers are scaled against each other."""
    torch.manual_seed(3)
    first, second = torch.randn(6, 4, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)
    weights = [nn.Parameter(first * factor), nn.Parameter(second / factor)]
    x, y, losses = torch.randn(9, 4, dtype=torch.float64), torch.randint(3, (9,)), []
    optimizer = build(torch.optim.SGD(weights, lr=0.0))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy((x @ weights[0].T).relu() @ weights[1].T, y)
        loss.backward()
        losses.append(float(loss.detach()))
        return loss

    optimizer.step(closure)
    return losses[0], losses[1]


INVARIANT = {
    "asam": lambda base: msam.ASAM(base, rho=0.5, eta=0.0),
    "adaptive_monge": lambda base: msam.AdaptiveMongeSAM(base, rho=0.5, eta=0.0, alpha=1.0),
}
VARIANT = {
    "sam": lambda base: msam.SAM(base, rho=0.5),
    "monge": lambda base: msam.MongeSAM(base, rho=0.5),
    "asam_eta": lambda base: msam.ASAM(base, rho=0.5, eta=0.1),
}


@pytest.mark.parametrize("factor", [0.1, 3.0, 25.0])
@pytest.mark.parametrize("name", [*INVARIANT, *VARIANT])
def test_the_perturbed_loss_under_rescaled_layers(name: str, factor: float):
    build = {**INVARIANT, **VARIANT}[name]
    (plain, up), (rescaled, up_rescaled) = perturbed_loss(build, 1.0), perturbed_loss(build, factor)
    assert rescaled == pytest.approx(plain, rel=1e-12), "the network itself does not change"
    assert up > plain + 1e-3
    if name in INVARIANT:
        assert up_rescaled == pytest.approx(up, rel=1e-12)
    else:
        assert abs(up_rescaled - up) > 1e-3


@given(st.integers(1, 6), st.floats(1e-8, 1e8), st.floats(1e-8, 1e8), st.integers(0, 2**31))
def test_global_dot_is_that_of_one_long_vector(pieces: int, one: float, other: float, seed: int):
    torch.manual_seed(seed)
    first = [one * torch.randn(3, dtype=torch.float64) for _ in range(pieces)]
    second = [other * torch.randn(3, dtype=torch.float64) for _ in range(pieces)]
    a, b = torch.cat(first), torch.cat(second)
    assert float(global_dot(first, second)) == pytest.approx(float(a @ b), abs=1e-14 * float(a.norm() * b.norm()))
    zeros = [torch.zeros_like(part) for part in first]
    assert float(global_dot(first, zeros)) == float(global_dot(zeros, second)) == float(global_dot(zeros, zeros)) == 0
