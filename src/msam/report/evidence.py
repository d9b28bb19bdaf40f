"""What the intervals say: better, worse, a tie, or nothing."""

import math
from collections.abc import Callable
from enum import Enum

from msam.compare import Findings, Interval, MethodFindings, paired_interval
from msam.compare.records import Record
from msam.errors import InvalidValueError
from msam.training.goals import BALANCED, ONE_MISSING, WORST_MISSING


class Relation(Enum):
    """Of one method to another; the value is the verb that says so."""

    BETTER = "beats"
    WORSE = "is worse than"
    TIE = "cannot be told apart from"
    UNKNOWN = "differs, in a single seed, from"
    NONE = "cannot be compared with"


def relate(difference: Interval) -> Relation:
    """Tell what an interval of "first minus second" says about the first.

    Args:
        difference: The interval.

    Returns:
        `Relation.TIE` where it holds zero, `Relation.UNKNOWN` where there is none, `Relation.NONE` where there is no difference
        either: a run diverged, or has no number.
    """
    if math.isnan(difference.mean):
        return Relation.NONE
    if math.isnan(difference.half_width):
        return Relation.UNKNOWN
    if difference.low > 0:
        return Relation.BETTER
    return Relation.WORSE if difference.high < 0 else Relation.TIE


def rivals(findings: Findings) -> tuple[MethodFindings, ...]:
    """Return everything that is compared to the base optimizer.

    Args:
        findings: Of the comparison.

    Returns:
        All methods but the first.
    """
    return findings.methods[1:]


def judged(findings: Findings) -> tuple[MethodFindings, ...]:
    """Return those of the rivals that can be judged.

    Args:
        findings: Of the comparison.

    Returns:
        All whose difference to the base is known: neither has a run that diverged, or one without a metric.
    """
    return tuple(method for method in rivals(findings) if relate(shown_difference(method)) is not Relation.NONE)


def best_of(findings: Findings, pick: Callable[[MethodFindings], Interval]) -> MethodFindings | None:
    """Find the best of the rivals on something other than the metric.

    Args:
        findings: Of the comparison.
        pick: From a method to its estimate.

    Returns:
        The method with the largest mean among those without a diverged run; None if there is none with a number.
    """
    known = [method for method in rivals(findings) if not method.diverged and not math.isnan(pick(method).mean)]
    return max(known, key=lambda method: pick(method).mean, default=None)


def shown_difference(method: MethodFindings) -> Interval:
    """Return a rival's difference to the base optimizer.

    Args:
        method: Not the base itself.

    Returns:
        The corrected interval.

    Raises:
        InvalidValueError: If the method is the base.
    """
    if method.to_base is None:
        raise InvalidValueError(f"a difference to the base needs another method, found {method.name!r}")
    return method.to_base


def gain_over_base(findings: Findings, method: MethodFindings, pick: Callable[[Record], float | None]) -> Interval:
    """Compare a method with the base, seed by seed, on something other than the metric.

    Args:
        findings: Of the comparison.
        method: The method.
        pick: From a run's record to the number.

    Returns:
        Of the method minus the base, corrected for the number of rivals, since the method was picked among them.
    """
    count = max(1, len(rivals(findings)))
    return paired_interval(method.records, findings.base.records, pick, comparisons=count, test_share=findings.test_share)


def is_starved(loss: Interval) -> bool:
    """Tell whether a branch lost something to joint training.

    Args:
        loss: Its probe when trained alone, minus its probe in joint training.

    Returns:
        Whether the interval lies above zero.
    """
    return relate(loss) is Relation.BETTER


def asks_for_missing(findings: Findings) -> bool:
    """Tell whether settings were selected for what is left when a modality is missing.

    Args:
        findings: Of the comparison.

    Returns:
        Whether they were; if not, methods that were tuned for something else must not be ranked by it.
    """
    return findings.select_by in {ONE_MISSING, WORST_MISSING, BALANCED}


def setting_text(method: MethodFindings) -> str:
    """Write a method's chosen setting.

    Args:
        method: The method.

    Returns:
        Such as "rho = 0.536, lr = 0.12", without what was not tuned; nothing if it has no strength and one learning rate.
    """
    tuning = method.tuning
    strength = "" if tuning.setting.strength is None else f"{method.strength_name} = {tuning.setting.strength:g}"
    rates = {setting.lr_factor for setting in tuning.trials}
    rate = f"lr = {tuning.learning_rate:.3g}" if len(rates) > 1 and tuning.learning_rate is not None else ""
    return ", ".join(filter(None, (strength, rate)))


def named(method: MethodFindings) -> str:
    """Name a method with its setting.

    Args:
        method: The method.

    Returns:
        Such as "SAM (rho = 0.442)".
    """
    setting = setting_text(method)
    return f"{spoken(method)} ({setting})" if setting else spoken(method)


def spoken(method: MethodFindings) -> str:
    """Name a method within a sentence.

    Args:
        method: The method.

    Returns:
        Its label, without the comma of "SGD, twice the passes".
    """
    return method.label.replace(", ", " with ")
