"""One run: two encoders, one optimizer, and how well they are aligned in the end."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import torch
from _data import Pairs, Split, draw_batches
from _measures import is_collapsed, measure
from _model import Aligned, TextEncoder, contrastive_loss, make_image_encoder
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

import msam

Row = dict[str, Any]


@dataclass(frozen=True)
class Method:
    """What an optimizer is called, how it is made, and the radii that are tried."""

    label: str
    wrap: Callable[[Optimizer, float, nn.Module], Optimizer]
    radii: tuple[float, ...] = ()
    default: float | None = None
    """The radius of a quick run."""
    base: str = "adamw"
    is_multimodal: bool = False
    tunes_decay: bool = False
    """Whether its "radii" are weight decays: the base optimizer, tuned with as many runs as the others."""

    def radii_for(self, *, features: bool) -> tuple[float, ...]:
        """List what is tried: with linear encoders the best radii are larger."""
        return self.radii + ((2 * self.radii[-1], 5 * self.radii[-1]) if features and self.radii else ())


BALL = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
RELATIVE = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


def keep(base: Optimizer, rho: float, model: nn.Module) -> Optimizer:
    """Use the base optimizer as it is."""
    del rho, model
    return base


METHODS: dict[str, Method] = {
    "sgd": Method("SGD", keep, base="sgd"),
    "adamw": Method("AdamW", keep),
    "adamw_decay": Method("AdamW, tuned decay", keep, (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0), 0.1, tunes_decay=True),
    "sam": Method("SAM", lambda base, rho, model: msam.SAM(base, rho=rho, model=model), BALL, 0.05),
    "monge_sam": Method("Monge SAM", lambda base, rho, model: msam.MongeSAM(base, rho=rho, model=model), BALL, 0.05),
    "adaptive_monge_sam": Method(
        "Adaptive Monge SAM", lambda base, rho, model: msam.AdaptiveMongeSAM(base, rho=rho, model=model), RELATIVE, 0.2
    ),
    "modality_aware_sam": Method(
        "Modality-Aware SAM",
        lambda base, rho, model: msam.ModalityAwareSAM(base, rho=rho, model=model),
        BALL,
        0.05,
        is_multimodal=True,
    ),
    "modality_aware_sam_monge": Method(
        "Modality-Aware SAM, Monge",
        lambda base, rho, model: msam.ModalityAwareSAM(base, rho=rho, model=model, geometry="monge"),
        BALL,
        0.05,
        is_multimodal=True,
    ),
}
"""Name -> method; all but SGD work on AdamW."""


@dataclass(frozen=True)
class Setting:
    """What all runs of a study have in common."""

    epochs: int = 30
    batch: int = 128
    lr: float = 1e-2
    """Highest learning rate of AdamW; SGD with momentum 0.9 takes `sgd_lr`."""
    sgd_lr: float = 0.1
    weight_decay: float = 0.1
    """AdamW's; 1e-4 for SGD."""
    shift: int = 2
    """Pictures are moved by up to so many pixels; 0 for features."""

    @classmethod
    def for_features(cls) -> "Setting":
        """Return the setting of linear encoders on frozen features."""
        return cls(epochs=20, lr=1e-3, shift=0)

    def with_epochs(self, epochs: int) -> "Setting":
        """Return the same with another number of epochs."""
        return replace(self, epochs=epochs)

    def make_model(self, split: Split) -> Aligned:
        """Build the encoders: a convnet and a text encoder for pictures and names, linear ones for features of both.

        Args:
            split: The data, for their shapes.

        Returns:
            A model with fresh weights.
        """
        image, text = next(iter(split.train.images.values())), split.train.text
        if image.ndim == 2:
            return Aligned(nn.Linear(image.shape[1], 128), nn.Linear(text.shape[1], 128))
        return Aligned(make_image_encoder(), TextEncoder())

    def make_base(self, name: str, model: nn.Module, decay: float | None = None) -> Optimizer:
        """Build the base optimizer.

        Args:
            name: ``"adamw"`` or ``"sgd"``.
            model: Whose parameters.
            decay: Weight decay of AdamW instead of the setting's.

        Returns:
            The optimizer.
        """
        if name == "sgd":
            return torch.optim.SGD(model.parameters(), lr=self.sgd_lr, momentum=0.9, weight_decay=1e-4)
        return torch.optim.AdamW(model.parameters(), lr=self.lr, weight_decay=self.weight_decay if decay is None else decay)


