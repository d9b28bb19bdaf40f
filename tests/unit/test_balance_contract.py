"""What every balancing method owes its user: one table of methods, one test for each promise."""

import copy
import gc
import math
import pickle
import warnings
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.optim.optimizer import _global_optimizer_pre_hooks

import msam
from msam import balance as b
from msam.errors import BalanceWarning, InvalidStateError, InvalidTypeError, InvalidValueError, MsamError
from msam.fusion import LateFusion
from problems import all_same_bits, same_bits
from rivals import RIVALS, Rival, Setting, rivals, rivals_with


def all_close(first: list[Tensor], second: list[Tensor], rtol: float = 1e-9) -> bool:
    return all(torch.allclose(a, c, rtol=rtol, atol=1e-12) for a, c in zip(first, second, strict=True))


def finite_state(balance: b.Balance) -> bool:
    def look(value: Any) -> bool:
        if isinstance(value, Tensor):
            return bool(value.isfinite().all())
        if isinstance(value, dict):
            return all(map(look, value.values()))
        return not isinstance(value, float) or math.isfinite(value)

    return all(look(getattr(balance, name)) for name in balance.remembers if name != "factors")


# -- gradients -----------------------------------------------------------------------------------------------------------


@rivals
def test_balance_acts_on_the_gradient_of_this_backward_pass_only(rival: Rival):
    alone, after = Setting(rival), Setting(rival)
    alone.closure()()
    before = [torch.randn_like(parameter) for parameter in after.model.parameters()]
    for parameter, gradient in zip(after.model.parameters(), before, strict=True):
        parameter.grad = gradient.clone()
    after.closure()()
    assert all_close(after.gradients(), [old + new for old, new in zip(before, alone.gradients(), strict=True)])


@rivals
@pytest.mark.parametrize("weight", [0.25, torch.tensor(1024.0)], ids=["float", "tensor"])
def test_balance_does_not_see_the_loss_scale(rival: Rival, weight: Any):
    plain, scaled = Setting(rival), Setting(rival)
    plain.closure()()
    loss = scaled.closure()(weight)
    assert all_close(scaled.gradients(), [gradient * float(weight) for gradient in plain.gradients()])
    assert torch.isclose(loss, Setting(rival).closure()())


@rivals
def test_micro_batches_are_one_batch_where_the_table_says_so(rival: Rival):
    whole, parts = Setting(rival, sharp=True), Setting(rival, sharp=True)
    for setting in (whole, parts):
        setting.model.eval()  # BatchNorm's statistics are each micro-batch's own, with or without a method
    for number in range(8):
        whole.step(number)
        parts.optimizer.step([parts.closure(number, slice(5)), parts.closure(number, slice(5, None))])
    assert all_close(whole.weights(), parts.weights()) == rival.exact_parts


@rivals
def test_balance_acts_in_both_passes_of_a_sharpness_aware_step_and_moves_once(rival: Rival):
    sharp, plain = Setting(rival, sharp=True), Setting(rival)
    theta = sharp.weights()
    sharp.step()
    plain.closure()()
    first, second = sharp.balance.state_dict(), plain.balance.state_dict()
    assert str(first) == str(second)
    other, seen = Setting(rival, sharp=True), []
    other.loss_fn = lambda output, target: (seen.append(closure.again), cross_entropy(output, target))[1]
    closure = other.closure()
    other.optimizer.step(closure)
    assert closure.again is False
    assert True in seen and False in seen
    assert not all_same_bits(theta, sharp.weights())


@rivals
@pytest.mark.parametrize("method", ["modality_aware_sam", "gsam", "momentum_sam", "monge_sam", "look_sam"])
def test_balance_goes_with_methods_on_the_engine(rival: Rival, method: str):
    setting = Setting(rival)
    optimizer = msam.create_method(method, setting.optimizer, rho=0.05, model=setting.model)
    before = setting.weights()
    for number in range(4):
        loss = optimizer.step(setting.closure(number))
    assert torch.isfinite(loss)
    assert optimizer.summary()["skipped"] == 0
    assert all(torch.isfinite(value).all() for value in setting.weights())
    assert not all_same_bits(before, setting.weights())


@rivals
def test_methods_that_split_the_loss_take_what_adds_or_masks_and_refuse_the_rest(rival: Rival):
    setting = Setting(rival)
    optimizer = msam.ModalityAwareSAM(setting.optimizer, rho=0.05, per="sample", model=setting.model)
    setting.loss_fn = lambda output, target: cross_entropy(output, target, reduction="none")
    if setting.balance.reshapes:
        with pytest.raises(InvalidValueError, match="takes the loss in two parts, found"):
            optimizer.step(setting.closure())
    else:
        assert torch.isfinite(optimizer.step(setting.closure()))


