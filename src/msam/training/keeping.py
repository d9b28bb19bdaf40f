"""A run's folder: its configuration, a checkpoint after each epoch, its history, and what came out."""

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from msam.checks import as_count
from msam.errors import InvalidStateError, InvalidValueError
from msam.storage import make_folder, read_text, write_json, write_text, write_through
from msam.training.result import RunResult
from msam.training.run import Run
from msam.training.runtime import fingerprint_of, versions

CONFIG, CHECKPOINT, HISTORY, RESULT, MODEL = "config.json", "checkpoint.pt", "history.csv", "result.json", "model.pt"
FREE = ("epochs", "early_stopping")
"""What may be another number when a run goes on."""


@dataclass
class RunFolder:
    """Keeps a run: a `msam.training.run.Watch` that saves after each epoch, and loads what was saved.

    All processes of a run have one; the first writes. ``config.json`` holds the configuration, ``checkpoint.pt`` all that the
    rest of the run depends on, ``history.csv`` a row for each epoch. Each is there whole or not at all.

    Args:
        path: The folder.
        config: JSON-able; what it holds but `FREE` must be the same when a run goes on.
        goal: What early stopping looks at, one of the run's goals.
        resume: Whether to go on where the folder's checkpoint is.
        early_stopping: Epochs without a better score after which the run stops; 0 for never.
        tell: Is told of each epoch, in the first process.
        board: Also writes what TensorBoard shows, in the first process, to the folder's ``tensorboard``.

    Raises:
        InvalidValueError: If early stopping is negative.
        StorageError: If the folder cannot be written.
    """

    path: Path
    config: Mapping[str, Any]
    goal: str
    resume: bool = False
    early_stopping: int = 0
    tell: Callable[[Run], None] = lambda run: None  # noqa: ARG005
    board: bool = False
    resumed: int = field(init=False, default=0)
    """Epochs that were there already."""
    stopped_early: bool = field(init=False, default=False)
    _writer: Any = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        self.early_stopping = as_count("early_stopping", self.early_stopping)

    def check(self) -> None:
        """Refuse a folder that holds another run; before anything is built.

        Raises:
            InvalidStateError: If it holds one, and `resume` was not asked for, or the other way round.
            InvalidValueError: If the run there has another configuration.
        """
        there = (self.path / CHECKPOINT).exists()
        if there and not self.resume:
            raise InvalidStateError(
                f"a run needs a folder of its own, found one with {CHECKPOINT} in {str(self.path)!r}; use --resume to go on "
                "with it, or another --out"
            )
        if self.resume and not there:
            raise InvalidStateError(
                f"to resume, the folder must hold {CHECKPOINT}, found none in {str(self.path)!r}; leave --resume out to begin, "
                "or give the --out of before"
            )
        if not there:
            return
        before = json.loads(read_text(self.path / CONFIG))
        held = json.loads(json.dumps(dict(self.config)))
        differing = [
            key for key in {**before, **held} if before.get(key) != held.get(key) and key not in (*FREE, "versions", "data")
        ]
        if differing:
            key = differing[0]
            raise InvalidValueError(
                f"a run must go on with the configuration that it had, found {key} = {held.get(key)!r}, which was "
                f"{before.get(key)!r}; give the same options, or begin another run in another --out"
            )

    def begin(self, run: Run) -> bool:
        """Load the checkpoint, or write the configuration.

        Args:
            run: The run.

        Returns:
            Whether there is anything left to do.

        Raises:
            InvalidStateError: If processes, or an earlier part of the run, have other data.
            InvalidValueError: If the run has more epochs already than it is to have.
        """
        data = self._check_data(run)
        if self.resume:
            run.load_state_dict(torch.load(self.path / CHECKPOINT, map_location="cpu", weights_only=True))
            self.resumed = run.epoch
            if run.epoch > run.epochs:
                raise InvalidValueError(
                    f"a run must go on to at least the epochs that it has, found {run.epochs} after {run.epoch}; give more"
                )
        if run.ranks.rank == 0:
            make_folder(self.path)
            write_json(self.path / CONFIG, {**self.config, "data": data, "versions": versions()})
            if self.board:
                self._writer = _make_writer(self.path / "tensorboard", run.epoch)
            if run.epoch:
                # A kill may have come between the checkpoint and what is made of it.
                self._write_epoch(run)
        return not self._is_over(run)

    def _check_data(self, run: Run) -> str:
        """Refuse processes, or an earlier part of the run, with other data."""
        data = fingerprint_of(run.readout.splits)
        found = run.ranks.gather(data)
        if len(set(found)) > 1:
            raise InvalidStateError(
                f"all processes of a run must have the same data, found {found} as their checksums; draw and order them by "
                "the seed alone: sets of texts, for one, have another order in each process"
            )
        before = json.loads(read_text(self.path / CONFIG)).get("data", data) if self.resume else data
        if before != data:
            raise InvalidStateError(
                f"a run must go on with the data that it had, found the checksum {data}, which was {before}; draw and order "
                "them by the seed alone, or begin another run in another --out"
            )
        return data

    def _write_epoch(self, run: Run) -> None:
        write_text(self.path / HISTORY, _write_history(run))
        if self._writer is not None:
            for name, value in describe_epoch(run, -1).items():
                if value is not None:
                    self._writer.add_scalar(name, value, run.epoch)
            self._writer.flush()

    def goes_on(self, run: Run) -> bool:
        """Save a run after an epoch.

        Args:
            run: The run.

        Returns:
            Whether early stopping lets it go on; what the first process says.
        """
        state = run.state_dict()
        if run.ranks.rank == 0:
            _save(state, self.path / CHECKPOINT)
            self._write_epoch(run)
            self.tell(run)
        return run.ranks.agree(not self._is_over(run))

    def finish(self, run_result: RunResult, weights: Mapping[str, torch.Tensor]) -> None:
        """Write what came out; in the first process only.

        Args:
            run_result: Of the run.
            weights: Of the model that was selected.
        """
        write_json(self.path / RESULT, vars(run_result))
        _save(dict(weights), self.path / MODEL)
        if self._writer is not None:
            self._writer.close()

    def _is_over(self, run: Run) -> bool:
        best = run.best[self.goal].epoch
        self.stopped_early = bool(self.early_stopping and best and run.epoch - best >= self.early_stopping)
        return self.stopped_early


def describe_epoch(run: Run, index: int) -> dict[str, float | None]:
    """Tell what an epoch found.

    Args:
        run: The run.
        index: Of the epoch, from 0; -1 for the last.

    Returns:
        Name -> number; None where it was not finite.
    """
    curves = run.curves
    found = {name: curves[name][index] for name in ("train_loss", "validation_loss", "validation_metric")}
    return {**found, **{f"alone/{name}": curve[index] for name, curve in curves["alone"].items()}}


def _save(state: Any, path: Path) -> None:
    """Save what torch can, by way of memory: torch's own writer does not say that it was the disk that refused."""
    content = io.BytesIO()
    torch.save(state, content)
    write_through(path, lambda partial: partial.write_bytes(content.getbuffer()))


def _write_history(run: Run) -> str:
    text = io.StringIO()
    rows = [{"epoch": index + 1, **describe_epoch(run, index)} for index in range(run.epoch)]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _make_writer(folder: Path, epoch: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InvalidStateError(
            f"what TensorBoard shows is written by the package tensorboard, found none ({error}); "
            "pip install 'msam[tensorboard]'"
        ) from error
    return SummaryWriter(str(folder), purge_step=max(epoch, 1))
