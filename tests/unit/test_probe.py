"""The linear probe against another implementation of the same classifier."""

import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.preprocessing import StandardScaler

from msam.training import linear_probe_accuracy

pytestmark = pytest.mark.exact


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("penalty", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("rows", [12, 90])
def test_equals_a_ridge_classifier_on_standardised_features(classes: int, penalty: float, rows: int):
    torch.manual_seed(classes)
    centres = torch.randn(classes, 20)
    target = torch.arange(rows + 400) % classes
    features = centres[target] + 2.5 * torch.randn(rows + 400, 20)
    train, test = features[:rows], features[rows:]
    found = linear_probe_accuracy(train, target[:rows], test, target[rows:], penalty)
    scaler = StandardScaler().fit(train.double().numpy())
    reference = RidgeClassifier(alpha=penalty).fit(scaler.transform(train.double().numpy()), target[:rows].numpy())
    expected = reference.score(scaler.transform(test.double().numpy()), target[rows:].numpy())
    assert 1 / classes < expected < 1, "the problem must be neither hopeless nor trivial"
    # Shares of 400 rows: one row more or less is 0.0025.
    assert found == pytest.approx(expected, rel=1e-12)


def test_features_that_are_constant_and_classes_that_are_new_do_no_harm():
    train = torch.tensor([[0.1, -1.0], [0.1, -2.0], [0.1, 1.0], [0.1, 2.0]])
    target = torch.tensor([0, 0, 1, 1])
    assert linear_probe_accuracy(train, target, train, target) == 1.0
    assert linear_probe_accuracy(train, target, train, torch.tensor([0, 0, 1, 2])) == 0.75