@rivals
def test_amp_scaler_and_plain_training_agree(rival: Rival):
    scaled, plain = Setting(rival, dtype=torch.float32), Setting(rival, dtype=torch.float32)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for number in range(3):
        plain.step(number)
        scaled.optimizer.zero_grad()
        scaled.closure(number)(scaler.scale(torch.ones(())))
        scaler.step(scaled.optimizer)
        scaler.update()
    assert all_close([w.double() for w in plain.weights()], [w.double() for w in scaled.weights()], rtol=2e-4)


# -- what is kept --------------------------------------------------------------------------------------------------------


@rivals
@pytest.mark.exact
def test_balance_resumes_bit_by_bit(rival: Rival):
    whole, first, second = Setting(rival), Setting(rival), Setting(rival)
    for epoch in range(3):
        whole.start(epoch)
        for number in range(3):
            whole.step(number)
    for number in range(3):
        first.step(number)
    first.start(1)
    first.step(0)
    saved = copy.deepcopy(
        {"model": first.model, "state": first.balance.state_dict(), "optimizer": first.optimizer.state_dict()}
    )
    second.model.load_state_dict(saved["model"].state_dict())
    second.optimizer.load_state_dict(saved["optimizer"])
    second.balance.load_state_dict(saved["state"])
    for number in (1, 2):
        second.step(number)
    second.start(2)
    for number in range(3):
        second.step(number)
    assert all_same_bits(whole.weights(), second.weights())


