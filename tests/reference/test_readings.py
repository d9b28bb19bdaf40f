"""The readings of Modality-Aware SAM against their formulas, written out slowly in float64, and the identities they obey."""

from itertools import permutations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import msam
from msam.optim import SharpnessAware

pytestmark = pytest.mark.exact

RHO, LR = 0.3, 0.5
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


class Setting:
    """A small late- or early-fusion problem with three modalities, in float64."""

    def __init__(self, *, late: bool = True, sizes: dict[str, int] | None = None) -> None:
        torch.manual_seed(3)
        sizes = sizes or {"a": 3, "b": 2, "c": 4}
        build = msam.fusion.late_fusion_mlp if late else msam.fusion.EarlyFusion
        self.model = build(sizes, 3, width=5).double()
        self.inputs = {name: torch.randn(7, size, dtype=torch.float64) for name, size in sizes.items()}
        self.target = torch.tensor([0, 1, 2, 0, 1, 2, 0])
        self.names = list(sizes)
        self.theta = [p.detach().clone() for p in self.model.parameters()]

    def losses(self) -> Tensor:
        return cross_entropy(self.model(self.inputs), self.target, reduction="none")

    def shares(self) -> Tensor:
        """Each sample's shares, (B, M), by the definition over all orders."""
        found = torch.zeros(len(self.target), len(self.names), dtype=torch.float64)
        orders = list(permutations(range(len(self.names))))
        for order in orders:
            inside: set[str] = set()
            before = torch.zeros(len(self.target), dtype=torch.float64)
            for index in order:
                inside.add(self.names[index])
                masked = {n: x if n in inside else torch.zeros_like(x) for n, x in self.inputs.items()}
                after = self.model(masked).softmax(1)[range(len(self.target)), self.target]
                found = found + torch.nn.functional.one_hot(torch.tensor(index), len(self.names)) * (after - before)[:, None]
                before = after
        return (found / len(orders)).clamp_min(0)

    def gradient(self, loss: Tensor) -> list[Tensor]:
        grads = torch.autograd.grad(loss, list(self.model.parameters()), allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for g, p in zip(grads, self.theta, strict=True)]

    @torch.no_grad()
    def move(self, theta: list[Tensor]) -> None:
        for parameter, value in zip(self.model.parameters(), theta, strict=True):
            parameter.copy_(value)

    def expected(self, perturbed, plain, moves=lambda index: True) -> list[Tensor]:  # noqa: ARG005
        """``theta - lr (grad L_d(theta + eps) + grad L_s(theta))``; `perturbed` and `plain` build the two losses."""
        up = self.gradient(perturbed())
        length = sum(g.square().sum() for i, g in enumerate(up) if moves(i)).sqrt()
        rest = self.gradient(plain())
        self.move([t + RHO * g / length if moves(i) else t for i, (t, g) in enumerate(zip(self.theta, up, strict=True))])
        above = self.gradient(perturbed())
        self.move(self.theta)
        return [t - LR * (a + r) for t, a, r in zip(self.theta, above, rest, strict=True)]

    def step(self, reduction: str = "none", closures=None, **options) -> tuple[SharpnessAware, list[Tensor]]:
        optimizer = msam.ModalityAwareSAM(torch.optim.SGD(self.model.parameters(), lr=LR), rho=RHO, **options)
        optimizer.step(closures or self.closure(reduction))
        found = [p.detach().clone() for p in self.model.parameters()]
        self.move(self.theta)
        return optimizer, found

    def closure(self, reduction: str = "none") -> msam.MultimodalClosure:
        return msam.MultimodalClosure(
            self.model, self.inputs, self.target, lambda output, target: cross_entropy(output, target, reduction=reduction)
        )


