"""The diagnosis of a trained model: one pass over the data, tables, and what follows from them."""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from msam.checks import check_callable, check_type
from msam.contribution import AnswerTokens, Baseline, MonoModalResponse, Value, ValueFunction, find_baseline, find_value
from msam.contribution.coalitions import Forward, as_late_fusion, encode, evaluation_mode
from msam.contribution.loaders import Loader, Pair, list_batches
from msam.contribution.outputs import Logits
from msam.diagnosis.batches import device_of, fit_mean, read_batches
from msam.diagnosis.estimates import Bootstrap, Estimate
from msam.diagnosis.evaluation import SampleTables, tabulate_samples
from msam.diagnosis.features import Collector
from msam.diagnosis.mapped import MappedModel, Target
from msam.diagnosis.probes import best_probe_without, describe_probes, explain_problems, probe_correctness
from msam.diagnosis.result import Diagnosis
from msam.diagnosis.view import describe_view
from msam.errors import InvalidTypeError, InvalidValueError
from msam.optim.engine.snapshot import RandomState

MAXIMUM = 8
"""Modalities at most: all 2^M coalitions are evaluated."""


def diagnose(
    model: Forward,
    loader: Any,
    modalities: Sequence[str] | Mapping[str, Sequence[str] | str] | None = None,
    *,
    value: Value | str = "probability",
    baselines: Sequence[Baseline | str] = ("zeros", "shuffled", "mean"),
    missing: Sequence[float] = (0.0, 0.25, 0.5, 1.0),
    resamples: int = 1000,
    seed: int = 0,
    probe_loader: Loader | None = None,
    progress: bool = False,
    logits: Logits | None = None,
    target: Target = "labels",
    embeddings: Mapping[str, nn.Module] | None = None,
) -> Diagnosis:
    r"""Tell what a trained model makes of each modality, and whether a branch is starved, without training anything.

    The model is evaluated once for all ``2^M`` coalitions of modalities, the others absent, under every baseline. From these
    per-sample tables follow, each with a 95 % percentile bootstrap interval over samples:

    - Shapley values ``phi_m = sum_S |S|! (M - |S| - 1)! / M! (v(S + m) - v(S))``, with v(none) *measured*, so that a modality
      that changes nothing gets 0. (The optimizers count v(none) as 0, as their papers do.)
    - The Shapley interaction index of pairs, ``sum_S |S|! (M - |S| - 2)! / (M - 1)! (v(S+i+j) - v(S+i) - v(S+j) + v(S))``:
      above 0 the two are *complementary*, below 0 *redundant*.
    - The metric with everything, with each modality alone and without each; and, as a modality goes missing in a fraction f of
      the samples, its expectation ``(1 - f) metric(all) + f metric(all - m)``.
    - With `probe_loader`: linear probes of the raw inputs and, if the model declares ``encoders`` and ``fuse``, of each
      branch's features. A branch that reads measurably worse than its raw inputs has lost what was there.

    A model that is called as ``model(**batch)``, as those of Hugging Face are, needs no adapter: `modalities` then say which
    keys of a batch belong to which modality, and `embeddings` which module embeds integers, whose output becomes zeros where
    the modality is absent (see `MultimodalClosure.from_batch`). The labels are taken out of the batch in all passes. With the
    value `AnswerTokens`, embeddings of the answer's own tokens stay: a decoder is given what it has said so far.

    Args:
        model: From a mapping of modality name -> input to the output; a module is put into evaluation mode meanwhile. Inputs
            are moved to its device.
        loader: Yields pairs ``(inputs, target)``, best held-out data; or one such pair, or a list of them. Where `modalities`
            is a mapping: yields mappings of the model's arguments.
        modalities: Which to diagnose, at most 8; other inputs stay present, which `notes` say. Default: all of the first batch.
            Or a mapping of modality name -> its keys in a batch.
        value: What a coalition is worth: ``"probability"``, ``"accuracy"``, ``"log_likelihood"``, or a function
            ``(output, target) -> (B,)``; for models that write text, `msam.contribution.AnswerTokens`.
        baselines: What stands in for an absent modality: ``"zeros"``, ``"shuffled"`` (of another sample of the batch),
            ``"mean"`` (fitted on `probe_loader`, or on `loader` without one; skipped for integer inputs), or a
            `msam.contribution.Baseline`. The first one decides where a sentence names one number.
        missing: Fractions of samples, in [0, 1].
        resamples: Of the bootstrap, >= 100. Default 1000.
        seed: Of the resamples and of who is whose stand-in.
        probe_loader: Training data, of the same form; for probes and the mean.
        progress: Whether to draw a bar.
        logits: From the model's output to what the value is taken of, for models that return tuples, say. Where None:
            ``output.logits``, ``output["logits"]``, or the output itself if it is a tensor.
        target: With a mapping of modalities: the key of the labels, or a function from the batch to the target.
        embeddings: With a mapping of modalities: modality name -> the module that embeds its integers.

    Returns:
        The diagnosis.

    Raises:
        InvalidTypeError: If an argument is of another type, or the model's output holds no logits.
        InvalidValueError: If there are more than 8 modalities, or an argument is out of its range.

    Cost: a forward pass per coalition, baseline and batch; for late fusion one pass of the encoders, and the head's. Memory:
    ``2 * 2^M`` numbers per sample and baseline, and the flattened inputs of both loaders with `probe_loader`. The
    model, its mode and the random number generators stay as they were.

    Source: Shapley 1953; Grabisch and Roubens 1999; ridge probes as in `msam.training.linear_probe_accuracy`.

    Example:
        >>> import msam
        >>> _ = torch.manual_seed(0)
        >>> a, b = torch.randn(200, 3), torch.randn(200, 3)
        >>> model = msam.fusion.LateFusion({"a": torch.nn.Identity(), "b": torch.nn.Identity()}, torch.nn.Linear(6, 2))
        >>> target = model({"a": a, "b": 0 * b}).argmax(1)
        >>> with torch.no_grad(): _ = model.head.weight[:, 3:].zero_()
        >>> found = msam.diagnose(model, ({"a": a, "b": b}, target), probe_loader=({"a": a, "b": b}, target))
        >>> found.main.dominant, found.main.contributions["b"].value
        ('a', 0.0)
    """
    function = _check(value, missing)
    check_callable("model", model, "a function of a mapping of inputs, such as a module")
    if logits is not None:
        check_callable("logits", logits, "a function from the model's output to its logits")
    check_type("resamples", resamples, Integral, "a whole number")
    check_type("seed", seed, Integral, "a whole number")
    mapped = _find_mapped(model, modalities, value, target, embeddings, probed=probe_loader is not None)
    batches = list_batches(loader) if mapped is None else mapped.list_batches(loader, seed)
    training = None if probe_loader is None else list_batches(probe_loader)
    state = RandomState()
    module = model if isinstance(model, nn.Module) else getattr(model, "__self__", None)
    device = device_of(module)
    try:
        with evaluation_mode(module if isinstance(module, nn.Module) else None):
            names = _choose_modalities(tuple(mapped.modalities) if mapped else modalities, batches, device)
            stand_ins, notes = _find_baselines(baselines, training or batches, names, device, fitted=training is not None)
            test = Collector(names) if training is not None else None
            source = read_batches(_track(batches) if progress else batches, device, names)
            if mapped is not None:
                notes += mapped.leave_out_(stand_ins, batches)
                stand_ins = {label: mapped.adapt(baseline) for label, baseline in stand_ins.items()}
            tables = tabulate_samples(
                mapped or model, source, names, function, stand_ins, test, seed, logits, reorders=mapped is None
            )
            train = _collect(model, training, names, device) if training is not None else None
    finally:
        state.restore_()
    probed, problems = _probe(train, test)
    return _conclude(tables, probed, tuple(missing), resamples, seed, _name(value), [*notes, *tables.notes, *problems])


