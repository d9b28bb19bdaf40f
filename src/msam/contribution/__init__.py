"""Contributions of modalities: a pure function of a table of coalition values, and the evaluation of that table."""

from msam.contribution.coalitions import Coalition, all_coalitions, coalition_outputs, mask_inputs
from msam.contribution.shapley import contribution_shares, normalise_shares, shapley_matrix, shapley_values
from msam.contribution.values import ValueFunction, true_class_probability

__all__ = [
    "Coalition",
    "ValueFunction",
    "all_coalitions",
    "coalition_outputs",
    "contribution_shares",
    "mask_inputs",
    "normalise_shares",
    "shapley_matrix",
    "shapley_values",
    "true_class_probability",
]
