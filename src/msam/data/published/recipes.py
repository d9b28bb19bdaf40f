"""How the Modality-Aware paper trains on its four sets, and what it leaves open."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedRecipe:
    """A training recipe of the literature: SGD whose learning rate falls in steps.

    Source: the Modality-Aware paper, arXiv:2510.24919, where `open` does not say otherwise.
    """

    encoders: Mapping[str, str]
    """Modality -> one of `msam.fusion.ENCODERS`."""
    open: Mapping[str, str]
    """What the paper does not say -> what is used here, and why."""
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 1e-4
    decay_every: int = 70
    """Epochs after which the learning rate is multiplied by `decay_factor`."""
    decay_factor: float = 0.1
    epochs: int = 100
    batch_size: int = 64


_ALWAYS = {
    "rho": "tuned on validation, as all methods' strengths",
    "batch size": "64, as the code of OGM-GE has it",
    "number of runs": "as many seeds as are asked for, with intervals",
    "selection": "the epoch and the settings that are best on validation rows, never on test rows",
    "scale of inputs": "mean 0 and standard deviation 1 of the training rows",
}
_CLIPS = {
    **_ALWAYS,
    "augmentation": "a random part of a frame, mirrored or not, as the code of OGM-GE has it; none of sound",
    "frame": "the one in the middle of a clip's",
    "spectrogram": "257 x 299 is stated: windows of 512 that share 353 samples give it for 3 s at 16 kHz, without padding",
}
PUBLISHED_RECIPES: dict[str, PublishedRecipe] = {
    "crema-d": PublishedRecipe({"audio": "resnet18", "visual": "resnet18-cropped"}, _CLIPS),
    "ave": PublishedRecipe(
        {"audio": "resnet18", "visual": "resnet18-cropped"},
        {**_CLIPS, "encoder": "ResNet-18, as for CREMA-D", "seconds": "the whole clip, not only those of its event"},
    ),
    "av-mnist": PublishedRecipe({"image": "resnet18", "audio": "resnet18"}, _ALWAYS),
    "ur-funny": PublishedRecipe(
        dict.fromkeys(("text", "audio", "visual"), "transformer"),
        {**_ALWAYS, "size of the transformers": "two layers of width 64 with four heads", "context": "the punchline only"},
    ),
    "ave-segments": PublishedRecipe(
        {},
        {**_ALWAYS, "task": "the paper's table is of clips; this is the other task in the literature", "encoder": "small MLPs"},
    ),
}
"""Data set's name -> recipe."""
