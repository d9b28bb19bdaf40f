"""The recipes that ``--methods`` names, in one registry."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from math import isfinite
from typing import Any

from torch import nn
from torch.optim import Optimizer

from msam.balance import JointUnimodal, LabelSmoothing, ModalityDropout
from msam.compare.balance_recipes import BALANCE_RECIPES, UNIMODAL_CONTROLS
from msam.contribution.coalitions import LateFusionModel
from msam.errors import InvalidValueError
from msam.optim import ModalityAwareSAM, create_method
from msam.optim.search import COARSE
from msam.training import Recipe, Strength
from msam.training.rescaling import fit_scales

RHO = Strength("rho", coarse=COARSE)
"""Two decades of radii, each about 2.15 times the one before."""
WEIGHT = Strength("weight", coarse=RHO.coarse)
PROBABILITY = Strength("probability", coarse=(0.008, 0.017, 0.037, 0.08, 0.17, 0.37, 0.8), maximum=1.0)

DECAY = Strength("decay", coarse=(0.5, 0.75, 0.88, 0.94, 0.97, 0.985, 0.992), maximum=1.0, near_one=True)

_ALONE = "alone:"


def _wrap(base: Optimizer, model: nn.Module, strength: float | None, *, method: str, **options: Any) -> Optimizer:
    return create_method(method, base, rho=strength, model=model, **options)


def _wrap_blocks(base: Optimizer, model: nn.Module, strength: float | None, *, head: bool = True, **options: Any) -> Optimizer:
    """Modality-Aware SAM with eps on one modality's encoder, and the rest of the model if asked to."""
    if not isinstance(model, LateFusionModel):
        raise InvalidValueError(f"eps on a modality's block needs a model with encoders, found {type(model).__name__}")
    encoded = {id(parameter) for encoder in model.encoders.values() for parameter in encoder.parameters()}
    shared = [parameter for parameter in model.parameters() if id(parameter) not in encoded] if head else []
    blocks = {name: [*encoder.parameters(), *shared] for name, encoder in model.encoders.items()}
    return ModalityAwareSAM(base, rho=strength or 0.0, scope="dominant", blocks=blocks, model=model, **options)


def _identity(strength: float | None) -> float:
    assert strength is not None
    return strength


def _joint_unimodal(strength: float | None) -> list[JointUnimodal]:
    assert strength is not None
    return [JointUnimodal(strength)]


def _label_smoothing(strength: float | None) -> list[LabelSmoothing]:
    assert strength is not None
    return [LabelSmoothing(strength)]


def _always_drop(strength: float | None) -> list[ModalityDropout]:  # noqa: ARG001, there is nothing to tune
    return [ModalityDropout(1.0)]


def _modality_dropout(strength: float | None) -> list[ModalityDropout]:
    assert strength is not None
    return [ModalityDropout(strength)]


def _sharpness_aware(name: str, label: str) -> Recipe:
    return Recipe(name=name, label=label, build_optimizer=partial(_wrap, method=name), strength=RHO)


def _reading(name: str, label: str, **options: Any) -> Recipe:
    """A reading of Modality-Aware SAM other than the default one."""
    if "scope" in options or "head" in options:
        options.pop("scope", None)
        build = partial(_wrap_blocks, **options)
    else:
        build = partial(_wrap, method="modality_aware_sam", **options)
    return Recipe(
        name=f"modality_aware_sam_{name}",
        label=f"Modality-Aware SAM, {label}",
        build_optimizer=build,
        strength=RHO,
        is_control="(control)" in label,
        needs=("encoders",) if build.func is _wrap_blocks else (),
    )


