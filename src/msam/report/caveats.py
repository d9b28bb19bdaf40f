"""What limits a comparison's conclusion."""

import math
from collections.abc import Iterator
from statistics import fmean

from msam.compare import Findings, pair_runs
from msam.compare.power import shift_of
from msam.compare.trust import row_spread
from msam.report.doubts import tell_diverged, tell_unknown
from msam.report.evidence import Relation, named, relate_to_base, rivals, shown_difference, spoken
from msam.report.units import join_words, percent, units_of

FEW_SEEDS = 10
UNSEEN = 0.05
"""A share of second passes below which it is not worth a word that they change nothing."""
MANY_ROWS = 5000
"""A test split of this size leaves less than 0.8 points of sampling error."""


def list_caveats(findings: Findings) -> tuple[str, ...]:
    """List what limits the conclusion.

    Args:
        findings: Of a comparison.

    Returns:
        One or two sentences each, the weightiest first.
    """
    doubts = (tell_diverged, tell_unknown)
    limits = (
        _seeds,
        _power,
        _test_rows,
        _fixed_test,
        _edges,
        _monge,
        _unperturbed,
        _equal_base,
        _last_epoch,
        _overlap,
        _task,
        _selection,
        _fixed,
        _base,
    )
    return tuple(caveat for source in (*doubts, *limits) for caveat in source(findings))


def _seeds(findings: Findings) -> Iterator[str]:
    seeds, units = findings.comparison["seeds"], units_of(findings)
    if seeds >= FEW_SEEDS:
        return
    if seeds == 1:
        yield "One seed: no interval exists, and no difference can be told from chance."
        return
    widths = [width for method in rivals(findings) if (width := shown_difference(method).half_width) > 0]
    if widths:
        narrow, wide = units.plain(min(widths)), units.plain(max(widths))
        span = f"± {wide}" if narrow == wide else f"± {narrow} to ± {wide}"
        yield f"Few seeds ({seeds}): the intervals of the differences reach {span}{' points' if units.percent else ''}."
    else:
        yield f"Few seeds ({seeds})."


def _power(findings: Findings) -> Iterator[str]:
    """What more seeds cannot change, where a method could not be told apart."""
    units = units_of(findings)
    unsure = [method for method in rivals(findings) if relate_to_base(findings, method) is Relation.TIE]
    floors = [floor for method in unsure if (floor := shown_difference(method).floor) > 0]
    if floors:
        least, most = units.amount(min(floors)), units.amount(max(floors))
        span = least if least == most else f"{least} to {most}"
        yield f"More seeds alone would not tell differences below {span}, as test splits overlap; more data would."


def _test_rows(findings: Findings) -> Iterator[str]:
    rows, units = findings.test_rows, units_of(findings)
    if rows is None or rows >= MANY_ROWS:
        return
    if units.name != "accuracy" or findings.base.diverged or findings.base.unknown:
        yield f"The test split is small: {rows} rows."
        return
    share = findings.base.metric.mean
    error = units.amount(math.sqrt(max(0.0, share * (1 - share)) / rows))
    yield f"The test split is small: with {rows} rows, the accuracy of one run has a standard error of {error}."


def _fixed_test(findings: Findings) -> Iterator[str]:
    """What a single test split leaves open."""
    if not findings.has_fixed_test:
        return
    said = (
        "All seeds have the same test split: intervals say what training anew would give on these rows, and nothing of others."
    )
    units, rows = units_of(findings), findings.test_rows
    methods = [method for method in rivals(findings) if not (method.diverged or method.unknown)]
    spreads = [] if rows is None else [row_spread(method.records, findings.base.records, rows) for method in methods]
    known = [spread for spread in spreads if spread is not None]
    if units.name != "accuracy" or not known or len(known) < len(methods):
        yield said
        return
    least = units.amount(shift_of(len(methods)) * max(known))
    yield f"{said} On other rows like them, more seeds alone are not sure to tell differences below about {least}."


def _edges(findings: Findings) -> Iterator[str]:
    if max(len(method.tuning.trials) for method in findings.methods) == 2:
        yield "No more than two settings were tried for a method: each is at an edge, so that better ones may lie beyond."
        return
    for method in findings.methods:
        if method.tuning.edges:
            ends = [edge.replace("strength", str(method.strength_name)) for edge in method.tuning.edges]
            verb = "was" if len(ends) == 1 else "were"
            yield f"{named(method)}: the {join_words(ends)} that {verb} tried, so a better setting may lie beyond."


