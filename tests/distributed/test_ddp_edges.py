"""DistributedDataParallel where batches, models and precisions are not alike, and where a rank fails."""

from datetime import timedelta
from typing import Any

import pytest
import ranks
import torch
import torch.distributed as dist
from ranks import ROWS, STEPS, Result, build, closure_of, draw, launch, launch_all, rows_of, sample_losses, weights_of, wrap
from test_ddp import make
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import msam
from msam.optim.platform.processes import Processes

UNEVEN = [0, 9, 24]


def mine(step: int, rank: int, count: int, cuts: list[int] | None = None, dtype: torch.dtype = torch.float64) -> Any:
    inputs, target = draw(step, dtype)
    rows = rows_of(rank, count, cuts)
    return {key: value[rows] for key, value in inputs.items()}, target[rows]


def uneven(rank: int, count: int, name: str, options: dict[str, Any]) -> Result:
    """Batches of 9 and of 15 rows. In one process each part has its own mean loss, and their mean is the batch's."""
    inner = build()
    model = wrap(inner) if count > 1 else inner
    optimizer = make(name, model, inner, options)
    for step in range(STEPS):
        if count > 1:
            optimizer.step(closure_of(model, optimizer, *mine(step, rank, count, UNEVEN)))
        else:
            given = [closure_of(model, optimizer, *mine(step, part, 2, UNEVEN), count=1) for part in range(2)]
            optimizer.step(given)
    return {"weights": weights_of(inner), "shares": optimizer.contributions}


def test_ranks_with_unequal_batches_average_losses_and_pool_contributions():
    cases: list[tuple[str, dict[str, Any]]] = [("modality_aware_sam", {}), ("modality_aware_sam", {"per": "sample"})]
    for case, (first, second) in zip(cases, launch_all(*((uneven, *case) for case in cases)), strict=True):
        wanted = uneven(0, 1, *case)
        assert torch.equal(first["weights"], second["weights"])
        assert torch.allclose(first["weights"], wanted["weights"], rtol=0, atol=1e-12), case
        assert first["shares"] == pytest.approx(wanted["shares"], abs=1e-12)


def lacking(rank: int, count: int, how: str) -> Result:
    """Rank 1 lacks the audio: in each row, by `present`; or in the whole batch, by `templates`."""
    inner = build()
    model = wrap(inner) if count > 1 else inner
    optimizer = make("modality_aware_sam", model, inner, {})
    for step in range(STEPS):
        inputs, target = mine(step, rank, count) if count > 1 else draw(step)
        there = torch.arange(ROWS) < ROWS // 2
        given: dict[str, Any] = {}
        if count == 1 or how == "present":
            given["present"] = {"audio": there if count == 1 else there[rows_of(rank, count)]}
        else:
            # The same ones on all ranks, which then have the names in the same order.
            given["templates"] = {"image": torch.zeros(5, dtype=torch.float64), "audio": torch.zeros(3, dtype=torch.float64)}
            if rank:
                del inputs["audio"]
        optimizer.step(closure_of(model, optimizer, inputs, target, **given))
    return {"weights": weights_of(inner), "shares": optimizer.contributions}


def test_a_rank_may_lack_a_modality():
    wanted = lacking(0, 1, "present")
    for first, second in launch_all((lacking, "present"), (lacking, "templates")):
        assert torch.equal(first["weights"], second["weights"])
        assert torch.allclose(first["weights"], wanted["weights"], rtol=0, atol=1e-12)
        assert first["shares"] == pytest.approx(wanted["shares"], abs=1e-12)


def reading(rank: int, count: int, options: dict[str, Any]) -> Result:
    """Readings with blocks, and with a differentiable share: each rank's own, as micro-batches have it."""
    inner = build()
    model = wrap(inner) if count > 1 else inner
    if "scope" in options:
        options = {**options, "blocks": dict(inner.encoders.items())}
    optimizer = make("modality_aware_sam", model, inner, options)
    for step in range(STEPS):
        if count > 1:
            optimizer.step(closure_of(model, optimizer, *mine(step, rank, count)))
        else:
            optimizer.step([closure_of(model, optimizer, *mine(step, part, 2)) for part in range(2)])
    return {"weights": weights_of(inner)}


def test_other_readings_are_those_of_micro_batches():
    cases: list[dict[str, Any]] = [{"per": "differentiable"}, {"scope": "dominant"}, {"scope": "dominant", "per": "sample"}]
    for case, (first, second) in zip(cases, launch_all(*((reading, case) for case in cases)), strict=True):
        assert torch.equal(first["weights"], second["weights"])
        assert torch.allclose(first["weights"], reading(0, 1, case)["weights"], rtol=0, atol=1e-12), case


def scaled(rank: int, count: int, when: int, sync: bool, plain: bool) -> Result:
    """A real GradScaler; the loss of rank 1 overflows in pass `when` of the second step."""
    inner = build(torch.float32)
    model = wrap(inner)
    optimizer = make("sam" if plain else "modality_aware_sam", model, inner, {"sync_perturbation": sync})
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)
    scales = []
    for step in range(3):
        inputs, target = mine(step, rank, count, dtype=torch.float32)
        passes = 0

        def loss_fn(output: Tensor, wanted: Tensor, step: int = step) -> Tensor:
            nonlocal passes
            passes += 1
            found = cross_entropy(output, wanted)
            return found * torch.inf if (rank, step, passes) == (1, 1, when) else found

        def closure(inputs: Any = inputs, target: Tensor = target, loss_fn: Any = loss_fn) -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = loss_fn(model(inputs), target)
            scaler.scale(loss).backward()
            return loss

        before = weights_of(inner)
        optimizer.step(closure if plain else msam.MultimodalClosure(model, inputs, target, loss_fn), scaler=scaler)
        scaler.update()
        scales.append(scaler.get_scale())
        assert torch.equal(before, weights_of(inner)) == (step == 1)
    return {"weights": weights_of(inner), "scales": scales, "skipped": optimizer.summary()["skipped"]}


