"""Modality-Aware SAM where it must become something else: SAM, an interpolation, or itself in other clothes."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import msam
from msam.geometry import Monge
from problems import Problem, all_same_bits

pytestmark = pytest.mark.exact


def one_modality(seed: int) -> tuple[nn.Module, dict[str, Tensor], Tensor]:
    torch.manual_seed(seed)
    model = msam.fusion.late_fusion_mlp({"only": 4}, 3, width=5)
    return model, {"only": torch.randn(6, 4)}, torch.randint(3, (6,))


@given(st.integers(0, 2**31), st.floats(1e-3, 2.0))
def test_one_modality_is_sam_bitwise(seed: int, rho: float):
    ends = []
    for build in (msam.SAM, msam.ModalityAwareSAM):
        model, inputs, target = one_modality(seed)
        optimizer = build(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=rho)
        for _ in range(3):
            optimizer.step(msam.MultimodalClosure(model, inputs, target, nn.functional.cross_entropy))
        ends.append(list(model.parameters()))
    assert all_same_bits(*ends)


def step(problem: Problem, build: Callable[[torch.optim.Optimizer], torch.optim.Optimizer], lr: float = 0.1) -> None:
    optimizer = build(torch.optim.SGD(problem.parameters, lr=lr))
    closure = msam.MultimodalClosure(problem.model, problem.inputs, problem.target, problem.loss)
    optimizer.zero_grad()
    optimizer.step(closure)


def image_only(output: Tensor, target: Tensor) -> Tensor:
    """Worth 1 to every coalition with the image in it; the order of coalitions is image, audio, both."""
    batch = len(target) // 3
    return torch.cat([torch.ones(batch), torch.zeros(batch), torch.ones(batch)]).to(output)


def alike(output: Tensor, target: Tensor) -> Tensor:
    """A tie, and an exact one: sums of three quarters do not round, in whichever order they are taken."""
    return torch.full((len(target),), 0.75).to(output)


def test_all_shares_on_one_modality_is_sam_bitwise():
    ours, sam = Problem(), Problem()
    found = []

    def build(base: torch.optim.Optimizer) -> torch.optim.Optimizer:
        found.append(msam.ModalityAwareSAM(base, rho=0.3, value=image_only))
        return found[0]

    step(ours, build)
    step(sam, lambda base: msam.SAM(base, rho=0.3))
    assert found[0].contributions == {"image": 1.0, "audio": 0.0}
    assert found[0].dominant == "image"
    assert all_same_bits(ours.parameters, sam.parameters)


def updates(build, value=None, dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], torch.optim.Optimizer]:
    """The gradients with which the base steps."""
    problem = Problem(dtype)
    optimizers = []

    def built(base: torch.optim.Optimizer) -> torch.optim.Optimizer:
        optimizers.append(build(base) if value is None else build(base, value=value))
        return optimizers[0]

    step(problem, built)
    return [p.grad for p in problem.parameters], optimizers[0]


@pytest.mark.parametrize("rho", [1e-3, 0.1, 1.0])
@pytest.mark.parametrize("value", [None, alike, image_only])
def test_the_update_interpolates_between_sam_and_the_base(rho: float, value):
    plain, _ = updates(lambda base: base)
    sam, _ = updates(lambda base: msam.SAM(base, rho=rho))
    found, optimizer = updates(lambda base, **options: msam.ModalityAwareSAM(base, rho=rho, **options), value)
    share = max(optimizer.contributions.values())
    if value is alike:
        assert optimizer.contributions == {"image": 0.5, "audio": 0.5}
        assert optimizer.dominant == "image"
    for a, b, c in zip(found, sam, plain, strict=True):
        torch.testing.assert_close(a, share * b + (1 - share) * c, rtol=1e-12, atol=1e-14)


def test_monge_geometry_with_alpha_zero_is_the_default_bitwise():
    first, second = Problem(), Problem()
    step(first, lambda base: msam.ModalityAwareSAM(base, rho=0.3))
    step(second, lambda base: msam.ModalityAwareSAM(base, rho=0.3, geometry=Monge(0.0)))
    assert all_same_bits(first.parameters, second.parameters)


def test_the_geometry_sees_the_whole_gradient():
    plain, _ = updates(lambda base: base)
    norm = float(sum(g.square().sum() for g in plain).sqrt())
    _, optimizer = updates(lambda base: msam.ModalityAwareSAM(base, rho=0.3, geometry=Monge(2.0)))
    assert optimizer.summary()["mean_eps_norm"] == pytest.approx(0.3 / (1 + 4 * norm**2) ** 0.5, rel=1e-12)


def test_the_dominant_modality_is_the_first_of_those_that_tie_and_none_before_a_step():
    optimizer = msam.ModalityAwareSAM(torch.optim.SGD(Problem().parameters, lr=0.1))
    assert optimizer.dominant is None
    assert optimizer.contributions == {}
    _, optimizer = updates(lambda base, **options: msam.ModalityAwareSAM(base, **options), alike)
    assert optimizer.dominant == "image"
    assert optimizer.summary()["dominant"] == "image"
