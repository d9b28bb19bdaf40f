"""Tables, as Markdown on the standard output, and figures of the study, from the committed records.

python examples/studies/fine_tuning/report.py [--folder records] [--images docs/studies/images]

All intervals are plain t intervals over seeds, of 95 %, paired where two settings are compared: the test images are the same
for all seeds, so that the intervals speak of other pretrainings, few images, heads and orders, and of these test images.
Differences to SGD and to SAM hold together (Bonferroni over the methods compared). Settings are chosen on validation.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median

from figures import draw_alphas, draw_radii, draw_rescaling
from study import ADAPTIVE, ASAM, METHODS, MONGE, RECORDS, SAM, SGD, SHRUNK, STRONG, Method, choose, read_all
from tuning import BATCH, Row, Run

from msam.compare.statistics import Interval, mean_interval

ROOT = Path(__file__).parents[3]
NAMES = {SGD: "SGD", SAM: "SAM", ASAM: "ASAM", MONGE: "Monge SAM", STRONG: "Monge SAM, alpha 10"}
NAMES |= {ADAPTIVE: "adaptive Monge SAM"}
TOLERANCE = 0.01
"""A radius is usable if its mean test accuracy is within a point of the method's best."""
VACUOUS = 0.95
"""A median shrinkage above this leaves nothing to compare."""


class Records:
    """All runs, and what validation chose. Settings that not all seeds have are left out."""

    def __init__(self, rows: dict[Run, Row]) -> None:
        self.rows = rows
        self.seeds = sorted({run.seed for run in rows if run.factor == 1})
        self.few = sorted({run.seed for run in rows if run.factor != 1})
        self.best = {method: choose(rows, method, self.seeds) for method in METHODS}

    def has(self, run: Run) -> bool:
        """Tell whether all seeds have this setting."""
        return all(replace(run, seed=seed) in self.rows for seed in self._seeds(run))

    def values(self, run: Run, key: str = "test", seeds: Sequence[int] = ()) -> list[float]:
        """List what was measured, by seed."""
        return [float(self.rows[replace(run, seed=seed)][key]) for seed in seeds or self._seeds(run)]

    def mean(self, run: Run, key: str = "test") -> float:
        """Average over seeds."""
        return fmean(self.values(run, key))

    def difference(self, run: Run, other: Run, key: str = "test", comparisons: int = 1) -> Interval:
        """Compare two settings, paired by seed."""
        seeds = self.few if 1 not in {run.factor, other.factor} else self._seeds(run)
        pairs = zip(self.values(run, key, seeds), self.values(other, key, seeds), strict=True)
        return mean_interval([ours - theirs for ours, theirs in pairs], comparisons=comparisons)

    def ratio(self, run: Run, other: Run, key: str, comparisons: int = 1) -> str:
        """Compare two settings by the ratio of their geometric means, with its interval."""
        ours, theirs = self.values(run, key), self.values(other, key)
        if not all(0 < value < math.inf for value in [*ours, *theirs]):
            return "-"
        logs = [math.log(a / b) for a, b in zip(ours, theirs, strict=True)]
        found = mean_interval(logs, comparisons=comparisons)
        text = f"{math.exp(found.mean):.3g} ({math.exp(found.low):.3g} to {math.exp(found.high):.3g})"
        return f"**{text}**" if found.excludes_zero else text

    def typical(self, run: Run, key: str) -> str:
        """Write the median over seeds; runs that blew up do not move it."""
        return f"{median(self.values(run, key)):.2g}"

    def radii(self, run: Run) -> list[float]:
        """List the radii that were tried at a setting, ascending."""
        like = {r.rho for r in self.rows if replace(r, rho=run.rho, seed=run.seed) == run}
        return sorted(rho for rho in like if self.has(replace(run, rho=rho)))

    def curve(self, run: Run, key: str = "test") -> dict[float, float]:
        """Radius -> mean."""
        return {rho: self.mean(replace(run, rho=rho), key) for rho in self.radii(run)}

    def factors(self, matched: bool) -> list[float]:
        """List the factors of rescaling that every method has at the radius chosen before, ascending."""
        tried = sorted({run.factor for run in self.rows if run.factor != 1})
        return [a for a in tried if all(self.has(replace(b, factor=a, matched=matched)) for b in self.best.values())]

    def _seeds(self, run: Run) -> list[int]:
        return self.seeds if run.factor == 1 else self.few


