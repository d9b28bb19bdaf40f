"""The figures: accuracy against the radius, alpha, and how layers are rescaled."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

COLOURS = {
    "SGD": ("#999999", "-"),
    "SAM": ("#222222", "-"),
    "ASAM": ("#1b9e4b", "-"),
    "Monge SAM": ("#2f6fc2", ":"),
    "Monge SAM, alpha 10": ("#c22f2f", "-"),
    "adaptive Monge SAM": ("#e08a1e", "--"),
}

Curve = Mapping[float, float]


def draw_radii(curves: Mapping[str, Curve], sgd: float, path: Path) -> None:
    """Draw every method's test accuracy against its radius, at its learning rate."""
    _, axis = pyplot.subplots(figsize=(6.2, 3.8), layout="constrained")
    for name, curve in curves.items():
        _plot(axis, curve, name, *COLOURS[name])
    axis.axhline(100 * sgd, color=COLOURS["SGD"][0], lw=1, label="SGD")
    _finish(axis, "radius", path)


def draw_alphas(curves: Mapping[float, Curve], path: Path) -> None:
    """Draw Monge SAM's test accuracy against its radius, for every alpha."""
    _, axis = pyplot.subplots(figsize=(6.2, 3.8), layout="constrained")
    shades = pyplot.get_cmap("viridis_r")
    for k, (alpha, curve) in enumerate(curves.items()):
        _plot(
            axis, curve, "alpha 0 (SAM)" if alpha == 0 else f"alpha {alpha:g}", shades(0.1 + 0.9 * k / max(len(curves) - 1, 1))
        )
    _finish(axis, "radius", path)


def draw_rescaling(curves: Mapping[bool, Mapping[str, Curve]], path: Path) -> None:
    """Draw test accuracy against the factor of rescaling, with learning rates as they were and matched."""
    _, axes = pyplot.subplots(1, 2, figsize=(9.5, 3.8), sharey=True, layout="constrained")
    for axis, (matched, of) in zip(axes, curves.items(), strict=True):
        for name, curve in of.items():
            _plot(axis, curve, name, *COLOURS[name])
        axis.set_title("learning rates matched" if matched else "learning rates as they were", fontsize=10)
    _finish(axes[0], "layers rescaled by", path, axes[1], ticks=(1, 2, 5, 10))


def _plot(axis: Axes, curve: Curve, name: str, colour: object, style: str = "-") -> None:
    axis.plot(list(curve), [100 * value for value in curve.values()], style, color=colour, label=name, lw=1.5, marker="o", ms=3)


def _finish(axis: Axes, label: str, path: Path, *others: Axes, ticks: Sequence[float] = ()) -> None:
    for one in (axis, *others):
        one.set_xscale("log")
        one.set_xlabel(label)
        if ticks:
            one.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        one.minorticks_off()
    axis.set_ylabel("test accuracy, %")
    axis.legend(fontsize=7, loc="lower left")
    path.parent.mkdir(parents=True, exist_ok=True)
    axis.figure.savefig(path, dpi=110)
    pyplot.close(axis.figure)
