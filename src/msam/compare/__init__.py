"""Comparisons: the grid of runs, their records, and paired statistics."""

from msam.compare.findings import Findings, MethodFindings
from msam.compare.from_records import find_out
from msam.compare.grid import Grid, Plan
from msam.compare.judgement import Judgement, default_margin, judge
from msam.compare.keeping import Progress
from msam.compare.own_loop import compare_methods
from msam.compare.own_run import Run
from msam.compare.recipes import CONTROLS, DEFAULT, RECIPES, find_recipe
from msam.compare.statistics import Interval, holm, mean_interval
from msam.compare.trust import pair_runs, paired_interval, why_diverged

__all__ = [
    "CONTROLS",
    "DEFAULT",
    "RECIPES",
    "Findings",
    "Grid",
    "Interval",
    "Judgement",
    "MethodFindings",
    "Plan",
    "Progress",
    "Run",
    "compare_methods",
    "default_margin",
    "find_out",
    "find_recipe",
    "holm",
    "judge",
    "mean_interval",
    "pair_runs",
    "paired_interval",
    "why_diverged",
]
