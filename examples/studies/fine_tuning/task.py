"""The task: a small network, pretrained on half of Fashion-MNIST's classes, is fine-tuned on few images of the rest.

The network has no normalisation, so that its layers can be rescaled against each other without changing what it computes.
"""

from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from msam.data.sets.fashion_mnist import load_fashion_mnist

CLASSES = 5
"""0 to 4 for pretraining, 5 to 9 for fine-tuning."""
PRETRAINING, EXAMPLES, VALIDATION = 2000, 20, 40
"""Images per class: for pretraining, fine-tuning and validation, all from the training images."""
BATCH = 20
MEAN, DEVIATION = 0.2860, 0.3530
"""Of the pixels of the training images."""

State = dict[str, Tensor]


@dataclass(frozen=True)
class Pool:
    """Images, standardised, with labels 0 to 4: those of pretraining, the rest to draw from, and the test images."""

    source: tuple[Tensor, Tensor]
    target: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Split:
    """What a run sees: few images to train on, some for its choices, and the test images."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


@lru_cache(maxsize=1)
def load_pool() -> Pool:
    """Load Fashion-MNIST; without it, the error says how to get it."""
    data = load_fashion_mnist()
    return make_pool((data.train_images, data.train_labels), (data.test_images, data.test_labels))


def make_pool(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> Pool:
    """Part images by class: the first five for pretraining, the others for fine-tuning and the test."""
    return Pool(_prepare(*train, first=0), _prepare(*train, first=CLASSES), _prepare(*test, first=CLASSES))


def _prepare(images: np.ndarray, labels: np.ndarray, first: int) -> tuple[Tensor, Tensor]:
    chosen = (labels >= first) & (labels < first + CLASSES)
    pixels = torch.from_numpy(np.array(images[chosen])).float().unsqueeze(1) / 255
    return (pixels - MEAN) / DEVIATION, torch.from_numpy(labels[chosen].astype(np.int64) - first)


def draw_split(pool: Pool, seed: int) -> Split:
    """Draw a seed's images for fine-tuning and validation, without overlap; the test images are the same for all."""
    images, labels = pool.target
    rows = draw_rows(labels, EXAMPLES + VALIDATION, seed)
    few, more = rows[:, :EXAMPLES].flatten(), rows[:, EXAMPLES:].flatten()
    return Split((images[few], labels[few]), (images[more], labels[more]), pool.test)


def draw_rows(labels: Tensor, count: int, seed: int) -> Tensor:
    """Draw `count` rows of each class; shape ``(classes, count)``."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.nonzero(labels == label).flatten() for label in range(CLASSES)]
    return torch.stack([own[torch.randperm(len(own), generator=generator)[:count]] for own in rows])


def draw_batches(count: int, epochs: int, seed: int, batch: int = BATCH) -> list[list[Tensor]]:
    """Draw every epoch's batches of row numbers."""
    generator = torch.Generator().manual_seed(seed)
    return [list(torch.randperm(count, generator=generator).split(batch)) for _ in range(epochs)]


def make_network(seed: int) -> nn.Sequential:
    """Make three convolutions with ReLU and pooling, and a linear head: 7,333 parameters."""
    layers: list[tuple[str, nn.Module]] = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for k, (inputs, outputs) in enumerate(((1, 8), (8, 16), (16, 32)), start=1):
            layers += [(f"conv{k}", nn.Conv2d(inputs, outputs, 3, padding=1)), (f"relu{k}", nn.ReLU())]
            layers += [(f"pool{k}", nn.MaxPool2d(2))]
        layers += [("flatten", nn.Flatten()), ("head", nn.Linear(32 * 9, CLASSES))]
        return nn.Sequential(OrderedDict(layers))


def pretrain(pool: Pool, seed: int, epochs: int = 10, lr: float = 0.02) -> State:
    """Train on the first five classes: SGD with momentum 0.9, batches of 100, mean cross-entropy; return the weights."""
    images, labels = pool.source
    rows = draw_rows(labels, min(PRETRAINING, int(torch.bincount(labels).min())), seed).flatten()
    network = make_network(seed)
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9)
    for order in draw_batches(len(rows), epochs, seed, batch=100):
        for part in order:
            optimizer.zero_grad()
            cross_entropy(network(images[rows[part]]), labels[rows[part]]).backward()
            optimizer.step()
    return network.state_dict()


def start(pretrained: State, seed: int, factor: float = 1.0) -> nn.Sequential:
    """Take pretrained layers with a fresh head, and rescale them."""
    network = make_network(1000 + seed)
    network.load_state_dict({key: value for key, value in pretrained.items() if "head" not in key}, strict=False)
    rescale_(network, factor)
    return network


def rescale_(network: nn.Sequential, factor: float) -> None:
    """Multiply the first layer, bias included, and divide the second's weights: ReLU and pooling pass the factor on."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.mul_(factor ** _power(name))


def rate_factor(name: str, factor: float) -> float:
    """Tell by what to multiply a parameter's learning rate so that SGD makes the same functions as without rescaling."""
    return float(factor ** (2 * _power(name)))


def _power(name: str) -> int:
    return {"conv1.weight": 1, "conv1.bias": 1, "conv2.weight": -1}.get(name, 0)
