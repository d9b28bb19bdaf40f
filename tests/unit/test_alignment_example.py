"""The example of image-text alignment: its measures, what contrastive losses do to contributions, and the script itself."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import msam

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "alignment"
SMALL = ROOT / "tests" / "files" / "emoji-small.npz"
MODULES = ("_data", "_model", "_measures", "_training", "_tables", "_page")


@pytest.fixture
def parts(monkeypatch):
    """The example's modules."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = {name: sys.modules.pop(name, None) for name in MODULES}
    found = SimpleNamespace(**{name.strip("_"): __import__(name) for name in MODULES})
    yield found
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.modules.update({name: module for name, module in before.items() if module is not None})


def unit(*shape: int) -> torch.Tensor:
    return nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(0)), dim=-1)


@pytest.mark.exact
def test_measures_of_perfect_and_of_useless_vectors(parts):
    vectors = unit(50, 64)
    perfect = parts.measures.measure(vectors, vectors)
    assert perfect["R@1"] == 100 and perfect["cosine"] == pytest.approx(1) and perfect["gap"] == pytest.approx(0)
    assert perfect["margin"] > 0 and not parts.measures.is_collapsed(perfect, 50)
    # Equal vectors are a tie, which rounding must not decide: products of 0 and 1 are exact on every processor.
    one = torch.eye(64)[:1].expand(50, -1)
    same = parts.measures.measure(one, one)
    assert same["R@10"] == 0 and same["spread"] == pytest.approx(0, abs=1e-5) and parts.measures.is_collapsed(same, 50)
    assert parts.measures.is_collapsed({"R@10": float("nan")}, 50)


def test_recall_by_hand(parts):
    image = torch.eye(3)
    text = nn.functional.normalize(torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 1.0]]), dim=-1)
    assert parts.measures.rank_matches(text, image).tolist() == [0, 1, 0]
    assert parts.measures.rank_matches(image, text).tolist() == [0, 0, 0]
    assert parts.measures.measure(image, text)["text R@1"] == pytest.approx(200 / 3)


def test_split_keeps_emoji_and_artist_apart(parts):
    from msam.data import load_emoji

    pairs = parts.data.make_pairs(load_emoji(SMALL))
    split = parts.data.split_pairs(pairs, "twitter", seed=3)
    names = [set(part.names) for part in (split.train, split.validation, split.test)]
    assert sum(map(len, names)) == len(pairs) == len(set().union(*names))
    assert set(split.train.images) == set(split.validation.images) == {"google"} and "twitter" in split.test.images
    with pytest.raises(ValueError, match="held-out artist must be one of"):
        parts.data.split_pairs(pairs, "nobody", seed=0)


