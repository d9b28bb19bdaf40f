"""MSLR: each modality's learning rate follows how its validation score moves."""

import weakref
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn
from torch.optim import Optimizer
from typing_extensions import override

from msam.balance.base import Balance
from msam.balance.blocks import collect_encoders
from msam.checks import as_count, as_number, check_type
from msam.errors import InvalidValueError
from msam.optim.problem.blocks import Block
from msam.optim.problem.closure import MultimodalClosure

_HANDLES = "_msam_modality_rates"
KEY = "modality"
"""Of a group of parameters: which modality it belongs to."""


class MSLR(Balance):
    r"""Modality-specific learning rates, the dynamic strategy.

    Equation: at epoch t, with ``acc_m`` modality m's validation score alone after the epoch before::

        lr of m's group:  lr x initial_m x acc_m(t) / mean(the `window` scores before it),  the ratio 1 until there are so many

    The group's learning rate is multiplied for the time of each step and put back after it, so that any scheduler goes on
    as if nothing were there. It is no gradient that is scaled: Adam does not cancel it.

    `start_epoch(epoch, metrics)` must be called before each epoch, with the scores of the last one's end.

    Args:
        optimizer: With a group for each modality, which has its name under the key ``"modality"``; `split_groups_` makes such.
            Of a sharpness-aware method, itself or its base.
        initial: Modality name -> factor from the start, > 0; 1 where it is not named. The paper takes each modality's best
            unimodal learning rate; AGM's code has audio .9 and visual 1.1 for CREMA-D, 1.3 and .7 for AV-MNIST.
        window: Scores in the mean, >= 1. Default 5; the paper has 5 to 10.
        steady: Whether all groups of modalities get one factor, the mean of all factors so far: a control.

    Raises:
        InvalidTypeError: If an argument is of another type.
        InvalidValueError: If one is out of its range, or the optimizer has no such groups.

    Cost: none.

    Source: Yao and Mihalcea, "Modality-specific learning rates for effective multimodal additive late-fusion", Findings of ACL
    2022, section 3.4.

    Deviations: none from the paper's ratio. AGM's code, the only public one, multiplies gradients, takes its scores from the
    test split, and stops after epoch 20.

    Example:
        >>> import msam, torch
        >>> model = msam.fusion.late_fusion_mlp({"image": 4, "audio": 2}, classes=3)
        >>> optimizer = split_groups_(torch.optim.Adam(model.parameters()), model)
        >>> [group.get("modality") for group in optimizer.param_groups]
        [None, 'image', 'audio']
        >>> balance = MSLR(optimizer, initial={"image": 0.5})
        >>> balance.start_epoch(0)
        >>> balance.factors
        {'image': 0.5, 'audio': 1.0}
    """

    draws = False
    remembers: ClassVar[tuple[str, ...]] = ("scores", "factors", "means")

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        initial: Mapping[str, float] | None = None,
        window: int = 5,
        steady: bool = False,
    ) -> None:
        super().__init__()
        check_type("optimizer", optimizer, Optimizer, "a torch.optim.Optimizer", remedy="MSLR(optimizer)")
        # A wrapper shares its groups with its base, whose step is the one that reads them.
        base = getattr(optimizer, "base", optimizer)
        names = [group[KEY] for group in base.param_groups if group.get(KEY) is not None]
        if len(set(names)) < 2 or not all("lr" in group for group in base.param_groups):
            raise InvalidValueError(
                f"MSLR needs a group of parameters with a learning rate for each of at least two modalities, found groups of "
                f"{names}; call msam.balance.split_groups_(optimizer, model) before, or give groups the key {KEY!r}"
            )
        self.initial = dict.fromkeys(names, 1.0)
        for name, value in (initial or {}).items():
            if name not in self.initial:
                raise InvalidValueError(
                    f"initial must name modalities of the optimizer's groups, {sorted(set(names))}, found {name!r}"
                )
            self.initial[name] = as_number(f"initial[{name!r}]", value, 0, remedy="1 leaves the rate as it is")
        self.window = as_count("window", window, 1)
        self.steady = bool(steady)
        self.scores: dict[str, list[tuple[int, float]]] = {name: [] for name in self.initial}
        """Modality name -> epoch, and the score of the epoch before it; the last ones, at most `window` and one."""
        self.factors: dict[str, float] = dict(self.initial)
        """Modality name -> what its learning rate is multiplied by."""
        self.means: dict[int, float] = {}
        """Epoch -> mean of the factors."""
        self._rates: list[tuple[dict[str, Any], Any]] = []
        _take_over(base, self)

    @property
    @override
    def needs_epochs(self) -> bool:
        return True

    @override
    def start_epoch(self, epoch: int, metrics: Mapping[str, float] | None = None) -> None:
        super().start_epoch(epoch, metrics)
        factors = {name: self.initial[name] * self._ratio(self.scores[name]) for name in self.initial}
        # An epoch that starts again, after a resume, counts once.
        self.means = {old: mean for old, mean in self.means.items() if old < epoch}
        self.means[epoch] = sum(factors.values()) / len(factors)
        self.factors = dict.fromkeys(factors, self._mean()) if self.steady else factors

    def _mean(self) -> float:
        return sum(self.means.values()) / max(len(self.means), 1)

    @override
    def take_metrics(self, metrics: Mapping[str, float]) -> None:
        missing = [name for name in self.initial if name not in metrics]
        if missing:
            raise InvalidValueError(
                f"MSLR needs the validation score of each modality alone, found none of {missing}; pass "
                "metrics={modality: score}"
            )
        for name in self.initial:
            assert self.epoch is not None, "it was told of one"
            earlier = [(epoch, score) for epoch, score in self.scores[name] if epoch < self.epoch]
            self.scores[name] = [*earlier, (self.epoch, metrics[name])][-self.window - 1 :]

    def _ratio(self, scores: list[tuple[int, float]]) -> float:
        if len(scores) <= self.window:
            return 1.0
        before = sum(score for _, score in scores[:-1]) / self.window
        # Where nothing was ever right there is no trend.
        return scores[-1][1] / before if before > 0 else 1.0

    @override
    def abandon_(self, closure: MultimodalClosure) -> None:
        self.restore_rates_()

    def raise_rates_(self, optimizer: Optimizer) -> None:
        """Multiply the rates of modalities' groups, before a step.

        Args:
            optimizer: Whose.
        """
        self.restore_rates_()
        for group in optimizer.param_groups:
            if group.get(KEY) in self.factors:
                self._rates.append((group, group["lr"]))
                group["lr"] = group["lr"] * self.factors[group[KEY]]

    def restore_rates_(self) -> None:
        """Put the rates back, after a step."""
        for group, rate in self._rates:
            group["lr"] = rate
        self._rates = []

    @override
    def summary(self) -> dict[str, Any]:
        """Tell the factors.

        Returns:
            ``factors`` of this epoch, by modality, and ``mean_factor``, over modalities and epochs.
        """
        return {**super().summary(), "factors": dict(self.factors), "mean_factor": self._mean()}


