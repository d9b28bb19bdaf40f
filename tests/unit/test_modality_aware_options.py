"""The options of Modality-Aware SAM: what each does, what it costs, and what is refused."""

import copy
import io
from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

import msam
from msam.contribution import (
    LearnedToken,
    MonoModalResponse,
    all_coalitions,
    mask_inputs,
    normalise_shares,
    shapley_matrix,
    true_class_probability,
)
from msam.optim.engine.schedule import WhenSteep

SIZES = {"a": 3, "b": 2, "c": 4}
NAMES = tuple(SIZES)


def per_sample(output: Tensor, target: Tensor) -> Tensor:
    return cross_entropy(output, target, reduction="none")


class Setting:
    """A small problem; `steps` batches of it, drawn once."""

    def __init__(self, *, late: bool = True, count: int = 8, steps: int = 6, sizes: dict[str, int] | None = None) -> None:
        torch.manual_seed(3)
        sizes = sizes or SIZES
        build = msam.fusion.late_fusion_mlp if late else msam.fusion.EarlyFusion
        self.model = build(sizes, 3, width=5).double()
        self.batches = [
            ({name: torch.randn(count, size, dtype=torch.float64) for name, size in sizes.items()}, torch.randint(3, (count,)))
            for _ in range(steps)
        ]

    def optimizer(self, lr: float = 0.3, rho: float = 0.1, **options) -> msam.ModalityAwareSAM:
        return msam.ModalityAwareSAM(torch.optim.SGD(self.model.parameters(), lr=lr, momentum=0.5), rho=rho, **options)

    def closure(self, step: int = 0, **options) -> msam.MultimodalClosure:
        inputs, target = self.batches[step % len(self.batches)]
        return msam.MultimodalClosure(self.model, inputs, target, per_sample, **options)

    def contributions(self, step: int = 0, samples: int | None = None) -> Tensor:
        """Signed Shapley values by masked forwards, shape (M,), at the present weights."""
        inputs, target = self.batches[step % len(self.batches)]
        rows = []
        with torch.no_grad():
            for coalition in all_coalitions(tuple(inputs)):
                output = self.model(mask_inputs(inputs, coalition))
                rows.append(true_class_probability(output, target)[:samples].mean())
        return shapley_matrix(len(inputs), dtype=torch.float64) @ torch.stack(rows)


def close(first, second, atol: float = 1e-12) -> None:
    torch.testing.assert_close(first, second, rtol=0, atol=atol)


# -- smoothing --------------------------------------------------------------------------------------------------------------


@pytest.mark.exact
@pytest.mark.parametrize("smoothing", [0.0, 0.3, 0.9])
def test_smoothing_is_the_moving_average_that_starts_at_the_first_shares(smoothing: float):
    setting = Setting()
    optimizer = setting.optimizer(smoothing=smoothing)
    expected = None
    for step in range(6):
        fresh = normalise_shares(setting.contributions(step))
        expected = fresh if expected is None else smoothing * expected + (1 - smoothing) * fresh
        optimizer.step(setting.closure(step))
        close(optimizer.shares, expected)
        assert sum(optimizer.contributions.values()) == pytest.approx(1.0)


@pytest.mark.exact
def test_the_smoothed_share_is_the_one_that_acts():
    """A step is SAM's times the share plus the base's times the rest."""
    setting, sam, sgd = Setting(), Setting(), Setting()
    optimizer = setting.optimizer(smoothing=0.8)
    optimizer.step(setting.closure(0))
    for other in (sam, sgd):
        other.model.load_state_dict(setting.model.state_dict())
    first = setting.optimizer(smoothing=0.8)
    first.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    before = [p.detach().clone() for p in setting.model.parameters()]
    for group in first.param_groups:
        group["momentum"] = 0.0
    first.step(setting.closure(1))
    share = max(first.contributions.values())
    msam.SAM(torch.optim.SGD(sam.model.parameters(), lr=0.3), rho=0.1).step(sam.closure(1))
    msam.SAM(torch.optim.SGD(sgd.model.parameters(), lr=0.3), rho=0.0).step(sgd.closure(1))
    parts = zip(sam.model.parameters(), sgd.model.parameters(), strict=True)
    close([p.detach() for p in setting.model.parameters()], [(share * a + (1 - share) * b).detach() for a, b in parts])
    assert not all(torch.equal(a, b) for a, b in zip(before, setting.model.parameters(), strict=True))


