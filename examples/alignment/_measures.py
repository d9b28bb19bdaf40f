"""How well two sets of unit vectors are aligned."""

import torch
from torch import Tensor

RANKS = (1, 5, 10)


def rank_matches(queries: Tensor, candidates: Tensor) -> Tensor:
    """Find where each query's own candidate stands.

    Args:
        queries: Unit vectors, shape ``(N, D)``.
        candidates: Unit vectors, shape ``(N, D)``; row i belongs to query i.

    Returns:
        Shape ``(N,)``: 0 for first. Candidates that are just as similar count as better, so that equal vectors find nothing.
    """
    similarity = queries @ candidates.mT
    return (similarity >= similarity.diag()[:, None]).sum(dim=1) - 1


def measure(image: Tensor, text: Tensor) -> dict[str, float]:
    """Measure alignment.

    Args:
        image: Unit vectors of pictures, shape ``(N, D)``.
        text: Unit vectors of their names, shape ``(N, D)``.

    Returns:
        ``text R@k`` and ``image R@k``, the share (in %) of names whose picture is among the k nearest, and of pictures whose
        name is; ``R@k``, the mean of both; ``cosine`` of a picture and its name, and ``margin``, that minus the cosine of the
        nearest wrong name or picture (mean of both directions); ``gap``, the distance between the mean picture and the mean
        name (Liang et al., arXiv 2203.02053); ``spread``, 1 minus the mean cosine between two different pictures.
    """
    found = {}
    for k in RANKS:
        one, other = (100 * float((rank_matches(*pair) < k).double().mean()) for pair in ((text, image), (image, text)))
        found |= {f"text R@{k}": one, f"image R@{k}": other, f"R@{k}": (one + other) / 2}
    similarity = image @ text.mT
    own = similarity.diag()
    wrong = similarity - 3 * torch.eye(len(own))
    found["cosine"] = float(own.mean())
    found["margin"] = float(own.mean() - (wrong.amax(dim=0) + wrong.amax(dim=1)).mean() / 2)
    found["gap"] = float((image.mean(dim=0) - text.mean(dim=0)).norm())
    found["spread"] = float(1 - (image.sum(dim=0).square().sum() - len(image)) / (len(image) * (len(image) - 1)))
    return found


def is_collapsed(found: dict[str, float], rows: int) -> bool:
    """Tell whether retrieval is at chance.

    Args:
        found: Of `measure`.
        rows: How many candidates there were.

    Returns:
        Whether R@10 is below twice the chance of 10 / rows, or not a number.
    """
    return not found["R@10"] > 2 * 1000 / rows
