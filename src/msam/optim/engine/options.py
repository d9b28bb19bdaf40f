"""What all methods have in common: when to ascend, what to perturb, how the radius moves, what a bad gradient does."""

from collections.abc import Callable, Set
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from msam.checks import check_callable, check_type
from msam.errors import InvalidValueError
from msam.optim.engine.radius import RhoRule
from msam.optim.engine.schedule import Interval, Schedule, make_schedule

Filter = Literal["all", "norm"] | Callable[[Tensor], bool]

NORM_LAYERS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""Layers whose parameters ``perturb="norm"`` selects."""


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Options that every method takes.

    Args:
        interval: On which steps to ascend: a whole number k (every k steps, the first included), a probability in (0, 1), a
            function of the number of steps taken before, or a `Schedule`. Default 1: every step.
        perturb: Which parameters are perturbed: ``"all"``; ``"norm"``, normalisation layers only (SAM-ON, Mueller et al.,
            arXiv 2306.04226), which needs `model`; or a function of a parameter, for a block. Norms are then taken over
            the perturbed parameters only.
        rho_schedule: How the radius moves: ``"constant"``; ``"lr"``, in proportion to each group's learning rate, with ``rho``
            at the nominal rate (a scheduler's ``max_lr`` or ``initial_lr``, else the first step's rate); or a function from
            the number of steps taken before to a factor on ``rho``.
        same_noise: Whether the second pass draws the same random numbers (dropout masks) as the first. Default True.
        on_nonfinite: What to do with a non-finite gradient: ``"skip"`` the step, or ``"raise"``.
        sync_perturbation: With several processes (`model` a ``DistributedDataParallel``): whether the perturbation follows the
            gradient of all, as one process on the union of the batches would, or each process perturbs by its own
            (m-sharpness), which saves the reduction of the first pass. Default True. No effect in one process. False is refused
            where parameters are sharded (FSDP2), and for methods that need the first gradient beyond the perturbation.
        backup_device: Where the copy of the weights is during the second pass: ``None``, beside them, or ``"cpu"``, which
            saves a device the room of one copy and costs two transfers a step. Default None.
        seed: Of the optimizer's own random numbers, which ``interval`` draws from.

    Raises:
        InvalidValueError: If an option is out of its range.
    """

    interval: Interval = 1
    perturb: Filter = "all"
    rho_schedule: RhoRule = "constant"
    same_noise: bool = True
    sync_perturbation: bool = True
    backup_device: Literal["cpu"] | None = None
    on_nonfinite: Literal["skip", "raise"] = "skip"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.on_nonfinite not in ("skip", "raise"):
            raise InvalidValueError(f"on_nonfinite must be 'skip' or 'raise', found {self.on_nonfinite!r}")
        check_type("same_noise", self.same_noise, bool, "True or False")
        check_type("sync_perturbation", self.sync_perturbation, bool, "True or False")
        if self.backup_device not in (None, "cpu"):
            raise InvalidValueError(
                f"backup_device must be None, for a copy beside the weights, or 'cpu', found {self.backup_device!r}"
            )
        check_type("seed", None if isinstance(self.seed, bool) else self.seed, Integral, "a whole number")
        object.__setattr__(self, "seed", int(self.seed))
        for name, words in (("rho_schedule", "'constant', 'lr' or a function"), ("perturb", "'all', 'norm' or a function")):
            if not isinstance(getattr(self, name), str):
                check_callable(name, getattr(self, name), words)
        if isinstance(self.rho_schedule, str) and self.rho_schedule not in {"constant", "lr"}:
            raise InvalidValueError(f"rho_schedule must be 'constant', 'lr' or a function, found {self.rho_schedule!r}")
        if isinstance(self.perturb, str) and self.perturb not in {"all", "norm"}:
            raise InvalidValueError(f"perturb must be 'all', 'norm' or a function of a parameter, found {self.perturb!r}")
        self.make_schedule()

    def make_schedule(self) -> Schedule:
        """Build the schedule that `interval` stands for.

        Returns:
            The schedule.
        """
        return make_schedule(self.interval)

    def make_filter(self, model: nn.Module | None) -> Callable[[Tensor], bool] | None:
        """Build the test of whether a parameter is perturbed.

        Args:
            model: Of the parameters.

        Returns:
            The test, or None for all.

        Raises:
            InvalidValueError: If normalisation layers are asked for without a model, or of a model that has none.
        """
        if self.perturb == "all":
            return None
        if self.perturb != "norm":
            return self.perturb
        if model is None:
            raise InvalidValueError("perturb='norm' needs model=..., to tell which parameters are of normalisation layers")
        chosen = {p for part in model.modules() if isinstance(part, NORM_LAYERS) for p in part.parameters(recurse=False)}
        if not chosen:
            raise InvalidValueError("perturb='norm' needs normalisation layers with parameters, found none in the model")
        return OneOf(chosen)


@dataclass(frozen=True)
class OneOf:
    """Selects the parameters of a set; a copy of an optimizer copies it along with them."""

    chosen: Set[Tensor]

    def __call__(self, parameter: Tensor) -> bool:
        """Tell whether a parameter is selected."""
        return parameter in self.chosen


@dataclass(frozen=True)
class Both:
    """Selects what two tests select."""

    first: Callable[[Tensor], bool]
    second: Callable[[Tensor], bool]

    def __call__(self, parameter: Tensor) -> bool:
        """Tell whether a parameter is selected."""
        return self.first(parameter) and self.second(parameter)


def make_options(options: dict[str, Any]) -> EngineOptions:
    """Build the options of a method from keyword arguments.

    Args:
        options: Name -> value.

    Returns:
        The options.

    Raises:
        InvalidValueError: If a name is unknown, or a value out of its range.
    """
    known = [field.name for field in fields(EngineOptions)]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise InvalidValueError(f"options that all methods take are {known}, found {unknown[0]!r}")
    return EngineOptions(**options)
