"""Figures over epochs: loss and metric, contributions, and each modality alone."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from msam.compare import Findings, MethodFindings
from msam.report.axes import Axis
from msam.report.drawing import Cell, Figure, method_style, modality_style
from msam.report.lines import Series, lines_panel
from msam.report.units import percent, units_of

_FOLLOWED = ("base", "sam", "modality_aware_sam")
_KINDS = (("train_loss", "Training loss"), ("validation_loss", "Validation loss"), ("validation_metric", ""))


def learning_figure(findings: Findings) -> Figure | None:
    """Draw loss and metric over training, for every method.

    Args:
        findings: Of a comparison.

    Returns:
        A panel for each curve that the records hold; None if they hold none.
    """
    units, panels = units_of(findings), []
    data: list[tuple[Cell, ...]] = [("curve", "method", "epoch", "mean")]
    for kind, head in _KINDS:
        scale = units.scale if kind == "validation_metric" else float
        means = {method.name: _mean_curve(method, kind) for method in findings.methods}
        series = [
            Series(method.label, method_style(method.name), _epochs(means[method.name]), tuple(map(scale, means[method.name])))
            for method in findings.methods
            if any(map(math.isfinite, means[method.name]))
        ]
        if not series:
            continue
        name = head or f"Validation {units.header[:1].lower()}{units.header[1:]}"
        told = "; ".join(f"{one.name} ends at {one.ys[-1]:.4g}" for one in series)
        panels.append(lines_panel(f"learning-{kind}", f"{name} over training: {told}", series, name))
        data += [
            (kind, method.label, epoch, value)
            for method in findings.methods
            for epoch, value in enumerate(means[method.name], start=1)
        ]
    if not panels:
        return None
    return Figure(
        key="learning",
        title="Loss and metric over training",
        caption=(
            "Mean over seeds after each epoch, at each method's chosen setting. A training loss that goes on falling while "
            "the validation loss rises is overfitting."
        ),
        panels=tuple(panels),
        data=tuple(data),
        legend=tuple((method.label, method_style(method.name)) for method in findings.methods),
    )


def _mean_curve(method: MethodFindings, kind: str) -> list[float]:
    curves = [run["curves"].get(kind) or [] for run in method.records]
    length = min(map(len, curves))
    return [_mean([curve[epoch] for curve in curves]) for epoch in range(length)]


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return fmean(known) if known else math.nan


def _epochs(curve: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(epoch) for epoch in range(1, len(curve) + 1))


def contributions_figure(findings: Findings) -> Figure | None:
    """Draw the modalities' shares over training.

    Args:
        findings: Of a comparison.

    Returns:
        A panel for the base and one for Modality-Aware SAM; None with a single modality.
    """
    names = list(findings.base.contributions)
    if len(names) < 2 or not findings.base.contribution_epochs:
        return None
    methods = [method for name in ("base", "modality_aware_sam") if (method := findings.method(name)) is not None]
    panels = tuple(_contributions_panel(method) for method in methods)
    return Figure(
        key="contributions",
        title="Contributions over training",
        caption=(
            "Each modality's share of the contributions on validation, mean over seeds; a line that leaves the others behind "
            "belongs to the modality that dominates."
        ),
        panels=panels,
        data=(
            ("method", "modality", "epoch", "share"),
            *(
                (method.label, name, epoch, share)
                for method in findings.methods
                for name, shares in method.contribution_curve.items()
                for epoch, share in zip(method.contribution_epochs, shares, strict=True)
            ),
        ),
        legend=tuple((name, modality_style(place)) for place, name in enumerate(names)),
    )


def _contributions_panel(method: MethodFindings) -> str:
    epochs = tuple(float(epoch) for epoch in method.contribution_epochs)
    series = [
        Series(name, modality_style(place), epochs, tuple(100 * share for share in shares))
        for place, (name, shares) in enumerate(method.contribution_curve.items())
    ]
    told = ", ".join(f"{name} {percent(share)}" for name, share in method.contributions.items())
    return lines_panel(
        f"contributions-{method.name}",
        f"Contributions over training under {method.label}; on the test split {told}",
        series,
        "Share, %",
        y=Axis(0, 100),
        title=method.label,
        write="{:.1f} %".format,
    )


def alone_figure(findings: Findings) -> Figure | None:
    """Draw what each modality gives alone, epoch by epoch.

    Args:
        findings: Of a comparison.

    Returns:
        One panel per modality; None with a single one, or where no number is known.
    """
    names, units = list(findings.base.alone_curve), units_of(findings)
    if len(names) < 2:
        return None
    methods = [method for name in _FOLLOWED if (method := findings.method(name)) is not None]
    values = [units.scale(value) for method in methods for curve in method.alone_curve.values() for value in curve]
    if not any(map(math.isfinite, values)):
        return None
    axis = Axis.around(values)
    return Figure(
        key="alone",
        title="Each modality on its own, over training",
        caption=(
            f"Validation {units.name} with all other modalities masked, mean over seeds, after each epoch; all panels have the "
            "same scale, and a line that stays low belongs to a modality that the model does not listen to."
        ),
        panels=tuple(
            _alone_panel(methods, name, f"alone-{place}", units.scale, axis, units.header) for place, name in enumerate(names)
        ),
        data=(
            ("modality", "method", "epoch", "mean"),
            *(
                (name, method.label, epoch, value)
                for name in names
                for method in findings.methods
                for epoch, value in enumerate(method.alone_curve[name], start=1)
            ),
        ),
        legend=tuple((method.label, method_style(method.name)) for method in methods),
    )


def _alone_panel(
    methods: Sequence[MethodFindings], name: str, key: str, scale: Callable[[float], float], axis: Axis, header: str
) -> str:
    series = [
        Series(
            method.label,
            method_style(method.name),
            _epochs(method.alone_curve[name]),
            tuple(map(scale, method.alone_curve[name])),
        )
        for method in methods
    ]
    label = f"Validation {header[:1].lower()}{header[1:]}"
    told = ", ".join(f"{one.name} {one.ys[-1]:.4g}" for one in series)
    return lines_panel(
        key, f"{label} of {name} alone over training, at the end: {told}", series, label, y=axis, title=f"{name} alone"
    )