def _masked(name: str, label: str, **options: Any) -> Recipe:
    return Recipe(name=name, label=label, build_optimizer=partial(_wrap, method="modality_masked_sam", **options), strength=RHO)


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="base", label="{base}"),
        Recipe(name="base_2x", label="{base}, twice the passes", budget=2),
        Recipe(name="joint_unimodal", label="Joint + unimodal losses", build_hooks=_joint_unimodal, strength=WEIGHT),
        Recipe(name="modality_dropout", label="Modality dropout", build_hooks=_modality_dropout, strength=PROBABILITY),
        _sharpness_aware("sam", "SAM"),
        _sharpness_aware("modality_aware_sam", "Modality-Aware SAM"),
        _sharpness_aware("monge_sam", "Monge SAM"),
        _sharpness_aware("asam", "ASAM"),
        Recipe(name="base_average", label="{base}, averaged weights", average=_identity, strength=DECAY),
        _reading("sample", "per sample", per="sample"),
        _reading("own", "per sample, own dominant", per="sample", dominance="sample"),
        _reading("differentiable", "differentiable", per="differentiable"),
        _reading("block", "dominant block", head=True),
        _reading("encoder", "dominant encoder", head=False),
        _reading("weakest_block", "weakest block (control)", head=True, choose="weakest"),
        _reading("random_block", "random block (control)", head=True, choose="random"),
        _reading("weakest_sample", "per sample, weakest (control)", per="sample", choose="weakest"),
        _reading("monge", "Monge", geometry="monge"),
        _masked("modality_masked_sam", "Modality-Masked SAM"),
        _masked("modality_masked_sam_bare", "Modality-Masked SAM, no plain part", plain=0.0),
        _masked(
            "modality_masked_sam_bare_dominance",
            "Modality-Masked SAM, no plain part, by dominance",
            rate="dominance",
            plain=0.0,
        ),
        replace(_masked("sam_blend", "SAM, half of it plain", rate=0.0), is_control=True),
        _reading("weakest", "weakest modality (control)", choose="weakest"),
        Recipe(
            name="label_smoothing",
            label="{base}, label smoothing (control)",
            build_hooks=_label_smoothing,
            strength=Strength("smoothing", PROBABILITY.coarse, maximum=1.0),
            is_control=True,
            needs=("classes",),
        ),
        Recipe(
            name="base_rescaled",
            label="{base}, modalities rescaled after training (control)",
            after=fit_scales,
            is_control=True,
            needs=("encoders",),
        ),
        Recipe(
            name="modality_dropout_always",
            label="Modality dropout of 1 (control)",
            build_hooks=_always_drop,
            is_control=True,
        ),
        Recipe(
            name="modality_masked_sam_bare_unimodal",
            label="Modality-Masked SAM, no plain part, + unimodal losses",
            controls=UNIMODAL_CONTROLS,
            build_optimizer=partial(_wrap, method="modality_masked_sam", plain=0.0),
            build_hooks=lambda strength: [JointUnimodal(0.3)],  # noqa: ARG005, the radius is the optimizer's
            strength=RHO,
        ),
        Recipe(
            name="sam_dropout",
            label="SAM + modality dropout of 0.3",
            build_optimizer=partial(_wrap, method="sam"),
            build_hooks=lambda strength: [ModalityDropout(0.3)],  # noqa: ARG005, the radius is the optimizer's
            strength=RHO,
        ),
        *BALANCE_RECIPES,
    )
}
"""Recipe name -> recipe. ``base`` is the task's own optimizer."""


DEFAULT = ("base", "base_2x", "joint_unimodal", "modality_dropout", "sam", "modality_aware_sam", "monge_sam")
"""What is compared unless other methods are asked for."""


CONTROLS = ("modality_aware_sam_weakest", "sam_blend", "label_smoothing", "modality_dropout_always", "base_rescaled")
"""What a gain may be due to, besides the idea: another modality, a constant share, less confidence, one modality at a time, or
how loud modalities are, which can be changed after training."""


RIVALS = tuple(recipe.name for recipe in BALANCE_RECIPES)
"""Balanced training, and the controls that come along."""


