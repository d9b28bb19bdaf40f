"""Models that declare ``encoders`` and ``fuse``: what that promises, and whether it is kept."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from msam.contribution.inside import is_sharded, run_inside
from msam.contribution.known import Known
from msam.contribution.mode import unnoticed
from msam.contribution.nested import list_leaves
from msam.errors import ContributionWarning, InvalidValueError

Inputs = Mapping[str, Any]
"""Modality name -> tensor, or a nested structure (mappings, lists, tuples) of tensors; first axis: the sample."""

Forward = Callable[[Inputs], Any]
"""From such a mapping to the model's output."""


@runtime_checkable
class LateFusionModel(Protocol):
    """A model whose ``forward(inputs)`` equals ``fuse({name: encoders[name](inputs[name])})``, sample by sample.

    Declaring ``encoders`` and ``fuse`` lets coalition passes reuse the encoders' outputs and re-evaluate the head only. On the
    first batch it is verified that both give the same; see `as_late_fusion`.
    """

    encoders: Any
    """A mapping (such as ``nn.ModuleDict``) from modality name to encoder."""

    def fuse(self, features: Mapping[str, Tensor]) -> Tensor:
        """Map one feature per modality, first axis the sample, to the model's output.

        Args:
            features: Modality name -> feature, shape ``(B, ...)``.

        Returns:
            The model's output, first axis the sample.
        """


Method = TypeVar("Method", bound=Callable[..., Any])

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

_KEEPS_ITS_PROMISE: Known[bool] = Known()
"""Model -> whether its ``forward`` is what it declares."""


def as_late_fusion(forward: Any, inputs: Inputs) -> LateFusionModel | None:
    """Take a model by its encoders and its head, if it declares them and does nothing else.

    Once per model, on the first batch, in evaluation mode and without gradient, ``forward`` is compared with what is declared.
    If they differ, or one of them raises an error, the model is run as a whole from then on, and a warning says so.

    Args:
        forward: Whatever maps inputs to an output.
        inputs: Modality name -> input, first axis the sample.

    Returns:
        The model; None if it is to be run as a whole.

    Raises:
        InvalidValueError: If `encoders` is no mapping, or has other names than the inputs.

    Cost: a look-up; on the first batch two forward passes without gradient.
    """
    kept = _KEEPS_ITS_PROMISE.get(forward)
    if kept is None:
        kept = isinstance(forward, LateFusionModel)
        if kept:
            check_names(forward.encoders, inputs)
            kept = _is_fuse_of_encode(forward) or _keeps_its_promise(forward, inputs)
        _KEEPS_ITS_PROMISE.put(forward, kept)
    return forward if kept else None


def fuses_encoded(forward: Method) -> Method:
    """Mark a method ``forward`` whose code is ``fuse(encode(inputs))`` and no more, so that there is nothing to verify.

    Args:
        forward: Of a class.

    Returns:
        The same.
    """
    forward.__dict__["fuses_encoded"] = True
    return forward


def _is_fuse_of_encode(model: Any) -> bool:
    """Whether the model's code says so: its class's forward is marked, and nothing is put around it."""
    marked = "fuses_encoded" in getattr(getattr(type(model), "forward", None), "__dict__", {})
    # What fully_shard hooks in gathers the weights, and changes nothing else.
    return marked and "forward" not in vars(model) and (is_sharded(model) or not has_hooks(model))


def has_hooks(module: Any) -> bool:
    """Tell whether something is called when a module is: hooks, of forward or backward passes.

    Args:
        module: A module.

    Returns:
        Whether it has any.
    """
    return any(vars(module).get(hooks) for hooks in _HOOKS)


def _keeps_its_promise(model: Any, inputs: Inputs) -> bool:
    try:
        with unnoticed(model if isinstance(model, nn.Module) else None):
            problem = _find_difference(model, inputs)
    except Exception as error:
        problem = f"found {type(error).__name__} when both were run: {error}"
    if problem:
        warnings.warn(
            f"a model that declares `encoders` and `fuse` must have a forward that equals fuse({{name: encoders[name](inputs"
            f"[name])}}), sample by sample, {problem}; {type(model).__name__} is run as a whole instead, once for each "
            "coalition: let forward do nothing else, or rename one of the two to have it so without this warning",
            ContributionWarning,
            stacklevel=2,
        )
    return not problem