def _find_mapped(
    model: Forward, modalities: Any, value: Any, target: Target, embeddings: Mapping[str, nn.Module] | None, *, probed: bool
) -> MappedModel | None:
    """Make a model that is called with a batch's entries by name a function of modalities."""
    if not isinstance(modalities, Mapping):
        if embeddings is not None:
            raise InvalidValueError(
                "embeddings= belong to modalities={name: keys of the batch}, found modalities that are no mapping; give one"
            )
        return None
    if probed:
        raise InvalidValueError(
            "probe_loader= reads modalities as numbers, found modalities={name: keys of the batch}, some of which may be token "
            "ids; leave it out, or give pairs (inputs, target) and a model of them"
        )
    return MappedModel(model, modalities, target, embeddings, answer_stays=isinstance(value, AnswerTokens) and value.shifted)


def _check(value: Value | str, missing: Sequence[float]) -> ValueFunction:
    function = find_value(value)
    if isinstance(function, MonoModalResponse):
        raise InvalidValueError("value must be worth something per coalition, found a MonoModalResponse; use 'probability'")
    fractions = isinstance(missing, Sequence) and all(isinstance(fraction, Real) for fraction in missing)
    if not fractions or not missing or not all(0 <= fraction <= 1 for fraction in missing):
        raise InvalidValueError(f"missing must hold fractions in [0, 1], found {missing!r}; such as (0.0, 0.5, 1.0)")
    return function


def _choose_modalities(modalities: Any, batches: Iterable[Pair], device: torch.device | None) -> tuple[str, ...]:
    if modalities is not None and not isinstance(modalities, Iterable):
        raise InvalidTypeError(f"modalities must be names, found {modalities!r}; such as ('image', 'audio')")
    if modalities is None:
        inputs, _ = next(read_batches(batches, device))
        modalities = tuple(inputs)
    names = tuple(modalities)
    if isinstance(modalities, str) or not names or len(set(names)) < len(names):
        raise InvalidValueError(f"modalities must be names, each once, found {modalities!r}; such as ('image', 'audio')")
    if len(names) > MAXIMUM:
        raise InvalidValueError(
            f"a diagnosis is exact and takes at most {MAXIMUM} modalities ({2**MAXIMUM} coalitions), found {len(names)}; name "
            f"up to {MAXIMUM} of them in `modalities`, the others then stay present"
        )
    return names