class Pair(nn.Module):
    """Two linear encoders and CLIP's logits, in float64, without a bias: zeros give equal logits."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(5, 4).double(), nn.Linear(3, 4).double()

    def forward(self, inputs):
        image = nn.functional.normalize(self.image(inputs["image"]), dim=-1)
        return 10 * image @ nn.functional.normalize(self.text(inputs["text"]), dim=-1).mT


def batch(rows: int = 8) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(rows, width, generator=generator).double() for name, width in (("image", 5), ("text", 3))}


def make(build):
    torch.manual_seed(0)
    model = Pair()
    return model, build(torch.optim.SGD(model.parameters(), lr=0.1))


@pytest.mark.exact
@pytest.mark.parametrize("geometry", ["euclidean", "monge"])
def test_in_a_contrastive_loss_no_modality_dominates_so_that_modality_aware_sam_is_half_plain(parts, geometry):
    """With either modality absent all rows, or all columns, of the logits are equal: both coalitions are worth 1/N."""
    inputs, target = batch(), torch.arange(8)
    aware, optimizer = make(lambda base: msam.ModalityAwareSAM(base, rho=0.3, geometry=geometry))
    optimizer.step(msam.MultimodalClosure(aware, inputs, target, lambda logits, _: parts.model.contrastive_loss(logits)))
    assert optimizer.contributions == {"image": pytest.approx(0.5, abs=1e-12), "text": pytest.approx(0.5, abs=1e-12)}

    half = msam.combine.Blend(0.5)
    blended, other = make(lambda base: msam.SharpnessAware(base, rho=0.3, geometry=geometry, combination=half))

    def closure():
        other.zero_grad()
        loss = parts.model.contrastive_loss(blended(inputs))
        loss.backward()
        return loss

    other.step(closure)
    for ours, theirs in zip(aware.parameters(), blended.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


@torch.no_grad()
def test_micro_batches_see_fewer_negatives_than_the_batch(parts):
    model, inputs = Pair(), batch()
    whole = parts.model.contrastive_loss(model(inputs))
    halves = [{name: value[rows] for name, value in inputs.items()} for rows in (slice(0, 4), slice(4, 8))]
    pieces = sum(parts.model.contrastive_loss(model(half)) for half in halves) / 2
    assert float(pieces) < float(whole) - 0.1


@pytest.mark.exact
def test_cached_gradients_take_the_step_of_the_whole_batch_in_pieces(parts):
    """What docs/alignment.md shows."""
    inputs = batch()
    steps = []
    for make_closure in (parts.training.make_plain_closure, parts.training.make_cached_closure):
        torch.manual_seed(0)
        model = parts.model.Aligned(nn.Linear(5, 4), nn.Linear(3, 4)).double()
        optimizer = msam.MongeSAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.3)
        optimizer.step(make_closure(optimizer, model, inputs["image"], inputs["text"]))
        steps.append([parameter.detach().clone() for parameter in model.parameters()])
    for whole, pieces in zip(*steps, strict=True):
        torch.testing.assert_close(whole, pieces, rtol=0, atol=1e-12)


def test_quick_run_prints_tables_writes_a_page_and_runs_nothing_twice(tmp_path: Path):
    command = [
        sys.executable,
        FOLDER / "emoji.py",
        "--quick",
        "--data",
        SMALL,
        "--epochs",
        "2",
        "--jobs",
        "1",
        "--out",
        tmp_path,
    ]
    outputs = []
    for _ in range(2):
        found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert found.returncode == 0, found.stderr
        outputs.append(found.stdout)
    for word in ("AdamW", "Monge SAM", "R@10", "shrinkage", "emoji.html"):
        assert word in outputs[0]
    rows = (tmp_path / "scratch.csv").read_text().splitlines()
    assert len(rows) == 5 and outputs[0].splitlines()[-9:] == outputs[1].splitlines()[-9:]
    page = (tmp_path / "emoji.html").read_text()
    assert page.count('class="right"') > 0 and page.count("data:image/png;base64,") > 100
    assert "Twemoji" in page


def test_report_makes_tables_and_figure_from_records(tmp_path: Path):
    command = [sys.executable, FOLDER / "report.py", "--folder", FOLDER / "records", "--images", tmp_path]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "| SAM |" in found.stdout and "| AdamW |" in found.stdout
    assert (tmp_path / "alignment-radius.png").stat().st_size > 10_000


def test_features_are_standardised_by_training_rows_of_held_in_art(parts, tmp_path: Path):
    names = np.array([f"name {k}" for k in range(60)])
    generator = np.random.default_rng(0)
    arrays = {"text": generator.normal(2, 3, (60, 4)), "image_google": generator.normal(1, 2, (60, 6))}
    np.savez(tmp_path / "f.npz", names=names, image_twitter=generator.normal(5, 1, (60, 6)), **arrays)
    split = parts.data.split_pairs(parts.data.read_features(tmp_path / "f.npz", names.tolist()), "twitter", 0)
    scaled = parts.data.standardise_split(split)
    torch.testing.assert_close(scaled.train.images["google"].mean(dim=0), torch.zeros(6), atol=1e-5, rtol=0)
    assert float(scaled.test.images["twitter"].mean()) > 1
    with pytest.raises(ValueError, match="same emoji"):
        parts.data.read_features(tmp_path / "f.npz", ["other"])
