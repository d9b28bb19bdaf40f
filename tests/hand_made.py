"""Hand-made records and comparisons, in the form of version 0.1: tuned by strength alone, on the reported seeds."""

from typing import Any

from msam.training import CRITERIA

FIRST_PROTOCOL = {
    "trials": 0,
    "tuning_seeds": 0,
    "select_by": "accuracy",
    "one_standard_error": False,
    "equivalence_margin": None,
}


def completed(record: dict[str, Any]) -> dict[str, Any]:
    """Add what records of version 0.1 do not have, from what they have: whatever was selected for is the same."""
    test = {"calibration": {}, "others": {}, "metrics": {}, "patterns": [], **record["test"]}
    goal = {
        "selected_epoch": record.get("selected_epoch", 1),
        "score": record["validation"]["metric"],
        "validation": record["validation"],
        "test": test,
        "probes": record["probes"],
    }
    return {
        "forward_evaluations": record["gradient_evaluations"],
        **record,
        "lr_factor": 1.0,
        "learning_rate": None,
        "test": test,
        "goals": [{"name": name, **goal} for name in CRITERIA],
    }
