"""DistributedDataParallel: ranks are one process on the union of their batches, skip together, and say what is wrong."""

import sys
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ranks import ROWS, STEPS, Result, build, closure_of, draw, launch, launch_all, rows_of, sample_losses, weights_of, wrap
from torch import Tensor
from torch.nn.functional import cross_entropy

import msam
from msam.errors import InvalidStateError

PLAIN = sorted(set(msam.list_methods()) - {"modality_aware_sam", "modality_masked_sam"})
METHODS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    **{name: (name, {}, {"plain": True}) for name in PLAIN},
    "per batch": ("modality_aware_sam", {}, {}),
    "per sample": ("modality_aware_sam", {"per": "sample"}, {}),
    "per sample, own": ("modality_aware_sam", {"per": "sample", "dominance": "sample"}, {}),
    "smoothed, every other step": ("modality_aware_sam", {"smoothing": 0.5, "contribution_interval": 2}, {}),
    "monge": ("modality_aware_sam", {"geometry": "monge"}, {}),
    "masked, none of the rows": ("modality_masked_sam", {"rate": 0.0}, {}),
    "masked, all rows": ("modality_masked_sam", {"rate": 1.0}, {}),
}
"""Title -> method, its options, and those of the closure."""


def make(name: str, model: Any, inner: Any, options: dict[str, Any]) -> Any:
    base = torch.optim.SGD(inner.parameters(), lr=0.1, momentum=0.9)
    return msam.create_method(name, base, rho=0.3, model=model, **options)


def train_all(rank: int, count: int, setting: dict[str, Any], head: bool) -> Result:
    """Every method for some steps, on this rank's rows."""
    found: Result = {}
    for title, (name, options, given) in METHODS.items():
        inner = build(head=head)
        model = wrap(inner, **setting)
        optimizer = make(name, model, inner, options)
        for step in range(STEPS):
            inputs, target = draw(step)
            rows = rows_of(rank, count)
            mine = {key: value[rows] for key, value in inputs.items()}
            optimizer.step(closure_of(model, optimizer, mine, target[rows], **given))
        found[title] = weights_of(inner), getattr(optimizer, "contributions", None)
    return found


def train_alone(name: str, options: dict[str, Any], given: dict[str, Any], head: bool) -> tuple[Tensor, Any]:
    model = build(head=head)
    optimizer = make(name, model, model, options)
    for step in range(STEPS):
        inputs, target = draw(step)
        optimizer.step(closure_of(model, optimizer, inputs, target, **given))
    return weights_of(model), getattr(optimizer, "contributions", None)


SETTINGS = {
    "plain": {},
    "static graph": {"static_graph": True},
    "others": {"find_unused_parameters": True, "gradient_as_bucket_view": True},
}


@pytest.mark.parametrize(("setting", "head"), [("plain", True), ("plain", False), ("static graph", True), ("others", True)])
def test_ranks_are_one_process_on_the_union_of_their_batches(setting: str, head: bool, capsys):
    ranks = launch(train_all, SETTINGS[setting], head)
    gaps = {}
    for title, (name, options, given) in METHODS.items():
        wanted, shares = train_alone(name, options, given, head)
        first, second = (rank[title][0] for rank in ranks)
        assert torch.equal(first, second), title
        gaps[title] = float((first - wanted).abs().max())
        if shares:
            assert ranks[1][title][1] == pytest.approx(shares)
    lines = [f"{title:<28}{gap:.1e}" for title, gap in gaps.items()]
    said = f"{setting}{'' if head else ', run as a whole'}: largest difference of a weight to one process after {STEPS} steps"
    with capsys.disabled():
        sys.stdout.write("\n  ".join(["\n" + said, *lines]) + "\n")
    assert max(gaps.values()) <= 1e-12, gaps


def zero_at_odd_steps(step: int) -> float:
    """A factor on the radius."""
    return float(step % 2 == 0)


