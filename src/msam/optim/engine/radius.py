"""How the radius moves during training."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from msam.errors import InvalidValueError

RhoRule = Literal["constant", "lr"] | Callable[[int], float]


def scheduled_radii(rule: RhoRule, groups: Sequence[dict[str, Any]], step: int, key: str = "rho") -> list[float]:
    """Return the radius of each group at a step.

    Args:
        rule: ``"constant"``; ``"lr"``, in proportion to the group's learning rate, with ``rho`` holding at its nominal rate;
            or a function from the number of steps taken before to a factor on ``rho``.
        groups: Parameter groups. With ``"lr"`` each remembers its nominal rate under ``rho_lr``, which its state dict keeps:
            ``max_lr`` or ``initial_lr``, which schedulers put there, warm-up or not; without a scheduler, the first rate.
        step: Number of steps taken before.
        key: Of each group's radius.

    Returns:
        One radius per group.

    Raises:
        InvalidValueError: If a function's factor is negative or not finite.
    """
    if rule == "constant":
        return [group[key] for group in groups]
    if rule == "lr":
        return [group[key] * _relative_rate(group) for group in groups]
    factor = float(rule(step))
    if not 0 <= factor < float("inf"):
        raise InvalidValueError(f"rho_schedule must give finite factors >= 0, found {factor} at step {step}")
    return [group[key] * factor for group in groups]


def _relative_rate(group: dict[str, Any]) -> float:
    rate = float(group["lr"])
    nominal = float(group.get("max_lr", group.get("initial_lr", rate)))
    if nominal > 0:
        # Not a rate of 0, with which a warm-up may start: every later one would be infinitely larger.
        group.setdefault("rho_lr", nominal)
    reference = float(group.get("rho_lr", 0.0))
    return rate / reference if reference else 0.0
