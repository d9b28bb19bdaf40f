"""The recipes that ``--methods`` names, in one registry."""

from functools import partial

from torch import nn
from torch.optim import Optimizer

from msam.balance import JointUnimodal, ModalityDropout
from msam.optim import create_method
from msam.optim.search import COARSE
from msam.training import Recipe, Strength

RHO = Strength("rho", coarse=COARSE)
"""Two decades of radii, each about 2.15 times the one before."""
WEIGHT = Strength("weight", coarse=RHO.coarse)
PROBABILITY = Strength("probability", coarse=(0.008, 0.017, 0.037, 0.08, 0.17, 0.37, 0.8), maximum=1.0)

_ALONE = "alone:"


def _wrap(base: Optimizer, model: nn.Module, strength: float | None, *, method: str) -> Optimizer:
    return create_method(method, base, rho=strength, model=model)


def _joint_unimodal(strength: float | None) -> list[JointUnimodal]:
    assert strength is not None
    return [JointUnimodal(strength)]


def _modality_dropout(strength: float | None) -> list[ModalityDropout]:
    assert strength is not None
    return [ModalityDropout(strength)]


def _sharpness_aware(name: str, label: str) -> Recipe:
    return Recipe(name=name, label=label, build_optimizer=partial(_wrap, method=name), strength=RHO)


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
    )
}
"""Recipe name -> recipe. ``base`` is the task's own optimizer."""


def find_recipe(name: str) -> Recipe:
    """Look a recipe up by its name.

    Args:
        name: One of `RECIPES`, or ``alone:<modality>``: the base optimizer with the other modalities masked.

    Returns:
        The recipe.

    Raises:
        ValueError: If the name is unknown.

    Example:
        >>> find_recipe("sam").label
        'SAM'
    """
    if name.startswith(_ALONE):
        return alone_recipe(name.removeprefix(_ALONE))
    if name not in RECIPES:
        raise ValueError(f"methods must be of {list(RECIPES)}, found {name!r}")
    return RECIPES[name]


def alone_recipe(modality: str) -> Recipe:
    """Make the recipe that tells what one branch could do alone: the base optimizer, every other modality masked.

    Args:
        modality: The one to keep.

    Returns:
        The recipe, named ``alone:<modality>``.
    """
    return Recipe(name=_ALONE + modality, label=f"{{base}}, {modality} alone", present=frozenset({modality}))
