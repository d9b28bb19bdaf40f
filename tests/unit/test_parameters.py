"""Parameters that cannot be perturbed, or would be twice, are refused when an optimizer gets them, and nothing is left."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import msam
from cases import CASES, Case, methods, sgd
from msam.errors import InvalidStateError, InvalidValueError
from problems import Problem, all_same_bits

OVERLAP = r"parameters must not share memory, found .* that do: eps would be added twice there"


def views(storage: Tensor, *slices: slice) -> list[nn.Parameter]:
    return [nn.Parameter(storage[part]) for part in slices]


def tied_by_weight_norm() -> nn.Module:
    """Two tied layers, one of which was re-parametrised: the original's direction is the other's weight."""
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    parametrizations.weight_norm(model[2])
    return model


# -- memory that parameters share ----------------------------------------------------------------------------------------


@methods
def test_overlapping_parameters_are_refused_and_the_base_stays_free(case: Case):
    storage = torch.randn(10)
    base = torch.optim.SGD(views(storage, slice(0, 6), slice(5, 10)), lr=0.1)
    with pytest.raises(InvalidValueError, match=OVERLAP):
        case.build(base, rho=0.1)
    free = case.build(torch.optim.SGD(views(storage, slice(0, 5), slice(5, 10)), lr=0.1), rho=0.1)
    assert free.summary()["rho"] == [0.1]
    # What was refused for its parameters can be wrapped once they are others.
    base.param_groups[0]["params"].pop()
    assert case.build(base, rho=0.3).summary()["steps"] == 0


@methods
def test_overlapping_parameters_of_a_new_group_are_refused_and_nothing_is_left(case: Case):
    problem = Problem()
    optimizer = case.build(sgd(problem), rho=0.2)
    problem.step(case, optimizer)
    before, summary = problem.copy_parameters(), optimizer.summary()
    for group in ([nn.Parameter(problem.model.head.weight.data)], views(torch.randn(4), slice(0, 3), slice(2, 4))):
        with pytest.raises(InvalidValueError, match=OVERLAP):
            optimizer.add_param_group({"params": group})
        assert len(optimizer.param_groups) == len(optimizer.base.param_groups) == 1
        assert set(optimizer.state) == set(problem.parameters)
    assert all_same_bits(problem.parameters, before)
    assert optimizer.summary() == summary
    twin = Problem()
    reference = case.build(sgd(twin), rho=0.2)
    twin.step(case, reference, times=3)
    problem.step(case, optimizer, times=2)
    assert all_same_bits(problem.parameters, twin.parameters)


def test_a_layer_tied_to_a_re_parametrised_one_is_refused_by_name():
    model = tied_by_weight_norm()
    with pytest.raises(InvalidValueError, match=r"found '0\.weight' and '2\.parametrizations\.weight\.original1' that do"):
        msam.SAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model)
    with pytest.raises(InvalidValueError, match=r"found one of shape \(3, 3\) and one of shape \(3, 3\) that do"):
        msam.SAM(torch.optim.SGD(model.parameters(), lr=0.1))


def test_layers_tied_by_one_parameter_are_taken():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    msam.SAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model)


def test_frozen_parameters_may_share_memory():
    storage = torch.randn(6)
    one, other = views(storage, slice(0, 6), slice(0, 6))
    other.requires_grad_(False)
    msam.SAM(torch.optim.SGD([one, other], lr=0.1))


def test_views_of_one_storage_that_do_not_overlap_are_taken():
    storage = torch.randn(12)
    parameters = [*views(storage, slice(0, 4), slice(4, 8)), nn.Parameter(storage[8:].view(2, 2)), nn.Parameter(torch.empty(0))]
    optimizer = msam.SAM(torch.optim.SGD(parameters, lr=0.0), rho=0.5)
    seen = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        seen.append(storage.clone())
        loss = sum(p.square().sum() for p in parameters)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert float((seen[1] - seen[0]).norm()) == pytest.approx(0.5, rel=1e-6)
    assert torch.equal(storage, seen[0])


def test_columns_that_lie_beside_each_other_are_accepted_and_those_that_overlap_are_not():
    matrix = torch.randn(4, 4)
    msam.SAM(torch.optim.SGD([nn.Parameter(matrix[:, :2]), nn.Parameter(matrix[:, 2:])], lr=0.1))
    with pytest.raises(InvalidValueError, match=OVERLAP):
        msam.SAM(torch.optim.SGD([nn.Parameter(matrix[:, :3]), nn.Parameter(matrix[:, 2:])], lr=0.1))


# -- tensors that cannot be perturbed in place ---------------------------------------------------------------------------


class Int8Params(nn.Parameter):
    """As that of bitsandbytes is called."""


class MyInt8(Int8Params):
    pass


class Linear8bitLt(nn.Linear):
    pass


class Stubborn(torch.Tensor):
    """Refuses to be worked on together with others."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if "foreach" in getattr(func, "__name__", ""):
            raise NotImplementedError("no lists, please")
        return super().__torch_function__(func, types, args, kwargs or {})


