"""fully_shard (FSDP2): ranks with a part of each parameter are one process on the union of their batches."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from ranks import STEPS, Result, build, closure_of, draw, launch, launch_all, rows_of, sample_losses, weights_of
from test_ddp import BALANCES, METHODS, balanced, make, train_alone
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from torch.nn.functional import cross_entropy

import msam
from msam.errors import InvalidStateError, InvalidValueError


def shard(model: nn.Module, *, inner: bool = True, **options: Any) -> nn.Module:
    """The model among processes; its encoders in groups of their own with `inner`."""
    if inner:
        for part in getattr(model, "encoders", nn.ModuleDict()).values():
            fully_shard(part, **options)
    fully_shard(model, **options)
    return model


def mine(step: int, rank: int, count: int, dtype: torch.dtype = torch.float64) -> tuple[dict[str, Tensor], Tensor]:
    """This rank's rows of a step."""
    inputs, target = draw(step, dtype)
    rows = rows_of(rank, count)
    return {key: value[rows] for key, value in inputs.items()}, target[rows]


def train(model: Any, optimizer: Any, rank: int, count: int, steps: Any = range(STEPS), **given: Any) -> None:
    for step in steps:
        optimizer.step(closure_of(model, optimizer, *mine(step, rank, count), **given))


def train_all(rank: int, count: int, titles: list[str], setting: dict[str, Any], head: bool) -> Result:
    found: Result = {}
    for title in titles:
        name, options, given = METHODS[title]
        model = shard(build(head=head), **setting)
        optimizer = make(name, model, model, options)
        train(model, optimizer, rank, count, **given)
        told = optimizer.summary()
        found[title] = weights_of(model), getattr(optimizer, "contributions", None)
        assert told["true_eps_norm"] == pytest.approx(told["intended_eps_norm"]), title
    return found


KINDS = ["sam", "gsam", "look_sam", "momentum_sam", "per batch", "per sample"]
SETTINGS = {
    "each encoder": {},
    "one group": {"inner": False},
    "all resharded": {"reshard_after_forward": True},
    "none resharded": {"reshard_after_forward": False},
}


@pytest.mark.parametrize(
    ("setting", "head", "count"),
    [
        ("each encoder", True, 2),
        ("each encoder", True, 1),
        ("one group", False, 2),
        ("all resharded", True, 3),
        ("none resharded", True, 2),
    ],
)
def test_shards_are_one_process_on_the_union_of_their_batches(setting: str, head: bool, count: int, capsys):
    # All of them with two ranks and with three; elsewhere one of each kind of step.
    titles = list(METHODS) if (setting, count) in {("each encoder", 2), ("all resharded", 3)} else KINDS
    ranks = launch(train_all, titles, SETTINGS[setting], head, count=count)
    gaps = {}
    for title in titles:
        name, options, given = METHODS[title]
        wanted, shares = train_alone(name, options, given, head)
        assert all(torch.equal(rank[title][0], ranks[0][title][0]) for rank in ranks), title
        gaps[title] = float((ranks[0][title][0] - wanted).abs().max())
        if shares:
            assert ranks[-1][title][1] == pytest.approx(shares)
    lines = [f"{title:<28}{gap:.1e}" for title, gap in gaps.items()]
    said = f"fully_shard over {count}, {setting}: largest difference of a weight to one process after {STEPS} steps"
    with capsys.disabled():
        sys.stdout.write("\n  ".join(["\n" + said, *lines]) + "\n")
    assert max(gaps.values()) <= 1e-12, gaps


# -- other ways to train -------------------------------------------------------------------------------------------------


