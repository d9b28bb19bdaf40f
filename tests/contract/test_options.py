"""The options that all methods share: when to ascend, what to perturb, how the radius moves, noise, geometry by name."""

import pytest
import torch
from torch import nn

import formulas
import msam
from cases import Case, methods, methods_with, sgd
from msam.geometry import GEOMETRIES
from problems import Noted, Problem, all_same_bits, distance, same_bits


def ascents(problem: Problem, case: Case, optimizer, steps: int) -> list[bool]:
    """Step by step, whether there was a perturbation."""
    found = []
    for _ in range(steps):
        before = optimizer.summary()["perturbed"]
        problem.step(case, optimizer)
        found.append(optimizer.summary()["perturbed"] > before)
    return found


@methods
@pytest.mark.parametrize("k", [1, 2, 3])
def test_interval_as_a_whole_number(case: Case, k: int):
    problem = Problem()
    optimizer = case.build(sgd(problem), rho=0.1, interval=k)
    found = ascents(problem, case, optimizer, 7)
    assert found == [step % k == 0 and step >= case.warm_up for step in range(7)]
    assert problem.passes == 7 + (case.passes - 1) * sum(found)


@methods
def test_interval_as_a_probability_is_seeded_and_resumes_bitwise(case: Case):
    def build(problem: Problem, seed: int = 3):
        return case.build(sgd(problem), rho=0.1, interval=0.5, seed=seed)

    whole, twin, other, resumed = Problem(), Problem(), Problem(), Problem()
    optimizer = build(whole)
    found = ascents(whole, case, optimizer, 24)
    assert 4 < sum(found) < 20
    assert ascents(other, case, build(other, seed=4), 24) != found
    before, after = build(twin), build(resumed)
    torch.manual_seed(99)  # Not torch's generator: training must not change with it, nor it with training.
    state = torch.get_rng_state()
    assert ascents(twin, case, before, 10) == found[:10]
    assert torch.equal(torch.get_rng_state(), state)
    resumed.model.load_state_dict(twin.model.state_dict())
    after.load_state_dict(before.state_dict())
    assert ascents(resumed, case, after, 14) == found[10:]
    assert all_same_bits(resumed.parameters, whole.parameters)


@methods
def test_interval_as_a_function_of_the_step(case: Case):
    problem = Problem()
    optimizer = case.build(sgd(problem), rho=0.1, interval=lambda step: step in {1, 2, 5})
    assert ascents(problem, case, optimizer, 7) == [step in {1, 2, 5} for step in range(7)]


@methods
@pytest.mark.parametrize("interval", [0, -1, 0.0, 1.5, "often"])
def test_an_interval_out_of_range_is_refused(case: Case, interval):
    with pytest.raises(ValueError, match=r"interval must be|probability must be"):
        case.build(sgd(Problem()), rho=0.1, interval=interval)


def moved(problem: Problem, case: Case, optimizer) -> list[bool]:
    """Per parameter, whether the last pass of an ascending step saw it elsewhere."""
    problem.step(case, optimizer, times=case.warm_up)
    before = problem.copy_parameters()
    problem.step(case, optimizer)
    return [not torch.equal(a, b) for a, b in zip(problem.seen[-1], before, strict=True)]


@methods
def test_perturb_norm_moves_normalisation_layers_only(case: Case):
    problem = Problem(batch_norm=True)
    optimizer = case.build_ascending(sgd(problem), rho=0.2, model=problem.model, perturb="norm")
    start = problem.copy_parameters()
    found = moved(problem, case, optimizer)
    norms = {id(p) for part in problem.model.modules() if isinstance(part, nn.BatchNorm1d) for p in part.parameters()}
    assert found == [id(p) in norms for p in problem.parameters]
    assert sum(found) == 2
    assert not any(torch.equal(a, b) for a, b in zip(problem.parameters, start, strict=True)), "all must train"


@methods
def test_perturb_takes_a_function_and_its_norm_is_over_what_it_selects(case: Case):
    problem = Problem(torch.float64)
    optimizer = case.build_ascending(sgd(problem, lr=0.0), rho=0.2, perturb=lambda p: p.ndim == 2 and p.shape[1] == 5)
    assert moved(problem, case, optimizer) == [p.ndim == 2 and p.shape[1] == 5 for p in problem.parameters]
    if case.length.__name__ == "euclidean_length":
        assert optimizer.summary()["mean_eps_norm"] == pytest.approx(0.2, rel=1e-12)


@methods
def test_perturb_norm_needs_a_model_with_such_layers(case: Case):
    with pytest.raises(ValueError, match="needs model="):
        case.build(sgd(Problem()), rho=0.1, perturb="norm")
    problem = Problem()
    with pytest.raises(ValueError, match="found none in the model"):
        case.build(sgd(problem), rho=0.1, model=problem.model, perturb="norm")
    with pytest.raises(ValueError, match="perturb must be"):
        case.build(sgd(problem), rho=0.1, perturb="some")


@methods
def test_radius_follows_the_learning_rate(case: Case):
    problem, constant = Problem(torch.float64), Problem(torch.float64)
    optimizer = case.build_ascending(sgd(problem, lr=0.4), rho=0.2, rho_schedule="lr")
    reference = case.build_ascending(sgd(constant, lr=0.1), rho=0.05, rho_schedule="constant")
    for built, p in ((optimizer, problem), (reference, constant)):
        p.step(case, built, times=0)
    optimizer._engine.radii()  # Takes the learning rate of now as that of the radius.
    optimizer.param_groups[0]["lr"] = 0.1
    problem.step(case, optimizer, times=3)
    constant.step(case, reference, times=3)
    torch.testing.assert_close(problem.copy_parameters(), constant.copy_parameters(), rtol=1e-12, atol=1e-14)
    assert optimizer.summary()["mean_eps_norm"] == pytest.approx(reference.summary()["mean_eps_norm"], rel=1e-10)


