"""Contributions of modalities: a pure function of a table of coalition values, and the evaluation of that table."""

from msam.contribution.answers import AnswerTokens
from msam.contribution.baselines import Baseline, Shuffled, Zeros, find_baseline
from msam.contribution.coalitions import Coalition, all_coalitions, coalition_outputs, mask_inputs, mask_rows
from msam.contribution.fitted import LearnedToken, TrainingMean
from msam.contribution.rule import ContributionRule, Plan, find_not_finite
from msam.contribution.sampling import SampledShapley
from msam.contribution.shapley import contribution_shares, normalise_shares, shapley_matrix, shapley_values
from msam.contribution.tokens import Tokens
from msam.contribution.values import (
    MonoModalResponse,
    Value,
    ValueFunction,
    accuracy,
    find_value,
    log_likelihood,
    true_class_probability,
)

__all__ = [
    "AnswerTokens",
    "Baseline",
    "Coalition",
    "ContributionRule",
    "LearnedToken",
    "MonoModalResponse",
    "Plan",
    "SampledShapley",
    "Shuffled",
    "Tokens",
    "TrainingMean",
    "Value",
    "ValueFunction",
    "Zeros",
    "accuracy",
    "all_coalitions",
    "coalition_outputs",
    "contribution_shares",
    "find_baseline",
    "find_not_finite",
    "find_value",
    "log_likelihood",
    "mask_inputs",
    "mask_rows",
    "normalise_shares",
    "shapley_matrix",
    "shapley_values",
    "true_class_probability",
]