def clipped(base: torch.optim.Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    def clip(*_: object) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)

    base.register_step_pre_hook(clip)
    return base


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def in_another_way(model: Any, way: str, rank: int, count: int) -> None:
    """Train in one of several ways, the same for a model that is sharded and one that is not."""
    if way == "two calls":
        optimizer = msam.GSAM(sgd(model), rho=0.3)
        for step in range(STEPS):
            inputs, target = mine(step, rank, count)
            for take in (optimizer.first_step, optimizer.second_step):
                optimizer.zero_grad()
                cross_entropy(model(inputs), target).backward()
                take()
    elif way == "micro-batches":
        optimizer = make("modality_aware_sam", model, model, {})
        for step in range(STEPS):
            inputs, target = mine(step, rank, count)
            cuts = [slice(0, 5), slice(5, None)]
            optimizer.step([closure_of(model, optimizer, {k: v[c] for k, v in inputs.items()}, target[c]) for c in cuts])
    elif way == "without model=":
        train(model, msam.ModalityAwareSAM(sgd(model), rho=0.3), rank, count)
    elif way == "dominant block":
        optimizer = msam.ModalityAwareSAM(
            sgd(model), rho=0.3, model=model, scope="dominant", blocks=dict(model.encoders.items())
        )
        train(model, optimizer, rank, count)
    else:
        base = torch.optim.AdamW(model.parameters(), lr=0.01) if way == "AdamW" else clipped(sgd(model), model)
        train(model, msam.ModalityAwareSAM(base, rho=0.3, model=model), rank, count)


WAYS = ["two calls", "micro-batches", "without model=", "dominant block", "AdamW", "clipping"]


def shard_another_way(rank: int, count: int, way: str) -> Result:
    model = shard(build())
    in_another_way(model, way, rank, count)
    return {"weights": weights_of(model)}


def test_other_ways_to_train_are_those_of_one_process():
    for way, (first, second) in zip(WAYS, launch_all(*((shard_another_way, way) for way in WAYS)), strict=True):
        model = build()
        in_another_way(model, way, 0, 1)
        assert torch.equal(first["weights"], second["weights"]), way
        assert torch.allclose(first["weights"], weights_of(model), rtol=0, atol=1e-12), way


def differentiable(rank: int, count: int) -> Result:
    """Each rank's own differentiable share; one process has it with micro-batches, where the shares are averaged too."""
    model = shard(build()) if count > 1 else build()
    optimizer = msam.ModalityAwareSAM(sgd(model), rho=0.3, model=model, per="differentiable")
    for step in range(STEPS):
        if count > 1:
            optimizer.step(closure_of(model, optimizer, *mine(step, rank, count)))
        else:
            optimizer.step([closure_of(model, optimizer, *mine(step, part, 2)) for part in range(2)])
    return {"weights": weights_of(model)}


def test_differentiable_shares_are_those_of_micro_batches():
    first, second = launch(differentiable)
    assert torch.equal(first["weights"], second["weights"])
    assert torch.allclose(first["weights"], differentiable(0, 1)["weights"], rtol=0, atol=1e-12)