@methods
def test_a_learning_rate_of_zero_from_the_start_gives_no_radius_to_follow_it(case: Case):
    problem = Problem()
    optimizer = case.build_ascending(sgd(problem, lr=0.0), rho=0.2, rho_schedule="lr")
    problem.step(case, optimizer, times=3)
    assert problem.passes == 3
    assert optimizer.summary()["perturbed"] == 0


@methods
def test_radius_as_a_function_of_the_step(case: Case):
    problem = Problem(torch.float64)
    optimizer = case.build_ascending(sgd(problem, lr=0.0), rho=0.2, rho_schedule=lambda step: [1.0, 1.0, 0.0, 0.5][step])
    lengths, passes = [], []
    for _ in range(4):
        before, start = problem.copy_parameters(), problem.passes
        problem.step(case, optimizer)
        lengths.append(distance(problem.seen[-1], before))
        passes.append(problem.passes - start)
    assert passes == [case.passes, case.passes, 1, case.passes]
    assert lengths[2] == 0
    if case.name != "friendly_sam":  # Its direction fades where all batches are alike; its length is tested elsewhere.
        assert lengths[3] == pytest.approx(lengths[1] / 2, rel=1e-9)
    wrong = case.build(sgd(Problem()), rho=0.2, rho_schedule=lambda _: -1.0)
    with pytest.raises(ValueError, match=r"rho_schedule must give finite factors >= 0, found -1\.0 at step 0"):
        problem.step(case, wrong)


@methods_with("second_pass")
@pytest.mark.parametrize("same_noise", [True, False])
def test_noise_is_the_same_in_both_passes_unless_told_otherwise(case: Case, same_noise: bool):
    problem = Problem(dropout=0.5)
    problem.step(case, case.build_ascending(sgd(problem), rho=0.2, same_noise=same_noise))
    [first, second] = next(part for part in problem.model.modules() if isinstance(part, Noted)).kept
    assert same_bits(first, second) == same_noise


@methods
def test_an_unknown_option_is_named_with_the_known_ones(case: Case):
    with pytest.raises(ValueError, match=r"options that all methods take are \['interval', .*found 'intervall'"):
        case.build(sgd(Problem()), rho=0.1, intervall=2)
    with pytest.raises(ValueError, match=rf"options of '{case.name}' are \[.*'interval'.*found 'intervall'"):
        msam.create_method(case.name, sgd(Problem()), intervall=2)


@methods
@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_combination_takes_every_geometry_by_name_or_refuses_it(case: Case, name: str, expected_error):
    """The method's combination, with another geometry; by name it is the geometry with its defaults."""
    combination = case.build(sgd(Problem())).combination
    one_pass = name == "momentum"

    def build(problem: Problem, geometry):
        if case.multimodal:
            return case.build(sgd(problem), rho=0.1, geometry=geometry)
        return msam.SharpnessAware(sgd(problem), rho=0.1, geometry=geometry, combination=combination)

    if one_pass and combination != msam.combine.Replace():
        expected_error("one pass leaves no first gradient to combine")
        with pytest.raises(ValueError, match=rf"Momentum takes one pass.*{type(combination).__name__}"):
            build(Problem(), name)
        return
    named, given = Problem(), Problem()
    first, second = build(named, name), build(given, GEOMETRIES[name]())
    named.step(case, first, times=3)
    given.step(case, second, times=3)
    assert all_same_bits(named.parameters, given.parameters)
    assert first.summary()["perturbed"] == 3 - one_pass
    assert first.summary()["mean_eps_norm"] > 0


@methods
def test_an_unknown_geometry_is_named_with_the_known_ones(case: Case):
    with pytest.raises(ValueError, match=r"the geometry must be one of \['euclidean', .*found 'round'"):
        msam.SharpnessAware(sgd(Problem()), rho=0.1, geometry="round", combination=case.build(sgd(Problem())).combination)


@methods
@pytest.mark.parametrize(
    "make",
    [
        lambda base: torch.optim.lr_scheduler.LambdaLR(base, lambda step: min(1.0, step / 4)),
        lambda base: torch.optim.lr_scheduler.LinearLR(base, start_factor=0.01, total_iters=4),
        lambda base: torch.optim.lr_scheduler.OneCycleLR(base, max_lr=0.4, total_steps=20, pct_start=0.2, cycle_momentum=False),
    ],
    ids=["from_zero", "from_a_hundredth", "one_cycle"],
)
def test_the_radius_that_follows_the_rate_is_never_more_than_given_by_a_warm_up(case: Case, make):
    problem = Problem()
    base = sgd(problem, lr=0.4)
    scheduler = make(base)
    optimizer = case.build_ascending(base, rho=0.2, rho_schedule="lr")
    group = optimizer.param_groups[0]
    for _ in range(5):
        problem.step(case, optimizer)
        scheduler.step()
    assert group["rho_lr"] == pytest.approx(0.4)
    assert optimizer.summary()["perturbed"] >= 4 - case.warm_up - (group["initial_lr"] != 0.4)
    assert optimizer.summary()["mean_eps_norm"] > 0
    if case.length is formulas.euclidean_length:
        assert optimizer.summary()["mean_eps_norm"] <= 0.2 * (1 + 1e-5)
