"""Each method against what its authors' code does, written again from reading it, on a small network with BatchNorm.

Where a method and that code differ, the tests pin both: the difference, and what the method's page says instead.
"""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim.lr_scheduler import LambdaLR

import msam
from msam.combine import LookReuse
from msam.geometry import Fisher
from msam.optim.engine.schedule import WhenSteep

pytestmark = pytest.mark.exact

# The authors add 1e-12 or 1e-16 to norms, and we do not: in float64 that is far below this.
CLOSE = {"rtol": 1e-6, "atol": 1e-9}
LR, MOMENTUM, STEPS = 0.05, 0.9, 6


class Problem:
    """A network, its batches, and its gradient as a function of all weights in one vector."""

    def __init__(self):
        torch.manual_seed(1)
        self.model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        self.batches = [(torch.randn(12, 5, dtype=torch.float64), torch.randint(0, 3, (12,))) for _ in range(STEPS)]
        self.start = parameters_to_vector(self.model.parameters()).detach().clone()

    def loss(self, step):
        x, target = self.batches[step]
        return cross_entropy(self.model(x), target)

    def gradient(self, theta, step):
        vector_to_parameters(theta, self.model.parameters())
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(self.loss(step), list(self.model.parameters()))])

    def belongs_to(self, names):
        """For each entry of the vector, whether it is of a parameter of one of these names."""
        parts = [torch.full((parameter.numel(),), name in names) for name, parameter in self.model.named_parameters()]
        return torch.cat(parts)

    def run(self, build, after=lambda: None, **base):
        """The weights after each step of ours."""
        vector_to_parameters(self.start.clone(), self.model.parameters())
        optimizer = build(torch.optim.SGD(self.model.parameters(), **{"lr": LR, "momentum": MOMENTUM, **base}))
        path = []
        for step in range(STEPS):

            def closure(step=step):
                optimizer.zero_grad()
                loss = self.loss(step)
                loss.backward()
                return loss

            optimizer.step(closure)
            after()
            path.append(parameters_to_vector(self.model.parameters()).detach().clone())
        return path


class SGD:
    def __init__(self, momentum=MOMENTUM):
        self.momentum, self.velocity = momentum, 0.0

    def __call__(self, theta, update, lr=LR):
        self.velocity = self.momentum * self.velocity + update
        return theta - lr * self.velocity


@pytest.fixture
def problem():
    return Problem()


def assert_same_path(found, expected):
    assert len(found) == len(expected) == STEPS
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


# -- GSAM: juntang-zhuang/GSAM, gsam/gsam.py and gsam/scheduler.py; google-research/big_vision, trainers/proj/gsam/gsam.py --


def official_gsam(problem, rates, alpha, rho_max, rho_min, lr_max, lr_min):
    """The plain gradient less its projection on the perturbed one, by the cosine; rho linear in the learning rate."""
    theta, base, path = problem.start, SGD(), []
    for step, lr in enumerate(rates):
        rho = rho_min + (rho_max - rho_min) * (lr - lr_min) / (lr_max - lr_min)
        old = problem.gradient(theta, step)
        new = problem.gradient(theta + rho * old / (old.norm() + 1e-12), step)
        cosine = old @ new / (old.norm() * new.norm() + 1e-12)
        vertical = old - cosine * old.norm() * new / (new.norm() + 1e-12)
        theta = base(theta, new - alpha * vertical, lr)
        path.append(theta)
    return path


def falling(step):
    return 1 - 0.15 * step


def test_gsam_is_the_authors_with_lower_bounds_of_zero(problem):
    """Ours has no lower bounds of rho and lr, and takes the first learning rate for the largest."""

    def build(base):
        schedule.append(LambdaLR(base, falling))
        return msam.GSAM(base, rho=0.3, alpha=0.4)

    schedule = []
    found = problem.run(build, after=lambda: schedule[0].step())
    rates = [LR * falling(step) for step in range(STEPS)]
    assert_same_path(found, official_gsam(problem, rates, 0.4, rho_max=0.3, rho_min=0.0, lr_max=LR, lr_min=0.0))


