"""Modalities of the same samples, joined by the samples' names and never by the order of rows."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from msam.checks import check_type, kind_of
from msam.data.named.tables import Id, Named, Table, read_features, read_labels, show_ids
from msam.data.splits.split import Split
from msam.errors import InvalidStateError, InvalidTypeError, InvalidValueError, JoinWarning


@dataclass(frozen=True)
class Joined:
    """Samples with their modalities side by side; made by `join`."""

    ids: tuple[Id, ...]
    """The samples' names, N of them."""
    inputs: dict[str, NDArray[Any]]
    """Modality name -> ``(N, ...)``: numbers, or objects such as paths; zeros or None where a sample lacks it."""
    present: dict[str, NDArray[np.bool_]]
    """Modality name -> which samples have it, ``(N,)``."""
    target: NDArray[Any] | None = None
    """``(N, ...)``; texts are numbered as in `classes`."""
    classes: tuple[Any, ...] = ()
    """The texts of the target, in the order of their numbers; empty if it was numbers."""
    groups: NDArray[Any] | None = None
    """``(N,)``: what a sample has in common with others."""
    columns: Mapping[str, tuple[str, ...]] | None = None
    """Modality name -> names of its features, where they have such."""
    left_out: Mapping[str, tuple[Id, ...]] | None = None
    """Reason -> the samples that were left out for it."""

    def __len__(self) -> int:
        return len(self.ids)

    def lacking(self, name: str) -> tuple[Id, ...]:
        """List the samples that lack a modality.

        Args:
            name: Of the modality.

        Returns:
            Their names.

        Raises:
            InvalidValueError: If there is no such modality.
        """
        self._check_name(name)
        return tuple(sample for sample, there in zip(self.ids, self.present[name], strict=True) if not there)

    def read(self, name: str, function: Callable[[Any], Any]) -> "Joined":
        """Replace what a modality holds, such as paths, by what a function makes of it, such as pictures.

        Args:
            name: Of the modality.
            function: From one value to an array of numbers, of one shape for all; called for the samples that have it, in
                their order.

        Returns:
            The samples with that modality read. Nothing else of them is copied.

        Raises:
            InvalidValueError: If there is no such modality, or shapes differ.
        """
        self._check_name(name)
        made = {
            sample: function(value)
            for sample, value, there in zip(self.ids, self.inputs[name], self.present[name], strict=True)
            if there
        }
        values, present = read_features(f"what was read of {name!r}", made).gather(self.ids)
        columns = {other: names for other, names in (self.columns or {}).items() if other != name}
        return replace(self, inputs={**self.inputs, name: values}, present={**self.present, name: present}, columns=columns)

    def to_split(self) -> Split:
        """Put the samples into a `msam.data.Split`, for `msam.data.split_rows` and for tasks.

        Returns:
            The split; modalities that every sample has are not named in its `present`.

        Raises:
            InvalidStateError: If there is no target, or a modality holds something else than numbers.
        """
        if self.target is None:
            raise InvalidStateError("a split needs a target, found none; give it to join: target=...")
        objects = [name for name, values in self.inputs.items() if values.dtype == object]
        if objects:
            raise InvalidStateError(
                f"the modalities of a split are numbers, found others in {objects}; read them first: "
                f"joined.read({objects[0]!r}, function)"
            )
        tensors = {name: torch.from_numpy(values).clone() for name, values in self.inputs.items()}
        lacked = {name: torch.from_numpy(there).clone() for name, there in self.present.items() if not there.all()}
        kind = np.float32 if self.target.dtype.kind == "f" else np.int64
        return Split(tensors, torch.from_numpy(self.target.astype(kind)), lacked)

    def _check_name(self, name: str) -> None:
        if name not in self.inputs:
            raise InvalidValueError(f"the modality must be one of {list(self.inputs)}, found {name!r}")

    def __str__(self) -> str:
        lines = [f"{len(self)} samples"]
        for name, there in self.present.items():
            lack = self.lacking(name)
            shape = "objects" if self.inputs[name].dtype == object else " x ".join(map(str, self.inputs[name].shape[1:]))
            lines.append(f"  {name} ({shape}): {int(there.sum())} have it" + (f"; lacking: {show_ids(lack)}" if lack else ""))
        for reason, samples in (self.left_out or {}).items():
            if samples:
                lines.append(f"  left out, {reason}: {show_ids(samples)}")
        return "\n".join(lines)


