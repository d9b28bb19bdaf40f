"""Closed forms of the family on the quadratic 1/2 theta' A theta, in float64, over several steps of gradient descent."""

import pytest
import torch
from test_closed_forms import CLOSE, positive_definite, quadratic_steps
from torch import Tensor

import msam

pytestmark = pytest.mark.exact

RHO, LR = 0.4, 0.1


def unnormalised(matrix: Tensor, theta: Tensor, _: dict) -> Tensor:
    g = matrix @ theta
    return theta - LR * (g + RHO * matrix @ g)


def fisher(matrix: Tensor, theta: Tensor, _: dict) -> Tensor:
    g = matrix @ theta
    solved = g / (1 + g**2)
    return theta - LR * (g + RHO * matrix @ solved / (g @ solved).sqrt())


def asam(matrix: Tensor, theta: Tensor, _: dict) -> Tensor:
    g, size = matrix @ theta, theta.abs() + 0.01
    return theta - LR * (g + RHO * matrix @ (size**2 * g) / (size * g).norm())


def adaptive_monge(matrix: Tensor, theta: Tensor, _: dict) -> Tensor:
    g, size = matrix @ theta, theta.abs() + 0.01
    m = (size * g).norm()
    return theta - LR * (g + RHO * matrix @ (size**2 * g) / (m * (1 + m**2).sqrt()))


def momentum(matrix: Tensor, theta: Tensor, memory: dict) -> Tensor:
    v = memory.get("v", torch.zeros_like(theta))
    g = matrix @ (theta - RHO * v / v.norm() if "v" in memory else theta)
    memory["v"] = 0.9 * v + g
    return theta - LR * g


def friendly(matrix: Tensor, theta: Tensor, memory: dict) -> Tensor:
    g = matrix @ theta
    d = g - memory["m"] if "m" in memory else g
    memory["m"] = 0.9 * memory["m"] + 0.1 * g if "m" in memory else g
    return theta - LR * (g + RHO * matrix @ d / d.norm())


def gsam(matrix: Tensor, theta: Tensor, _: dict) -> Tensor:
    g = matrix @ theta
    perturbed = g + RHO * matrix @ g / g.norm()
    orthogonal = g - (g @ perturbed) / (perturbed @ perturbed) * perturbed
    return theta - LR * (perturbed - 0.4 * orthogonal)


def wsam(matrix: Tensor, theta: Tensor, _: dict) -> Tensor:
    g = matrix @ theta
    return theta - LR * g - LR * 9 * RHO * matrix @ g / g.norm()


def look(matrix: Tensor, theta: Tensor, memory: dict) -> Tensor:
    g = matrix @ theta
    memory["step"] = memory.get("step", -1) + 1
    if memory["step"] % 5:
        return theta - LR * (g + 0.7 * g.norm() / memory["flatter"].norm() * memory["flatter"])
    perturbed = g + RHO * matrix @ g / g.norm()
    memory["flatter"] = perturbed - (perturbed @ g) / (g @ g) * g
    return theta - LR * perturbed


FORMS = {
    "unnormalised_sam": unnormalised,
    "fisher_sam": fisher,
    "asam": asam,
    "adaptive_monge_sam": adaptive_monge,
    "momentum_sam": momentum,
    "friendly_sam": friendly,
    "gsam": gsam,
    "wsam": wsam,
    "look_sam": look,
}


@pytest.mark.parametrize("size", [2, 7])
@pytest.mark.parametrize("name", FORMS)
def test_on_a_quadratic(name: str, size: int):
    matrix, theta = positive_definite(size), torch.randn(size, dtype=torch.float64)
    memory: dict = {}

    def build(base: torch.optim.Optimizer) -> torch.optim.Optimizer:
        base.param_groups[0]["adaptive"] = True  # The parameter is a vector, which ASAM would leave unscaled.
        options = {"rho_schedule": "constant"} if name == "gsam" else {}
        return msam.create_method(name, base, rho=RHO, **options)

    for found in quadratic_steps(build, matrix, theta, steps=7):
        theta = FORMS[name](matrix, theta, memory)
        torch.testing.assert_close(found, theta, **{key: 100 * value for key, value in CLOSE.items()})
