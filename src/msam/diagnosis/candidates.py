"""Which methods are worth a comparison, by what was measured of a model. None of them is known to help on a user's task."""

from collections.abc import Collection
from typing import Literal

Evidence = Literal["starved", "missing", "redundant"]

CANDIDATES: dict[Evidence, tuple[str, ...]] = {
    "starved": ("joint_unimodal", "dgl", "tcmax", "unimodal_ensemble"),
    "missing": ("joint_unimodal", "modality_dropout", "dominant_modality_dropout"),
    "redundant": ("unimodal_ensemble",),
}
"""What was measured -> names of methods in comparisons: a branch that lost what it knew; a modality without which the model is
worse than the others are; a modality that adds nothing to another one. Which of them gained there is in ``docs/balance.md``."""


def name_candidates(evidence: Evidence, tried: Collection[str] = ()) -> str:
    """Say which methods are worth a comparison.

    Args:
        evidence: What was measured.
        tried: Names of methods that were compared on this task already.

    Returns:
        A clause; empty if all were tried.

    Example:
        >>> name_candidates("missing", tried=("joint_unimodal", "dominant_modality_dropout"))
        'untested here: modality_dropout (`--methods base,modality_dropout`)'
    """
    left = [name for name in CANDIDATES[evidence] if name not in tried]
    return f"untested here: {', '.join(left)} (`--methods base,{','.join(left)}`)" if left else ""