def test_gsam_with_a_function_follows_the_authors_two_bounds(problem):
    lowest, highest = 0.1, 0.3

    def factor(step):
        return (lowest + (highest - lowest) * (falling(step) - 0.01) / 0.99) / highest

    def build(base):
        schedule.append(LambdaLR(base, falling))
        return msam.GSAM(base, rho=highest, alpha=0.4, rho_schedule=factor)

    schedule = []
    found = problem.run(build, after=lambda: schedule[0].step())
    rates = [LR * falling(step) for step in range(STEPS)]
    assert_same_path(found, official_gsam(problem, rates, 0.4, highest, lowest, LR, 0.01 * LR))


# -- WSAM: intelligent-machine-learning/atorch (before: dlrover), atorch/optimizers/wsam.py --------------------------------


def official_wsam(problem, rho, gamma, decouple, weight_decay):
    theta, base, path, alpha = problem.start, SGD(), [], gamma / (1 - gamma)
    for step in range(STEPS):
        plain = problem.gradient(theta, step)
        perturbed = problem.gradient(theta + rho * plain / (plain.norm() + 1e-12), step)
        update = plain if decouple else alpha * perturbed + (1 - alpha) * plain
        theta = base(theta, update + weight_decay * theta)
        if decouple:
            theta = theta - LR * alpha * (perturbed - plain)
        path.append(theta)
    return path


@pytest.mark.parametrize("decouple", [True, False])
def test_wsam(problem, decouple):
    found = problem.run(lambda base: msam.WSAM(base, rho=0.3, gamma=0.8, decouple=decouple), weight_decay=0.1)
    assert_same_path(found, official_wsam(problem, 0.3, 0.8, decouple, weight_decay=0.1))


def test_wsam_has_the_authors_defaults(problem):
    assert_same_path(problem.run(msam.WSAM), official_wsam(problem, rho=0.05, gamma=0.9, decouple=True, weight_decay=0.0))


# -- LookSAM: no code of the authors; Momentum-SAM's authors wrote it again: MarlonBecker/MSAM, optimizer/looksam.py --------


def published_look_sam(problem, rho, k, alpha):
    theta, base, path = problem.start, SGD(), []
    counter, unit = k, None
    for step in range(STEPS):
        g = problem.gradient(theta, step)
        if counter == k:
            counter = 0
            update = problem.gradient(theta + rho * g / (g.norm() + 1e-12), step)
            orthogonal = update - update @ g / (g.norm() ** 2 + 1e-12) * g
            unit = orthogonal / orthogonal.norm()
        else:
            update = g + alpha * g.norm() * unit
        counter += 1
        theta = base(theta, update)
        path.append(theta)
    return path


@pytest.mark.parametrize("k", [1, 3, 5])
def test_look_sam(problem, k):
    found = problem.run(lambda base: msam.LookSAM(base, rho=0.3, k=k, alpha=0.7))
    assert_same_path(found, published_look_sam(problem, rho=0.3, k=k, alpha=0.7))


def test_look_sam_defaults_to_the_alpha_of_the_paper():
    assert LookReuse().alpha == 0.7


# -- Fisher SAM: no code of the authors was found; the perturbation against the maximisation that defines it ----------------


def test_fisher_perturbation_is_the_best_of_its_ball():
    g, rho, eta = torch.randn(9, dtype=torch.float64), 0.1, 1.0
    root = Fisher(eta).metric([g], [g], {})[0]
    eps = rho * Fisher(eta).scale((root * g).norm()) * root**2 * g
    torch.testing.assert_close(eps, rho * g / (1 + eta * g**2) / (g @ (g / (1 + eta * g**2))).sqrt(), **CLOSE)
    metric = 1 + eta * g**2
    torch.testing.assert_close((eps @ (metric * eps)).sqrt(), torch.tensor(rho).double(), **CLOSE)
    others = torch.randn(2000, 9, dtype=torch.float64)
    others *= rho / (others**2 @ metric).sqrt()[:, None]
    assert (others @ g).max() < eps @ g


# -- ASAM: SamsungLabs/ASAM, asam.py ---------------------------------------------------------------------------------------


MATRICES = {"0.weight", "3.weight"}
NAMED_WEIGHT = {"0.weight", "1.weight", "3.weight"}
"""The authors scale every parameter whose name contains "weight": the second is BatchNorm's."""