def percent(value: float) -> str:
    """Write an accuracy."""
    return f"{100 * value:.1f}"


def points(interval: Interval) -> str:
    """Write a difference in points; in bold where the interval excludes zero."""
    text = f"{100 * interval.mean:+.1f} ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"
    return f"**{text}**" if interval.excludes_zero else text


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """Write a table in Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)]


def main_table(found: Records) -> list[str]:
    """Each method at the setting that validation chose."""
    lines = []
    for method, best in found.best.items():
        accuracy, count = mean_interval(found.values(best)), len(METHODS) - 1
        cells = [NAMES[method], f"{best.lr:g}", f"{best.rho:g}"]
        cells += [f"{percent(accuracy.mean)} ± {percent(accuracy.half_width)}"]
        cells += [
            "" if method == other else points(found.difference(best, found.best[other], "test", count)) for other in (SGD, SAM)
        ]
        cells += [percent(found.mean(best, "validation")), percent(found.mean(best, "validation_last"))]
        cells += [f"{found.mean(best, 'mean_s'):.2f}, {found.typical(best, 'median_s')}"]
        lines.append([*cells, f"{fmean(found.values(best, 'seconds')) / fmean(found.values(found.best[SAM], 'seconds')):.2f}"])
    head = ["method", "lr", "rho", "test accuracy", "to SGD", "to SAM", "validation", "at the last epoch", "s: mean, median"]
    return table([*head, "time x SAM"], lines)


def radius_table(found: Records) -> list[str]:
    """How much the radius matters, at each method's learning rate."""
    lines, sam = [], found.best[SAM]
    blind = {method: blindly(found, best) for method, best in found.best.items()}
    for method, best in found.best.items():
        curve = found.curve(best)
        if method == SGD:
            continue
        pairs = zip(blind[method], blind[SAM], strict=True)
        difference = mean_interval([ours - theirs for ours, theirs in pairs], comparisons=len(METHODS) - 2)
        failed = fmean(found.mean(replace(best, rho=rho), "diverged") for rho in curve)
        cells = [f"{NAMES[method]}, {min(curve):g} to {max(curve):g}", *map(percent, curve.values())]
        cells += [percent(max(curve.values()) - min(curve.values())), usable(curve), f"{100 * failed:.0f} %"]
        lines.append([*cells, percent(fmean(blind[method])), "" if method == SAM else points(difference)])
    count = [f"{k}" for k in range(1, len(found.radii(sam)) + 1)]
    return table(["method, radii", *count, "spread", "usable radii", "diverged", "picked blindly", "to SAM"], lines)


def blindly(found: Records, run: Run) -> list[float]:
    """Average a seed's test accuracy over all radii: what one gets who picks any of them."""
    each = [found.values(replace(run, rho=rho)) for rho in found.radii(run)]
    return [fmean(values) for values in zip(*each, strict=True)]


def usable(curve: dict[float, float]) -> str:
    """Write the range of radii around the best, without gaps, that lose at most `TOLERANCE`."""
    radii, top = list(curve), max(curve.values())
    low = high = radii.index(max(radii, key=curve.__getitem__))
    while low and curve[radii[low - 1]] >= top - TOLERANCE:
        low -= 1
    while high + 1 < len(radii) and curve[radii[high + 1]] >= top - TOLERANCE:
        high += 1
    return f"{radii[low]:g} to {radii[high]:g} ({radii[high] / radii[low]:.0f}x)"


