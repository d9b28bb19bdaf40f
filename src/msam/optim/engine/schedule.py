"""Schedules: on which steps to ascend. A step without an ascent runs one pass."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from random import Random

from torch import Tensor
from typing_extensions import override

from msam.checks import as_count, as_number, keep_number, kind_of
from msam.errors import InvalidTypeError
from msam.geometry import Memory


class Schedule(ABC):
    """Decides, step by step, whether to ascend."""

    needs_gradient = False
    """Whether the decision needs the gradient's norm. It then costs a host synchronisation of its own."""

    @abstractmethod
    def ascends(self, step: int, norm: Tensor | None, memory: Memory, seed: int) -> bool:
        """Decide.

        Args:
            step: Number of steps taken before, from 0.
            norm: The gradient's global norm where it is needed, else None.
            memory: For running statistics.
            seed: Of the optimizer's own random numbers.

        Returns:
            Whether to ascend on this step.
        """


@dataclass(frozen=True)
class Every(Schedule):
    """Ascend at the first step and every k-th after it.

    Args:
        k: Interval, >= 1.

    Raises:
        InvalidValueError: If k is below 1.
    """

    k: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", as_count("an interval", self.k, 1, remedy="use 1 to ascend at every step"))

    @override
    def ascends(self, step: int, norm: Tensor | None, memory: Memory, seed: int) -> bool:
        return step % self.k == 0


@dataclass(frozen=True)
class WithProbability(Schedule):
    """Ascend with a fixed probability, drawn for each step from the optimizer's seed.

    Args:
        probability: In (0, 1].

    Raises:
        InvalidValueError: If it is out of its range.

    Source: Zhao et al. (RST), arXiv 2203.09962.
    """

    probability: float

    def __post_init__(self) -> None:
        number = as_number("a probability", self.probability, 0, 1, bounds="(]", remedy="use rho=0 for never")
        object.__setattr__(self, "probability", number)

    @override
    def ascends(self, step: int, norm: Tensor | None, memory: Memory, seed: int) -> bool:
        # A draw that depends on seed and step alone leaves no state to save.
        return Random(f"{seed}:{step}").random() < self.probability


@dataclass(frozen=True)
class When(Schedule):
    """Ascend when a function of the step's number says so.

    Args:
        decide: From the number of steps taken before to whether to ascend.
    """

    decide: Callable[[int], bool]

    @override
    def ascends(self, step: int, norm: Tensor | None, memory: Memory, seed: int) -> bool:
        return bool(self.decide(step))


@dataclass(frozen=True)
class WhenSteep(Schedule):
    r"""Ascend where the squared gradient norm is high for its time: ``||g||^2 >= mu + c_t sigma``.

    mu and sigma are the running mean and standard deviation of ``||g||^2`` with decay delta; they start from the first
    gradient (mu = ||g||^2, sigma = 0). ``c_t`` goes linearly from `first` to `last` over `steps` steps: early steps descend
    plainly when it is high, late ones then ascend always.

    Args:
        steps: Over how many steps c_t moves, >= 1.
        first: c at the first step. Default 1.
        last: c from step `steps` on. Default -1.
        delta: Decay in [0, 1). Default 0.9.

    Raises:
        InvalidValueError: If an argument is out of its range.

    Source: Jiang et al. (AE-SAM), arXiv 2304.14647. The defaults are our reading, not checked against the authors' settings.
    """

    steps: int
    first: float = 1.0
    last: float = -1.0
    delta: float = 0.9
    needs_gradient = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", as_count("steps", self.steps, 1, remedy="give the length of training"))
        for name in ("first", "last"):
            keep_number(self, name, float("-inf"), bounds="()", remedy="the usual values are 1 and -1")
        keep_number(self, "delta", 0, 1, bounds="[)", remedy="the usual value is 0.9")

    @override
    def ascends(self, step: int, norm: Tensor | None, memory: Memory, seed: int) -> bool:
        assert norm is not None
        square = float(norm) ** 2
        if not square < float("inf"):
            return True
        mean = memory.numbers.get("steepness_mean", square)
        variance = memory.numbers.get("steepness_variance", 0.0)
        # By differences, so that a norm that does not change equals its mean exactly: the first step must ascend.
        mean += (1 - self.delta) * (square - mean)
        variance += (1 - self.delta) * ((square - mean) ** 2 - variance)
        memory.numbers.update(steepness_mean=mean, steepness_variance=variance)
        level = self.first + (self.last - self.first) * min(1.0, step / self.steps)
        return bool(square >= mean + level * variance**0.5)


Interval = int | float | Callable[[int], bool] | Schedule


def make_schedule(interval: Interval) -> Schedule:
    """Turn a short form into a schedule.

    Args:
        interval: A whole number k ("every k steps"), a fraction in (0, 1) ("with this probability"), a function of the
            number of steps taken before, or a schedule.

    Returns:
        The schedule.

    Raises:
        InvalidTypeError: If it is none of these.

    Example:
        >>> make_schedule(5)
        Every(k=5)
        >>> make_schedule(0.5)
        WithProbability(probability=0.5)
    """
    if isinstance(interval, Schedule):
        return interval
    if isinstance(interval, Integral) and not isinstance(interval, bool):
        return Every(int(interval))
    if isinstance(interval, Real) and not isinstance(interval, bool):
        return WithProbability(float(interval))
    if callable(interval):
        return When(interval)
    raise InvalidTypeError(
        "interval must be a whole number, a probability, a function of the step or a Schedule, found "
        f"{kind_of(interval)}; use 1 for every step"
    )
