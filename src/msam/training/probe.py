"""Linear probes: what a branch's features know, read out by a linear model of their own."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Probe = Callable[[Tensor, Tensor, Tensor, Tensor], "float | None"]
"""From features and target of some rows, and of others, to how well the others are read; None if that cannot be told."""


def probe_classes(train: Tensor, train_target: Tensor, test: Tensor, test_target: Tensor) -> float | None:
    """Probe for classes, or for 0 and 1; see `linear_probe_correct`.

    Args:
        train: Features ``(N, F)``.
        train_target: Classes ``(N,)``; 0 and 1 may be of any type.
        test: Features ``(K, F)``.
        test_target: Theirs.

    Returns:
        Accuracy, in [0, 1]; None if the targets are no classes, or rows are to be ignored.
    """
    found = [_as_classes(target) for target in (train_target, test_target)]
    return None if found[0] is None or found[1] is None else linear_probe_accuracy(train, found[0], test, found[1])


def probe_labels(train: Tensor, train_target: Tensor, test: Tensor, test_target: Tensor, penalty: float = 1.0) -> float:
    """Probe for several labels, each on its own: ridge regression on -1 and 1, whose sign answers.

    Args:
        train: Features ``(N, F)``.
        train_target: 0 or 1, ``(N, L)``.
        test: Features ``(K, F)``.
        test_target: Theirs.
        penalty: Ridge, > 0.

    Returns:
        Share of right answers over rows and labels, in [0, 1].
    """
    answers = ridge(train, 2 * train_target.double() - 1, test, penalty) > 0
    return float((answers == (test_target > 0.5)).double().mean())


def probe_numbers(train: Tensor, train_target: Tensor, test: Tensor, test_target: Tensor, penalty: float = 1.0) -> float | None:
    """Probe for numbers by ridge regression.

    Args:
        train: Features ``(N, F)``.
        train_target: ``(N,)`` or ``(N, T)``.
        test: Features ``(K, F)``.
        test_target: Theirs.
        penalty: Ridge, > 0.

    Returns:
        R2, at most 1, the mean over targets; None where a target is the same in all rows.
    """
    truth = test_target.double().reshape(len(test), -1)
    found = ridge(train, train_target.double().reshape(len(train), -1), test, penalty)
    spread = (truth - truth.mean(0)).square().sum(0)
    return float((1 - (truth - found).square().sum(0) / spread).mean()) if bool((spread > 0).all()) else None


def _as_classes(target: Tensor) -> Tensor | None:
    if target.ndim == 2 and target.shape[1] == 1:
        target = target.squeeze(1)
    if target.ndim != 1 or target.is_complex():
        return None
    if target.is_floating_point() and bool(((target != 0) & (target != 1)).any()):
        return None
    classes = target.long()
    return classes if int(classes.min()) >= 0 else None


def ridge(train: Tensor, coded: Tensor, test: Tensor, penalty: float) -> Tensor:
    r"""Fit ridge regression on some rows and apply it to others.

    ``W = (Z^T Z + penalty I)^-1 Z^T Y`` with standardised features Z and centred Y.

    Args:
        train: Features ``(N, F)``.
        coded: Y, ``(N, T)``, float64.
        test: Features ``(K, F)``.
        penalty: > 0.

    Returns:
        Shape ``(K, T)``, float64.

    Cost: ``N F^2 + F^3`` multiplications.
    """
    train, test = train.double(), test.double()
    mean, deviation = train.mean(0), train.std(0, correction=0)
    deviation = torch.where(deviation > 0, deviation, 1.0)
    features = (train - mean) / deviation
    gram = features.T @ features + penalty * torch.eye(features.shape[1], dtype=torch.float64, device=features.device)
    weights = torch.linalg.solve(gram, features.T @ (coded - coded.mean(0)))
    predicted: Tensor = (test - mean) / deviation @ weights + coded.mean(0)
    return predicted


def linear_probe_accuracy(
    train: Tensor, train_target: Tensor, test: Tensor, test_target: Tensor, penalty: float = 1.0
) -> float:
    """Fit a ridge classifier on frozen features and return its accuracy on other rows; see `linear_probe_correct`.

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
    return float(linear_probe_correct(train, train_target, test, test_target, penalty).double().mean())


def linear_probe_correct(
    train: Tensor, train_target: Tensor, test: Tensor, test_target: Tensor, penalty: float = 1.0
) -> Tensor:
    r"""Fit a ridge classifier on frozen features and tell which other rows it classifies correctly.

    Least squares on one-hot targets in {-1, 1}: ``W = (Z^T Z + penalty I)^-1 Z^T Y`` with standardised features Z and
    centred Y; a row's class is its largest output. A closed form, so that a probe costs milliseconds and has no seed.

    Args:
        train: Features ``(N, F)``.
        train_target: Classes ``(N,)``.
        test: Features ``(K, F)``.
        test_target: Classes ``(K,)``.
        penalty: Ridge, > 0.

    Returns:
        Shape ``(K,)``, boolean.

    Cost: ``N F^2 + F^3`` multiplications.

    Example:
        >>> x = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]])
        >>> linear_probe_correct(x, torch.tensor([0, 0, 1, 1]), x, torch.tensor([0, 1, 1, 1]))
        tensor([ True, False,  True,  True])
    """
    classes = int(torch.maximum(train_target.max(), test_target.max())) + 1
    coded = 2 * torch.nn.functional.one_hot(train_target, classes).double() - 1
    predicted = ridge(train, coded, test, penalty).argmax(-1)
    correct: Tensor = predicted == test_target
    return correct


PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)
"""What `choose_penalty` chooses from."""


def choose_penalty(train: Tensor, target: Tensor, penalties: Sequence[float] = PENALTIES) -> float:
    r"""Choose the ridge of a linear probe by leave-one-out squared error, in closed form.

    With ``H = Z (Z^T Z + penalty I)^-1 Z^T + 1/N``, the residual of a row left out is ``(Y - H Y)_i / (1 - H_ii)``. A fixed
    ridge is unfair between inputs of different size: with about as many features as rows, a small one interpolates noise.

    Args:
        train: Features ``(N, F)``; their mean and deviation are those of all rows.
        target: Classes ``(N,)``.
        penalties: Candidates, > 0.

    Returns:
        The candidate with the least error.

    Cost: one singular value decomposition, ``N F min(N, F)``, and ``N min(N, F)`` per candidate.

    Example:
        >>> target = torch.arange(40) % 2
        >>> noise = torch.randn(40, 40, generator=torch.Generator().manual_seed(0))
        >>> choose_penalty(noise, target), choose_penalty(noise + 9.0 * target.unsqueeze(1), target)
        (10000.0, 10.0)
    """
    train = train.double()
    deviation = train.std(0, correction=0)
    features = (train - train.mean(0)) / torch.where(deviation > 0, deviation, 1.0)
    coded = 2 * torch.nn.functional.one_hot(target).double() - 1
    centred = coded - coded.mean(0)
    left, values, _ = torch.linalg.svd(features, full_matrices=False)
    errors = []
    for penalty in penalties:
        shrinkage = values.square() / (values.square() + penalty)
        leverage = left.square() @ shrinkage + 1 / len(train)
        residual = centred - left @ (shrinkage.unsqueeze(1) * (left.T @ centred))
        errors.append(float((residual / (1 - leverage).clamp_min(1e-9).unsqueeze(1)).square().mean()))
    return penalties[errors.index(min(errors))]
