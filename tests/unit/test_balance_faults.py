"""Where balancing methods could go wrong in silence: other models, pairs of methods, scores of zero, resumes, errors."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import msam
from msam import balance as b
from msam.errors import InvalidTypeError, InvalidValueError, MsamError
from msam.fusion import LateFusion, late_fusion_mlp
from problems import all_same_bits

X = {"a": torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).double(), "b": torch.arange(12.0).view(6, 2).double()}
Y = torch.tensor([0, 1, 2, 3, 0, 1])


def make(width: int = 5) -> LateFusion:
    torch.manual_seed(1)
    return late_fusion_mlp({"a": 3, "b": 2}, 4, width=width).double()


def gradients(
    model: nn.Module, balance: Any = (), *, loss_fn: Any = cross_entropy, target: Tensor = Y, **inputs: Tensor
) -> list[Tensor]:
    model.zero_grad()
    msam.MultimodalClosure(model, {**X, **inputs}, target, loss_fn, balance=balance)()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


def close(first: list[Tensor], second: list[Tensor], tolerance: float = 1e-12) -> bool:
    return all(torch.allclose(one, other, rtol=tolerance, atol=tolerance) for one, other in zip(first, second, strict=True))


# -- the model -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [b.OGM, b.MMPareto, b.ARL, b.CGGM, lambda model: b.EncoderScale(model, 3.0)])
def test_a_method_that_was_made_for_another_model_is_refused(build: Any):
    model = make()
    with pytest.raises(InvalidValueError, match=r"for the model that the closure runs, found parameters of \['a', 'b'\]"):
        gradients(model, build(copy.deepcopy(model)))
    with pytest.raises(InvalidValueError, match="must be made for the model that the closure runs"):
        gradients(model, copy.deepcopy(build(model)))
    other, balance = copy.deepcopy((model, build(model)))
    gradients(other, balance)
    nn.utils.parametrizations.weight_norm(model.encoders["a"][0])
    late = build(other)
    nn.utils.parametrizations.weight_norm(other.encoders["a"][0])
    with pytest.raises(InvalidValueError, match=r"found parameters of \['a'\]"):
        gradients(other, late)


def test_dgl_holds_whatever_the_model_has_beside_its_encoders():
    model = make()
    balance = b.DGL(model)
    model.head = nn.Linear(10, 4).double()
    found, joint = gradients(model, balance)[-2:], gradients(model)[-2:]
    assert close(found, joint)


def test_blocks_must_have_the_names_of_the_modalities_and_be_a_mapping():
    model = make()
    with pytest.raises(InvalidValueError, match=r"a block for each modality of the batch, found \['a'\] for \['a', 'b'\]"):
        gradients(model, b.MMPareto(model, blocks={"a": model.encoders["a"]}))
    with pytest.raises(InvalidTypeError, match="blocks must be a mapping"):
        b.OGM(model, blocks=[1])  # type: ignore[arg-type]


def test_a_head_whose_forward_was_replaced_has_no_parts():
    model = make()
    model.head.forward = lambda joint: nn.Linear.forward(model.head, joint) ** 2
    assert not model.splits
    assert close(gradients(model, b.AGM(model, 0.0)), gradients(model), 1e-10)


def test_a_model_that_is_run_as_a_whole_is_refused_where_features_are_needed():
    model = make()
    closure = {"inputs": X, "target": Y, "loss_fn": cross_entropy}
    for build in (b.DGL, b.CGGM, b.DataRemixing):
        balance = build(model)
        balance.start_epoch(10)
        with pytest.raises(InvalidValueError, match="found a model that is run as a whole; pass the model itself"):
            msam.MultimodalClosure(lambda inputs: model(inputs), **closure, balance=balance)


# -- the loss ------------------------------------------------------------------------------------------------------------


def test_agm_keeps_what_of_the_loss_does_not_go_through_the_output():
    model, factor = make(), nn.Parameter(torch.ones((), dtype=torch.float64))

    def loss_fn(output: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(output * factor, target) + 0.1 * sum(p.square().sum() for p in model.parameters())

    joint = gradients(model, loss_fn=loss_fn)
    wanted = factor.grad.clone()
    factor.grad = None
    assert close(gradients(model, b.AGM(model, 0.0), loss_fn=loss_fn), joint)
    assert torch.allclose(factor.grad, wanted)


def test_agm_knows_modalities_by_name():
    first, second = make(), make()
    one, two = b.AGM(first), b.AGM(second)
    for turned in (False, True, False):
        gradients(first, one)
        second.zero_grad()
        inputs = dict(reversed(X.items())) if turned else X
        msam.MultimodalClosure(second, inputs, Y, cross_entropy, balance=two)()
    assert torch.allclose(one.scores, two.scores)
    assert one.summary()["factors"] == pytest.approx(two.summary()["factors"])


def test_agms_mean_moves_in_half_precision():
    model = make().bfloat16()
    balance = b.AGM(model)
    inputs = {name: value.bfloat16() for name, value in X.items()}
    for number in range(600):
        loss_fn = lambda output, target, scale=1.0 + 2 * (number >= 200): scale * cross_entropy(output, target)  # noqa: E731
        msam.MultimodalClosure(model, inputs, Y, loss_fn, balance=balance)()
    last = balance.scores.mean()
    plain = cross_entropy(model(inputs), Y).detach()
    assert float(last / plain) == pytest.approx((200 + 3 * 400) / 600, rel=0.1)


def test_ogm_takes_nobody_being_right_for_no_lead():
    model = make()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([9.0, 0.0, 0.0, 0.0]))
    wrong = torch.full((6,), 1)
    for balance in (b.OGM(model, value=msam.contribution.accuracy), b.OGM(model, 0.0, value=msam.contribution.accuracy)):
        assert close(gradients(model, balance, target=wrong), gradients(model, target=wrong))
    # Alpha 0 changes nothing either where only one of them is right.
    with torch.no_grad():
        model.head.weight[1, :5] = 1.0
        model.encoders["a"][-1 if isinstance(model.encoders["a"][-1], nn.Linear) else -2].bias.fill_(100.0)
    balance = b.OGM(model, 0.0, value=msam.contribution.accuracy)
    assert close(gradients(model, balance, target=wrong), gradients(model, target=wrong))


@pytest.mark.parametrize("build", [b.ARL, b.CGGM, b.TCMax, lambda model: b.DataRemixing(model, warm_up=0)])
def test_one_logit_is_refused_by_methods_of_classes(build: Any):
    model = late_fusion_mlp({"a": 3, "b": 2}, 1).double()
    balance = build(model)
    balance.start_epoch(0)
    with pytest.raises(InvalidValueError, match=r"needs a logit for each class, \(B, C\), found shape \(6, 1\)"):
        gradients(model, balance, loss_fn=lambda output, target: output.mean() * 0 + target.double().mean())


@pytest.mark.parametrize("build", [b.ARL, b.OGM, b.TCMax, b.CGGM])
def test_rows_that_are_ignored_count_nowhere(build: Any):
    one, other = make(), make()
    few = torch.tensor([0, 1, 2, 3, -100, -100])
    full = gradients(one, build(one), target=few)
    other.zero_grad()
    inputs = {name: value[:4] for name, value in X.items()}
    msam.MultimodalClosure(other, inputs, few[:4], cross_entropy, balance=build(other))()
    assert close(full, [p.grad for p in other.parameters()], 1e-6 if build is b.CGGM else 1e-12)


@pytest.mark.parametrize("ratio", [1e-5, 1e-7])
def test_mmpareto_keeps_its_precision_where_one_gradient_is_much_shorter(ratio: float):
    generator = torch.Generator().manual_seed(3)
    joint = [torch.randn(40, generator=generator), torch.randn(7, generator=generator)]
    alone = [-ratio * g + 0.5 * ratio * torch.randn(g.shape, generator=generator) for g in joint]
    parameters = [nn.Parameter(torch.zeros_like(g)) for g in joint]
    found = {}
    for dtype in (torch.float32, torch.float64):
        held = [p.detach().to(dtype).requires_grad_() for p in parameters]
        given = [{p: g.to(dtype).clone() for p, g in zip(held, each, strict=True)} for each in (joint, alone)]
        b.mmpareto.merge_([held], *given, 1.5)
        found[dtype] = torch.cat([p.grad.double() for p in held])
    assert (found[torch.float32] - found[torch.float64]).norm() <= 1e-5 * found[torch.float64].norm()


# -- methods together ----------------------------------------------------------------------------------------------------


def remixing(model: nn.Module) -> b.Balance:
    found = b.DataRemixing(model, warm_up=0)
    found.start_epoch(0)
    return found


EXCLUSIVE = [b.DGL, b.AGM, b.TCMax, b.MMPareto, b.UnimodalEnsemble, remixing, lambda _: b.DominantModalityDropout(0.5)]


@pytest.mark.parametrize("first", EXCLUSIVE)
@pytest.mark.parametrize("second", EXCLUSIVE)
def test_two_methods_with_losses_of_their_own_are_refused(first: Any, second: Any):
    model = make()
    with pytest.raises(InvalidValueError, match="one balancing method that makes a loss of its own or changes what"):
        gradients(model, [first(model), second(model)])


def test_the_same_method_twice_is_refused_and_additions_go_with_all():
    model = make()
    same = b.JointUnimodal(0.3)
    with pytest.raises(InvalidValueError, match="found JointUnimodal and JointUnimodal"):
        gradients(model, [same, same])
    for build in EXCLUSIVE:
        gradients(model, [b.JointUnimodal(0.1), b.ModalityDropout(0.2), b.EncoderScale(model, 1.5), build(model)])


# -- what is kept --------------------------------------------------------------------------------------------------------


def test_a_batch_of_nan_counts_in_no_mean():
    model, broken = make(), X["a"].clone()
    broken[0] = math.nan
    agm, ogm, cggm = b.AGM(model), b.OGM(model, steady=True), b.CGGM(model)
    gradients(model, agm, a=broken)
    gradients(model, agm)
    fresh = b.AGM(model)
    gradients(model, fresh)
    assert torch.equal(agm.scores, fresh.scores)
    assert torch.equal(agm.taken, fresh.taken)
    gradients(model, ogm, a=broken)
    assert ogm.state_dict()["mean"] is None
    gradients(model, ogm)
    gradients(model, cggm)
    before = cggm.accuracies
    gradients(model, cggm, a=broken)
    assert torch.equal(cggm.accuracies, before)
    for balance in (agm, ogm, cggm):
        tensors = [value for value in balance.state_dict().values() if isinstance(value, Tensor)]
        assert all(tensor.isfinite().all() for tensor in tensors)


def test_an_epoch_that_starts_again_counts_once():
    once, twice = mslr_of(make()), mslr_of(make())
    for epoch, score in enumerate([None, 0.1, 0.2, 0.4, 0.3]):
        for balance, times in ((once, 1), (twice, 3)):
            for _ in range(times):
                balance.start_epoch(epoch, None if score is None else {"a": score, "b": score})
        assert once.factors == twice.factors
    assert once.factors["a"] == pytest.approx(0.3 / 0.3)
    assert once.summary()["mean_factor"] == twice.summary()["mean_factor"]


def mslr_of(model: nn.Module, **options: Any) -> b.MSLR:
    return b.MSLR(b.split_groups_(torch.optim.SGD(model.parameters(), lr=0.1), model), window=2, **options)


def test_mslr_puts_rates_back_after_an_error_and_lets_a_successor_take_over():
    model = make()
    optimizer = b.split_groups_(torch.optim.SGD(model.parameters(), lr=0.1), model)
    first = b.MSLR(optimizer, initial={"a": 0.5, "b": 10.0})
    first.start_epoch(0)

    def fails(*_: Tensor) -> Tensor:
        raise MemoryError

    closure = msam.MultimodalClosure(model, X, Y, fails, balance=first)
    with pytest.raises(MemoryError):
        optimizer.step(closure)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1] * 3
    seen: list[list[float]] = []
    optimizer.register_step_pre_hook(lambda held, *_: seen.append([group["lr"] for group in held.param_groups]))
    second = b.MSLR(optimizer, initial={"a": 0.5})
    optimizer.register_step_pre_hook(lambda held, *_: seen.append([group["lr"] for group in held.param_groups]))
    optimizer.step()
    assert seen[-1] == [0.1, 0.05, 0.1]
    del second
    optimizer.step()
    assert seen[-1] == [0.1, 0.1, 0.1], "a method that is gone does nothing"
    assert [group["lr"] for group in optimizer.param_groups] == [0.1] * 3


def test_mslr_goes_with_schedulers_and_sharpness_aware_methods():
    model = make()
    base = b.split_groups_(torch.optim.Adam(model.parameters(), lr=0.1), model)
    optimizer = msam.SAM(base, rho=0.05)
    balance = b.MSLR(optimizer, initial={"a": 0.5})
    scheduler = torch.optim.lr_scheduler.ExponentialLR(base, 0.5)
    for epoch in range(3):
        balance.start_epoch(epoch)
        optimizer.step(msam.MultimodalClosure(model, X, Y, cross_entropy, balance=balance))
        scheduler.step()
    assert [group["lr"] for group in base.param_groups] == pytest.approx([0.0125] * 3)


def test_ogm_outside_its_epochs_changes_nothing_and_learns_nothing():
    model = make()
    balance = b.OGM(model, 5.0, epochs=(0, 1), steady=True, noise=True)
    balance.start_epoch(0)
    inside = gradients(model, balance)
    taken = balance.state_dict()["taken"]
    balance.start_epoch(1)
    assert all_same_bits(gradients(model, balance), gradients(model))
    assert balance.state_dict()["taken"] == taken == 1
    assert not close(inside, gradients(model))


def test_a_closure_that_is_used_again_follows_the_phase():
    model = make()
    balance = b.DataRemixing(model, warm_up=1)
    balance.start_epoch(0)
    closure = msam.MultimodalClosure(model, X, Y, cross_entropy, balance=balance)
    closure()
    balance.start_epoch(1)
    again = closure()
    fresh = msam.MultimodalClosure(model, X, Y, cross_entropy, balance=remixing(model))()
    assert torch.allclose(again, fresh)
    dominant = b.DominantModalityDropout(1.0, interval=1)
    closure = msam.MultimodalClosure(model, X, Y, cross_entropy, balance=dominant)
    first, second = closure(), closure()
    assert not torch.allclose(first, second), "who dominated the first pass is masked in the second"


# -- arguments, and gradients of other kinds ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        lambda model: b.OGM(model, epochs=5),
        lambda model: b.OGM(model, epochs=(5,)),
        lambda model: b.OGM(model, epochs=(5, 2)),
        lambda model: b.OGM(model, value=3),
        lambda _: b.ModalityDropout(0.2, baseline="x"),
        lambda model: b.AGM(model, -1.0),
        lambda model: b.DGL(model, 0.0),
        lambda model: b.CGGM(model, bound=-1.0),
        lambda _: b.DominantModalityDropout(0.5, interval=0),
        lambda model: b.UnimodalPretraining(model, 0),
        lambda model: mslr_of(model, initial={"z": 1.0}),
        lambda model: b.MSLR(torch.optim.SGD(model.parameters(), lr=0.1)),
        lambda _: b.JointUnimodal("0.3"),
    ],
)
def test_wrong_arguments_are_refused_where_they_come_in(wrong: Any):
    with pytest.raises(MsamError, match="found"):
        wrong(make())


@pytest.mark.parametrize("change", [{"mean": "x"}, {"mean": torch.ones(7)}, {"epoch": "x"}, {"taken": None}, {"batches": -1}])
def test_states_with_something_else_in_them_are_refused(change: dict[str, Any]):
    model = make()
    balance = b.OGM(model)
    gradients(model, balance)
    state = {**balance.state_dict(), **change}
    before = str(balance.state_dict())
    with pytest.raises(MsamError):
        balance.load_state_dict(state)
    assert str(balance.state_dict()) == before


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4, sparse=True)

    def forward(self, ids: Tensor) -> Tensor:
        return self.table(ids.long()).sum(1)


@pytest.mark.parametrize(
    "build", [b.OGM, lambda model: b.OGM(model, noise=True), b.CGGM, b.MMPareto, lambda model: b.EncoderScale(model, 1.5)]
)
def test_sparse_gradients_stay_sparse_and_are_scaled(build: Any):
    model = LateFusion({"words": Words(), "image": nn.Linear(3, 4)}, nn.Linear(8, 4))
    inputs = {"words": torch.arange(12.0).view(6, 2) % 10, "image": torch.randn(6, 3)}
    closure = msam.MultimodalClosure(model, inputs, Y, cross_entropy, balance=build(model))
    closure()
    closure()
    table = model.encoders["words"].table.weight
    assert table.grad.is_sparse
    optimizer = torch.optim.SparseAdam([table])
    optimizer.step()


def test_two_gradients_apart_are_refused_in_several_processes(monkeypatch):
    model = make()
    balance = b.MMPareto(model)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(MsamError, match="takes two gradients of each encoder apart, found 2 processes"):
        gradients(model, balance)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
    gradients(model, balance)
