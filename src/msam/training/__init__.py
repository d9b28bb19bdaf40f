"""Tasks, recipes and the one training loop."""

from msam.training.evaluation import Evaluation, evaluate
from msam.training.fit import check_task
from msam.training.goals import CRITERIA
from msam.training.kinds import KINDS, Closeness, Kind
from msam.training.loop import run_training
from msam.training.metrics import METRICS, Metric, accuracy
from msam.training.probe import linear_probe_accuracy
from msam.training.recipe import Recipe, Strength
from msam.training.result import RunResult
from msam.training.several import several
from msam.training.task import Task, step_decay

__all__ = [
    "CRITERIA",
    "KINDS",
    "METRICS",
    "Closeness",
    "Evaluation",
    "Kind",
    "Metric",
    "Recipe",
    "RunResult",
    "Strength",
    "Task",
    "accuracy",
    "check_task",
    "evaluate",
    "linear_probe_accuracy",
    "run_training",
    "several",
    "step_decay",
]
