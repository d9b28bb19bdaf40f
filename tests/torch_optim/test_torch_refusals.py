"""What torch's optimizers refuse, wrapped and bare, and what the wrappers refuse: closures and sparse gradients."""

import pytest
import torch
from torch import nn
from torch_rows import (
    NEEDS_NO_LEAF,
    OFF,
    OTHERS,
    PLAIN,
    REFUSED,
    ROWS,
    SAM,
    Problem,
    assert_same,
    build,
    energy,
    on_rows,
)

import msam


class Words(Problem):
    """Vectors of a few words, of which a batch sees some, with sparse gradients."""

    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(5)
        self.table = nn.Embedding(5, 3, sparse=True, _weight=torch.randn(5, 3, generator=draw))

    @property
    def parameters(self):
        return [self.table.weight]

    def loss(self):
        return self.table(torch.tensor([1, 3, 1])).square().sum()


def takes_sparse(row, config):
    options = config.kwargs
    refused = any(options.get(name) for name in ("fused", "weight_decay", "momentum"))
    return row.only_supports_sparse_grads or (row.supports_sparse and not refused)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@on_rows(methods=[PLAIN, OFF], out=[NEEDS_NO_LEAF], only=takes_sparse, amount="all")
def test_sparse_gradients_without_a_radius_are_the_bases(row, config, method):
    found, expected = Words(), Words()
    expected.step(build(row, config, expected.parameters), 3)
    found.step(method.wrap(build(row, config, found.parameters)), 3)
    assert_same(found.values(), expected.values())


@on_rows(methods=[SAM, *OTHERS], out=[NEEDS_NO_LEAF], only=takes_sparse)
def test_sparse_gradients_are_refused_by_name(row, config, method):
    problem = Words()
    before = problem.values()
    optimizer = method.wrap(build(row, config, problem.parameters))
    with pytest.raises(msam.errors.InvalidValueError, match="sparse"):
        problem.step(optimizer)
    assert_same(problem.values(), before)


class NeedsClosure(torch.optim.SGD):
    """Calls its closure as often as it likes."""

    def step(self, closure):
        closure()
        return super().step(closure)


@pytest.mark.parametrize("base", [*(row.optim_cls for row in REFUSED), NeedsClosure], ids=lambda base: base.__name__)
def test_a_base_whose_step_needs_a_closure_is_refused_by_name(base):
    with pytest.raises(msam.errors.MsamError, match=rf"closure(.|\n)*{base.__name__}|{base.__name__}(.|\n)*closure"):
        msam.SAM(base(Problem().parameters, lr=0.1), rho=0.05)


def test_the_table_leaves_the_process_as_it_was():
    assert not torch.backends.flags_frozen()


def test_no_row_is_lost():
    assert {row.name for row in REFUSED} == {"LBFGS"}
    assert len(ROWS) >= 14


@pytest.mark.parametrize("method", [PLAIN, SAM], ids=lambda method: method.name)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_errors_of_torch_stay_torchs(row, method):
    for case in row.optim_error_inputs_func("cpu", torch.float32):
        given = case.optimizer_error_input
        params = Problem().parameters if given.params is None else given.params

        def build_and_step(given=given, params=params):
            optimizer = method.wrap(row.optim_cls(params, **given.kwargs))
            params[0].requires_grad_().grad = None
            optimizer.step(lambda: energy(params[0]).backward())

        with pytest.raises(case.error_type, match=case.error_regex):
            build_and_step()


@on_rows(out=(), amount="one")
def test_refuses_bad_groups_as_torch_does(row, config, method):
    problem = Problem()
    optimizer = method.wrap(build(row, config, problem.parameters))
    with pytest.raises(ValueError, match=r"more than one parameter group|must be given once"):
        optimizer.add_param_group({"params": [problem.weight]})
    with pytest.raises(TypeError, match="can only optimize Tensors"):
        optimizer.add_param_group({"params": ["weight"]})
    with pytest.raises(TypeError, match="must be a dict"):
        optimizer.add_param_group([problem.weight])
    with pytest.raises(ValueError, match="can't optimize a non-leaf"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1, 1)) * 2]})
    assert len(optimizer.param_groups) == 1
