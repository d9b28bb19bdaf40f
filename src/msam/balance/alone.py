"""What each modality says on its own: its part of the output, or the output where the others are absent."""

import torch
from torch import Tensor

from msam.balance.needs import SplitModel, is_split
from msam.contribution.coalitions import Coalition, LateFusionModel, evaluation_mode
from msam.contribution.inside import run_inside
from msam.contribution.known import Known
from msam.contribution.late_fusion import largest_gap, tolerance_of
from msam.errors import InvalidTypeError, InvalidValueError
from msam.fusion import LateFusion
from msam.optim.problem.closure import MultimodalClosure

_ADDS_UP: Known[bool] = Known()
"""Model -> whether its parts were seen to add up to its output."""


def single_coalitions(closure: MultimodalClosure) -> list[Coalition]:
    """List the modalities of a closure, each as a coalition.

    Args:
        closure: Of a batch.

    Returns:
        M of them.
    """
    return [frozenset({name}) for name in closure.modalities]


def unimodal_losses(closure: MultimodalClosure) -> Tensor:
    """Evaluate the loss of each modality alone, the others absent; see `msam.balance.JointUnimodal`.

    Args:
        closure: Of a batch.

    Returns:
        Shape ``(M,)``, with their graphs.
    """
    return torch.stack(closure.coalition_losses(single_coalitions(closure)))


def split_parts(method: str, closure: MultimodalClosure) -> dict[str, Tensor]:
    """Take each modality's part of the output, from the features of the training pass.

    Once per model it is verified that the parts add up to the output.

    Args:
        method: For messages.
        closure: Whose forward pass has just run.

    Returns:
        Modality name -> its part, with its graph, in the closure's order.

    Raises:
        InvalidValueError: If the model was run as a whole, has no parts, or they do not add up.
    """
    model = require_late_fusion(method, closure)
    if not is_split(model):
        raise InvalidValueError(
            f"{method} needs parts of the output that add up to it, found {type(model).__name__} without them"
        )
    features = closure.features
    assert features is not None, "a forward pass has run"
    parts = run_inside(model, lambda _: model.split(features), closure.inputs)
    if _ADDS_UP.get(model) is None and type(model) is not LateFusion:
        _verify(model, features, parts)
    _ADDS_UP.put(model, found=True)
    return {name: parts[name] for name in closure.modalities}


def _verify(model: SplitModel, features: dict[str, Tensor], parts: dict[str, Tensor]) -> None:
    with evaluation_mode(model if isinstance(model, torch.nn.Module) else None):
        whole, total = model.fuse(features), sum(model.split(features).values())
        if parts.keys() != features.keys() or not isinstance(total, Tensor) or total.shape != whole.shape:
            raise InvalidValueError(
                f"`split` of {type(model).__name__} must give a part for each of {list(features)}, found {list(parts)}, or "
                "other "
                "shapes than the output's"
            )
        gap = largest_gap(whole, total)
    if gap > tolerance_of(whole):
        raise InvalidValueError(
            f"the parts that `split` of {type(model).__name__} gives must add up to `fuse`, found a difference of {gap:.2g} of "
            "the largest output"
        )


def require_late_fusion(method: str, closure: MultimodalClosure) -> LateFusionModel:
    """Refuse a closure whose model is run as a whole.

    Args:
        method: For messages.
        closure: Of a batch.

    Returns:
        The model.

    Raises:
        InvalidValueError: If it is.
    """
    model = closure.late_fusion
    if model is None:
        raise InvalidValueError(
            f"{method} needs the feature of each modality, found a model that is run as a whole; pass the model itself, whose "
            "forward equals fuse({name: encoders[name](inputs[name])}), as the closure's `forward`"
        )
    return model


@torch.no_grad()
def unimodal_outputs(method: str, closure: MultimodalClosure) -> dict[str, Tensor]:
    """Take what each modality says, without gradient: its part of the output, or the output where the others are absent.

    Args:
        method: For messages.
        closure: Whose forward pass has just run.

    Returns:
        Modality name -> a tensor of the output's shape.

    Raises:
        InvalidTypeError: If the output is no tensor.
    """
    model = closure.late_fusion
    if model is not None and is_split(model):
        return split_parts(method, closure)
    found = dict(zip(closure.modalities, closure.train_coalitions(single_coalitions(closure)), strict=True))
    for output in found.values():
        if not isinstance(output, Tensor):
            raise InvalidTypeError(
                f"{method} needs an output that is a tensor, found {type(output).__name__}; have the model return its logits"
            )
    return found


def check_logits(method: str, output: object) -> None:
    """Refuse outputs that are no logits of classes: the softmax over one is always 1.

    Args:
        method: For messages.
        output: Of the model.

    Raises:
        InvalidValueError: If it is none.
    """
    if not isinstance(output, Tensor) or output.ndim != 2 or output.shape[1] < 2:
        found = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise InvalidValueError(
            f"{method} needs a logit for each class, (B, C), found {found}; use another method for this task"
        )