def join(
    modalities: Mapping[str, Named],
    target: Named | None = None,
    groups: Named | None = None,
    *,
    require: Sequence[str] | Literal["all"] = (),
) -> Joined:
    """Join modalities by the names of their samples.

    Rows are found by name in each table for itself: nothing is assumed of their order, and a sample that one table lacks is
    marked as lacking that modality, with zeros that nothing looks at, rather than left out or made up.

    Args:
        modalities: Modality name -> a DataFrame of numbers, a Series, or a mapping of sample's name -> array, number or path.
            The index of a DataFrame or Series holds the names; pandas' own numbering of rows is none. A row that is NaN as a
            whole, None, or not there is lacking.
        target: What is to be predicted, by sample's name: classes (whole numbers, or texts, which are numbered in the order of
            a Series' categories, else sorted), numbers, or a DataFrame of several. Default None: there is none, as where one
            only looks. pandas turns whole numbers into floating point where some are missing; ``series.astype("Int64")`` keeps
            them.
        groups: What samples have in common, such as the person, by sample's name; for `msam.data.split_rows`.
        require: Modalities without which a sample is left out; ``"all"`` for each. Default: any one is enough.

    Returns:
        The samples that have a target and a modality, in the target's order (without one, in the order in which tables name
        them). Numbers of DataFrames and lone ones, ``(N, 1)``, are float32; integers of arrays stay such.

    Raises:
        InvalidTypeError: If a table does not name its samples, a column is no number, or a target neither text nor number.
        InvalidValueError: If a name is missing or there twice, a modality and the target have no sample in common, a row has
            some of its numbers only, a sample has no group, or nothing is left.

    Warns:
        JoinWarning: If samples do not meet, but would without spaces, letter case, leading zeros or the type of their names.

    Cost: a copy of the values.

    Example:
        >>> rna = {"c1": [0.5, 1.0], "c2": [2.0, 0.0], "c4": [1.0, 1.0]}
        >>> protein = {"c3": [7.0], "c1": [9.0]}
        >>> joined = join({"rna": rna, "protein": protein}, target={"c1": "B cell", "c2": "T cell", "c3": "T cell"})
        >>> print(joined)
        3 samples
          rna (2): 2 have it; lacking: 'c3'
          protein (1): 2 have it; lacking: 'c2'
          left out, no target: 'c4'
        >>> joined.inputs["protein"].ravel().tolist(), joined.target.tolist(), joined.classes
        ([9.0, 0.0, 7.0], [0, 1, 1], ('B cell', 'T cell'))
    """
    check_type("modalities", modalities, Mapping, "a mapping of modality name -> table", remedy="such as {'rna': frame}")
    if not modalities:
        raise InvalidValueError("a join needs modalities, found none; such as {'rna': frame, 'image': paths}")
    wanted = list(modalities) if require == "all" else [require] if isinstance(require, str) else list(require or ())
    unknown = [name for name in wanted if name not in modalities]
    if unknown:
        raise InvalidValueError(f"require must name modalities of {list(modalities)}, found {unknown}; or write 'all'")
    tables = {name: read_features(f"the modality {name!r}", table) for name, table in modalities.items()}
    labels = None if target is None else read_labels("the target", target)
    everyone = list(dict.fromkeys(sample for table in tables.values() for sample in table.rows))
    candidates = everyone if labels is None else list(labels.rows)
    for name, table in tables.items():
        if labels is not None:
            _look_for_others(table, candidates, "the target")
        elif len(tables) > 1:
            others = [sample for other, rest in tables.items() if other != name for sample in rest.rows]
            _look_for_others(table, others, "the other modalities")
    ids, left_out = _choose(tables, candidates, everyone, wanted)
    gathered = {name: table.gather(ids) for name, table in tables.items()}
    values, classes = (None, ()) if labels is None else _number(labels.gather(ids)[0], target)
    return Joined(
        ids=tuple(ids),
        inputs={name: values for name, (values, _) in gathered.items()},
        present={name: there for name, (_, there) in gathered.items()},
        target=values,
        classes=classes,
        groups=None if groups is None else _gather_groups(groups, ids),
        columns={name: table.columns for name, table in tables.items() if table.columns},
        left_out=left_out,
    )