def _find_difference(model: Any, inputs: Inputs) -> str:
    """Compare the whole with its declared parts, on the batch with its first sample once more: a head must not mix samples."""
    if isinstance(model, nn.Module) and (model._backward_hooks or model._backward_pre_hooks):
        return "found backward hooks on the model, which only its forward runs"
    whole = list_leaves(model(inputs))

    def run(given: Inputs) -> Any:
        return model.fuse({name: torch.cat([feature, feature[:1]]) for name, feature in encode(model, given).items()})

    parts = list_leaves(run_inside(model, run, inputs))
    if len(whole) != len(parts):
        return f"found {len(whole)} and {len(parts)} tensors"
    for full, longer in zip(whole, parts, strict=True):
        wanted = torch.cat([full, full[:1]]) if full.ndim else full
        if not full.ndim or longer.shape != wanted.shape:
            return f"found shape {tuple(full.shape)}, and {tuple(longer.shape)} with one more sample"
        gap = largest_gap(wanted, longer)
        if gap > tolerance_of(full):
            return f"found a difference of {gap:.2g} of the largest output"
    return ""


def largest_gap(wanted: Tensor, found: Tensor) -> float:
    """Measure how far two outputs are apart.

    Args:
        wanted: One.
        found: The other, of the same shape.

    Returns:
        The largest difference, over the largest number of the first; what is not finite in both alike counts as equal.
    """
    wanted, found = wanted.double(), found.double()
    same = (wanted == found) | (wanted.isnan() & found.isnan())
    scale = float(wanted.where(wanted.isfinite(), 0.0).abs().max()) if wanted.numel() else 0.0
    gaps = (wanted - found).abs().where(~same, 0.0)
    return float(gaps.nan_to_num(nan=torch.inf).max()) / max(scale, 1e-30) if gaps.numel() else 0.0


def tolerance_of(output: Tensor) -> float:
    """Tell how large a relative difference is rounding.

    Args:
        output: In some precision.

    Returns:
        1e-4 in single and double precision, 2e-2 in half precision and under autocast.
    """
    half = output.dtype in {torch.float16, torch.bfloat16} or torch.is_autocast_enabled(output.device.type)
    return 2e-2 if half else 1e-4


def check_names(encoders: Any, inputs: Inputs) -> None:
    """Refuse a batch with other modalities than the model has encoders.

    Args:
        encoders: Of a model that declares them.
        inputs: Modality name -> input.

    Raises:
        InvalidValueError: If they are no mapping, or their names differ.
    """
    if not hasattr(encoders, "keys"):
        raise InvalidValueError(
            f"`encoders` of a model that declares `encoders` and `fuse` must map modality names to encoders, found "
            f"{type(encoders).__name__}; use a torch.nn.ModuleDict, or rename it to have the model run as a whole"
        )
    if encoders.keys() == inputs.keys():
        return
    more, fewer = [n for n in encoders.keys() if n not in inputs], [n for n in inputs if n not in encoders.keys()]  # noqa: SIM118
    found = [f"no input for the encoders of {more}"] * bool(more) + [f"no encoder for the inputs {fewer}"] * bool(fewer)
    raise InvalidValueError(
        f"a model's `encoders` must have the names of the inputs, found {' and '.join(found)}; give inputs "
        f"{list(encoders.keys())}, with templates={{name: one sample}} for what a batch lacks"
    )


def encode(model: LateFusionModel, inputs: Inputs) -> dict[str, Tensor]:
    """Run every encoder once.

    Args:
        model: A declared late-fusion model.
        inputs: Modality name -> input.

    Returns:
        Modality name -> feature.

    Raises:
        InvalidValueError: If the encoders have other names than the inputs.
    """
    encoders = model.encoders
    check_names(encoders, inputs)
    return {name: encoders[name](value) for name, value in inputs.items()}
