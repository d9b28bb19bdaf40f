"""fully_shard (FSDP2): ranks with a part of each parameter are one process on the union of their batches."""

import sys
from typing import Any

import pytest
import torch
from ranks import STEPS, Result, build, closure_of, draw, launch, rows_of
from test_ddp import METHODS, make, train_alone
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard


def shard(model: nn.Module, *, inner: bool = True, **options: Any) -> nn.Module:
    """The model among processes; its encoders in groups of their own with `inner`."""
    if inner:
        for part in getattr(model, "encoders", nn.ModuleDict()).values():
            fully_shard(part, **options)
    fully_shard(model, **options)
    return model


def whole(model: nn.Module) -> Tensor:
    """All weights as one vector, on all ranks."""
    return torch.cat([parameter.detach().full_tensor().flatten().double() for parameter in model.parameters()])


def train_all(rank: int, count: int, setting: dict[str, Any], head: bool) -> Result:
    found: Result = {}
    for title, (name, options, given) in METHODS.items():
        model = shard(build(head=head), **setting)
        optimizer = make(name, model, model, options)
        for step in range(STEPS):
            inputs, target = draw(step)
            rows = rows_of(rank, count)
            mine = {key: value[rows] for key, value in inputs.items()}
            optimizer.step(closure_of(model, optimizer, mine, target[rows], **given))
        for module in model.modules():
            if hasattr(module, "reshard"):
                module.reshard()
        found[title] = whole(model), getattr(optimizer, "contributions", None), optimizer.summary()["true_eps_norm"]
    return found


SETTINGS = {
    "each encoder": {},
    "one group": {"inner": False},
    "all resharded": {"reshard_after_forward": True},
    "none resharded": {"reshard_after_forward": False},
}


@pytest.mark.parametrize(
    ("setting", "head", "count"),
    [("each encoder", True, 2), ("one group", False, 2), ("all resharded", True, 3), ("none resharded", True, 2)],
)
def test_shards_are_one_process_on_the_union_of_their_batches(setting: str, head: bool, count: int, capsys):
    ranks = launch(train_all, SETTINGS[setting], head, count=count)
    gaps = {}
    for title, (name, options, given) in METHODS.items():
        wanted, shares = train_alone(name, options, given, head)
        assert all(torch.equal(rank[title][0], ranks[0][title][0]) for rank in ranks), title
        gaps[title] = float((ranks[0][title][0] - wanted).abs().max())
        if shares:
            assert ranks[1][title][1] == pytest.approx(shares)
    lines = [f"{title:<28}{gap:.1e}" for title, gap in gaps.items()]
    said = f"fully_shard over {count}, {setting}: largest difference of a weight to one process after {STEPS} steps"
    with capsys.disabled():
        sys.stdout.write("\n  ".join(["\n" + said, *lines]) + "\n")
    assert max(gaps.values()) <= 1e-12, gaps