def replicated(rank: int, count: int) -> Result:
    """Four ranks, of which two hold the same half."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    model = shard(build(), mesh=mesh)
    train(model, make("modality_aware_sam", model, model, {}), rank, count)
    return {"weights": weights_of(model)}


def test_shards_that_are_replicated_count_once():
    ranks = launch(replicated, count=4)
    wanted = train_alone("modality_aware_sam", {}, {}, True)[0]
    for rank in ranks:
        assert torch.allclose(rank["weights"], wanted, rtol=0, atol=1e-12)


def average_rest(model: nn.Module, count: int) -> None:
    def average(gradient: Tensor) -> Tensor:
        found = gradient / count
        dist.all_reduce(found)
        return found

    for parameter in model.parameters():
        if not hasattr(parameter, "full_tensor"):
            parameter.register_hook(average)


def partly(rank: int, count: int, averages: bool) -> Result:
    model = build()
    fully_shard(model.encoders["image"])
    if averages:
        average_rest(model, count)
    optimizer = make("modality_aware_sam", model, model, {})
    try:
        train(model, optimizer, rank, count)
    except InvalidStateError as error:
        return {"said": str(error), "weights": weights_of(model)}
    return {"said": "", "weights": weights_of(model)}


def test_a_model_that_is_sharded_in_part_must_average_the_rest():
    right, wrong = launch_all((partly, True), (partly, False))
    wanted = train_alone("modality_aware_sam", {}, {}, True)[0]
    assert all(torch.allclose(rank["weights"], wanted, rtol=0, atol=1e-12) for rank in right)
    assert all("those of parameters that are not sharded must be averaged" in rank["said"] for rank in wrong)
    assert torch.equal(wrong[0]["weights"], weights_of(build()))


def in_half_precision(rank: int, count: int) -> Result:
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    model = shard(build(torch.float32), mp_policy=policy)
    optimizer = make("modality_aware_sam", model, model, {})
    for step in range(STEPS):
        optimizer.step(closure_of(model, optimizer, *mine(step, rank, count, torch.float32)))
    return {"weights": weights_of(model), "summary": optimizer.summary()}


def test_gathered_weights_may_be_in_half_precision():
    first, second = launch(in_half_precision)
    assert torch.equal(first["weights"], second["weights"])
    assert first["summary"]["perturbed"] == STEPS
    assert first["summary"]["true_eps_norm"] == pytest.approx(0.3, rel=1e-5), "eps is added to the weights in float32"
    exact = train_alone("modality_aware_sam", {}, {}, True)[0]
    assert torch.allclose(first["weights"], exact, rtol=0, atol=0.02)


def balance_all(rank: int, count: int) -> Result:
    found: Result = {}
    for name in BALANCES:
        if name != "ogm-ge":
            model = shard(build())
            found[name] = balanced(model, model, name, rank, count)
    return found


def test_balancing_methods_are_those_of_one_process():
    first, second = launch(balance_all)
    for name, found in first.items():
        model = build()
        assert torch.equal(found, second[name]), name
        assert torch.allclose(found, balanced(model, model, name, 0, 1), rtol=0, atol=1e-12), name


# -- what goes wrong -----------------------------------------------------------------------------------------------------


def disturb(rank: int, count: int, what: str, when: int) -> Result:
    """Pass number `when` of the second step gives NaN on one rank, or raises on all."""
    model = shard(build())
    optimizer = make("modality_aware_sam", model, model, {})
    said = ""
    for step in range(3):
        inputs, target = mine(step, rank, count)
        before = weights_of(model)
        passes = 0

        def loss_fn(output: Tensor, wanted: Tensor, step: int = step) -> Tensor:
            nonlocal passes
            passes += 1
            found = cross_entropy(output, wanted)
            if (step, passes) == (1, when) and what == "error":
                raise ArithmeticError("of the user's")
            return found * torch.nan if (rank, step, passes) == (1, 1, when) else found

        try:
            optimizer.step(msam.MultimodalClosure(model, inputs, target, loss_fn))
        except ArithmeticError as error:
            said = str(error)
        if step == 1:
            assert torch.equal(before, weights_of(model)), "the weights stay"
    return {"weights": weights_of(model), "skipped": optimizer.summary()["skipped"], "said": said}


def two_of_three() -> Tensor:
    model = build()
    optimizer = make("modality_aware_sam", model, model, {})
    train(model, optimizer, 0, 1, (0, 2))
    return weights_of(model)


def test_steps_that_end_early_leave_the_weights_and_training_goes_on():
    cases = [(what, when) for what in ("nan", "error") for when in (1, 2)]
    for (what, when), (first, second) in zip(cases, launch_all(*((disturb, *case) for case in cases)), strict=True):
        assert torch.equal(first["weights"], second["weights"])
        assert torch.allclose(first["weights"], two_of_three(), rtol=0, atol=1e-12), (what, when)
        assert first["skipped"] == second["skipped"] == (what == "nan")
        assert first["said"] == ("of the user's" if what == "error" else "")


def scaled(rank: int, count: int, when: int) -> Result:
    """A real GradScaler; the loss of rank 1 overflows in pass `when` of the second step."""
    model = shard(build(torch.float32))
    optimizer = make("modality_aware_sam", model, model, {})
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)
    for step in range(3):
        inputs, target = mine(step, rank, count, torch.float32)
        passes = 0

        def loss_fn(output: Tensor, wanted: Tensor, step: int = step) -> Tensor:
            nonlocal passes
            passes += 1
            found = cross_entropy(output, wanted)
            return found * torch.inf if (rank, step, passes) == (1, 1, when) else found

        before = weights_of(model)
        optimizer.step(msam.MultimodalClosure(model, inputs, target, loss_fn), scaler=scaler)
        scaler.update()
        assert torch.equal(before, weights_of(model)) == (step == 1)
    return {"weights": weights_of(model), "scale": scaler.get_scale(), "skipped": optimizer.summary()["skipped"]}


def test_an_infinity_on_one_rank_shrinks_the_scale_on_all():
    for first, second in launch_all((scaled, 1), (scaled, 2)):
        assert torch.equal(first["weights"], second["weights"])
        assert first["scale"] == second["scale"] == 512.0
        assert first["skipped"] == second["skipped"] == 1
        assert torch.allclose(first["weights"], two_of_three(), rtol=0, atol=1e-5)


def misuse(rank: int, count: int, what: str) -> Result:
    model = build()
    try:
        if what == "tensor parallel":
            mesh = init_device_mesh("cpu", (count,))
            parallelize_module(model, mesh, {"head": ColwiseParallel()})
            fully_shard(model.encoders["image"], mesh=mesh)
            fully_shard(model.encoders["audio"], mesh=init_device_mesh("cpu", (1, count), mesh_dim_names=("a", "b")))
        else:
            shard(model)
        if what == "reshard":
            model.set_reshard_after_backward(False)
        if what == "gathered":
            with torch.no_grad():
                model(mine(0, rank, count)[0])
        optimizer = make("sam", model, model, {"sync_perturbation": what != "local"})
        inputs, target = mine(0, rank, count)
        if what == "outside":
            cross_entropy(model(inputs), target).backward()

            def closure() -> Tensor:
                loss = cross_entropy(model(inputs), target)
                loss.backward()
                return loss

            optimizer.step(closure)
        if what == "noise":
            balance = msam.balance.OGM(model, noise=True)
            optimizer.step(msam.MultimodalClosure(model, inputs, target, sample_losses, balance=balance))
        optimizer.step(closure_of(model, optimizer, inputs, target))
    except (InvalidStateError, InvalidValueError) as error:
        return {"said": str(error)}
    return {"said": ""}


MISUSES = {
    "local": "sync_perturbation=False needs each process's own gradient of every parameter",
    "reshard": "set_reshard_after_backward(False) keeps gathered weights",
    "tensor parallel": "parameters must be sharded over one device mesh",
    "outside": "some that were accumulated outside step()",
    "gathered": "found a gathered copy of shape",
    "noise": "found parameters that are sharded over processes; use noise=False",
}


def test_what_shards_cannot_do_is_an_error_on_all_ranks():
    for words, ranks in zip(MISUSES.values(), launch_all(*((misuse, what) for what in MISUSES)), strict=True):
        assert all(words in rank["said"] for rank in ranks), ranks


# -- checkpoints ---------------------------------------------------------------------------------------------------------


REMEMBERING = {"modality_aware_sam": {}, "look_sam": {"interval": 2}, "friendly_sam": {}}


def save_or_go_on(rank: int, count: int, folder: str, saves: bool) -> Result:
    """Two steps and a checkpoint, or a checkpoint and the next two."""
    found = {}
    for name, options in REMEMBERING.items():
        model = shard(build()) if count > 1 else build()
        optimizer = make(name, model, model, options)
        given = {} if name == "modality_aware_sam" else {"plain": True}
        if saves:
            train(model, optimizer, rank, count, range(2), **given)
            states = get_state_dict(model, optimizer)
            dcp.save(dict(zip(("model", "optimizer"), states, strict=True)), checkpoint_id=f"{folder}/{name}")
            train(model, optimizer, rank, count, range(2, 4), **given)
        else:
            state = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
            dcp.load(state, checkpoint_id=f"{folder}/{name}", no_dist=count == 1)
            set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
            train(model, optimizer, rank, count, range(2, 4), **given)
        found[name] = weights_of(model), optimizer.summary()["steps"]
    return found


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_a_checkpoint_of_two_ranks_goes_on_with_one_and_with_three(tmp_path: Path):
    saved, _ = launch(save_or_go_on, str(tmp_path), True)
    on_three = launch(save_or_go_on, str(tmp_path), False, count=3)[0]
    on_one = save_or_go_on(0, 1, str(tmp_path), False)
    for name, (weights, steps) in saved.items():
        for found in (on_three, on_one):
            assert torch.allclose(found[name][0], weights, rtol=0, atol=1e-12), name
            assert found[name][1] == steps == STEPS