GROUPS = {"default": DEFAULT, "controls": CONTROLS, "rivals": ("base", *RIVALS), "all": tuple(RECIPES)}
"""What one word of ``--methods`` stands for."""


def find_recipe(name: str, own: Sequence[Recipe] = ()) -> Recipe:
    """Look a recipe up by its name.

    Args:
        name: One of `RECIPES` or of the user's own, or ``alone:<modality>``: the base optimizer with the other modalities
            masked.
        own: The user's own.

    Returns:
        The recipe.

    Raises:
        InvalidValueError: If the name is unknown.

    Example:
        >>> find_recipe("sam").label
        'SAM'
    """
    if name.startswith(_ALONE):
        return alone_recipe(name.removeprefix(_ALONE))
    known = {**{recipe.name: recipe for recipe in own}, **RECIPES}
    if name not in known:
        raise InvalidValueError(f"methods must be of {list(known)}, or a file such as my_method.py, found {name!r}")
    return known[name]


def with_controls(names: Sequence[str], own: Sequence[Recipe] = ()) -> dict[str, str]:
    """Find the controls that come along with methods.

    Args:
        names: Of methods.
        own: The user's own.

    Returns:
        Name of each control that is not among them -> of the method that it comes with.

    Example:
        >>> with_controls(("base", "ogm"))
        {'base_at_ogm_scale': 'ogm'}
    """
    found: dict[str, str] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop(0)
        new = [control for control in find_recipe(name, own).controls if control not in names and control not in found]
        found.update(dict.fromkeys(new, name))
        waiting += new
    return found


def is_own(name: str) -> bool:
    """Tell whether a method can only be one of the user's own.

    Args:
        name: Of the method.

    Returns:
        Whether msam has none of that name.
    """
    return name not in RECIPES and not name.startswith(_ALONE)


def check_own(own: Sequence[Recipe]) -> None:
    """Refuse recipes of the user's whose names cannot be told from others.

    Args:
        own: The user's own.

    Raises:
        InvalidValueError: If a name is taken, or is none that the command line can pass on.
    """
    for recipe in own:
        taken = recipe.name in RECIPES or recipe.name in GROUPS or recipe.name.startswith(_ALONE)
        if taken or not recipe.name or "," in recipe.name or recipe.name != recipe.name.strip() or recipe.name.endswith(".py"):
            what = "which msam uses itself" if taken else "which --methods could not name"
            raise InvalidValueError(
                f"a recipe needs a name of its own, found {recipe.name!r}, {what}; use one such as 'my_method'"
            )


def describe_own(recipe: Recipe) -> dict[str, Any]:
    """Tell what a report needs to know of a recipe of the user's, whose code need not be there then.

    Args:
        recipe: The recipe.

    Returns:
        JSON-able.
    """
    tuned = recipe.strength
    strength = None if tuned is None else {**asdict(tuned), "maximum": tuned.maximum if isfinite(tuned.maximum) else None}
    return {"name": recipe.name, "label": recipe.label, "strength": strength, "is_control": recipe.is_control}


def recipe_from(description: Mapping[str, Any]) -> Recipe:
    """Make a recipe that reports can be made with, but that trains as the base does.

    Args:
        description: Of `describe_own`.

    Returns:
        The recipe.
    """
    found = description["strength"]
    maximum = {} if found is None or found["maximum"] is None else {"maximum": found["maximum"]}
    strength = found and Strength(found["name"], tuple(found["coarse"]), near_one=found["near_one"], **maximum)
    return Recipe(name=description["name"], label=description["label"], strength=strength, is_control=description["is_control"])


def alone_recipe(modality: str) -> Recipe:
    """Make the recipe that tells what one branch could do alone: the base optimizer, every other modality masked.

    Args:
        modality: The one to keep.

    Returns:
        The recipe, named ``alone:<modality>``.
    """
    return Recipe(name=_ALONE + modality, label=f"{{base}}, {modality} alone", present=frozenset({modality}))
