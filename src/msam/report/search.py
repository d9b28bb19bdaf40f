"""The search for each method's setting: every trial over learning rate and strength, the choice, and the cliff."""

import math
from collections.abc import Sequence

from msam.compare import Findings, MethodFindings
from msam.compare.trials import Setting
from msam.report.axes import Axis, Margins
from msam.report.drawing import Cell, Figure, Style, method_style
from msam.report.lines import SIZE
from msam.report.plot import Chart
from msam.report.units import DASH, Units, criterion_text, percent, score_units, upper_first

CLIFF = 0.1
"""Trials that lose more than this share of the best score lie beyond the cliff."""


def search_figure(findings: Findings) -> Figure | None:
    """Draw the score of each trial over what is tuned.

    Args:
        findings: Of a comparison.

    Returns:
        A map for each method whose learning rate and strength are tuned, and one panel for each kind of others; None if
        nothing was tuned.
    """
    searched = [method for method in findings.methods if len(method.tuning.trials) > 1]
    if not searched:
        return None
    units, panels = score_units(findings), []
    lines: dict[str, list[MethodFindings]] = {}
    for method in searched:
        if _is_map(method):
            panels.append(_map_panel(method, units))
        else:
            lines.setdefault(_tuned(method), []).append(method)
    panels = [_line_panel(kind, methods, units) for kind, methods in lines.items()] + panels
    return Figure(
        key="search",
        title="All trials: the choice, and the cliff",
        caption=(
            f"{upper_first(criterion_text(findings))} on validation, mean over the seeds that tune, for every setting that was "
            "tried. A ring marks the chosen one: at an edge it asks for a wider search. A cross marks the cliff: no number, or "
            f"more than {percent(CLIFF)} of the method's best score lost."
        ),
        panels=tuple(panels),
        data=_data(searched),
        legend=tuple((method.label, method_style(method.name)) for method in searched),
    )


def _data(searched: Sequence[MethodFindings]) -> tuple[tuple[Cell, ...], ...]:
    rows: list[tuple[Cell, ...]] = [("method", "strength", "learning_rate_factor", "score", "chosen", "beyond_the_cliff")]
    for method in searched:
        for tried, score in method.tuning.trials.items():
            marks = (_yes(tried == method.tuning.setting), _yes(_fell(method, score)))
            rows.append((method.label, tried.strength, tried.lr_factor, score, *marks))
    return tuple(rows)


def _yes(whether: bool) -> str:
    return "yes" if whether else "no"


def _is_map(method: MethodFindings) -> bool:
    tried = method.tuning.trials
    rates, strengths = ({setting.lr_factor for setting in tried}, {setting.strength for setting in tried})
    return len(rates) > 1 and len(strengths) > 1


def _by_strength(method: MethodFindings) -> bool:
    return len({setting.strength for setting in method.tuning.trials}) > 1


def _tuned(method: MethodFindings) -> str:
    return str(method.strength_name) if _by_strength(method) else "learning rate / the task's"


def _place_of(method: MethodFindings, setting: Setting) -> float:
    return (setting.strength or 0.0) if _by_strength(method) else setting.lr_factor


def _fell(method: MethodFindings, score: float) -> bool:
    known = [each for each in method.tuning.trials.values() if math.isfinite(each)]
    return not math.isfinite(score) or (bool(known) and score < max(known) - CLIFF * abs(max(known)))


def _text(method: MethodFindings, setting: Setting, score: float, units: Units) -> str:
    strength = "" if setting.strength is None else f"{method.strength_name} = {setting.strength:g}, "
    told = units.value(score) if math.isfinite(score) else DASH
    marks = (", chosen" if setting == method.tuning.setting else "") + (", beyond the cliff" if _fell(method, score) else "")
    return f"{method.label}, {strength}learning rate {setting.lr_factor:g}x: {told}{marks}"