def test_an_infinity_on_one_rank_is_skipped_and_shrinks_the_scale_on_all():
    cases = [(when, sync, plain) for when in (1, 2) for sync in (True, False) for plain in (True, False)]
    for case, (first, second) in zip(cases, launch_all(*((scaled, *case) for case in cases)), strict=True):
        assert torch.equal(first["weights"], second["weights"]), case
        assert first["scales"] == second["scales"] == [1024.0, 512.0, 512.0], case
        assert first["skipped"] == second["skipped"] == 1, case


def in_bfloat16(rank: int, count: int) -> Result:
    inner = build(torch.float32)
    model = wrap(inner)
    optimizer = make("modality_aware_sam", model, inner, {})
    for step in range(STEPS):
        inputs, target = mine(step, rank, count, dtype=torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            optimizer.step(msam.MultimodalClosure(model, inputs, target, sample_losses))
    return {"weights": weights_of(inner), "true": optimizer.summary()["true_eps_norm"]}


def test_autocast_on_ranks_keeps_them_together():
    first, second = launch(in_bfloat16)
    assert torch.equal(first["weights"], second["weights"])
    assert first["true"] == pytest.approx(0.3, rel=1e-5)
    model = build()
    optimizer = make("modality_aware_sam", model, model, {})
    for step in range(STEPS):
        optimizer.step(closure_of(model, optimizer, *draw(step)))
    assert torch.allclose(first["weights"], weights_of(model), rtol=0, atol=0.02)


class Synced(nn.Module):
    """BatchNorm whose statistics are of all ranks; torch's own SyncBatchNorm is for GPUs only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("running", torch.zeros(width, dtype=torch.float64))

    def forward(self, value: Tensor) -> Tensor:
        if not self.training:
            found: Tensor = value - self.get_buffer("running")
            return found
        mean = value.mean(0)
        if dist.is_initialized():
            mean = torch.distributed.nn.functional.all_reduce(mean) / dist.get_world_size()
        with torch.no_grad():
            self.get_buffer("running").lerp_(mean.detach(), 0.1)
        return value - mean


def normalised(rank: int, count: int) -> Result:
    inner = build()
    inner.encoders["image"] = nn.Sequential(inner.encoders["image"], Synced(4))
    model = wrap(inner) if count > 1 else inner
    optimizer = make("modality_aware_sam", model, inner, {})
    for step in range(STEPS):
        optimizer.step(closure_of(model, optimizer, *mine(step, rank, count)))
    running: Tensor = inner.encoders["image"][1].running
    return {"weights": weights_of(inner), "running": running}


def test_statistics_of_all_ranks_are_held_as_one_process_holds_them():
    first, second = launch(normalised)
    wanted = normalised(0, 1)
    for name in ("weights", "running"):
        assert torch.equal(first[name], second[name])
        assert torch.allclose(first[name], wanted[name], rtol=0, atol=1e-12)


def test_tensors_of_all_types_are_averaged_in_their_own_order():
    """In a process of its own a set of types has an order of its own."""
    kinds = [torch.float64, torch.bfloat16, torch.complex64, torch.float32, torch.float16, torch.complex128]

    class Noted(Processes):
        def __init__(self) -> None:
            self.count, self.seen = 1, []

        def _reduce_(self, tensor: Tensor, *given: Any) -> Tensor:
            del given
            self.seen.append(tensor.dtype)
            return tensor

    for turn in range(len(kinds)):
        order = kinds[turn:] + kinds[:turn]
        noted = Noted()
        noted.average_([torch.ones(2, dtype=kind) for kind in [*order, *order]])
        assert noted.seen == order


def raising(rank: int, count: int, when: int) -> Result:
    """Rank 1's pass raises; rank 0 waits for it, and gets torch's error within the time-out."""
    inner = build()
    model = wrap(inner)
    optimizer = make("sam", model, inner, {})
    before, passes, said = weights_of(inner), 0, ""
    inputs, target = mine(0, rank, count)

    def closure() -> Tensor:
        nonlocal passes
        passes += 1
        if rank and passes == when:
            raise ArithmeticError("of the user's")
        optimizer.zero_grad()
        loss = cross_entropy(model(inputs), target)
        loss.backward()
        return loss

    try:
        optimizer.step(closure)
    except (ArithmeticError, RuntimeError) as error:
        said = f"{type(error).__name__}: {error}"
    return {"same": torch.equal(before, weights_of(inner)), "said": said}


def test_a_rank_that_raises_ends_the_others_within_the_time_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ranks, "TIMEOUT", timedelta(seconds=10))
    for when in (1, 2):
        first, second = launch(raising, when)
        assert "of the user's" in second["said"]
        assert first["said"].startswith("RuntimeError") or first["said"].startswith("DistBackendError"), first["said"]
        assert first["same"] and second["same"], "weights are restored on both"