def _find_baselines(
    baselines: Sequence[Baseline | str],
    batches: Iterable[Pair],
    names: tuple[str, ...],
    device: torch.device | None,
    *,
    fitted: bool,
) -> tuple[dict[str, Baseline], list[str]]:
    """Name the baselines, and say what became of 'mean'."""
    found: dict[str, Baseline] = {}
    notes = []
    if isinstance(baselines, str) or not isinstance(baselines, Iterable):
        raise InvalidValueError(
            f"baselines must be a sequence of names or baselines, found {baselines!r}; write ({baselines!r},)"
        )
    for baseline in baselines:
        label = baseline if isinstance(baseline, str) else type(baseline).__name__
        if label in found:
            raise InvalidValueError(f"each baseline must be named once, found {label!r} twice; drop one")
        if label != "mean":
            found[label] = find_baseline(baseline)
            continue
        mean = fit_mean(batches, names, device)
        if isinstance(mean, str):
            notes.append(f"The baseline 'mean' was skipped: {mean}.")
        else:
            found[label] = mean
            source = "the training data" if fitted else "the evaluated data themselves, as there is no probe_loader"
            notes.append(f"The baseline 'mean' is the mean over {source}.")
    if not found:
        raise InvalidValueError(
            f"a diagnosis needs at least one baseline, found none that can be used in {list(baselines)}; use 'zeros'"
        )
    return found, notes


def _collect(model: Forward, batches: Iterable[Pair], names: tuple[str, ...], device: torch.device | None) -> Collector:
    collector = Collector(names)
    for inputs, target in read_batches(batches, device, names):
        fused = as_late_fusion(model, inputs)
        collector.add(inputs, encode(fused, inputs) if fused is not None else None, target)
    return collector


def _probe(train: Collector | None, test: Collector | None) -> tuple[dict[str, Tensor] | None, list[str]]:
    if train is None or test is None:
        return None, ["There is no probe_loader with training data: branches and raw inputs were not probed."]
    if not (train.has_classes and test.has_classes):
        return None, ["The target is not one class per sample: there is nothing to probe for."]
    notes = explain_problems(train, test)
    if not any(train.rows("branch", name) is not None for name in train.modalities):
        notes.append("The model does not declare `encoders` and `fuse`: only raw inputs were probed.")
    return probe_correctness(train, test), notes


def _conclude(
    tables: SampleTables,
    probed: Mapping[str, Tensor] | None,
    missing: tuple[float, ...],
    resamples: int,
    seed: int,
    value: str,
    notes: list[str],
) -> Diagnosis:
    names, probes = tables.modalities, dict(probed or {})
    groups = {f"value:{name}": table for name, table in tables.values.items()}
    groups |= {f"metric:{name}": table for name, table in tables.correct.items()}
    bootstrap = Bootstrap({**groups, **probes}, resamples, seed)
    scale = max(float(table.abs().max()) for table in groups.values())
    kind = "metric" if tables.correct else "value"
    return Diagnosis(
        modalities=names,
        samples=bootstrap.samples,
        value=value,
        metric="accuracy" if tables.correct else "mean value",
        views={
            name: describe_view(bootstrap, names, f"value:{name}", f"{kind}:{name}", missing, scale) for name in tables.values
        },
        probes=describe_probes(bootstrap, probes, names) if probes else {},
        unused=_find_unused(bootstrap, probes, names, f"metric:{next(iter(tables.values))}") if probes else {},
        resamples=resamples,
        seed=seed,
        notes=notes,
    )


def _find_unused(bootstrap: Bootstrap, probes: dict[str, Tensor], names: tuple[str, ...], key: str) -> dict[str, Estimate]:
    """Compare the model without each modality to the best linear probe of another one."""
    found = {}
    for index, name in enumerate(names):
        best = best_probe_without(probes, name)
        if best is not None:
            lacking = [2 ** len(names) - 2 - index]  # coalitions of M - 1 stand before the last, the last name's absence first
            [found[name]] = bootstrap.estimate(
                lambda means, best=best, lacking=lacking: means[best] - means[key][..., lacking],  # type: ignore[misc]
                comparisons=len(names),
            )
    return found


def _track(batches: Iterable[Pair]) -> Iterable[Pair]:
    from rich.progress import track

    return track(batches, description="coalitions", transient=True)


def _name(value: Any) -> str:
    return value if isinstance(value, str) else str(getattr(value, "__name__", type(value).__name__)).replace("_", " ")
