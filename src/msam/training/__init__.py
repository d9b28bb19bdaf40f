"""Tasks, recipes and the one training loop."""

from msam.training.evaluation import Evaluation, evaluate
from msam.training.fit import check_task
from msam.training.goals import CRITERIA
from msam.training.loop import RunResult, run_training
from msam.training.probe import linear_probe_accuracy
from msam.training.recipe import Recipe, Strength
from msam.training.task import Task, accuracy

__all__ = [
    "CRITERIA",
    "Evaluation",
    "Recipe",
    "RunResult",
    "Strength",
    "Task",
    "accuracy",
    "check_task",
    "evaluate",
    "linear_probe_accuracy",
    "run_training",
]