def _take_over(base: Optimizer, method: MSLR) -> None:
    """Have an optimizer's steps run with a method's rates, as long as the method lives, and with no other method's."""
    for handle in getattr(base, _HANDLES, ()):
        handle.remove()
    waiting = weakref.ref(method)

    def before(optimizer: Optimizer, *_: Any) -> None:
        held = waiting()
        if held is not None:
            held.raise_rates_(optimizer)

    def after(*_: Any) -> None:
        held = waiting()
        if held is not None:
            held.restore_rates_()

    handles = base.register_step_pre_hook(before), base.register_step_post_hook(after)
    setattr(base, _HANDLES, handles)


def split_groups_(optimizer: Optimizer, model: nn.Module, *, blocks: Mapping[str, Block] | None = None) -> Optimizer:
    """Give each modality groups of its own in an optimizer, in place, with the settings of those that they come from.

    Call it before schedulers, wrappers and ``load_state_dict`` see the optimizer: groups get other numbers.

    Args:
        optimizer: Any; a group's parameters of a modality leave it for a new one, with the key ``"modality"``.
        model: With ``encoders``, unless there are blocks.
        blocks: Modality name -> module, parameter, or several of them; the encoders where None.

    Returns:
        The optimizer.

    Raises:
        InvalidTypeError: If an argument is of another type.
        InvalidValueError: If there are no encoders or blocks, or two share a parameter.
    """
    check_type("optimizer", optimizer, Optimizer, "a torch.optim.Optimizer")
    owners = {p: name for name, block in collect_encoders("split_groups_", model, blocks).items() for p in block}
    new = []
    for group in optimizer.param_groups:
        moved: dict[str, list[torch.Tensor]] = {}
        for parameter in group["params"]:
            if parameter in owners:
                moved.setdefault(owners[parameter], []).append(parameter)
        new += [{**group, "params": parameters, KEY: name} for name, parameters in moved.items()]
        group["params"] = [parameter for parameter in group["params"] if parameter not in owners]
    kept = [group for group in optimizer.param_groups if group["params"]]
    optimizer.param_groups[:] = [*kept, *new]
    return optimizer