def _tell(methods: Sequence[MethodFindings], units: Units) -> str:
    said = []
    for method in methods:
        setting, trials = method.tuning.setting, method.tuning.trials
        fallen = sum(_fell(method, score) for score in trials.values())
        chosen = _text(method, setting, trials.get(setting, math.nan), units).removesuffix(", beyond the cliff")
        said.append(f"{chosen}; {fallen} of {len(trials)} trials beyond the cliff")
    return "; ".join(said)


def _map_panel(method: MethodFindings, units: Units) -> str:
    """Learning rate to the right, strength upwards; the score stands beside each point."""
    trials, style = method.tuning.trials, method_style(method.name)
    strengths = [setting.strength or 0.0 for setting in trials]
    log = min(strengths) > 0
    chart = Chart(
        f"search-{method.name}",
        SIZE,
        Axis.around([setting.lr_factor for setting in trials], 0.12, log=True),
        Axis.around(strengths, 0.1, log=log),
        Margins(right=20, top=46, bottom=44),
    )
    chart.text((2, 15), method.label, bold=True, room=SIZE[0] - 8)
    chart.y_axis(str(method.strength_name))
    chart.x_axis("Learning rate / the task's")
    for setting, score in trials.items():
        place = chart.at(setting.lr_factor, setting.strength or 0.0)
        _paint(chart, method, setting, score, place, style, units)
        said = units.plain(score) if math.isfinite(score) else DASH
        beside = place[0] + 11 + 7 * len(said) < chart.right + 16
        where = (place[0] + 11, place[1] + 4) if beside else (place[0] - 11, place[1] + 4)
        chart.text(where, said, size=11, anchor="start" if beside else "end")
    return chart.svg(f"Trials over learning rate and {method.strength_name}: {_tell([method], units)}")


def _paint(
    chart: Chart, method: MethodFindings, setting: Setting, score: float, place: tuple[float, float], style: Style, units: Units
) -> None:
    fell = _fell(method, score)
    chart.mark(place, style, _text(method, setting, score, units), size=4.5, hollow=fell)
    if fell:
        chart.cross(place, style.color)
    if setting == method.tuning.setting:
        chart.ring(place)


def _line_panel(kind: str, methods: Sequence[MethodFindings], units: Units) -> str:
    """What is tuned to the right, the score upwards; what lies far below the rest is drawn at the lower edge."""
    scores = [units.scale(score) for method in methods for score in method.tuning.trials.values()]
    places = [_place_of(method, setting) for method in methods for setting in method.tuning.trials]
    low, high = _window(scores)
    chart = Chart(
        "search-" + "".join(sign if sign.isalnum() else "-" for sign in kind),
        SIZE,
        Axis.around(places, 0.05, log=min(places) > 0),
        Axis(low, high),
        Margins(top=26, bottom=44),
    )
    chart.y_axis(f"Score{', %' if units.percent else ''}")
    chart.x_axis(upper_first(kind))
    for method in methods:
        style = method_style(method.name)
        points = sorted((_place_of(method, setting), units.scale(score)) for setting, score in method.tuning.trials.items())
        chart.curve([x for x, _ in points], [y for _, y in points], style)
        for setting, score in method.tuning.trials.items():
            height = units.scale(score) if math.isfinite(score) else low
            _paint(chart, method, setting, score, chart.at(_place_of(method, setting), height), style, units)
    return chart.svg(f"Score on validation against {kind}: {_tell(methods, units)}")


def _window(values: Sequence[float]) -> tuple[float, float]:
    """Limits that show the better runs in detail: a collapsed one must not flatten all else."""
    known = sorted(value for value in values if math.isfinite(value)) or [0.0]
    top, quartile = known[-1], known[len(known) // 4]
    low = max(known[0], top - 4 * (top - quartile)) if quartile < top else known[0]
    room = 0.08 * (top - low) or 0.05 * abs(top) or 1.0
    return low - room, top + room
