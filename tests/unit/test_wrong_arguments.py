"""Arguments of the wrong type or out of range: an error of ours, with what was found, wherever one comes in."""

import inspect

import pytest
import torch

import msam
from cases import CASES, sgd
from msam import combine, geometry
from msam.errors import MsamError
from msam.optim import EngineOptions
from msam.optim.engine.schedule import Every, WhenSteep, WithProbability
from problems import Problem

WRONG = {
    "text": "0.1",
    "none": None,
    "list": [0.1],
    "dictionary": {"a": 1},
    "complex": 1j,
    "nan": float("nan"),
    "tensor": torch.ones(3),
    "class": dict,
    "bool": True,
    "negative": -1.0,
    "object": object(),
}
"""Things that are neither a number in any usual range, nor a name, nor a module."""

TARGETS = {
    **{f"{case.name}": (lambda case=case, **options: case.method(sgd(Problem()), **options)) for case in CASES.values()},
    **{name: getattr(geometry, name) for name in ("Adaptive", "AdaptiveMonge", "Fisher", "Friendly", "Momentum", "Monge")},
    **{name: getattr(combine, name) for name in ("Blend", "LookReuse", "SurrogateGap", "WeightedSharpness")},
    "EngineOptions": EngineOptions,
    "Every": Every,
    "WithProbability": WithProbability,
    "WhenSteep": lambda **options: WhenSteep(**{"steps": 10, **options}),
    "find_rho": lambda **options: msam.find_rho(**{"evaluate": lambda _: 1.0, **options}),
}
SIGNATURES = {
    **{case.name: case.method for case in CASES.values()},
    "WhenSteep": WhenSteep,
    "find_rho": msam.find_rho,
}

FITS = {
    # What is no mistake after all: None stands for a default, True and False are what is asked for, any object may be compared.
    ("model", "none"),
    ("baseline", "none"),
    ("blocks", "none"),
    ("contribution_samples", "none"),
    ("backup_device", "none"),
    ("decouple", "bool"),
    ("same_noise", "bool"),
    ("sync_perturbation", "bool"),
    ("sigma", "negative"),  # any finite number
    ("first", "negative"),
    ("last", "negative"),
    ("seed", "negative"),
    ("interval", "class"),  # a class can be called with a step
    ("rho_schedule", "class"),
    ("perturb", "class"),
    ("alpha", "class"),
    ("value", "class"),
    ("evaluate", "class"),
    ("k", "class"),
    ("exact_up_to", "bool"),  # True is 1
}


def cells():
    for name, target in TARGETS.items():
        signature = inspect.signature(SIGNATURES.get(name, target))
        for argument in signature.parameters:
            if argument in {"base", "options"}:
                continue
            for kind in WRONG:
                if (argument, kind) not in FITS:
                    yield pytest.param(target, argument, WRONG[kind], id=f"{name}-{argument}-{kind}")


@pytest.mark.parametrize(("target", "argument", "value"), list(cells()))
def test_a_wrong_argument_is_an_error_of_ours(target, argument: str, value: object):
    with pytest.raises(MsamError) as found:
        target(**{argument: value})
    assert "found" in str(found.value)


@pytest.mark.parametrize("base", [None, 3, "SGD", torch.optim.SGD, [torch.ones(2)], torch.nn.Linear(2, 2), iter([])])
def test_what_is_no_base_is_named(base: object):
    with pytest.raises(msam.errors.InvalidTypeError, match=r"must be an instance of torch\.optim\.Optimizer, found"):
        msam.SAM(base)


@pytest.mark.parametrize("closure", ["loss", 3, torch.ones(()), [3], [None], {"a": 1}])
def test_what_is_no_closure_is_named(closure: object):
    optimizer = msam.SAM(sgd(Problem()))
    with pytest.raises(MsamError, match="closure"):
        optimizer.step(closure)
    assert optimizer.summary()["steps"] == 0


@pytest.mark.parametrize("scaler", ["scaler", 1024.0, True])
def test_what_is_no_scaler_is_named(scaler: object):
    with pytest.raises(msam.errors.InvalidTypeError, match=r"torch\.amp\.GradScaler or None, found"):
        msam.SAM(sgd(Problem())).step(lambda: 0.0, scaler=scaler)


@pytest.mark.parametrize("state", [None, 3, "state", {}, [], {"state": {}}])
def test_what_is_no_state_is_named(state: object):
    with pytest.raises(MsamError, match="found"):
        msam.SAM(sgd(Problem())).load_state_dict(state)