def official_asam(problem, rho, eta, scaled):
    """T is |w| + eta for the parameters of the names in `scaled`, and 1 for the others."""
    theta, base, path = problem.start, SGD(), []
    where = problem.belongs_to(scaled)
    for step in range(STEPS):
        size = torch.where(where, theta.abs() + eta, 1.0)
        once = size * problem.gradient(theta, step)
        theta = base(theta, problem.gradient(theta + size * once * rho / (once.norm() + 1e-16), step))
        path.append(theta)
    return path


def test_asam_leaves_scales_of_normalisation_alone_which_the_authors_scale(problem):
    found = problem.run(msam.ASAM)
    assert_same_path(found, official_asam(problem, 0.5, 0.01, MATRICES))
    theirs = official_asam(problem, 0.5, 0.01, NAMED_WEIGHT)
    assert (found[0] - theirs[0]).norm() > 1e-4 * theirs[0].norm()


def test_asam_is_the_authors_where_scales_are_a_group_that_adapts(problem):
    def build(base):
        scale = problem.model[1].weight
        base.param_groups[0]["params"] = [p for p in problem.model.parameters() if p is not scale]
        base.add_param_group({"params": [scale], "adaptive": True})
        return msam.ASAM(base)

    assert_same_path(problem.run(build), official_asam(problem, 0.5, 0.01, NAMED_WEIGHT))


# -- AE-SAM: no code of the authors was found; formulas of arXiv 2304.14647 as junaidaliop/zij, math/aesam.md, gives them ---


def published_ae_sam(squares, total, delta, last, first):
    """Mean, then deviation from the new mean; c_t from `first` to `last`. Ours starts both averages at the first gradient."""
    mean, variance, decisions = squares[0], 0.0, []
    for step, square in enumerate(squares):
        mean = delta * mean + (1 - delta) * square
        variance = delta * variance + (1 - delta) * (square - mean) ** 2
        level = step / total * last + (1 - step / total) * first
        decisions.append(square >= mean + level * variance**0.5)
    return decisions


def test_ae_sam_decides_as_published():
    squares = (torch.rand(400, dtype=torch.float64) + 0.1).tolist()
    schedule, memory = WhenSteep(steps=400), msam.geometry.Memory()
    found = [schedule.ascends(step, torch.tensor(s).double().sqrt(), memory, 0) for step, s in enumerate(squares)]
    assert found == published_ae_sam(squares, total=400, delta=0.9, last=-1.0, first=1.0)
    # The minority of the first steps ascends, and the majority of the last.
    assert sum(found[:100]) < 40 < 60 < sum(found[-100:])


# -- Momentum-SAM: MarlonBecker/MSAM, optimizer/msam.py --------------------------------------------------------------------


def official_msam(problem, rho, weight_decay=0.0):
    """The weights stand at theta + eps between steps, and weight decay acts there, inside the momentum; theta after each."""
    at, v, inverse, path = problem.start, torch.zeros_like(problem.start), 0.0, []
    for step in range(STEPS):
        g = problem.gradient(at, step) + weight_decay * at
        at = at + rho * inverse * v
        v = MOMENTUM * v + g
        at = at - LR * v
        inverse = 1 / (v.norm() + 1e-12)
        path.append(at)
        at = at - rho * inverse * v
    return path


def msam_with_decay_in_the_base(problem, rho, weight_decay):
    """What our page says: the momentum that perturbs knows nothing of weight decay, which acts at theta."""
    theta, v, base, path = problem.start, torch.zeros_like(problem.start), SGD(), []
    for step in range(STEPS):
        g = problem.gradient(theta - rho * v / v.norm() if step else theta, step)
        v = MOMENTUM * v + g
        theta = base(theta, g + weight_decay * theta)
        path.append(theta)
    return path


def test_momentum_sam(problem):
    found = problem.run(lambda base: msam.MomentumSAM(base, rho=0.4, mu=MOMENTUM))
    assert_same_path(found, official_msam(problem, rho=0.4))


def test_momentum_sam_has_no_weight_decay_in_its_momentum(problem):
    found = problem.run(lambda base: msam.MomentumSAM(base, rho=0.4, mu=MOMENTUM), weight_decay=0.1)
    assert_same_path(found, msam_with_decay_in_the_base(problem, rho=0.4, weight_decay=0.1))
    theirs = official_msam(problem, rho=0.4, weight_decay=0.1)
    assert (found[-1] - theirs[-1]).norm() > 1e-4 * theirs[-1].norm()
