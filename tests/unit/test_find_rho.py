"""The sweep that proposes a radius."""

import math

import pytest

import msam
from msam.optim.search import COARSE


def test_a_smooth_peak_is_found_within_the_promised_ratio():
    for peak in (0.1, 0.4, 1.0):
        search = msam.find_rho(lambda rho, peak=peak: -abs(math.log(rho / peak)))
        assert max(search.rho / peak, peak / search.rho) < 1.25
        assert len(search.scores) == len(COARSE) + 4
        assert list(search.scores) == sorted(search.scores)
        assert not search.at_edge


def test_a_best_at_the_edge_is_followed_outwards_and_flagged():
    search = msam.find_rho(lambda rho: rho, [0.1, 0.2])
    assert search.rho == 0.8
    assert search.at_edge
    assert "search further" in str(search)


def test_a_score_that_is_not_finite_is_the_worst():
    search = msam.find_rho(lambda rho: float("nan") if rho > 0.5 else rho, [0.1, 0.4, 1.6], refinements=0)
    assert search.rho == 0.4
    assert search.scores[1.6] == float("-inf")
    assert "(not finite)" in str(search)


def test_the_text_shows_every_radius_and_the_proposal():
    text = str(msam.find_rho(lambda rho: -abs(rho - 0.2), [0.1, 0.2, 0.4], refinements=0))
    assert text.count("\n") == 4
    assert "0.2" in text.splitlines()[2]
    assert "<- best" in text.splitlines()[2]
    assert text.splitlines()[2].count("#") == 30
    assert text.endswith("proposed: rho = 0.2")


@pytest.mark.parametrize("coarse", [[0.1], [0.2, 0.1], [0.0, 0.1], [0.1, 0.1]])
def test_a_grid_that_does_not_ascend_is_refused(coarse):
    with pytest.raises(ValueError, match="at least two ascending radii > 0"):
        msam.find_rho(lambda rho: rho, coarse)


def test_it_finds_a_radius_for_a_real_training():
    from msam.compare import find_recipe
    from msam.training import run_training
    from msam.training.source import DatasetSource

    task = DatasetSource(rows=60, epochs=3).build()
    scores = {}

    def evaluate(rho):
        scores[rho] = run_training(task, find_recipe("sam"), rho, 0).validation["metric"]
        return scores[rho]

    search = msam.find_rho(evaluate, [0.1, 0.5, 3.0], refinements=1)
    assert search.scores == dict(sorted(scores.items()))
    assert scores[search.rho] == max(scores.values())