def _choose(
    tables: Mapping[str, Table], candidates: Sequence[Id], everyone: Sequence[Id], wanted: Sequence[str]
) -> tuple[list[Id], dict[str, tuple[Id, ...]]]:
    """Choose the samples that stay, and say why others do not."""
    known, seen = set(candidates), set(everyone)
    incomplete = {sample for name in wanted for sample in candidates if sample not in tables[name].rows} & seen
    ids = [sample for sample in candidates if sample in seen and sample not in incomplete]
    left_out = {
        "no target": tuple(sample for sample in everyone if sample not in known),
        "no modality": tuple(sample for sample in candidates if sample not in seen),
        "a modality that is required": tuple(sample for sample in candidates if sample in incomplete),
    }
    if not ids:
        raise InvalidValueError(
            f"a join must leave samples, found none that has {wanted or 'a modality'}: {len(candidates)} candidates, such as "
            f"{show_ids(candidates)}; require fewer modalities"
        )
    return ids, left_out


def _look_for_others(table: Table, candidates: Sequence[Id], what: str) -> None:
    """Refuse a table that meets none of these samples; warn where names look alike without being so."""
    known = set(candidates)
    strangers = [sample for sample in table.rows if sample not in known]
    unmet = {_plain(sample): sample for sample in candidates if sample not in table.rows}
    alike = [(sample, unmet[_plain(sample)]) for sample in strangers if _plain(sample) in unmet]
    pairs = "; ".join(f"{one!r} and {other!r}" for one, other in alike[:3])
    remedy = "name samples alike: spaces, letter case, leading zeros and the type (text or number) count"
    if len(strangers) == len(table.rows):
        hint = f"{pairs} look alike; {remedy}" if alike else "look at what the index holds, such as with table.index[:5]"
        raise InvalidValueError(
            f"{table.name} and {what} must have samples in common, found none: {show_ids(list(table.rows))} here, "
            f"{show_ids(candidates)} there; {hint}"
        )
    if alike:
        warnings.warn(
            f"{len(alike)} samples of {table.name} do not meet those of {what}, but look alike: {pairs}; {remedy}",
            JoinWarning,
            stacklevel=3,
        )


def _plain(sample: Id) -> str:
    """Write a name without what is easily lost on the way from one file to another."""
    text = str(sample).strip().casefold()
    text = text.removesuffix(".0") if isinstance(sample, float) else text.removesuffix(" 00:00:00")
    return text.lstrip("0") or text


def _number(values: NDArray[Any], target: Named) -> tuple[NDArray[Any], tuple[Any, ...]]:
    """Number texts in the order of their categories, or sorted."""
    if values.dtype != object:
        with np.errstate(over="ignore"):
            finite = values.dtype.kind != "f" or bool(np.isfinite(values.astype(np.float32)).all())
        if not finite:
            raise InvalidValueError("the target must be finite in single precision, found other numbers; leave these rows out")
        return values, ()
    odd = [value for value in values.tolist() if not isinstance(value, str)]
    if odd:
        raise InvalidTypeError(
            f"the target must be all texts or all numbers, found {kind_of(odd[0])}; turn it into numbers, or into texts to "
            "make each value a class"
        )
    found = set(values.tolist())
    if hasattr(target, "iloc") and hasattr(target, "columns"):
        target = target.iloc[:, 0]
    order = getattr(getattr(target, "dtype", None), "categories", None)
    classes = sorted(found) if order is None else [label for label in order if label in found]
    places = {text: place for place, text in enumerate(classes)}
    return np.array([places[value] for value in values], dtype=np.int64), tuple(classes)


def _gather_groups(groups: Named, ids: Sequence[Id]) -> NDArray[Any]:
    values, there = read_labels("groups", groups).gather(ids)
    if not there.all():
        lost = [sample for sample, known in zip(ids, there, strict=True) if not known]
        raise InvalidValueError(
            f"each sample must have a group, found none of {show_ids(lost)}; give each of them one of its own, such as its name"
        )
    return values