def normalised(shares: Tensor) -> Tensor:
    return shares / shares.sum(-1, keepdim=True)


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("choose", ["dominant", "weakest"])
def test_sample_shares_with_the_dominant_modality_of_the_batch(late: bool, choose: str):
    setting = Setting(late=late)
    shares = setting.shares()
    mean = normalised(shares.detach().mean(0))
    index = int(mean.argmax() if choose == "dominant" else mean.argmin())
    weights = normalised(shares)[:, index].detach()
    expected = setting.expected(lambda: (weights * setting.losses()).mean(), lambda: ((1 - weights) * setting.losses()).mean())
    optimizer, found = setting.step(per="sample", choose=choose)
    torch.testing.assert_close(found, expected, **CLOSE)
    assert optimizer.summary()["mean_eps_norm"] == pytest.approx(RHO)
    assert optimizer.passes == 2


def test_sample_shares_with_each_samples_own_dominant_modality():
    setting = Setting()
    weights = normalised(setting.shares()).amax(1).detach()
    expected = setting.expected(lambda: (weights * setting.losses()).mean(), lambda: ((1 - weights) * setting.losses()).mean())
    torch.testing.assert_close(setting.step(per="sample", dominance="sample")[1], expected, **CLOSE)


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_differentiable_shares(late: bool, reduction: str):
    setting = Setting(late=late)

    def share() -> Tensor:
        # Contributions are averaged over the batch first, and negative ones count 0 after that.
        return normalised(signed_mean(setting).clamp_min(0))

    index = int(share().argmax())
    expected = setting.expected(
        lambda: share()[index] * setting.losses().mean(), lambda: (1 - share()[index]) * setting.losses().mean()
    )
    torch.testing.assert_close(setting.step(reduction, per="differentiable")[1], expected, **CLOSE)


def signed_mean(setting: Setting) -> Tensor:
    matrix = msam.contribution.shapley_matrix(len(setting.names), dtype=torch.float64)
    rows = []
    for coalition in msam.contribution.all_coalitions(setting.names):
        output = setting.model(msam.contribution.mask_inputs(setting.inputs, coalition))
        rows.append(output.softmax(1)[range(len(setting.target)), setting.target].mean())
    return matrix @ torch.stack(rows)


@pytest.mark.parametrize("per", ["batch", "sample", "differentiable"])
@pytest.mark.parametrize("with_head", [True, False])
def test_eps_on_the_dominant_block_only(per: str, with_head: bool):
    setting = Setting()
    encoders, head = setting.model.encoders, setting.model.head
    blocks = {name: [encoders[name], head] if with_head else encoders[name] for name in setting.names}
    mean = normalised(signed_mean(setting).detach().clamp_min(0))
    index = int(mean.argmax())
    block = {id(p) for p in encoders[setting.names[index]].parameters()}
    block |= {id(p) for p in head.parameters()} if with_head else set()
    ids = [id(p) for p in setting.model.parameters()]
    if per == "batch":
        losses = lambda: mean[index] * setting.losses().mean(), lambda: (1 - mean[index]) * setting.losses().mean()
    elif per == "sample":
        weights = normalised(setting.shares())[:, index].detach()
        losses = lambda: (weights * setting.losses()).mean(), lambda: ((1 - weights) * setting.losses()).mean()
    else:
        share = lambda: normalised(signed_mean(setting).clamp_min(0))[index]  # noqa: E731
        losses = lambda: share() * setting.losses().mean(), lambda: (1 - share()) * setting.losses().mean()
    expected = setting.expected(*losses, moves=lambda i: ids[i] in block)
    optimizer, found = setting.step(per=per, scope="dominant", blocks=blocks)
    torch.testing.assert_close(found, expected, **CLOSE)
    assert optimizer.dominant == setting.names[index]


def test_per_batch_over_all_parameters_is_an_interpolation_of_sam_and_the_base():
    setting = Setting()
    optimizer, found = setting.step("mean")
    share = max(optimizer.contributions.values())

    def after(method) -> list[Tensor]:
        def closure() -> Tensor:
            base.zero_grad()
            loss = setting.losses().mean()
            loss.backward()
            return loss

        base = torch.optim.SGD(setting.model.parameters(), lr=LR)
        method(base).step(closure)
        moved = [p.detach().clone() for p in setting.model.parameters()]
        setting.move(setting.theta)
        return moved

    sam, sgd = after(lambda base: msam.SAM(base, rho=RHO)), after(lambda base: base)
    torch.testing.assert_close(found, [share * a + (1 - share) * b for a, b in zip(sam, sgd, strict=True)], **CLOSE)