def _monge(findings: Findings) -> Iterator[str]:
    without = {"monge_sam": "SAM", "modality_aware_sam_monge": "Modality-Aware SAM"}
    for method in findings.methods:
        if method.mean_shrinkage is not None and method.mean_shrinkage > 0.95 and not method.diverged:
            yield (
                f"{method.label} was {without.get(method.name, 'SAM')} in all but name here: its metric "
                f"shortened perturbations to {method.mean_shrinkage:.3f} of their length on average."
            )


def _unperturbed(findings: Findings) -> Iterator[str]:
    """Where the second pass found what the first did: gradients of exactly zero, or losses that are saturated."""
    for method in findings.methods:
        counts = [run["optimizer"] for run in method.records if isinstance(run["optimizer"].get("unperturbed"), int)]
        unseen = sum(count["unperturbed"] for count in counts)
        ascents = unseen + sum(count.get("perturbed", 0) for count in counts)
        if unseen > UNSEEN * ascents and not method.diverged:
            yield (
                f"{named(method)}: {percent(unseen / ascents)} of its second passes found the gradient of the first, so that "
                "these steps were the base optimizer's: is the loss saturated, or linear in the weights?"
            )


def _equal_base(findings: Findings) -> Iterator[str]:
    doubled = findings.method("base_2x")
    if doubled is None or any(method.diverged or method.unknown for method in (doubled, findings.base)):
        return
    epochs = findings.comparison["task"].get("epochs")
    if epochs is None:
        return
    pairs = pair_runs(doubled.records, findings.base.records)
    if all(run["test"]["metric"] == base["test"]["metric"] and run["selected_epoch"] <= epochs for run, base in pairs):
        chosen = fmean(run["selected_epoch"] for run, _ in pairs)
        yield (
            f"{spoken(doubled)} gives the same results as {findings.base.label}: validation chose epoch {chosen:.0f} on "
            f"average, before the {epochs} epochs of {findings.base.label} were over, so that more passes changed nothing."
        )


def _last_epoch(findings: Findings) -> Iterator[str]:
    epochs = findings.comparison["task"].get("epochs", math.inf)
    late = [
        spoken(method)
        for method in findings.methods
        if method.name != "base_2x"
        and not method.diverged
        and 2 * sum(run["selected_epoch"] >= epochs for run in method.records) > len(method.records)
    ]
    if late:
        yield f"Most runs of {join_words(late)} were best at their last epoch; with more epochs the order may change."


def _overlap(findings: Findings) -> Iterator[str]:
    if findings.test_share > 0 and findings.comparison["seeds"] > 1:
        yield (
            f"Test splits of two seeds share {percent(findings.test_share)} of their rows on average: the seeds resample one "
            "data set. The intervals allow for it; they do not speak of other data sets."
        )


def _task(findings: Findings) -> Iterator[str]:
    task = findings.comparison["task"]
    made: list[str] = []
    if findings.is_control:
        return
    if task.get("rows"):
        made.append(f"{task['rows']} training rows")
    if task.get("label_noise"):
        made.append(f"{percent(task['label_noise'])} wrong training labels")
    if made:
        yield f"The task was made hard on purpose ({join_words(made)}); with more or cleaner data the order may change."


def _selection(findings: Findings) -> Iterator[str]:
    if not any(len(method.tuning.trials) > 1 for method in findings.methods):
        return
    if not findings.comparison["tuning_seeds"]:
        yield (
            "Strengths were chosen by validation, averaged over the same seeds. Rows that validate in one seed are tested in "
            "another, which slightly favours the methods that have a strength to choose."
        )
    elif findings.test_share > 0:
        yield (
            "Settings were chosen on seeds of their own, but all seeds draw their splits from one data set: rows that validate "
            "there are tested here. Every method had the same number of trials."
        )


def _fixed(findings: Findings) -> Iterator[str]:
    radii = findings.comparison["rho"]
    if len(radii) == 1:
        yield f"The radius was fixed at rho = {radii[0]:g}, not tuned; another one may do better."
    elif radii:
        yield f"Only the radii {join_words([f'{radius:g}' for radius in radii])} were tried."


def _base(findings: Findings) -> Iterator[str]:
    settings = findings.comparison["task"]["optimizer"]
    if "lr" in settings and rivals(findings):
        if any(len({setting.lr_factor for setting in method.tuning.trials}) > 1 for method in findings.methods):
            return
        rate = f"learning rate {settings['lr']:g}"
        yield f"The settings of {settings['name']} itself ({rate}) were the same for all, and not tuned."