@pytest.mark.exact
@pytest.mark.parametrize(
    "options",
    [
        {"smoothing": 0.7},
        {"smoothing": 0.7, "contribution_interval": 3},
        {"smoothing": 0.5, "contribution_samples": 3, "choose": "random"},
        {"exact_up_to": 2, "pairs": 2, "contribution_interval": 2},
        {"per": "sample", "choose": "random"},
        {"per": "differentiable"},
    ],
)
def test_training_resumes_bitwise(options: dict):
    whole, first, second = Setting(), Setting(), Setting()
    straight = whole.optimizer(**options)
    for step in range(6):
        straight.step(whole.closure(step))
    interrupted = first.optimizer(**options)
    for step in range(2):
        interrupted.step(first.closure(step))
    stored = io.BytesIO()
    torch.save({"model": first.model.state_dict(), "optimizer": interrupted.state_dict()}, stored)
    stored.seek(0)
    state = torch.load(stored, weights_only=True)
    second.model.load_state_dict(state["model"])
    resumed = second.optimizer(**options)
    resumed.load_state_dict(state["optimizer"])
    assert resumed.summary() == interrupted.summary()
    for step in range(2, 6):
        resumed.step(second.closure(step))
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True))
    assert torch.equal(resumed.shares, straight.shares)
    assert resumed.summary() == straight.summary()


# -- how often and on what --------------------------------------------------------------------------------------------------


@pytest.mark.exact
@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("interval", [1, 2, 4])
def test_contributions_are_evaluated_every_k_steps(late: bool, interval: int, monkeypatch: pytest.MonkeyPatch):
    setting = Setting(late=late)
    optimizer = setting.optimizer(contribution_interval=interval)
    calls: list[int] = []
    own = msam.MultimodalClosure.coalition_outputs

    def counted(self, *given, **options) -> Tensor:
        calls.append(optimizer.summary()["steps"])
        return own(self, *given, **options)

    monkeypatch.setattr(msam.MultimodalClosure, "coalition_outputs", counted)
    shares = []
    for step in range(9):
        optimizer.step(setting.closure(step))
        shares.append(optimizer.shares.clone())
    assert calls == list(range(0, 9, interval))
    for step in range(9):
        assert torch.equal(shares[step], shares[step - step % interval])


def test_the_interval_starts_anew_with_other_modalities():
    setting, other = Setting(), Setting(sizes={"x": 3, "y": 2})
    optimizer = msam.ModalityAwareSAM(
        torch.optim.SGD([*setting.model.parameters(), *other.model.parameters()], lr=0.1), contribution_interval=10
    )
    for chosen, names in ((setting, ["a", "b", "c"]), (other, ["x", "y"]), (setting, ["a", "b", "c"])):
        optimizer.step(chosen.closure())
        assert list(optimizer.contributions) == names


def test_steps_without_an_ascent_do_not_count_for_the_interval(monkeypatch: pytest.MonkeyPatch):
    setting = Setting()
    optimizer = setting.optimizer(contribution_interval=2, interval=2)
    calls: list[int] = []
    own = msam.MultimodalClosure.coalition_outputs
    monkeypatch.setattr(
        msam.MultimodalClosure,
        "coalition_outputs",
        lambda self, *given, **options: calls.append(optimizer.summary()["steps"]) or own(self, *given, **options),
    )
    for step in range(8):
        optimizer.step(setting.closure(step))
    assert calls == [0, 4]


@pytest.mark.exact
@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("samples", [1, 3, 100])
def test_contributions_of_the_first_samples(late: bool, samples: int):
    setting = Setting(late=late)
    optimizer = setting.optimizer(contribution_samples=samples)
    expected = normalise_shares(setting.contributions(samples=samples))
    optimizer.step(setting.closure())
    close(optimizer.shares, expected)


@pytest.mark.exact
def test_contributions_of_the_first_samples_of_each_micro_batch():
    setting = Setting()
    optimizer = setting.optimizer(contribution_samples=2)
    expected = normalise_shares((setting.contributions(0, 2) + setting.contributions(1, 2)) / 2)
    optimizer.step([setting.closure(0), setting.closure(1)])
    close(optimizer.shares, expected)


def test_fewer_samples_are_run_where_nothing_can_be_reused():
    setting = Setting(late=False)
    rows: list[int] = []
    setting.model.register_forward_hook(lambda *given: rows.append(len(given[-1])))
    setting.optimizer(contribution_samples=3).step(setting.closure())
    assert rows == [8, *[3] * 6, 8]


