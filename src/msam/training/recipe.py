"""A recipe: what a comparison calls a method. An optimizer, hooks, and a budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn
from torch.optim import Optimizer

from msam.balance import BalanceHook

if TYPE_CHECKING:
    from msam.training.goals import Score


@dataclass(frozen=True)
class Strength:
    """The one number of a recipe that is chosen on validation, such as a radius."""

    name: str
    """Of the number, as the recipe's builder and the command line know it."""
    coarse: tuple[float, ...]
    """The first grid, a geometric one; see `msam.optim.search` for what follows."""
    maximum: float = float("inf")
    """The number must stay below this."""
    near_one: bool = False
    """Whether it is the distance to 1 that is spread evenly in the logarithm, as for the decay of an average."""

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


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is compared: how the base optimizer is wrapped, which hooks change each batch, and for how long."""

    name: str
    label: str
    """Shown in reports; ``{base}`` stands for the name of the task's own optimizer."""
    build_optimizer: Callable[[Optimizer, nn.Module, float | None], Optimizer] = keep_base
    """From base optimizer, model and strength to the optimizer that steps."""
    build_hooks: Callable[[float | None], Sequence[BalanceHook]] = no_hooks
    """From strength to the hooks."""
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
    present: frozenset[str] | None = None
    """Train and select with these modalities only, the others masked; None for all."""