def level_table(found: Records, method: Method) -> list[str]:
    """A method beside the one without its metric: at the same radius, and at a constant radius of the same mean."""
    best, lines = found.best[method], []
    for rho in found.radii(best):
        run = replace(best, rho=rho)
        plain = replace(run, method=SHRUNK[method], alpha=1.0)
        shrunk = replace(run, method=f"{SHRUNK[method]}_shrunk")
        if not (found.has(plain) and found.has(shrunk)):
            continue
        cells = [f"{rho:g}", f"{found.mean(run, 'mean_s'):.2f}, {found.typical(run, 'median_s')}"]
        cells += [percent(found.mean(one)) for one in (run, plain, shrunk)]
        cells += [points(found.difference(run, one)) for one in (plain, shrunk)]
        cells += [found.typical(one, "eigenvalue") for one in (run, plain, shrunk)]
        lines.append([*cells, found.ratio(run, plain, "eigenvalue"), found.ratio(run, plain, "rise")])
    other, constant = SHRUNK[method].upper(), "rho mean(s)"
    head = ["rho", "s: mean, median", "accuracy", f"{other}, rho", f"{other}, {constant}", f"to {other}", f"to {constant}"]
    head += ["eigenvalue", f"{other}, rho", f"{other}, {constant}", f"ratio to {other}", "rise: ratio"]
    return table(head, lines)


def sharpness_table(found: Records) -> list[str]:
    """How sharp the minima are, at the settings chosen."""
    lines, sgd, count = [], found.best[SGD], len(METHODS) - 1
    for method, best in found.best.items():
        cells = [NAMES[method], *(found.typical(best, key) for key in ("train_loss", "eigenvalue", "rise"))]
        slow = replace(best, method="sgd", alpha=1.0, rho=sgd.rho)
        for key in ("eigenvalue", "rise"):
            cells += ["" if method == SGD else found.ratio(best, sgd, key, count)]
            cells += ["" if method == SGD else found.ratio(best, slow, key, count)]
        lines.append(cells)
    head = ["method", "training loss", "eigenvalue", "rise", "eigenvalue to SGD", "to SGD at its lr"]
    return table([*head, "rise to SGD", "to SGD at its lr"], lines)


def alpha_curves(found: Records) -> dict[float, Run]:
    """The alphas that were run at Monge's learning rate; 0 is SAM."""
    best = found.best[MONGE]
    alphas = sorted({run.alpha for run in found.rows if replace(run, alpha=1.0, rho=best.rho, seed=best.seed) == best})
    return {0.0: replace(best, method="sam"), **{alpha: replace(best, alpha=alpha) for alpha in alphas}}


def alpha_table(found: Records) -> list[str]:
    """Accuracy by alpha and radius, and the two at which validation was best; last, the summed loss."""
    best, lines = found.best[MONGE], []
    radii = found.radii(best)
    runs = {f"{alpha:g}": run for alpha, run in alpha_curves(found).items()}
    runs |= {f"1, summed loss ({BATCH} x)": replace(best, reduction="sum")}
    for name, run in runs.items():
        if found.radii(run) != radii:
            continue
        curve, validation = found.curve(run), found.curve(run, "validation")
        chosen = max(radii, key=validation.__getitem__)
        medians = [median(found.values(replace(run, rho=rho), "median_s")) for rho in radii]
        cells = [name, *map(percent, curve.values()), f"{min(medians):.2g} to {max(medians):.2g}"]
        lines.append([*cells, f"{percent(curve[chosen])} at {chosen:g}", usable(curve), percent(fmean(curve.values()))])
    return table(["alpha", *(f"{rho:g}" for rho in radii), "median s", "chosen", "usable radii", "picked blindly"], lines)


