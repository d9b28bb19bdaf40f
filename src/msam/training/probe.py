"""Linear probes: what a branch's features know, read out by a linear classifier of their own."""

import torch
from torch import Tensor


def linear_probe_accuracy(
    train: Tensor, train_target: Tensor, test: Tensor, test_target: Tensor, penalty: float = 1.0
) -> float:
    r"""Fit a ridge classifier on frozen features and return its accuracy on other rows.

    Least squares on one-hot targets in {-1, 1}: ``W = (Z^T Z + penalty I)^-1 Z^T Y`` with standardised features Z and
    centred Y; a row's class is its largest output. A closed form, so that a probe costs milliseconds and has no seed.

    Args:
        train: Features ``(N, F)``.
        train_target: Classes ``(N,)``.
        test: Features ``(K, F)``.
        test_target: Classes ``(K,)``.
        penalty: Ridge, > 0.

    Returns:
        In [0, 1].

    Example:
        >>> x = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]])
        >>> y = torch.tensor([0, 0, 1, 1])
        >>> linear_probe_accuracy(x, y, x, y)
        1.0
    """
    train, test = train.double(), test.double()
    mean, deviation = train.mean(0), train.std(0, correction=0)
    deviation = torch.where(deviation > 0, deviation, 1.0)
    features = (train - mean) / deviation
    classes = int(torch.maximum(train_target.max(), test_target.max())) + 1
    coded = 2 * torch.nn.functional.one_hot(train_target, classes).double() - 1
    gram = features.T @ features + penalty * torch.eye(features.shape[1], dtype=torch.float64, device=features.device)
    weights = torch.linalg.solve(gram, features.T @ (coded - coded.mean(0)))
    predicted = ((test - mean) / deviation @ weights + coded.mean(0)).argmax(-1)
    return float((predicted == test_target).double().mean())