# -- negative contributions -------------------------------------------------------------------------------------------------


class Additive(nn.Module):
    """Adds the inputs up: what each modality gains is known."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, inputs: dict) -> Tensor:
        return sum(inputs.values()) + self.shift


@pytest.mark.parametrize(
    ("negative", "shares"), [("zero", {"a": 0.75, "b": 0.0, "c": 0.25}), ("absolute", {"a": 0.5, "b": 1 / 3, "c": 1 / 6})]
)
def test_negative_contributions(negative: str, shares: dict[str, float]):
    inputs = {name: torch.full((4, 1), gain, dtype=torch.float64) for name, gain in (("a", 3.0), ("b", -2.0), ("c", 1.0))}
    model = Additive()
    optimizer = msam.ModalityAwareSAM(
        torch.optim.SGD(model.parameters(), lr=0.1),
        rho=0.1,
        negative=negative,
        value=lambda output, target: (output + 0 * target).squeeze(1),
    )
    optimizer.step(msam.MultimodalClosure(model, inputs, torch.zeros(4, 1).double(), mse_loss))
    assert optimizer.contributions == pytest.approx(shares)
    assert optimizer.dominant == "a"


# -- many modalities --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2])
def test_sampled_contributions_are_near_the_exact_ones(parts: int):
    sizes = {f"m{index}": 2 for index in range(10)}
    setting = Setting(sizes=sizes, count=6)
    exact = torch.stack([setting.contributions(step) for step in range(parts)]).mean(0)
    optimizer = setting.optimizer(exact_up_to=8, pairs=32, seed=5)
    taken: list[Tensor] = []
    hold = optimizer._shares.hold
    optimizer._shares.hold = lambda *parts: taken.append(torch.cat(parts, 1).mean(1)) or hold(*parts)
    optimizer.step([setting.closure(step) for step in range(parts)])
    summary = optimizer.summary()
    assert list(summary["standard_errors"]) == list(sizes)
    errors = torch.tensor(list(summary["standard_errors"].values()), dtype=torch.float64)
    assert (errors > 0).all()
    assert ((taken[0] - exact).abs() < 5 * errors).all()
    assert float(errors.max()) < 0.05
    close(optimizer.shares, normalise_shares(taken[0]))
    # All of them add up to what all modalities together are worth.
    close(taken[0].sum(), exact.sum())


def test_exact_contributions_have_no_standard_errors():
    setting = Setting()
    optimizer = setting.optimizer()
    optimizer.step(setting.closure())
    assert optimizer.standard_errors is None
    assert "standard_errors" not in optimizer.summary()


@pytest.mark.exact
@pytest.mark.parametrize("per", ["sample", "differentiable"])
def test_sampled_orders_in_the_other_readings(per: str):
    setting, twin = Setting(), Setting()
    for chosen in (setting, twin):
        optimizer = chosen.optimizer(per=per, exact_up_to=2, pairs=4)
        for step in range(3):
            optimizer.step(chosen.closure(step))
        assert optimizer.summary()["perturbed"] == 3
    close(list(setting.model.parameters()), list(twin.model.parameters()), atol=0)
    # The orders of the pass at theta + eps are those of the pass at theta, and other ones at the next step.
    drawn = {optimizer._shares.plan(NAMES).sampled.orders}
    optimizer._shares._step += 1
    drawn.add(optimizer._shares.plan(NAMES).sampled.orders)
    assert len(drawn) == 2


def test_many_modalities_cost_what_the_orders_visit():
    sizes = {f"m{index}": 2 for index in range(10)}
    setting = Setting(sizes=sizes, count=4, late=False)
    rows: list[int] = []
    setting.model.register_forward_hook(lambda *given: rows.append(len(given[-1])))
    setting.optimizer(pairs=3).step(setting.closure())
    assert 2 + 10 < len(rows) <= 2 + 2 * 3 * 9


# -- which modality ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per", ["batch", "sample", "differentiable"])
def test_a_random_choice_is_reproducible_and_uses_several_modalities(per: str):
    chosen: list[list[int]] = []
    for seed in (0, 0, 1):
        setting = Setting(count=4)
        optimizer = setting.optimizer(per=per, choose="random", seed=seed)
        state = torch.get_rng_state()
        chosen.append([])
        for step in range(24):
            optimizer.step(setting.closure(step))
            chosen[-1].append(int(optimizer._shares._index))
        assert torch.equal(torch.get_rng_state(), state)
    assert chosen[0] == chosen[1] != chosen[2]
    assert min(Counter(chosen[0])[index] for index in range(3)) >= 3


@pytest.mark.exact
@pytest.mark.parametrize("choose", ["dominant", "weakest", "random"])
def test_the_chosen_share_is_the_weight_of_the_second_pass(choose: str):
    setting = Setting()
    optimizer = setting.optimizer(choose=choose)
    optimizer.step(setting.closure())
    index = {"dominant": optimizer.shares.argmax(), "weakest": optimizer.shares.argmin()}.get(choose, optimizer._shares._index)
    assert float(optimizer._engine.share) == float(optimizer.shares[index])


def test_blocks_go_with_the_chosen_modality_and_with_a_filter():
    setting = Setting()
    encoders = setting.model.encoders
    weights = {id(p) for p in setting.model.parameters() if p.ndim == 2}
    moved: list[set[int]] = []
    optimizer = setting.optimizer(
        lr=0.0, choose="weakest", scope="dominant", blocks=dict(encoders), perturb=lambda parameter: id(parameter) in weights
    )
    before = {id(p): p.detach().clone() for p in setting.model.parameters()}

    def loss(output: Tensor, target: Tensor) -> Tensor:
        moved.append({id(p) for p in setting.model.parameters() if not torch.equal(p, before[id(p)])})
        return per_sample(output, target)

    closure = setting.closure()
    closure.loss_fn = loss
    optimizer.step(closure)
    weakest = min(optimizer.contributions, key=optimizer.contributions.__getitem__)
    assert moved == [set(), {id(p) for p in encoders[weakest].parameters() if p.ndim == 2}]


# -- what a step costs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "absent"),
    [
        ({}, 1),
        ({"per": "sample"}, 1),
        ({"per": "sample", "dominance": "sample"}, 1),
        ({"contribution_samples": 3}, 1),
        ({"baseline": "shuffled"}, 0),
        ({"exact_up_to": 1, "pairs": 2}, 1),
        ({"choose": "random"}, 1),
    ],
)
def test_encoders_run_once_per_pass_and_once_on_one_row(options: dict, absent: int):
    setting = Setting()
    rows: dict[str, list[int]] = {name: [] for name in NAMES}
    for name, encoder in setting.model.encoders.items():
        encoder.register_forward_hook(lambda *given, name=name: rows[name].append(len(given[-1])))
    heads: list[int] = []
    setting.model.head.register_forward_hook(lambda *given: heads.append(len(given[-1])))
    optimizer = setting.optimizer(**options)
    optimizer.step(setting.closure())
    assert rows == {name: [8, *[1] * absent, 8] for name in NAMES}
    assert len(heads) == 3
    assert heads[0] == heads[2] == 8
    assert optimizer.passes == 2


def test_a_differentiable_share_takes_the_coalitions_at_both_points():
    setting = Setting()
    rows: dict[str, list[int]] = {name: [] for name in NAMES}
    for name, encoder in setting.model.encoders.items():
        encoder.register_forward_hook(lambda *given, name=name: rows[name].append(len(given[-1])))
    setting.optimizer(per="differentiable").step(setting.closure())
    assert rows == {name: [8, 1, 8, 1] for name in NAMES}


@pytest.mark.parametrize("per", ["batch", "sample", "differentiable"])
def test_radius_zero_evaluates_nothing(per: str):
    setting = Setting()
    calls: list[int] = []
    setting.model.head.register_forward_hook(lambda *given: calls.append(len(given)))
    optimizer = setting.optimizer(rho=0.0, per=per)
    optimizer.step(setting.closure())
    assert len(calls) == 1
    assert optimizer.contributions == {}
    assert optimizer.dominant is None


# -- what is not finite -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_model", [True, False])
@pytest.mark.parametrize("options", [{"smoothing": 0.5}, {}, {"per": "sample"}, {"per": "differentiable"}])
def test_a_batch_with_nan_is_skipped_and_forgotten(options: dict, with_model: bool):
    setting = Setting()
    setting.batches[2][0]["b"][1] = float("nan")
    optimizer = setting.optimizer(**options, model=setting.model if with_model else None)
    for step in range(2):
        optimizer.step(setting.closure(step))
    before = [p.detach().clone() for p in setting.model.parameters()]
    shares = optimizer.shares.clone()
    optimizer.step(setting.closure(2))
    assert all(torch.equal(a, b) for a, b in zip(before, setting.model.parameters(), strict=True))
    assert optimizer.summary()["skipped"] == 1
    assert torch.equal(optimizer.shares, shares)
    fresh = normalise_shares(setting.contributions(3))
    optimizer.step(setting.closure(3))
    close(optimizer.shares, 0.5 * (shares + fresh) if "smoothing" in options else fresh)
    assert all(torch.isfinite(p).all() for p in setting.model.parameters())
    assert optimizer.summary()["skipped"] == 1


def test_nan_at_the_first_step_leaves_no_shares_and_finite_ones_later():
    setting = Setting()
    setting.batches[0][0]["a"][0] = float("nan")
    optimizer = setting.optimizer(smoothing=0.5)
    optimizer.step(setting.closure(0))
    assert optimizer.shares is None
    for step in range(1, 3):
        optimizer.step(setting.closure(step))
        assert torch.isfinite(optimizer.shares).all()
        assert float(optimizer.shares.sum()) == pytest.approx(1.0)
    assert optimizer.summary()["skipped"] == 1


@pytest.mark.exact
@pytest.mark.parametrize("options", [{"per": "sample"}, {"per": "sample", "dominance": "sample"}, {"per": "differentiable"}])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_scaled_step_is_the_unscaled_one(options: dict, parts: int):
    found = []
    for scaler in (None, GradScaler("cpu", init_scale=2.0**10, growth_interval=10**6)):
        setting = Setting()
        optimizer = setting.optimizer(**options)
        for step in range(3):
            closures = [setting.closure(step + part) for part in range(parts)]
            for closure in closures:
                closure.penalties.append(lambda of: 0.01 * of.model.head.weight.square().sum())
            optimizer.step(closures if parts > 1 else closures[0], scaler=scaler)
            if scaler is not None:
                scaler.update()
                assert scaler.get_scale() == 2.0**10
        assert optimizer.summary()["skipped"] == 0
        assert optimizer.summary()["mean_eps_norm"] == pytest.approx(0.1)
        found.append([p.detach() for p in setting.model.parameters()])
    close(found[0], found[1])


@pytest.mark.parametrize("per", ["sample", "differentiable"])
@pytest.mark.parametrize("at", [1, 2])
def test_the_scaler_hears_of_infinity_in_either_pass(per: str, at: int):
    setting, scaler = Setting(), GradScaler("cpu", init_scale=2.0**10)
    optimizer = setting.optimizer(per=per)
    passes: list[int] = []

    def loss(output: Tensor, target: Tensor) -> Tensor:
        passes.append(1)
        return per_sample(output, target) * (float("inf") if len(passes) == at else 1.0)

    before = [p.detach().clone() for p in setting.model.parameters()]
    closure = setting.closure()
    closure.loss_fn = loss
    optimizer.step(closure, scaler=scaler)
    scaler.update()
    assert all(torch.equal(a, b) for a, b in zip(before, setting.model.parameters(), strict=True))
    assert scaler.get_scale() == 2.0**9
    assert optimizer.summary()["skipped"] == 1


# -- other tasks ------------------------------------------------------------------------------------------------------------


def explained(output: Tensor, target: Tensor) -> Tensor:
    """By how much a regression beats the guess 0."""
    return (target.square() - (output - target).square()).mean(1)


def agreement(output: Tensor, target: Tensor) -> Tensor:
    """Mean probability of the true value of each label, above chance."""
    return torch.where(target > 0, output, -output).sigmoid().mean(1) - 0.5


@pytest.mark.parametrize(
    ("loss", "value"), [(mse_loss, explained), (binary_cross_entropy_with_logits, agreement)], ids=["regression", "labels"]
)
@pytest.mark.parametrize("per", ["batch", "sample", "differentiable"])
def test_regression_and_several_labels(loss, value, per: str):
    setting = Setting()
    inputs = setting.batches[0][0]
    target = torch.stack([inputs["a"].sum(1), inputs["c"][:, 0], inputs["a"][:, 0]], 1)
    target = target if loss is mse_loss else (target > 0).double()
    optimizer = setting.optimizer(per=per, value=value, lr=0.1)
    matrix = shapley_matrix(3, dtype=torch.float64)

    def closure() -> msam.MultimodalClosure:
        return msam.MultimodalClosure(setting.model, inputs, target, lambda o, t: loss(o, t, reduction="none").mean(1))

    with torch.no_grad():
        outputs = [setting.model(mask_inputs(inputs, coalition)) for coalition in all_coalitions(NAMES)]
        expected = normalise_shares(matrix @ torch.stack([value(output, target).mean() for output in outputs]))
    first = float(optimizer.step(closure()))
    close(optimizer.shares, expected)
    for _ in range(150):
        last = float(optimizer.step(closure()))
    assert last < 0.9 * first
    if per != "differentiable":
        # Nothing of the target is in b. The gradient through the share may move the others' shares below it all the same.
        assert min(optimizer.contributions, key=optimizer.contributions.__getitem__) == "b"
    with pytest.raises(ValueError, match=r"pass value=\.\.\."):
        setting.optimizer(per=per).step(closure())


def test_a_response_with_a_score_of_ones_own():
    setting = Setting()
    optimizer = setting.optimizer(value=MonoModalResponse(score=lambda output, target: output[:, 0].square() + 0 * target))
    optimizer.step(setting.closure())
    assert sum(optimizer.contributions.values()) == pytest.approx(1.0)


@pytest.mark.exact
@pytest.mark.parametrize("value", ["probability", "mono_modal_response", "log_likelihood"])
@pytest.mark.parametrize("per", ["batch", "sample", "differentiable"])
def test_samples_without_a_modality_leave_its_share_to_the_others(value: str, per: str):
    setting = Setting()
    present = {"a": torch.zeros(8).bool(), "b": torch.arange(8) < 5}
    optimizer = setting.optimizer(value=value, per=per)
    optimizer.step(setting.closure(present=present))
    assert optimizer.contributions["a"] == 0.0
    assert optimizer.summary()["perturbed"] == 1


def test_samples_without_a_modality_among_many_modalities():
    sizes = {f"m{index}": 2 for index in range(10)}
    setting = Setting(sizes=sizes)
    optimizer = setting.optimizer()
    optimizer.step(setting.closure(present={"m3": torch.zeros(8).bool()}))
    assert optimizer.contributions["m3"] == 0.0
    assert optimizer.summary()["standard_errors"]["m3"] == pytest.approx(0.0, abs=1e-15)


# -- what is refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per": "epoch"}, r"per must be one of \['batch', 'sample', 'differentiable'\], found 'epoch'"),
        ({"dominance": "x"}, r"dominance must be one of \['batch', 'sample'\], found 'x'"),
        ({"scope": "x"}, r"scope must be one of \['all', 'dominant'\], found 'x'"),
        ({"choose": "best"}, r"choose must be one of \['dominant', 'weakest', 'random'\], found 'best'"),
        ({"smoothing": 1.0}, r"smoothing must be in \[0, 1\), found 1\.0; 0 is none"),
        ({"smoothing": -0.1}, r"smoothing must be in \[0, 1\)"),
        ({"contribution_interval": 0}, "contribution_interval must be >= 1, found 0"),
        ({"contribution_samples": 0}, "contribution_samples must be >= 1, found 0"),
        ({"contribution_samples": -2}, "contribution_samples must be >= 1, found -2"),
        ({"scope": "dominant"}, "scope='dominant' needs blocks=.*blocks=None"),
        ({"blocks": {"a": nn.Linear(1, 1)}}, "other scopes take none, found scope='all' and blocks=given"),
        ({"dominance": "sample"}, "dominance='sample' needs per='sample'"),
        ({"dominance": "sample", "per": "differentiable"}, "dominance='sample' needs per='sample'"),
        ({"dominance": "sample", "per": "sample", "choose": "random"}, "no random choice, found per='sample'.*choose='random'"),
        ({"dominance": "sample", "per": "sample", "scope": "dominant", "blocks": {}}, "dominance='sample' needs .*scope='all'"),
        ({"per": "sample", "smoothing": 0.5}, "are for per='batch'.*found per='sample'"),
        ({"per": "differentiable", "contribution_interval": 2}, "are for per='batch'"),
        ({"per": "sample", "contribution_samples": 2}, "are for per='batch'"),
        ({"per": "sample", "interval": WhenSteep(10)}, "WhenSteep decides by the gradient of the whole loss"),
        ({"value": "loss"}, r"value must be one of .*found 'loss'"),
        ({"baseline": "noise"}, "baseline must be one of .*found 'noise'"),
        ({"negative": "keep"}, "negative must be 'zero' or 'absolute', found 'keep'"),
        ({"exact_up_to": 0}, "exact_up_to must be >= 1 and pairs >= 2, found 0 and 8"),
        ({"pairs": 1}, "exact_up_to must be >= 1 and pairs >= 2, found 8 and 1"),
    ],
)
def test_arguments_that_make_no_sense(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Setting().optimizer(**options)


def test_a_schedule_by_the_gradient_works_per_batch():
    setting = Setting()
    optimizer = setting.optimizer(interval=WhenSteep(10))
    for step in range(4):
        optimizer.step(setting.closure(step))
    assert optimizer.summary()["perturbed"] >= 1


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (nn.Linear(2, 2), "must hold parameters that the optimizer trains, found none for 'a'"),
        (nn.ReLU(), "must hold parameters that the optimizer trains, found none for 'a'"),
        ([], "must hold parameters that the optimizer trains, found none for 'a'"),
        ("encoder", "a block must be a module, a parameter or several of them, found 'encoder' for 'a'"),
        (3, "a block must be a module, a parameter or several of them, found 3 for 'a'"),
        ([nn.Linear(2, 2), "head"], "found 'head' for 'a'"),
    ],
)
def test_blocks_that_are_none(block, message: str):
    with pytest.raises(ValueError, match=message):
        Setting().optimizer(scope="dominant", blocks={"a": block})


def test_blocks_may_be_parameters_nested_and_shared_and_leave_frozen_ones_out():
    setting = Setting()
    encoders, head = setting.model.encoders, setting.model.head
    encoders["a"][0].bias.requires_grad_(requires_grad=False)
    blocks = {
        "a": [encoders["a"], [head]],
        "b": (parameter for parameter in encoders["b"].parameters()),
        "c": head.weight,
    }
    optimizer = setting.optimizer(scope="dominant", blocks=blocks)
    assert optimizer._shares.blocks["c"] == {head.weight}
    assert optimizer._shares.blocks["b"] == set(encoders["b"].parameters())
    assert encoders["a"][0].bias not in optimizer._shares.blocks["a"]
    assert optimizer._shares.blocks["a"] == {*encoders["a"].parameters(), *head.parameters()} - {encoders["a"][0].bias}


@pytest.mark.parametrize("per", ["batch", "sample", "differentiable"])
def test_every_modality_needs_a_block(per: str):
    setting = Setting()
    optimizer = setting.optimizer(scope="dominant", blocks={"z": setting.model.head}, per=per)
    before = [p.detach().clone() for p in setting.model.parameters()]
    with pytest.raises(ValueError, match=r"blocks must name every modality, found none for '[abc]'; it has \['z'\]"):
        optimizer.step(setting.closure())
    assert all(torch.equal(a, b) for a, b in zip(before, setting.model.parameters(), strict=True))


def test_a_value_without_a_gradient_is_no_differentiable_share():
    setting = Setting()
    with pytest.raises(ValueError, match="per='differentiable' needs a value with a gradient, found 'accuracy'"):
        setting.optimizer(per="differentiable", value="accuracy").step(setting.closure())


def test_a_mean_loss_is_not_enough_for_shares_per_sample():
    setting = Setting()
    closure = setting.closure()
    closure.loss_fn = cross_entropy
    with pytest.raises(ValueError, match=r"one loss per sample, shape \(8,\), found shape \(\); use reduction='none'"):
        setting.optimizer(per="sample").step(closure)


@pytest.mark.parametrize("per", ["batch", "sample", "differentiable"])
def test_plain_closures_and_micro_batches_of_other_modalities(per: str):
    setting, other = Setting(), Setting(sizes={"a": 3, "c": 4, "b": 2})
    optimizer = setting.optimizer(per=per)
    with pytest.raises(ValueError, match="ModalityAwareSAM needs to evaluate coalitions of modalities, found a plain closure"):
        optimizer.step(lambda: setting.closure().loss())
    with pytest.raises(ValueError, match="must have the same modalities in the same order"):
        optimizer.step([setting.closure(), other.closure()])


def test_a_learned_token_as_the_optimizers_baseline():
    setting = Setting()
    token = LearnedToken({name: torch.ones(size) for name, size in SIZES.items()}).double()
    optimizer = setting.optimizer(baseline=token, per="differentiable")
    optimizer.step(setting.closure())
    assert optimizer.summary()["perturbed"] == 1