def count_bytes(model: Any, counted: list[int]) -> None:
    def counting(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        counted.append(bucket.buffer().numel() * bucket.buffer().element_size())
        tensor = bucket.buffer() / dist.get_world_size()
        return dist.all_reduce(tensor, async_op=True).get_future().then(lambda done: done.value()[0])

    model.register_comm_hook(None, counting)


def train_local(rank: int, count: int, name: str, options: dict[str, Any], given: dict[str, Any], static: bool) -> Result:
    inner = build()
    model, counted = wrap(inner, static_graph=static), []
    count_bytes(model, counted)
    optimizer = make(name, model, inner, {"sync_perturbation": False, **options})
    for step in range(STEPS):
        inputs, target = draw(step)
        rows = rows_of(rank, count)
        optimizer.step(closure_of(model, optimizer, {k: v[rows] for k, v in inputs.items()}, target[rows], **given))
    return {"weights": weights_of(inner), "bytes": sum(counted), "parameters": 8 * sum(p.numel() for p in inner.parameters())}


def m_sharpness_by_hand(share: bool) -> Tensor:
    """Each half of the rows perturbs by its own gradient; the update averages what both found there."""
    model = build()
    parameters = list(model.parameters())
    base = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    for step in range(STEPS):
        inputs, target = draw(step)
        halves = [rows_of(rank, 2) for rank in range(2)]
        nu: Any = 1.0
        if share:
            closure = msam.MultimodalClosure(model, inputs, target, sample_losses)
            rule = msam.contribution.ContributionRule()
            plan = rule.plan(closure.modalities)
            found = rule.contribute(closure.coalition_outputs(plan.coalitions), target, plan)
            nu = rule.shares(found.mean(1)).max()
        total = [torch.zeros_like(p) for p in parameters]
        for rows in halves:
            mine = {k: v[rows] for k, v in inputs.items()}
            first = torch.autograd.grad(cross_entropy(model(mine), target[rows]), parameters)
            norm = torch.cat([g.flatten() for g in first]).norm()
            theta = [p.detach().clone() for p in parameters]
            with torch.no_grad():
                for p, g in zip(parameters, first, strict=True):
                    p += 0.3 * g / norm
            second = torch.autograd.grad(cross_entropy(model(mine), target[rows]), parameters)
            with torch.no_grad():
                for p, old in zip(parameters, theta, strict=True):
                    p.copy_(old)
            total = [t + ((1 - nu) * g + nu * s) / 2 for t, g, s in zip(total, first, second, strict=True)]
        for p, t in zip(parameters, total, strict=True):
            p.grad = t
        base.step()
    return weights_of(model)


def test_each_rank_perturbs_by_its_own_gradient_and_saves_a_reduction():
    cases: list[tuple[str, dict[str, Any]]] = [("sam", {"plain": True}), ("modality_aware_sam", {})]
    jobs = [(train_local, name, {}, given, static) for name, given in cases for static in (False, True)]
    for (name, _), (plain, static) in zip(cases, batched(launch_all(*jobs)), strict=True):
        first, second = plain
        assert torch.equal(first["weights"], second["weights"])
        assert torch.allclose(first["weights"], m_sharpness_by_hand(name == "modality_aware_sam"), rtol=0, atol=1e-12)
        assert first["bytes"] == STEPS * first["parameters"], "one reduction a step, as SGD's"
        assert static[0]["bytes"] == (STEPS + 1) * static[0]["parameters"], "the first iteration of a static graph is synced"


def batched(found: list[Any]) -> list[tuple[Any, Any]]:
    """Pairs of what follows each other."""
    return list(zip(found[::2], found[1::2], strict=True))


def test_steps_without_a_second_pass_are_those_of_all_ranks_too():
    cases: list[tuple[str, dict[str, Any]]]
    cases = [("ae_sam", {}), ("sam", {"interval": 2}), ("sam", {"rho_schedule": zero_at_odd_steps})]
    for first, second in launch_all(*((train_local, name, options, {"plain": True}, False) for name, options in cases)):
        assert torch.equal(first["weights"], second["weights"])


def accumulate(rank: int, count: int, sync: bool) -> Result:
    inner = build()
    model, counted = wrap(inner), []
    count_bytes(model, counted)
    optimizer = make("modality_aware_sam", model, inner, {"sync_perturbation": sync})
    for step in range(STEPS):
        inputs, target = draw(step)
        rows = rows_of(rank, count)
        parts = [slice(rows.start, rows.start + 5), slice(rows.start + 5, rows.stop)]
        closures = [closure_of(model, optimizer, {k: v[part] for k, v in inputs.items()}, target[part]) for part in parts]
        optimizer.step(closures)
    return {"weights": weights_of(inner), "bytes": sum(counted), "parameters": 8 * sum(p.numel() for p in inner.parameters())}


def test_micro_batches_are_reduced_once_a_pass():
    for sync, (first, second) in zip((True, False), launch_all((accumulate, True), (accumulate, False)), strict=True):
        assert torch.equal(first["weights"], second["weights"])
        assert first["bytes"] == (1 + sync) * STEPS * first["parameters"]
        wanted = train_alone("modality_aware_sam", {}, {}, True)[0] if sync else m_sharpness_by_hand(True)
        assert torch.allclose(first["weights"], wanted, rtol=0, atol=1e-12)


def disturb(rank: int, count: int, name: str, options: dict[str, Any], when: int) -> Result:
    """NaN in the loss of rank 1's pass number `when` of the second step."""
    inner = build()
    model = wrap(inner)
    optimizer = make(name, model, inner, options)
    for step in range(3):
        inputs, target = draw(step)
        rows = rows_of(rank, count)
        passes = 0
        before = weights_of(inner)

        def loss_fn(output: Tensor, wanted: Tensor, step: int = step) -> Tensor:
            nonlocal passes
            passes += 1
            found = cross_entropy(output, wanted)
            return found * torch.nan if (rank, step, passes) == (1, 1, when) else found

        mine = {k: v[rows] for k, v in inputs.items()}
        closure = msam.MultimodalClosure(model, mine, target[rows], loss_fn)
        optimizer.step(closure)
        if step == 1:
            assert torch.equal(before, weights_of(inner)), "the weights stay"
    return {"weights": weights_of(inner), "skipped": optimizer.summary()["skipped"]}


def test_what_is_not_finite_on_one_rank_is_skipped_by_all():
    options: list[dict[str, Any]] = [{}, {"sync_perturbation": False}]
    names = ("sam", "modality_aware_sam")
    jobs = [(disturb, name, option, when) for name in names for option in options for when in (1, 2)]
    for first, second in launch_all(*jobs):
        assert first["skipped"] == second["skipped"] == 1
        assert torch.equal(first["weights"], second["weights"])
        assert first["weights"].isfinite().all()


def misuse(rank: int, count: int, what: str) -> Result:
    inner = build()
    model = wrap(inner)
    inputs, target = draw(0)
    rows = rows_of(rank, count)
    mine = {k: v[rows] for k, v in inputs.items()}
    try:
        if what == "bypassed":
            optimizer = make("sam", model, inner, {})
            optimizer.step(closure_of(inner, optimizer, mine, target[rows]))
        elif what == "names":
            optimizer = make("modality_aware_sam", model, inner, {})
            turned = mine if rank else dict(reversed(mine.items()))
            optimizer.step(closure_of(model, optimizer, turned, target[rows]))
        elif what in {"gsam", "momentum_sam"}:
            make(what, model, inner, {"sync_perturbation": False})
        elif what == "ogm":
            optimizer = make("modality_aware_sam", model, inner, {"sync_perturbation": False})
            optimizer.step(closure_of(model, optimizer, mine, target[rows], balance=msam.balance.OGM(inner)))
        elif what == "blend":
            blended = msam.optim.SharpnessAware(
                torch.optim.SGD(inner.parameters(), lr=0.1),
                rho=0.1,
                geometry="euclidean",
                combination=msam.combine.Blend(0.5),
                model=model,
                sync_perturbation=False,
            )
            blended.step(closure_of(model, blended, mine, target[rows], plain=True))
        elif what == "masam":
            masam = msam.balance.MASAM(torch.optim.SGD(inner.parameters(), lr=0.1), model=model)
            masam.step(closure_of(model, masam, mine, target[rows]))
        else:
            make("modality_aware_sam", model, inner, {"per": "sample", "sync_perturbation": False})
    except InvalidStateError as error:
        return {"said": str(error), "weights": weights_of(inner)}
    return {"said": "", "weights": weights_of(inner)}


MISUSES = {
    "bypassed": "DistributedDataParallel did not average them; call the DistributedDataParallel module",
    "names": "all processes must have the same modalities in the same order",
    "gsam": "sync_perturbation=False saves the reduction of the first gradient",
    "momentum_sam": "sync_perturbation=False saves the reduction of the first gradient",
    "ogm": "a balancing method takes out of the second reduction",
    "blend": "needs for the update of a plain closure",
    "masam": "several processes would not average",
    "per sample": "of a loss in two parts; use sync_perturbation=True",
}


def test_what_would_drift_apart_in_silence_is_an_error_on_all_ranks():
    start = weights_of(build())
    for words, ranks in zip(MISUSES.values(), launch_all(*((misuse, what) for what in MISUSES)), strict=True):
        assert all(words in rank["said"] for rank in ranks), ranks
        assert all(torch.equal(rank["weights"], start) for rank in ranks), "weights are as before"


BALANCES: dict[str, Any] = {
    "joint": lambda model: msam.balance.JointUnimodal(0.3),  # noqa: ARG005
    "dgl": msam.balance.DGL,
    "ensemble": msam.balance.UnimodalEnsemble,
    "scale": lambda model: msam.balance.EncoderScale(model, 1.5),
    "agm": msam.balance.AGM,
    "tcmax": msam.balance.TCMax,
    "ogm": msam.balance.OGM,
    "ogm-ge": lambda model: msam.balance.OGM(model, noise=True),
    "arl": msam.balance.ARL,
    "cggm": lambda model: msam.balance.CGGM(model, bound=2.0),
    "dominant dropout": lambda model: msam.balance.DominantModalityDropout(1.0, interval=2),  # noqa: ARG005
}


def balanced(model: Any, inner: Any, name: str, rank: int, count: int, method: str = "sam") -> Tensor:
    optimizer, balance = make(method, model, inner, {}), BALANCES[name](inner)
    for step in range(STEPS):
        inputs, target = draw(step)
        rows = rows_of(rank, count)
        mine = {k: v[rows] for k, v in inputs.items()}
        optimizer.step(closure_of(model, optimizer, mine, target[rows], balance=balance))
    return weights_of(inner)


def balance_all(rank: int, count: int, method: str) -> Result:
    found: Result = {}
    for name in BALANCES:
        inner = build()
        found[name] = balanced(wrap(inner, gradient_as_bucket_view=method != "sam"), inner, name, rank, count, method)
    return found


def test_balancing_methods_are_one_process_on_the_union_of_the_batches():
    methods = "sam", "modality_aware_sam"
    for method, (first, second) in zip(methods, launch_all(*((balance_all, method) for method in methods)), strict=True):
        for name in BALANCES:
            assert torch.equal(first[name], second[name]), name
            model = build()
            wanted = balanced(model, model, name, 0, 1, method)
            assert torch.allclose(first[name], wanted, rtol=0, atol=1e-12), (method, name)


def balance_in_parts(rank: int, count: int) -> Result:
    """Two micro-batches a step, whose factors are those of all ranks' micro-batches."""
    inner = build()
    model = wrap(inner) if count > 1 else inner
    optimizer, balance = make("modality_aware_sam", model, inner, {}), msam.balance.OGM(inner)
    for step in range(STEPS):
        inputs, target = draw(step)
        halves = [torch.arange(ROWS).view(2, 2, 6)[index, :, :].flatten() for index in range(2)]
        mine = [half.view(2, 6)[rank] if count > 1 else half for half in halves]
        optimizer.step(
            [closure_of(model, optimizer, {k: v[r] for k, v in inputs.items()}, target[r], balance=balance) for r in mine]
        )
    return {"weights": weights_of(inner)}


def test_gradients_that_a_balancing_method_takes_are_averaged_in_every_micro_batch():
    first, second = launch(balance_in_parts)
    assert torch.equal(first["weights"], second["weights"])
    assert torch.allclose(first["weights"], balance_in_parts(0, 1)["weights"], rtol=0, atol=1e-12)


def drop(rank: int, count: int) -> Result:
    inner = build()
    model = wrap(inner)
    optimizer, balance = make("sam", model, inner, {}), msam.balance.ModalityDropout(0.5)
    kept = []
    for step in range(STEPS):
        inputs, target = draw(step)
        rows = rows_of(rank, count)
        closure = closure_of(model, optimizer, {k: v[rows] for k, v in inputs.items()}, target[rows], balance=balance)
        kept.append(torch.stack([(value != 0).any(1) for value in closure.inputs.values()]))
        optimizer.step(closure)
    return {"weights": weights_of(inner), "kept": torch.stack(kept)}


def test_ranks_draw_their_own_masks_which_one_process_can_repeat():
    ranks = launch(drop)
    assert torch.equal(ranks[0]["weights"], ranks[1]["weights"])
    assert not torch.equal(ranks[0]["kept"], ranks[1]["kept"])
    model = build()
    optimizer = make("sam", model, model, {})
    for step in range(STEPS):
        inputs, target = draw(step)
        keep = torch.cat([rank["kept"][step] for rank in ranks], 1)
        masked = {k: v * keep[index, :, None] for index, (k, v) in enumerate(inputs.items())}
        optimizer.step(closure_of(model, optimizer, masked, target))
    assert torch.allclose(ranks[0]["weights"], weights_of(model), rtol=0, atol=1e-12)
