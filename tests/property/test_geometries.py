"""Laws of the geometries, and of the global norm that they are given."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import msam
from msam.geometry import Euclidean, Monge
from msam.geometry.vectors import global_norm

pytestmark = pytest.mark.exact

lengths = st.floats(1e-6, 1e6)


def factor(geometry: msam.geometry.Geometry, norm: float) -> float:
    return float(geometry.scale(torch.tensor(norm, dtype=torch.float64)))


@given(lengths, st.floats(1e-3, 1e3))
def test_euclidean_scale_is_inverse_to_the_gradient(norm: float, c: float):
    assert c * factor(Euclidean(), c * norm) == pytest.approx(factor(Euclidean(), norm), rel=1e-14)


@given(lengths, st.floats(1e-3, 1e3), st.floats(1e-2, 1e2))
def test_monge_sees_alpha_times_the_gradient_only(norm: float, c: float, alpha: float):
    """A loss c times as large under alpha / c has the same shrinkage."""
    first = Monge(alpha).shrinkage(torch.tensor(norm, dtype=torch.float64))
    second = Monge(alpha / c).shrinkage(torch.tensor(c * norm, dtype=torch.float64))
    assert float(first) == pytest.approx(float(second), rel=1e-13)


@given(lengths, lengths, st.floats(1e-2, 1e2))
def test_shrinkage_falls_with_the_slope_and_lies_between_zero_and_one(one: float, other: float, alpha: float):
    small, large = sorted((one, other))
    s, t = (float(Monge(alpha).shrinkage(torch.tensor(n, dtype=torch.float64))) for n in (small, large))
    assert 0 < t <= s <= 1


@pytest.mark.parametrize("geometry", [Euclidean(), Monge(), Monge(0.0), Monge(1e3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_zero_norm_gives_a_finite_positive_factor(geometry, dtype):
    found = geometry.scale(torch.zeros((), dtype=dtype))
    assert found.dtype == dtype
    assert found.ndim == 0
    assert torch.isfinite(10 * found)
    assert found > 0


@pytest.mark.parametrize("alpha", [-1.0, float("inf"), float("nan")])
def test_alpha_out_of_range_is_refused(alpha: float):
    with pytest.raises(ValueError, match="alpha must be finite and >= 0"):
        Monge(alpha)


def rotated_steps(build, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A step on f(x), and one on f(Q'x) from Qx, turned back."""
    torch.manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    start = torch.randn(5, dtype=torch.float64)
    ends = []
    for turn in (torch.eye(5, dtype=torch.float64), rotation):
        x = torch.nn.Parameter(turn @ start)
        optimizer = build(torch.optim.SGD([x], lr=0.1))

        def closure(x=x, turn=turn, optimizer=optimizer) -> torch.Tensor:
            optimizer.zero_grad()
            loss = torch.sin(turn.T @ x).sum() + ((turn.T @ x) ** 4).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        ends.append(turn.T @ x.detach())
    return ends[0], ends[1]


@given(st.integers(0, 2**31))
@pytest.mark.parametrize("build", [msam.SAM, msam.MongeSAM])
def test_an_orthogonal_change_of_coordinates_changes_nothing(build, seed: int):
    plain, turned = rotated_steps(lambda base: build(base, rho=0.3), seed)
    torch.testing.assert_close(plain, turned, rtol=1e-11, atol=1e-11)


@given(st.lists(st.lists(st.integers(1, 4), max_size=3), min_size=1, max_size=5), st.integers(0, 2**31))
def test_global_norm_is_that_of_one_long_vector(shapes, seed: int):
    torch.manual_seed(seed)
    tensors = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    expected = torch.cat([tensor.flatten() for tensor in tensors]).norm()
    torch.testing.assert_close(global_norm(tensors), expected, rtol=1e-14, atol=0)


def test_global_norm_of_half_precision_is_computed_in_single():
    tensors = [torch.full((4096,), 200.0, dtype=torch.float16), torch.full((10,), 0.5, dtype=torch.float16)]
    found = global_norm(tensors)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx((4096 * 200.0**2 + 2.5) ** 0.5, rel=1e-6)


def test_global_norm_is_double_only_where_single_precision_cannot_hold_the_sum():
    small = [torch.full((3,), 0.25), torch.tensor([1.0])]
    assert global_norm(small).dtype == torch.float32
    large = [torch.tensor([3e30, 0.0]), torch.tensor([4e30])]
    found = global_norm(large)
    assert found.dtype == torch.float64, "finite gradients whose squares overflow"
    assert float(found) == pytest.approx(5e30, rel=1e-6)
    assert math.isinf(float(global_norm([torch.tensor([math.inf])]))) and math.isnan(
        float(global_norm([torch.tensor([math.nan])]))
    )
    mixed = [torch.tensor([1e-12], dtype=torch.float64), torch.tensor([1.0])]
    assert global_norm(mixed).dtype == torch.float64