def sum_lines(found: Records) -> list[str]:
    """What the summed loss changes, at the settings chosen with the mean."""
    lines = []
    for method in (SAM, MONGE):
        summed = replace(found.best[method], reduction="sum")
        if found.has(summed):
            lines.append([NAMES[method], f"{summed.rho:g}", points(found.difference(summed, found.best[method]))])
    return table(["method", "rho", "summed loss, lr / batch, to the mean"], lines)


def rescaling_table(found: Records, matched: bool) -> list[str]:
    """Accuracy after rescaling: at the radius chosen before, and at the best on validation."""
    factors = found.factors(matched)
    lines = []
    for method, best in found.best.items() if factors else ():
        cells = [NAMES[method], percent(fmean(found.values(best, seeds=found.few)))]
        for factor in factors:
            run = replace(best, factor=factor, matched=matched)
            own = choose(found.rows, method, found.few, run)
            cells += [f"{percent(found.mean(run))}, {percent(found.mean(own))} at {own.rho:g}"]
            cells += [points(found.difference(run, best))] if factor == factors[-1] else []
        lines.append(cells)
    return table(["method", "a = 1", *(f"a = {factor:g}" for factor in factors), "largest a to a = 1"], lines) if lines else []


def vacuous(found: Records) -> list[str]:
    """Say where a metric did nothing at the setting chosen."""
    warned = [m for m in (MONGE, STRONG, ADAPTIVE) if median(found.values(found.best[m], "median_s")) > VACUOUS]
    return [
        f"{NAMES[method]}: the median of s is above {VACUOUS} at the setting chosen. It is nearly the method without its "
        "metric, and the comparison is vacuous."
        for method in warned
    ]


def main() -> None:
    """Print the tables and draw the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=RECORDS)
    parser.add_argument("--images", type=Path, default=ROOT / "docs" / "studies" / "images")
    arguments = parser.parse_args()
    print_report(Records(read_all(arguments.folder)), arguments.images)


def print_report(found: Records, images: Path) -> None:
    """Print every table under its title, and draw the figures."""
    parts = {"Settings chosen on validation": [*main_table(found), "", *vacuous(found)], "The radius": radius_table(found)}
    parts |= {f"{NAMES[m]} beside {SHRUNK[m].upper()}, lr {found.best[m].lr:g}": level_table(found, m) for m in SHRUNK}
    parts |= {"Alpha, and the summed loss": alpha_table(found), "The summed loss": sum_lines(found)}
    parts |= {"Sharpness at the last epoch": sharpness_table(found)}
    parts |= {"Rescaled layers, learning rates matched": rescaling_table(found, True)}
    parts |= {"Rescaled layers, learning rates as they were": rescaling_table(found, False)}
    print(f"{len(found.rows)} runs; seeds: {len(found.seeds)}, for rescaled layers {len(found.few)}.\n")
    for title, lines in parts.items():
        print(f"### {title}\n", *(lines or ["Not run yet."]), "", sep="\n")
    curves = {NAMES[method]: found.curve(best) for method, best in found.best.items() if method != SGD}
    draw_radii(curves, found.mean(found.best[SGD]), images / "fine-tuning-radius.png")
    draw_alphas({a: found.curve(run) for a, run in alpha_curves(found).items()}, images / "fine-tuning-alpha.png")
    draw_rescaling(rescaling_curves(found), images / "fine-tuning-rescaling.png")


def rescaling_curves(found: Records) -> dict[bool, dict[str, dict[float, float]]]:
    """Whether rates are matched -> method -> factor -> accuracy at the radius chosen before."""
    curves: dict[bool, dict[str, dict[float, float]]] = {False: {}, True: {}}
    for matched, of in curves.items():
        for method, best in found.best.items():
            runs = {a: replace(best, factor=a, matched=matched and a != 1) for a in (1.0, *found.factors(matched))}
            of[NAMES[method]] = {
                a: fmean(found.values(r, seeds=found.few)) for a, r in runs.items() if found.few and found.has(r)
            }
    return curves


if __name__ == "__main__":
    main()
