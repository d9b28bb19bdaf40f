"""The engine against the oracle of `sam_family_reference.py`, on random problems in float64."""

from collections.abc import Callable, Sequence

import pytest
import sam_family_reference as oracle
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import msam

# Networks of one rectifier are often silent on all of a few samples.
pytestmark = pytest.mark.filterwarnings("ignore:a modality should change what the model says")

RADII = st.one_of(st.just(0.0), st.floats(1e-3, 3.0))
# Both sides compute the same formula in float64 in another order; three steps of it lose a few digits of 16.
CLOSE = {"rtol": 1e-9, "atol": 1e-11}


@st.composite
def smooth_problems(draw):
    """Random parameters in random groups, and for each parameter the passes in which it takes part."""
    shapes = draw(st.lists(st.lists(st.integers(1, 3), max_size=3).map(tuple), min_size=2, max_size=5))
    groups = draw(st.lists(st.integers(0, 2), min_size=len(shapes), max_size=len(shapes)))
    passes = draw(st.lists(st.sampled_from([{1, 2}, {1, 2}, {1}, {2}, set()]), min_size=len(shapes), max_size=len(shapes)))
    passes[0] = {1, 2}
    return shapes, groups, passes, draw(st.lists(RADII, min_size=3, max_size=3)), draw(st.integers(0, 2**31))


def loss_between(theta: Sequence[Tensor], number: int, passes: Sequence[set[int]]) -> Tensor:
    """Smooth, not quadratic, and with every pair of parameters coupled."""
    parts = [part for part, when in zip(theta, passes, strict=True) if number in when]
    total = sum((torch.sin(part) * torch.arange(1, part.numel() + 1).reshape(part.shape)).sum() for part in parts)
    return torch.tanh(total / 5) ** 2 + 0.1 * total + sum((part**4).sum() for part in parts) / 4


def run_engine(build: Callable[[torch.optim.Optimizer], torch.optim.Optimizer], problem, steps: int = 3) -> list[Tensor]:
    shapes, groups, passes, radii, seed = problem
    torch.manual_seed(seed)
    theta = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in shapes]
    members = [
        {"params": [p for p, g in zip(theta, groups, strict=True) if g == group], "rho": radii[group]}
        for group in sorted(set(groups))
    ]
    optimizer = build(torch.optim.SGD(members, lr=0.05, momentum=0.9))
    for _ in range(steps):
        # Where all radii are 0 there is one pass; the oracle then differs, so that one is left out below.
        numbers = iter((1, 2))

        def closure(numbers=numbers) -> Tensor:
            optimizer.zero_grad()
            loss = loss_between(theta, next(numbers), passes)
            loss.backward()
            return loss

        optimizer.step(closure)
    return [part.detach() for part in theta]


def run_oracle(problem, alpha: float, steps: int = 3) -> list[Tensor]:
    shapes, groups, passes, radii, seed = problem
    torch.manual_seed(seed)
    theta = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    rho = [radii[group] for group in groups]
    velocity: oracle.Gradient = [None] * len(theta)
    for _ in range(steps):
        update = oracle.sam_update(lambda at, number: loss_between(at, number, passes), theta, rho, alpha)
        theta = oracle.sgd(theta, velocity, update, lr=0.05, momentum=0.9)
    return theta


def any_radius(problem) -> bool:
    _, groups, _, radii, _ = problem
    return any(radii[group] for group in groups)


@given(problem=smooth_problems().filter(any_radius))
def test_sam(problem):
    torch.testing.assert_close(run_engine(msam.SAM, problem), run_oracle(problem, alpha=0.0), **CLOSE)


@given(problem=smooth_problems().filter(any_radius), alpha=st.sampled_from([0.0, 0.1, 1.0, 10.0]))
def test_monge_sam(problem, alpha):
    found = run_engine(lambda base: msam.MongeSAM(base, alpha=alpha), problem)
    torch.testing.assert_close(found, run_oracle(problem, alpha), **CLOSE)


@st.composite
def multimodal_problems(draw):
    sizes = draw(st.lists(st.integers(1, 3), min_size=2, max_size=4))
    return (
        sizes,
        draw(st.integers(1, 4)),
        draw(st.integers(2, 3)),
        draw(st.tuples(st.floats(1e-3, 2.0), RADII)),
        draw(st.integers(0, 2**31)),
    )


def compare_modality_aware(problem, *, late: bool, declared: bool, steps: int = 2) -> None:
    sizes, batch, classes, radii, seed = problem
    torch.manual_seed(seed)
    names = [f"m{index}" for index in range(len(sizes))]
    build = (
        (lambda: msam.fusion.late_fusion_mlp(dict(zip(names, sizes, strict=True)), classes, width=2, depth=1))
        if late
        else (lambda: msam.fusion.EarlyFusion(dict(zip(names, sizes, strict=True)), classes, width=2, pieces=3))
    )
    model = build().double()
    inputs = {name: torch.randn(batch, size, dtype=torch.float64) for name, size in zip(names, sizes, strict=True)}
    target = torch.randint(classes, (batch,))
    body, head = list(model.parameters())[:-2], list(model.parameters())[-2:]
    base = torch.optim.SGD([{"params": body, "rho": radii[0]}, {"params": head, "rho": radii[1]}], lr=0.5, momentum=0.9)
    optimizer = msam.ModalityAwareSAM(base)

    theta = [p.detach().clone() for p in model.parameters()]
    rho = [radii[0]] * len(body) + [radii[1]] * len(head)
    samples = [[inputs[name][row] for name in names] for row in range(batch)]
    classes_of = target.tolist()
    velocity: oracle.Gradient = [None] * len(theta)

    def logits(at: Sequence[Tensor], sample: Sequence[Tensor]) -> Tensor:
        return oracle.late_logits(at, sample) if late else oracle.early_logits(at, sample, pieces=3)

    for _ in range(steps):
        now = theta
        shares = oracle.modality_shares(lambda sample, now=now: logits(now, sample), samples, classes_of)
        update = oracle.modality_aware_update(
            lambda at, _: oracle.cross_entropy([logits(at, sample) for sample in samples], classes_of), theta, rho, shares
        )
        theta = oracle.sgd(theta, velocity, update, lr=0.5, momentum=0.9)
        forward = model if declared else model.forward
        optimizer.step(msam.MultimodalClosure(forward, inputs, target, nn.functional.cross_entropy))
        assert list(optimizer.contributions) == names
        assert list(optimizer.contributions.values()) == pytest.approx(shares, rel=1e-9, abs=1e-11)
    torch.testing.assert_close([p.detach() for p in model.parameters()], theta, **CLOSE)


@settings(max_examples=25)
@given(problem=multimodal_problems())
def test_modality_aware_sam_late_fusion(problem):
    compare_modality_aware(problem, late=True, declared=True)


@settings(max_examples=10)
@given(problem=multimodal_problems())
def test_modality_aware_sam_late_fusion_by_the_general_path(problem):
    compare_modality_aware(problem, late=True, declared=False)


@settings(max_examples=15)
@given(problem=multimodal_problems())
def test_modality_aware_sam_early_fusion(problem):
    compare_modality_aware(problem, late=False, declared=True)
