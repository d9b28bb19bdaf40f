"""What other people's loops cost with a sharpness-aware method in them, beside the same loops without.

    python benchmarks/loops.py [--rounds 5] [--only transformers,lightning,ray]

Needs the extra integrations. All that is compared takes turns within one process; numbers are medians over rounds of the ratio
of mean step times, with the smallest and the largest round.
"""

import argparse
import logging
import os
import tempfile
import warnings
from collections.abc import Callable
from statistics import mean, median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import msam

STEPS, BATCH = 24, 32
MODALITIES = {"image": "pixel_values", "text": "input_ids"}


class Watch:
    """Seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = 0.0

    def start(self) -> None:
        """Begin a step."""
        self._last = perf_counter()

    def stop(self) -> None:
        """End it."""
        self.seconds.append(perf_counter() - self._last)

    def mean(self) -> float:
        """Without the first steps, which allocate; a tenth of the rest evaluates contributions where these are cheap."""
        return mean(self.seconds[4:])


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    """Make the base optimizer."""
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def time_trainer(make: Callable[[torch.optim.Optimizer], Any] | None) -> float:
    """Mean seconds of a step under transformers' trainer."""
    from transformers import BertConfig, BertModel, Trainer, TrainerCallback, TrainingArguments, ViTConfig, ViTModel
    from transformers.modeling_outputs import SequenceClassifierOutput

    from msam.integrations.transformers import SharpnessAwareTrainerMixin

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            layers = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
            self.vision = ViTModel(ViTConfig(**layers, image_size=32, patch_size=8), add_pooling_layer=False)
            self.text = BertModel(BertConfig(**layers, vocab_size=100, max_position_embeddings=16), add_pooling_layer=False)
            self.head = nn.Linear(256, 10)

        def forward(self, pixel_values: Tensor, input_ids: Tensor, labels: Tensor | None = None) -> SequenceClassifierOutput:
            parts = self.vision(pixel_values).last_hidden_state[:, 0], self.text(input_ids).last_hidden_state[:, 0]
            logits = self.head(torch.cat(parts, dim=1))
            return SequenceClassifierOutput(None if labels is None else cross_entropy(logits, labels), logits)

    class SharpnessAwareTrainer(SharpnessAwareTrainerMixin, Trainer):
        pass

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            watch.start()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            watch.stop()

    watch, model = Watch(), Classifier()
    rows = [
        {"pixel_values": torch.randn(3, 32, 32), "input_ids": torch.randint(100, (12,)), "labels": torch.tensor(i % 10)}
        for i in range(BATCH * STEPS)
    ]
    arguments = TrainingArguments(
        tempfile.mkdtemp(),
        max_steps=STEPS,
        per_device_train_batch_size=BATCH,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
        remove_unused_columns=False,
    )
    base = sgd(model)
    if make is None:
        trainer = Trainer(model, arguments, train_dataset=rows, optimizers=(base, None))
    else:
        embeddings = {"text": model.text.get_input_embeddings()}
        trainer = SharpnessAwareTrainer(
            model, arguments, train_dataset=rows, optimizers=(make(base), None), modalities=MODALITIES, embeddings=embeddings
        )
    trainer.add_callback(Clock())
    trainer.train()
    return watch.mean()


class Network(nn.Sequential):
    """Convolutions, so that a step takes some tens of milliseconds."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(128, 10),
        )


def batches() -> list[tuple[Tensor, Tensor]]:
    """Make the batches of a loop."""
    return [(torch.randn(BATCH, 3, 32, 32), torch.randint(10, (BATCH,))) for _ in range(STEPS)]


def time_plain(make: Callable[[torch.optim.Optimizer], Any]) -> float:
    """Mean seconds of a step of a loop by hand."""
    model, watch = Network(), Watch()
    optimizer = make(sgd(model))
    for x, y in batches():
        watch.start()

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            optimizer.zero_grad()
            loss = cross_entropy(model(x), y)
            loss.backward()
            return loss

        optimizer.step(closure)
        watch.stop()
    return watch.mean()


def time_lightning(make: Callable[[torch.optim.Optimizer], Any]) -> float:
    """Mean seconds of a step under Lightning."""
    import lightning.pytorch as pl

    from msam.integrations.lightning import SharpnessAwareCallback

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = Network()

        def training_step(self, batch: Any) -> Tensor:
            return cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return make(sgd(self.model))

        def on_train_batch_start(self, *_: Any) -> None:
            watch.start()

        def on_train_batch_end(self, *_: Any) -> None:
            watch.stop()

    watch = Watch()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    pl.Trainer(max_epochs=1, accelerator="cpu", callbacks=[SharpnessAwareCallback()], **quiet).fit(
        Module(), DataLoader(batches(), batch_size=None)
    )
    return watch.mean()


def time_runs(rounds: int) -> list[float]:
    """Seconds that a run of a comparison takes longer by Ray than by processes of this machine, round by round."""
    import ray

    from msam.compare.pool import Pool, ProcessWorker
    from msam.compare.ray_worker import RayWorker
    from msam.compare.records import RunKey
    from msam.training.source import DatasetSource

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    source, runs, found = DatasetSource(epochs=2, rows=40), 40, []
    with (
        Pool(source, 2, None, print, ProcessWorker) as here,
        Pool(source, 2, None, print, RayWorker) as there,
    ):
        for index in range(rounds + 1):
            seconds = []
            for pool in (here, there):
                keys = [RunKey("sam", 0.05, 1000 * index + seed) for seed in range(runs)]
                started = perf_counter()
                assert len(list(pool.run(keys))) == runs
                seconds.append(perf_counter() - started)
            if index:  # the first starts the workers
                found.append((seconds[1] - seconds[0]) / runs)
    ray.shutdown()
    return found


def ratio(name: str, rounds: int, numerator: Callable[[], float], denominator: Callable[[], float], target: float) -> None:
    """Print a ratio of two times, measured in turns."""
    found = sorted(numerator() / denominator() for _ in range(rounds))
    print(f"{name:<62} {median(found):6.3f}  [{found[0]:.3f}, {found[-1]:.3f}]  at most {target}", flush=True)


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="transformers,lightning,ray")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(2)
    wanted, rounds = options.only.split(","), options.rounds
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, {rounds} rounds; median [smallest, largest]")
    if "transformers" in wanted:
        sam = lambda: time_trainer(lambda base: msam.SAM(base, rho=0.05))  # noqa: E731
        aware = lambda: time_trainer(  # noqa: E731
            lambda base: msam.ModalityAwareSAM(base, rho=0.05, contribution_interval=10)
        )
        ratio("Trainer, SAM / SGD", rounds, sam, lambda: time_trainer(None), 2.1)
        ratio("Trainer, Modality-Aware SAM, contributions each 10 steps / SAM", rounds, aware, sam, 1.10)
    if "lightning" in wanted:
        make = lambda base: msam.SAM(base, rho=0.05)  # noqa: E731
        ratio("Lightning, SAM / a plain loop, SAM", rounds, lambda: time_lightning(make), lambda: time_plain(make), 1.05)
    if "ray" in wanted:
        found = sorted(1000 * seconds for seconds in time_runs(rounds))
        print(f"{'Ray beyond processes, ms a run':<62} {median(found):6.1f}  [{found[0]:.1f}, {found[-1]:.1f}]  at most 50")


if __name__ == "__main__":
    main()