def train(method: Method, rho: float | None, split: Split, setting: Setting, seed: int) -> tuple[Aligned, Row]:
    """Train a model with the contrastive loss.

    Args:
        method: The optimizer.
        rho: Its radius (or weight decay, where it tunes that); None for a base optimizer.
        split: Data.
        setting: Epochs, batch size, learning rates.
        seed: Of the initial weights and of the order of batches, the same for all methods.

    Returns:
        The model in evaluation mode, and what the run cost.
    """
    torch.manual_seed(seed)
    model = setting.make_model(split)
    base = setting.make_base(method.base, model, rho if method.tunes_decay else None)
    optimizer = method.wrap(base, rho or 0.0, model)
    steps = setting.epochs * max(1, len(split.train) // min(setting.batch, len(split.train)))
    scheduler = OneCycleLR(base, [group["lr"] for group in base.param_groups], total_steps=steps, cycle_momentum=False)
    generator = torch.Generator().manual_seed(seed)
    loss, started = float("nan"), perf_counter()
    for _ in range(setting.epochs):
        for image, text in draw_batches(split.train, setting.batch, generator):
            moved = move(image, setting.shift, generator)
            loss = float(optimizer.step(make_closure(method, optimizer, model, moved, text)).detach())
            scheduler.step()
    row: Row = {"train loss": loss, "seconds": perf_counter() - started}
    if isinstance(optimizer, msam.SharpnessAware):
        found = optimizer.summary()
        row |= {key: found[key] for key in ("passes", "skipped", "mean_eps_norm", "mean_shrinkage") if key in found}
    return model.eval(), row


def make_closure(
    method: Method, optimizer: Optimizer, model: Aligned, image: Tensor, text: Tensor
) -> Callable[[], Any] | msam.MultimodalClosure:
    """Make a batch's closure: a plain one, or one that can be asked for coalitions."""
    if method.is_multimodal:
        target = torch.arange(len(image))
        return msam.MultimodalClosure(model, {"image": image, "text": text}, target, lambda logits, _: contrastive_loss(logits))

    return make_plain_closure(optimizer, model, image, text)


def make_plain_closure(optimizer: Optimizer, model: Aligned, image: Tensor, text: Tensor) -> Callable[[], Tensor]:
    """Make the closure that any method takes which needs no coalitions."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = contrastive_loss(model({"image": image, "text": text}))
        loss.backward()
        return loss.detach()

    return closure


def make_cached_closure(
    optimizer: Optimizer, model: Aligned, image: Tensor, text: Tensor, size: int = 4
) -> Callable[[], Tensor]:
    """Make a closure with the gradient of the whole batch that holds the activations of `size` rows only.

    First all vectors, without activations; then the loss's gradient with respect to them; then the encoders, piece by
    piece. It costs one more forward pass. Encoders whose rows act on each other (BatchNorm in training) or that draw random
    numbers (dropout) see other statistics and numbers than in one piece.

    Source: Gao et al., "Scaling deep contrastive learning batch size under memory limited setup", arXiv 2101.06983.
    """
    pieces = {"image": image.split(size), "text": text.split(size)}

    def closure() -> Tensor:
        optimizer.zero_grad()
        with torch.no_grad():
            vectors = {name: torch.cat([model.embed(name, piece) for piece in pieces[name]]) for name in pieces}
        loss = contrastive_loss(model.compare(*(vectors[name].requires_grad_() for name in ("image", "text"))))
        loss.backward()
        for name, parts in pieces.items():
            for piece, gradient in zip(parts, vectors[name].grad.split(size), strict=True):
                model.embed(name, piece).backward(gradient)
        return loss.detach()

    return closure


def move(image: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Move a batch of pictures by up to `most` pixels each way."""
    if not most or image.ndim == 2:
        return image
    shifts = torch.randint(-most, most + 1, (2,), generator=generator)
    return image.roll((int(shifts[0]), int(shifts[1])), (2, 3))


@torch.no_grad()
def embed(model: Aligned, pairs: Pairs, artist: str) -> tuple[Tensor, Tensor]:
    """Encode pictures of one artist, and the names.

    Args:
        model: In evaluation mode.
        pairs: Which.
        artist: Whose art.

    Returns:
        Unit vectors of pictures and of names.
    """
    return model.embed("image", pairs.images[artist]), model.embed("text", pairs.text)


def evaluate(model: Aligned, split: Split) -> Row:
    """Measure alignment on what training did not see.

    Args:
        model: In evaluation mode.
        split: Data.

    Returns:
        ``validation ...``; ``unseen ...``, emoji that training did not see, in held-in art (mean over its artists);
        ``shifted ...``, the same emoji in the held-out artist's; and whether ``unseen`` retrieval has collapsed.
    """
    row: Row = {}
    parts = {
        "validation": (split.validation, split.held_in),
        "unseen": (split.test, split.held_in),
        "shifted": (split.test, (split.held_out,)),
    }
    for part, (pairs, artists) in parts.items():
        found = [measure(*embed(model, pairs, artist)) for artist in artists]
        mean = {key: sum(one[key] for one in found) / len(found) for key in found[0]}
        row |= {f"{part} {key}": value for key, value in mean.items()}
        if part == "unseen":
            row["collapsed"] = int(is_collapsed(mean, len(pairs)))
    return row