@rivals
def test_states_go_through_torch_save_and_other_states_are_refused(rival: Rival, tmp_path):
    setting = Setting(rival)
    setting.step()
    torch.save(setting.balance.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    fresh = Setting(rival)
    fresh.balance.load_state_dict(state)
    assert str(fresh.balance.state_dict()) == str(setting.balance.state_dict())
    before = str(fresh.balance.state_dict())
    for wrong in ({}, {**state, "method": "Other"}, [state]):
        with pytest.raises(MsamError):
            fresh.balance.load_state_dict(wrong)
    assert str(fresh.balance.state_dict()) == before


@rivals_with("copies")
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_go_on_alike(rival: Rival, how: str):
    setting = Setting(rival)
    setting.step()
    held = setting.model, setting.optimizer, setting.balance
    other = copy.copy(setting)
    other.model, other.optimizer, other.balance = copy.deepcopy(held) if how == "deepcopy" else pickle.loads(pickle.dumps(held))
    for number in (1, 2):
        assert same_bits(setting.step(number), other.step(number))
    assert all_same_bits(setting.weights(), other.weights())


@rivals
def test_balance_leaves_torchs_random_numbers_alone_and_repeats_itself(rival: Rival):
    first, second = Setting(rival), Setting(rival)
    state = torch.get_rng_state()
    for number in range(3):
        first.step(number)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(99)
    for number in range(3):
        second.step(number)
    assert all_same_bits(first.weights(), second.weights())


@rivals
def test_a_batch_that_is_not_finite_leaves_no_trace_in_what_is_kept(rival: Rival):
    setting = Setting(rival)
    setting.step(0)
    setting.batches[1]["image"][0, 0] = math.nan
    setting.closure(1)()
    assert finite_state(setting.balance)
    before = setting.weights()
    setting.model.encoders["image"][1].reset_running_stats()
    setting.optimizer.zero_grad()
    setting.closure(2)()
    assert all(torch.isfinite(gradient).all() for gradient in setting.gradients()), before
    assert finite_state(setting.balance)


# -- what a pass leaves --------------------------------------------------------------------------------------------------


@rivals
def test_statistics_of_batchnorm_are_those_of_the_joint_pass(rival: Rival):
    plain, balanced = Setting(None), Setting(rival)
    for setting in (plain, balanced):
        setting.closure()()
    if rival.name == "ModalityDropout":
        return  # it masks inputs, which are what the encoders see
    for name, buffer in plain.model.named_buffers():
        assert same_bits(buffer, dict(balanced.model.named_buffers())[name]), name


@rivals
def test_an_error_in_a_pass_leaves_gradients_and_modes_as_they_were(rival: Rival):
    setting = Setting(rival)
    setting.closure()()
    setting.closure()()
    before, modes = setting.gradients(), [module.training for module in setting.model.modules()]

    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(_ctx: Any, value: Tensor) -> Tensor:
            return value.clone()

        @staticmethod
        def backward(_ctx: Any, _gradient: Tensor) -> Tensor:
            raise ValueError("on the way back")

    handle = setting.model.encoders["audio"].register_forward_hook(lambda *given: Broken.apply(given[2]))
    with pytest.raises(ValueError, match="on the way back"):
        setting.closure()()
    handle.remove()
    encoders = {id(p) for p in setting.model.encoders.parameters()}
    for parameter, old in zip(setting.model.parameters(), before, strict=True):
        if isinstance(setting.balance, b.ScaledGradients | b.MMPareto) and id(parameter) in encoders:
            assert torch.equal(parameter.grad, old)
    assert modes == [module.training for module in setting.model.modules()]
    assert all(parameter.requires_grad for parameter in setting.model.parameters())


@rivals
def test_no_graph_lives_on_after_a_call(rival: Rival):
    setting, outputs = Setting(rival), []
    setting.loss_fn = lambda output, target: (outputs.append(weakref.ref(output)), cross_entropy(output, target))[1]
    closure = setting.closure()
    closure()
    gc.collect()
    assert outputs and not any(output() is not None and output().grad_fn is not None for output in outputs)
    assert not any(isinstance(value, Tensor) and value.grad_fn is not None for value in closure.notes.values())


@rivals
def test_frozen_encoders_stay_and_the_rest_learns(rival: Rival):
    setting = Setting(rival)
    setting.model.encoders["audio"].requires_grad_(False)
    setting.step(0)
    setting.step(1)
    assert all(parameter.grad is None for parameter in setting.model.encoders["audio"].parameters())
    assert all(torch.isfinite(gradient).all() for gradient in setting.gradients())


@rivals
def test_rows_that_lack_a_modality_teach_its_encoder_nothing(rival: Rival):
    setting, other = Setting(rival), Setting(rival)
    present = {"audio": torch.arange(12) < 7}
    other.batches[0]["audio"][7:] = 5.0  # what is there is not looked at
    for each in (setting, other):
        each.closure(present=present)()
    assert all_same_bits(setting.gradients(), other.gradients())


@rivals
@pytest.mark.parametrize("baseline", ["shuffled", "zeros"])
def test_balance_takes_the_closures_stand_ins(rival: Rival, baseline: str):
    setting = Setting(rival)
    setting.closure(baseline=baseline)()
    assert all(torch.isfinite(gradient).all() for gradient in setting.gradients())


# -- other kinds of task and of model -------------------------------------------------------------------------------------

ANY_KIND = ("JointUnimodal", "ModalityDropout", "DGL", "AGM", "MMPareto", "UnimodalEnsemble", "EncoderScale", "MSLR")


@pytest.mark.parametrize("name", ANY_KIND)
def test_methods_without_classes_take_a_regression(name: str):
    setting = Setting(RIVALS[name])
    setting.loss_fn = lambda output, target: mse_loss(output, torch.nn.functional.one_hot(target, 3).to(output))
    setting.step()
    assert all(torch.isfinite(gradient).all() for gradient in setting.gradients())


@pytest.mark.parametrize("name", ["TCMax", "CGGM", "DataRemixing", "ARL"])
def test_methods_of_classes_refuse_other_targets(name: str):
    setting = Setting(RIVALS[name])
    setting.targets[0] = torch.randn(12, 3)
    with pytest.raises(InvalidValueError, match="one class of several for each sample"):
        setting.closure()


@pytest.mark.parametrize("name", [name for name in RIVALS if name not in {"OGM", "OGM-GE", "ARL"}])
def test_balance_takes_three_modalities(name: str):
    model = msam.fusion.late_fusion_mlp({"image": 5, "audio": 3, "text": 2}, 3, width=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    balance = RIVALS[name].build(model, optimizer)
    balance.start_epoch(0)
    inputs = {"text": torch.randn(6, 2), "image": torch.randn(6, 5), "audio": torch.randn(6, 3)}
    msam.MultimodalClosure(model, inputs, torch.arange(6) % 3, cross_entropy, balance=balance)()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("build", [b.OGM, b.ARL])
def test_methods_of_two_modalities_refuse_three(build: Any):
    model = msam.fusion.late_fusion_mlp({"image": 5, "audio": 3, "text": 2}, 3)
    with pytest.raises(InvalidValueError, match="two modalities, found 3"):
        build(model)


@pytest.mark.parametrize(
    "build", [b.DGL, b.CGGM, b.DataRemixing, b.TCMax, b.UnimodalEnsemble, b.OGM, b.MMPareto, b.EncoderScale]
)
def test_what_a_model_must_have_is_asked_at_construction(build: Any):
    arguments = (1.5,) if build is b.EncoderScale else ()
    for model, error in ((nn.Linear(3, 2), InvalidValueError), ("model", InvalidTypeError)):
        with pytest.raises(
            error, match=r"must be a torch\.nn\.Module|needs the feature of each modality, found Linear without"
        ):
            build(model, *arguments)


@pytest.mark.parametrize("build", [b.TCMax, b.UnimodalEnsemble])
def test_a_head_that_is_not_linear_has_no_parts(build: Any):
    model = LateFusion({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)}, nn.Sequential(nn.Linear(4, 3), nn.Tanh()))
    with pytest.raises(InvalidValueError, match="logits of each modality that add up"):
        build(model)


def test_parts_of_a_users_model_are_verified():
    class Wrong(LateFusion):
        def split(self, features):
            return {name: 2 * part for name, part in super().split(features).items()}

    model = Wrong({"image": nn.Linear(5, 2), "audio": nn.Linear(3, 2)}, nn.Linear(4, 3))
    inputs = {"image": torch.randn(6, 5), "audio": torch.randn(6, 3)}
    closure = msam.MultimodalClosure(model, inputs, torch.arange(6) % 3, cross_entropy, balance=b.TCMax(model))
    with pytest.raises(InvalidValueError, match="must add up to `fuse`, found a difference of"):
        closure()


def test_blocks_that_share_parameters_are_refused_with_the_way_out():
    model = msam.fusion.shared_trunk_mlp({"image": 5, "audio": 3}, 3)
    with pytest.raises(InvalidValueError, match=r"that 'image' and 'audio' share; pass blocks="):
        b.OGM(model)
    assert set(b.OGM(model, blocks=dict(model.adapters.items())).blocks) == {"image", "audio"}


# -- misuse --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MSLR", "DataRemixing", "UnimodalPretraining"])
def test_methods_with_phases_must_be_told_of_epochs(name: str):
    setting = Setting(RIVALS[name])
    setting.balance.epoch = None
    with pytest.raises(InvalidStateError, match=r"found none; call balance.start_epoch\(epoch, metrics\)"):
        setting.closure()


@pytest.mark.parametrize("wrong", [b.JointUnimodal, "agm", 3, None, [b.JointUnimodal(0.3), "x"]])
def test_what_is_no_balance_is_refused(wrong: Any):
    with pytest.raises(InvalidTypeError, match=r"balance must be a msam\.balance\.Balance, or several, found"):
        Setting(None).closure(balance=wrong)


@rivals
def test_adam_is_warned_of_once_where_it_cancels_a_factor(rival: Rival):
    setting = Setting(rival, adam=True)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for number in range(3):
            setting.step(number)
    assert not (rival.scales and _global_optimizer_pre_hooks), "nothing waits any more"
    assert [warning.category for warning in found] == [BalanceWarning] * rival.scales
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Setting(rival).step()  # SGD


@pytest.mark.parametrize("rival", [RIVALS["OGM"], RIVALS["EncoderScale"]], ids=lambda rival: rival.name)
def test_adam_below_a_sharpness_aware_method_is_seen(rival: Rival):
    setting = Setting(rival, adam=True, sharp=True)
    with pytest.warns(BalanceWarning, match="Adam divides by what gradients were"):
        setting.step()


def test_several_methods_act_in_their_order():
    setting = Setting(None)
    setting.closure()()
    plain = setting.gradients()
    setting.optimizer.zero_grad()
    setting.closure(balance=[b.EncoderScale(setting.model, 2.0), b.EncoderScale(setting.model, 3.0)])()
    encoders = {id(parameter) for parameter in setting.model.encoders.parameters()}
    factors = [6.0 if id(parameter) in encoders else 1.0 for parameter in setting.model.parameters()]
    assert all_close(setting.gradients(), [factor * gradient for factor, gradient in zip(factors, plain, strict=True)])


def test_every_public_method_is_in_the_table():
    no_methods = {"Balance", "BalanceHook", "ScaledGradients", "SplitModel", "split_groups_", "LabelSmoothing", "MASAM"}
    assert set(b.__all__) - no_methods == {name for name in RIVALS if name != "OGM-GE"}
