"""The fine-tuning study of Monge SAM: its own functions, on tiny synthetic images."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.progress import Progress
from torch.nn.functional import cross_entropy

FOLDER = Path(__file__).parents[2] / "examples" / "studies" / "fine_tuning"
MODULES = ("task", "sharpness", "tuning", "study", "figures", "report")


@pytest.fixture
def parts(monkeypatch):
    """The study's modules, with fewer images."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = {name: sys.modules.pop(name, None) for name in MODULES}
    threads = torch.get_num_threads()
    found = SimpleNamespace(**{name: __import__(name) for name in MODULES})
    for name, count in (("PRETRAINING", 8), ("EXAMPLES", 8), ("VALIDATION", 4)):
        monkeypatch.setattr(found.task, name, count)
    found.pool = make_pool(found.task)
    monkeypatch.setattr(found.study, "load_pool", lambda: found.pool)
    yield found
    torch.set_num_threads(threads)
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.modules.update({name: module for name, module in before.items() if module is not None})


def make_pool(task):
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(10, dtype=np.uint8), 15)
    images = generator.integers(0, 100, (150, 28, 28)) + 15 * labels[:, None, None]
    return task.make_pool((images.astype(np.uint8), labels), (images[::3].astype(np.uint8), labels[::3]))


@pytest.fixture
def pretrained(parts):
    return parts.task.pretrain(parts.pool, seed=0, epochs=1)


def make_loss(parts, network):
    images, labels = parts.pool.target
    return lambda: cross_entropy(network(images), labels)


def test_rescaling_leaves_the_function_and_one_of_the_two_measures(parts, pretrained):
    found = {}
    for factor in (1.0, 2.0, 10.0):
        network = parts.task.start(pretrained, 0, factor)
        loss = make_loss(parts, network)
        outputs = network(parts.pool.test[0]).detach()
        eigenvalue = parts.sharpness.top_eigenvalue(loss, network)
        found[factor] = outputs, eigenvalue, parts.sharpness.adaptive_rise(loss, network)
    for factor in (2.0, 10.0):
        torch.testing.assert_close(found[factor][0], found[1.0][0], rtol=1e-5, atol=1e-5)
        assert found[factor][2] == pytest.approx(found[1.0][2], rel=1e-3)
        assert found[factor][1] != pytest.approx(found[1.0][1], rel=0.05)


def test_the_eigenvalue_is_that_of_the_whole_hessian(parts):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    inputs, labels = torch.randn(20, 4), torch.arange(20) % 3
    names, values = zip(*network.named_parameters(), strict=True)

    def of(flat):
        pieces = flat.split([value.numel() for value in values])
        state = {n: piece.view_as(value) for n, piece, value in zip(names, pieces, values, strict=True)}
        return cross_entropy(torch.func.functional_call(network, state, inputs), labels)

    hessian = torch.autograd.functional.hessian(of, torch.cat([value.detach().flatten() for value in values]))
    found = parts.sharpness.top_eigenvalue(lambda: cross_entropy(network(inputs), labels), network)
    assert found == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-3)


def test_sgd_with_matched_rates_learns_the_same_function_after_rescaling(parts, pretrained):
    split, run = parts.task.draw_split(parts.pool, 0), parts.tuning.Run("sgd", 0.01, 0.0, 0)
    plain = parts.tuning.fine_tune(run, 0.0, pretrained, split, epochs=2)
    matched = parts.tuning.fine_tune(replace(run, factor=10.0, matched=True), 0.0, pretrained, split, epochs=2)
    assert matched["train_loss"] == pytest.approx(plain["train_loss"], rel=1e-3)
    unmatched = parts.tuning.fine_tune(replace(run, factor=10.0), 0.0, pretrained, split, epochs=2)
    assert unmatched["train_loss"] != pytest.approx(plain["train_loss"], rel=1e-3)


@pytest.mark.exact
def test_the_summed_loss_is_another_alpha_and_alpha_0_is_sam(parts, pretrained):
    split = parts.task.draw_split(parts.pool, 0)

    def tune(*run, **options):
        return parts.tuning.fine_tune(parts.tuning.Run(*run, **options), 0.1, pretrained, split, epochs=1)

    summed = tune("monge_sam", 0.01, 0.1, 0, reduction="sum")
    scaled = tune("monge_sam", 0.01, 0.1, 0, alpha=float(parts.task.BATCH))
    assert summed["mean_s"] == pytest.approx(scaled["mean_s"], rel=1e-3)
    assert summed["train_loss"] == pytest.approx(scaled["train_loss"], rel=1e-3)
    zero, sam = tune("monge_sam", 0.01, 0.1, 0, alpha=0.0), tune("sam", 0.01, 0.1, 0)
    assert {**zero, "seconds": 0} == {**sam, "seconds": 0}


def test_the_study_runs_every_method_resumes_and_reports(parts, tmp_path, monkeypatch, capsys):
    plan = parts.study.Plan(range(2), range(1), (0.01,), (0.1,), (3.0,), (2.0,), epochs=1)
    records, ran = tmp_path / "records", []
    fine_tune = parts.study.fine_tune
    monkeypatch.setattr(parts.tuning, "top_eigenvalue", lambda *_: 1.0)
    monkeypatch.setattr(parts.study, "fine_tune", lambda run, *rest: ran.append(run) or fine_tune(run, *rest))

    def run():
        ran.clear()
        study = parts.study.Study(plan, records, 1, tmp_path / "cache")
        with Progress(disable=True) as progress:
            study.run(progress)
        return study.rows

    rows = run()
    assert len(ran) == len(rows) == len(set(ran))
    assert {(r.method, r.alpha) for r in rows if r.factor == 2} == set(parts.study.METHODS)
    for shrunk in (r for r in rows if r.method == "sam_shrunk"):
        assert rows[shrunk]["radius"] == pytest.approx(
            shrunk.rho * rows[replace(shrunk, method="monge_sam")]["mean_s"], rel=1e-3
        )
    assert run() == rows
    assert not ran
    path = records / "sum.csv"
    path.write_text(path.read_text()[:-40])  # killed while it wrote the last row
    assert run().keys() == rows.keys()
    assert len(ran) == 1
    parts.report.print_report(parts.report.Records(parts.study.read_all(records)), tmp_path / "images")
    printed = capsys.readouterr().out
    assert "| SAM |" in printed
    assert "Not run yet" not in printed
    assert {path.name for path in (tmp_path / "images").iterdir()} == {
        f"fine-tuning-{what}.png" for what in ("radius", "alpha", "rescaling")
    }


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_damaged_weights_in_the_cache_are_named_and_made_again(content, parts, pretrained, tmp_path, monkeypatch, capsys):
    made = []
    monkeypatch.setattr(parts.study, "pretrain", lambda *_: made.append(1) or pretrained)
    parts.study.load_pretrained(0, tmp_path)
    again = parts.study.load_pretrained(0, tmp_path)
    assert made == [1]
    assert all(torch.equal(again[name], value) for name, value in pretrained.items())
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-99] if content is None else content)
    parts.study.load_pretrained(0, tmp_path)
    assert made == [1, 1]
    assert f"{path} is damaged" in capsys.readouterr().err
    assert parts.study.load_pretrained(0, tmp_path).keys() == pretrained.keys()
