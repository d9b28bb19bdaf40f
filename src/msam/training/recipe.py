"""A recipe: what a comparison calls a method. An optimizer, hooks, and a budget."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from torch import nn
from torch.optim import Optimizer

from msam.balance import BalanceHook
from msam.checks import Converted, as_count, as_number, check_callable, check_type
from msam.errors import InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from msam.training.goals import Score

Need = Literal["classes", "encoders", "split", "two"]


@dataclass(frozen=True)
class Strength:
    """The one number of a recipe that is chosen on validation, such as a radius.

    Raises:
        InvalidTypeError: If the name is no text, or the grid holds no numbers.
        InvalidValueError: If the grid is empty, does not increase, or leaves its range.
    """

    name: str
    """Of the number, as the recipe's builder and the command line know it."""
    coarse: tuple[float, ...]
    """The first grid, a geometric one; see `msam.optim.search` for what follows."""
    maximum: float = float("inf")
    """The number must stay below this."""
    near_one: bool = False
    """Whether it is the distance to 1 that is spread evenly in the logarithm, as for the decay of an average."""

    def __post_init__(self) -> None:
        check_type("a strength's name", self.name, str, "a text")
        rule = f"the coarse grid of {self.name!r} must hold increasing numbers {'in (0, 1)' if self.near_one else '> 0'}"
        if isinstance(self.coarse, str) or not isinstance(self.coarse, Sequence) or not self.coarse:
            raise InvalidTypeError(f"{rule}, found {self.coarse!r}; such as (0.01, 0.1, 1.0)")
        top = 1.0 if self.near_one else math.inf
        numbers = tuple(as_number(f"the coarse grid of {self.name!r}", number, 0, top) for number in self.coarse)
        if any(one >= other for one, other in pairwise(numbers)):
            raise InvalidValueError(f"{rule}, found {self.coarse!r}; sort them")
        object.__setattr__(self, "coarse", numbers)

    def at(self, share: float) -> float:
        """Return the number at a share of the way from the least to the largest of the grid, evenly in the logarithm.

        Args:
            share: In [0, 1].

        Returns:
            Rounded to three digits.

        Example:
            >>> Strength("rho", (0.01, 0.1, 1.0)).at(0.5)
            0.1
        """
        low, high = self.coarse[0], self.coarse[-1]
        if self.near_one:
            return 1 - float(f"{(1 - low) * ((1 - high) / (1 - low)) ** share:.3g}")
        return float(f"{low * (high / low) ** share:.3g}")


def keep_base(base: Optimizer, model: nn.Module, strength: float | None) -> Optimizer:  # noqa: ARG001
    """Return the base optimizer as it is.

    Args:
        base: The task's own optimizer.
        model: Not used.
        strength: Not used.

    Returns:
        `base`.
    """
    return base


def no_hooks(strength: float | None) -> Sequence[BalanceHook]:  # noqa: ARG001
    """Return no hooks.

    Args:
        strength: Not used.

    Returns:
        An empty list.
    """
    return []


def no_balance(model: nn.Module, base: Optimizer, strength: float | None) -> Sequence[BalanceHook]:  # noqa: ARG001
    """Return no balancing methods.

    Args:
        model: Not used.
        base: Not used.
        strength: Not used.

    Returns:
        An empty list.
    """
    return []


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is compared: how the base optimizer is wrapped, which hooks change each batch, and for how long.

    Raises:
        InvalidTypeError: If a part is of another type.
        InvalidValueError: If the budget is below 1.
    """

    name: str
    label: str
    """Shown in reports; ``{base}`` stands for the name of the task's own optimizer."""
    build_optimizer: Callable[[Optimizer, nn.Module, float | None], Optimizer] = keep_base
    """From base optimizer, model and strength to the optimizer that steps."""
    build_hooks: Callable[[float | None], Sequence[BalanceHook]] = no_hooks
    """From strength to the hooks."""
    build_balance: Callable[[nn.Module, Optimizer, float | None], Sequence[BalanceHook]] = no_balance
    """From model, base optimizer and strength to balancing methods, which come after the hooks. Those of `msam.balance` are
    told of
    epochs and validation, and take the task's value of a coalition."""
    strength: Strength | None = None
    """What is tuned on validation, or None."""
    average: Callable[[float | None], float] | None = None
    """From strength to the decay of an exponential moving average of the weights, which is what is evaluated; or None."""
    budget: int = 1
    """Epochs, as a multiple of the task's."""
    is_control: bool = False
    """Whether it is there to tell what a method's gain may be due to: it is shown, and counts as no comparison."""
    after: "Callable[[nn.Module, Callable[[nn.Module], Score]], nn.Module] | None" = None
    """From a model at a selected epoch, and a function that scores models on validation, to the model that is tested; None for
    the same."""
    present: Converted[Iterable[str] | None, frozenset[str] | None] = None  # type: ignore[assignment]
    """Train and select with these modalities only, the others masked; None for all."""
    needs: tuple[Need, ...] = ()
    """What a task must have for it: ``"classes"``, one of several for each row; ``"encoders"``, a model that declares them;
    ``"split"``, one whose output is a sum of the modalities' parts; ``"two"``, as many modalities.
    It is refused before a comparison begins, or left out where a word such as `controls` stands for it."""
    controls: tuple[str, ...] = ()
    """Names of recipes that ``msam compare`` adds to a comparison with this one: what its gain may be due to."""

    def __post_init__(self) -> None:
        for name in ("name", "label"):
            check_type(f"a recipe's {name}", getattr(self, name), str, "a text")
        for name in ("build_optimizer", "build_hooks", "build_balance"):
            check_callable(f"{name} of the recipe {self.name!r}", getattr(self, name), "a function; see msam.training.Recipe")
        for name in ("average", "after"):
            if getattr(self, name) is not None:
                check_callable(f"{name} of the recipe {self.name!r}", getattr(self, name), "a function, or None")
        check_type(f"the strength of the recipe {self.name!r}", self.strength, (Strength, type(None)), "a Strength, or None")
        object.__setattr__(self, "budget", as_count(f"the budget of the recipe {self.name!r}", self.budget, 1))
        if isinstance(self.present, str):
            raise InvalidTypeError(f"present must hold names of modalities, found {self.present!r}; write {{{self.present!r}}}")
        object.__setattr__(self, "present", None if self.present is None else frozenset(self.present))