@pytest.mark.parametrize("per", ["batch", "sample", "differentiable"])
def test_one_modality_is_sam(per: str):
    setting = Setting(sizes={"a": 3})
    _, found = setting.step(per=per)
    base = torch.optim.SGD(setting.model.parameters(), lr=LR)
    msam.SAM(base, rho=RHO).step(setting.closure())
    torch.testing.assert_close(found, [p.detach() for p in setting.model.parameters()], **CLOSE)


def test_equal_shares_of_all_samples_make_the_readings_agree():
    class Even(nn.Module):
        """Two modalities that are interchangeable."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, inputs):
            return self.layer(inputs["a"] + inputs["b"])

    torch.manual_seed(0)
    x, target = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 0])
    found = []
    for options in ({"per": "batch"}, {"per": "sample"}, {"per": "sample", "dominance": "sample"}):
        torch.manual_seed(1)
        model = Even().double()
        optimizer = msam.ModalityAwareSAM(torch.optim.SGD(model.parameters(), lr=LR), rho=RHO, **options)
        loss = lambda output, target: cross_entropy(output, target, reduction="none")  # noqa: E731
        optimizer.step(msam.MultimodalClosure(model, {"a": x, "b": x}, target, loss))
        assert list(optimizer.contributions.values()) == pytest.approx([0.5, 0.5])
        found.append([p.detach() for p in model.parameters()])
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], **CLOSE)


@pytest.mark.parametrize("options", [{"per": "sample"}, {"per": "sample", "dominance": "sample"}, {"per": "batch"}])
def test_micro_batches_are_one_batch(options: dict):
    setting = Setting()
    _, whole = setting.step(**options)
    parts = [
        msam.MultimodalClosure(
            setting.model,
            {name: x[rows] for name, x in setting.inputs.items()},
            setting.target[rows],
            lambda output, target: cross_entropy(output, target, reduction="none"),
        )
        for rows in (slice(0, 4), slice(4, 7))
    ]
    torch.testing.assert_close(setting.step(closures=parts, **options)[1], whole, **CLOSE)


@pytest.mark.parametrize("value", ["accuracy", "log_likelihood", "mono_modal_response"])
def test_values_by_name(value: str):
    setting = Setting()
    optimizer, _ = setting.step(value=value)
    names = setting.names
    outputs = [
        setting.model(msam.contribution.mask_inputs(setting.inputs, c)).detach()
        for c in msam.contribution.all_coalitions(names)
    ]
    matrix = msam.contribution.shapley_matrix(3, dtype=torch.float64)
    rows = range(len(setting.target))
    if value == "mono_modal_response":
        parts = torch.tensordot(matrix, torch.stack(outputs), dims=1)
        found = torch.stack([part.softmax(1)[rows, setting.target].mean() for part in parts])
    elif value == "accuracy":
        found = matrix @ torch.stack([(output.argmax(1) == setting.target).double().mean() for output in outputs])
    else:
        chance = torch.log(torch.tensor(3.0, dtype=torch.float64))
        found = matrix @ torch.stack([output.log_softmax(1)[rows, setting.target].mean() + chance for output in outputs])
    expected = normalised(found.clamp_min(0)).tolist()
    assert list(optimizer.contributions.values()) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("plain", [0.0, 0.25, 0.5])
def test_masked_sam_blends_the_plain_gradient_with_that_of_the_masked_inputs_at_theta_plus_eps(rate, plain):
    setting = Setting()
    shares = normalised(signed_mean(setting).detach().clamp_min(0))
    dominant = setting.names[int(shares.argmax())]
    masked = dict(setting.inputs)
    seen = []
    with torch.no_grad():
        hook = setting.model.encoders[dominant].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        base = torch.optim.SGD(setting.model.parameters(), lr=LR)
        optimizer = msam.ModalityMaskedSAM(base, rho=RHO, rate=rate, plain=plain)
        optimizer.step(setting.closure())
        hook.remove()
    found = [p.detach().clone() for p in setting.model.parameters()]
    setting.move(setting.theta)
    assert optimizer.contributions == pytest.approx(dict(zip(setting.names, shares.tolist(), strict=True)))
    # The first pass, one row of "absent", the second pass.
    assert [len(x) for x in seen] == [7, 1, 7]
    masked[dominant] = seen[-1]
    kept = (seen[-1] == setting.inputs[dominant]).all(1)
    assert (kept | (seen[-1] == 0).all(1)).all()
    assert {0.0: kept.all(), 1.0: not kept.any()}.get(rate, 0 < kept.sum() < 7)
    up = setting.gradient(setting.losses().mean())
    length = sum(g.square().sum() for g in up).sqrt()
    setting.move([t + RHO * g / length for t, g in zip(setting.theta, up, strict=True)])
    above = setting.gradient(cross_entropy(setting.model(masked), setting.target))
    update = [plain * g + (1 - plain) * a for g, a in zip(up, above, strict=True)]
    torch.testing.assert_close(found, [t - LR * step for t, step in zip(setting.theta, update, strict=True)], **CLOSE)


@pytest.mark.parametrize(("rate", "expected"), [(0.25, 0.25), ("dominance", None)])
def test_masked_sam_masks_the_share_that_it_says(rate, expected):
    torch.manual_seed(0)
    model = msam.fusion.late_fusion_mlp({"a": 3, "b": 2}, 3, width=4)
    inputs = {"a": torch.randn(4000, 3), "b": torch.randn(4000, 2)}
    target = (inputs["a"] @ torch.randn(3, 3)).argmax(1)
    optimizer = msam.ModalityMaskedSAM(torch.optim.SGD(model.parameters(), lr=1.0), rho=0.05, rate=rate)
    found: dict[str, list[float]] = {"a": [], "b": []}
    for name, encoder in model.encoders.items():
        encoder.register_forward_pre_hook(
            lambda _, given, name=name: found[name].append(float((given[0] == 0).all(1).double().mean()))
        )
    for _ in range(30):
        optimizer.step(msam.MultimodalClosure(model, inputs, target, cross_entropy))
    dominant = max(optimizer.contributions, key=optimizer.contributions.__getitem__)
    other = {"a": "b", "b": "a"}[dominant]
    expected = expected if expected is not None else 2 * optimizer.contributions[dominant] - 1
    assert found[dominant][-1] == pytest.approx(expected, abs=5 * (expected * (1 - expected) / 4000) ** 0.5)
    assert found[other][-1] == 0


def test_masked_sam_refuses_what_makes_no_sense():
    def base() -> torch.optim.SGD:
        return torch.optim.SGD(Setting().model.parameters(), lr=LR)

    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\], found 2; 0 masks nothing, 'dominance'"):
        msam.ModalityMaskedSAM(base(), rate=2)
    with pytest.raises(ValueError, match=r"plain must be in \[0, 1\), found 1"):
        msam.ModalityMaskedSAM(base(), plain=1)
    with pytest.raises(ValueError, match="Momentum takes one pass, so that there is no second one to mask"):
        msam.ModalityMaskedSAM(base(), plain=0.0, geometry="momentum")


def test_masked_sam_trains_a_learned_stand_in():
    setting = Setting()
    token = msam.contribution.LearnedToken({name: x[0] for name, x in setting.inputs.items()})
    base = torch.optim.SGD([*setting.model.parameters(), *token.parameters()], lr=LR)
    optimizer = msam.ModalityMaskedSAM(base, rho=RHO, rate=1.0, baseline=token)
    for _ in range(2):
        optimizer.step(setting.closure())
    dominant = max(optimizer.contributions, key=optimizer.contributions.__getitem__)
    moved = {name: bool(value.detach().abs().sum() > 0) for name, value in token.tokens.items()}
    assert moved[dominant]
