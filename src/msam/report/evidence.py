"""What the intervals say: better, worse, a tie, or nothing."""

import math
from collections.abc import Callable
from enum import Enum

from msam.compare import Findings, Interval, Judgement, MethodFindings, judge, paired_interval
from msam.compare.records import Record
from msam.errors import InvalidValueError
from msam.training.goals import BALANCED, ONE_MISSING, WORST_MISSING


class Relation(Enum):
    """Of one method to another; the value is the verb that says so."""

    BETTER = "beats"
    WORSE = "is worse than"
    EQUIVALENT = "is equivalent to"
    TIE = "cannot be told apart from"
    UNKNOWN = "differs, in a single seed, from"
    NONE = "cannot be compared with"


_RELATIONS = {
    Judgement.EQUIVALENT: Relation.EQUIVALENT,
    Judgement.BETTER: Relation.BETTER,
    Judgement.WORSE: Relation.WORSE,
    Judgement.INCONCLUSIVE: Relation.TIE,
    Judgement.UNKNOWN: Relation.UNKNOWN,
    Judgement.NONE: Relation.NONE,
}


def relate(difference: Interval, margin: float | None = None) -> Relation:
    """Tell what an interval of "first minus second" says about the first.

    Args:
        difference: The interval.
        margin: The smallest difference that matters; nothing is equivalent without one.

    Returns:
        `Relation.EQUIVALENT` where it lies inside the margin, `Relation.TIE` where it holds zero, `Relation.UNKNOWN` where
        there is none, `Relation.NONE` where there is no difference either: a run diverged, or has no number.
    """
    return _RELATIONS[judge(difference, margin)]


def relate_to_base(findings: Findings, method: MethodFindings) -> Relation:
    """Tell what a rival's corrected difference to the base says, with the comparison's margin.

    Args:
        findings: Of the comparison.
        method: Not the base itself.

    Returns:
        The relation.
    """
    return relate(shown_difference(method), findings.margin)


def rivals(findings: Findings) -> tuple[MethodFindings, ...]:
    """Return everything that is compared to the base optimizer.

    Args:
        findings: Of the comparison.

    Returns:
        All methods but the first, and but for controls.
    """
    return tuple(method for method in findings.methods[1:] if not method.is_control)


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


def is_ahead(findings: Findings, name: str) -> bool:
    """Tell whether a modality's share of the contributions under the base is measurably larger than any other's.

    Args:
        findings: Of the comparison.
        name: Of the modality.

    Returns:
        Whether the interval of each difference lies above zero; with a single seed, whether it is larger.
    """
    others = [other for other in findings.base.contributions if other != name]
    gaps = [findings.share_interval(name, other) for other in others]
    return all(gap.mean > 0 if math.isnan(gap.half_width) else gap.low > 0 for gap in gaps)


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