class Immovable(torch.Tensor):
    """Takes every change, and stays what it is."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if "foreach_add" in getattr(func, "__name__", ""):
            return None
        return super().__torch_function__(func, types, args, kwargs or {})


def as_leaf(kind: type[Tensor]) -> Tensor:
    return torch.randn(2, 3).as_subclass(kind).requires_grad_()


@methods
def test_tensors_that_cannot_be_perturbed_are_refused_by_name(case: Case):
    refused = [
        (Int8Params(torch.randn(2, 3)), r"found a Int8Params of shape \(2, 3\), whose layer reads an integer copy of it"),
        (MyInt8(torch.randn(2, 3)), r"found a MyInt8 of shape \(2, 3\), whose layer reads an integer copy of it"),
        (as_leaf(Stubborn), r"found a Stubborn of shape \(2, 3\), which refuses it \(NotImplementedError: no lists, please\)"),
        (as_leaf(Immovable), r"found a Immovable of shape \(2, 3\), whose values do not change"),
    ]
    for parameter, match in refused:
        before = parameter.detach().clone()
        base = torch.optim.SGD([parameter], lr=0.1)
        with pytest.raises(
            InvalidValueError, match=rf"must be tensors that can be perturbed in place, {match}; train adapters"
        ):
            case.build(base, rho=0.1)
        optimizer = case.build(sgd(Problem()), rho=0.1)
        with pytest.raises(InvalidValueError, match=match):
            optimizer.add_param_group({"params": [parameter]})
        assert len(optimizer.param_groups) == 1
        assert torch.equal(parameter.detach(), before)


def test_a_frozen_one_and_a_well_behaved_subclass_are_taken():
    class Plain(nn.Parameter):
        pass

    msam.SAM(torch.optim.SGD([Int8Params(torch.randn(2, 3), requires_grad=False), Plain(torch.randn(2))], lr=0.1))


def test_a_layer_that_reads_an_integer_copy_is_refused_by_name():
    model = nn.Sequential(nn.Linear(3, 3), Linear8bitLt(3, 3))
    with pytest.raises(InvalidValueError, match=r"found the layer '1', a Linear8bitLt, whose forward reads an integer copy"):
        msam.SAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model)
    model[1].requires_grad_(False)
    msam.SAM(torch.optim.SGD(model[0].parameters(), lr=0.1), model=model)


# -- weights that are computed -------------------------------------------------------------------------------------------


@methods
def test_a_cache_of_weights_around_a_step_is_refused(case: Case):
    problem = Problem()
    parametrizations.weight_norm(problem.model.head)
    optimizer = case.build(sgd(problem), rho=0.3)
    before = problem.copy_parameters()
    with parametrize.cached(), pytest.raises(InvalidStateError, match=r"must run outside .*cached\(\), found it inside"):
        problem.step(case, optimizer)
    assert all_same_bits(problem.parameters, before)
    assert optimizer.summary()["steps"] == 0
    closure = problem.closure(case, optimizer)
    if not case.multimodal:

        def cached() -> Tensor:
            with parametrize.cached():
                return closure()

        twin = Problem()
        parametrizations.weight_norm(twin.model.head)
        twin.step(case, case.build(sgd(twin), rho=0.3))
        optimizer.step(cached)
        assert all_same_bits(problem.parameters, twin.parameters)


def test_without_a_radius_a_cache_is_the_bases_affair():
    problem = Problem()
    optimizer = CASES["sam"].build(sgd(problem), rho=0.0)
    with parametrize.cached():
        problem.step(None, optimizer)
    assert optimizer.summary()["steps"] == 1
