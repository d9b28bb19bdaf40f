"""The recipes of balancing methods, and of the controls that come along with them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn
from torch.optim import Optimizer

from msam.balance import (
    AGM,
    ARL,
    CGGM,
    DGL,
    MASAM,
    MSLR,
    OGM,
    Balance,
    DataRemixing,
    DominantModalityDropout,
    EncoderScale,
    JointUnimodal,
    MMPareto,
    TCMax,
    UnimodalEnsemble,
    UnimodalPretraining,
    split_groups_,
)
from msam.optim.search import COARSE
from msam.training import Recipe, Strength
from msam.training.recipe import Need

UNIMODAL_CONTROLS = ("joint_unimodal_control", "joint_unimodal_fast_control", "dgl")
"""What must stand beside a method that trains unimodal losses: without them a comparison measures that difference only."""

_WEIGHT = Strength("weight", coarse=(0.3, 0.5, 0.8, 1.3, 2.0, 3.2, 5.0))
_ALPHA = Strength("alpha", coarse=(0.1, 0.18, 0.32, 0.56, 1.0))
_RHO = Strength("factor", coarse=(0.8, 1.0, 1.3, 1.6, 2.0))
_EPOCHS = Strength("epochs", coarse=(1.0, 1.7, 2.9, 5.0))
_RATE = Strength("rate", coarse=(0.1, 0.2, 0.4, 0.8), maximum=1.0)

Build = Callable[[nn.Module, Optimizer, float | None], Sequence[Balance]]


def _number(strength: float | None) -> float:
    assert strength is not None
    return strength


def _with(
    method: Callable[..., Balance], model: nn.Module, base: Optimizer, strength: float | None, *, name: str = "", **options: Any
) -> list[Balance]:
    """Make a method of the model, with the strength under a name of its own."""
    del base
    return [method(model, **({name: _number(strength)} if name else {}), **options)]


def _dominant_dropout(model: nn.Module, base: Optimizer, strength: float | None) -> list[Balance]:
    del model, base
    return [DominantModalityDropout(_number(strength))]


def _pretraining(model: nn.Module, base: Optimizer, strength: float | None) -> list[Balance]:
    del base
    return [UnimodalPretraining(model, epochs=max(1, round(_number(strength))))]


def _remixing(model: nn.Module, base: Optimizer, strength: float | None) -> list[Balance]:
    del base
    return [DataRemixing(model, warm_up=round(_number(strength)))]


def _joint_unimodal(model: nn.Module, base: Optimizer, strength: float | None, *, scale: float = 1.0) -> list[Balance]:
    del base
    weighed: list[Balance] = [JointUnimodal(_number(strength))]
    return weighed if scale == 1 else [*weighed, EncoderScale(model, scale)]


def _mslr(model: nn.Module, base: Optimizer, strength: float | None, *, steady: bool = False) -> list[Balance]:
    del strength
    return [MSLR(split_groups_(base, model), steady=steady)]


def _masam(base: Optimizer, model: nn.Module, strength: float | None) -> Optimizer:
    return MASAM(base, rho=_number(strength), model=model)


def _recipe(
    name: str,
    label: str,
    build: Build,
    strength: Strength | None = None,
    *,
    needs: tuple[Need, ...] = ("encoders",),
    controls: tuple[str, ...] = (),
) -> Recipe:
    return Recipe(
        name=name,
        label=label,
        build_balance=build,
        strength=strength,
        needs=needs,
        controls=controls,
        is_control="(control)" in label,
    )


def _scaling(
    name: str, label: str, build: Callable[..., Sequence[Balance]], strength: Strength | None, *needs: Need
) -> list[Recipe]:
    """A method that scales encoders' gradients or rates, and the base at the mean of what it imposes."""
    control = f"base_at_{name}_scale"
    steady = f"{{base}}, encoders at the mean scale of {label} (control)"
    return [
        _recipe(name, label, build, strength, needs=("encoders", *needs), controls=(control,)),
        _recipe(control, steady, partial(build, steady=True), strength, needs=("encoders", *needs)),
    ]


BALANCE_RECIPES: tuple[Recipe, ...] = (
    _recipe("dominant_modality_dropout", "Dominant-modality dropout", _dominant_dropout, _RATE, needs=()),
    _recipe("dgl", "DGL", partial(_with, DGL, name="alpha"), _WEIGHT, controls=UNIMODAL_CONTROLS),
    _recipe("tcmax", "TCMax", partial(_with, TCMax), needs=("classes", "split")),
    *_scaling("ogm", "OGM", partial(_with, OGM, name="alpha"), _ALPHA, "two"),
    _recipe(
        "ogm_ge",
        "OGM-GE",
        partial(_with, OGM, name="alpha", noise=True),
        _ALPHA,
        needs=("encoders", "two"),
        controls=("base_at_ogm_scale",),
    ),
    _recipe("agm", "AGM", partial(_with, AGM, name="alpha"), Strength("alpha", coarse=(0.3, 0.6, 1.2, 2.4, 4.8)), needs=()),
    _recipe("mmpareto", "MMPareto", partial(_with, MMPareto), controls=UNIMODAL_CONTROLS),
    *_scaling("cggm", "Bounded CGGM", partial(_with, CGGM, name="rho", bound=2.0), _RHO, "classes"),
    *_scaling("mslr", "MSLR", _mslr, None),
    _recipe(
        "data_remixing",
        "Data remixing",
        _remixing,
        _EPOCHS,
        needs=("classes", "encoders"),
        controls=UNIMODAL_CONTROLS,
    ),
    _recipe(
        "arl",
        "ARL",
        partial(_with, ARL, name="gamma"),
        _WEIGHT,
        needs=("classes", "encoders", "two"),
        controls=UNIMODAL_CONTROLS,
    ),
    Recipe(
        name="masam",
        label="MASAM",
        build_optimizer=_masam,
        strength=Strength("rho", coarse=COARSE),
        needs=("encoders",),
        controls=UNIMODAL_CONTROLS,
    ),
    _recipe("unimodal_ensemble", "Unimodal ensemble", partial(_with, UnimodalEnsemble), needs=("split",)),
    _recipe("unimodal_pretraining", "Unimodal pretraining, then joint", _pretraining, _EPOCHS, needs=("split",)),
    _recipe("joint_unimodal_control", "Joint + unimodal losses, large weights (control)", _joint_unimodal, _WEIGHT, needs=()),
    _recipe(
        "joint_unimodal_fast_control",
        "Joint + unimodal losses, encoders x 1.5 (control)",
        partial(_joint_unimodal, scale=1.5),
        _WEIGHT,
    ),
)
"""Of `msam.balance`, but for the two humble baselines, which are in `msam.compare.recipes`. With CGGM's published factor, which
has no bound, a comparison says little but that it diverges; the bound is ours."""
