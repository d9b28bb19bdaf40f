"""What a task's data are once they are dealt: splits, with modalities that rows may lack."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from msam.checks import check_type
from msam.contribution.nested import first_leaf, map_nested
from msam.data.splits.batches import as_batches, join_batches, read_batch
from msam.data.splits.split_checks import (
    SPLITS,
    check_alike_presence,
    check_names,
    check_present,
    check_split,
    check_splits,
    check_weights,
    list_parts,
)
from msam.errors import InvalidTypeError, InvalidValueError


@dataclass(frozen=True)
class Split:
    """One split, ready for a model.

    Raises:
        InvalidTypeError: If something is no tensor.
        InvalidValueError: If modalities and target have other rows, `present` names none of the modalities, a row has no
            modality at all, or a weight is out of its range.

    Example:
        >>> inputs = {"image": torch.ones(3, 2), "audio": torch.tensor([[1.0], [float("nan")], [1.0]])}
        >>> split = Split(inputs, torch.tensor([0, 1, 0]), present={"audio": torch.tensor([True, False, True])})
        >>> split.inputs["audio"].flatten().tolist(), split.patterns()
        ([1.0, 0.0, 1.0], {('image', 'audio'): 2, ('image',): 1})
    """

    inputs: dict[str, Any]
    """Modality name -> ``(N, ...)``; or a mapping, list or tuple of such tensors."""
    target: Any
    """First axis N; or a mapping of name -> such a target."""
    present: Mapping[str, Tensor] = field(default_factory=dict)
    """Modality name -> which rows have it, ``(N,)``, boolean; those that are not named are there in all. What rows hold of a
    modality that they do not have is never looked at: numbers of floating point become 0 there."""
    weights: Tensor | None = None
    """Of the rows in the loss, ``(N,)``, >= 0; None for the same weight. They scale losses, in training relative to their mean;
    metrics and contributions count each row once."""

    def __post_init__(self) -> None:
        check_split(self.inputs, self.target)
        count = len(self)
        check_present(self.present, self.inputs, count)
        check_weights(self.weights, count)
        for name, there in self.present.items():
            object.__setattr__(self, "inputs", {**self.inputs, name: _blank(self.inputs[name], there)})

    def __len__(self) -> int:
        return len(first_leaf(self.target))

    def to(self, device: torch.device | str) -> "Split":
        """Copy the split to a device.

        Args:
            device: Where to.

        Returns:
            The split there; the same tensors if they are there already.
        """
        return self._map(lambda leaf: leaf.to(device))

    def rows(self, index: Tensor) -> "Split":
        """Take some of the rows.

        Args:
            index: Their numbers, ``(K,)``.

        Returns:
            A split of these.
        """
        return self._map(lambda leaf: leaf.index_select(0, index))

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Split":
        inputs = {name: map_nested(function, value) for name, value in self.inputs.items()}
        present = {name: function(there) for name, there in self.present.items()}
        weights = None if self.weights is None else function(self.weights)
        return Split(inputs, map_nested(function, self.target), present, weights)

    def pattern_of_rows(self) -> Tensor:
        """Number the patterns of presence: which rows lack which modalities.

        Returns:
            Shape ``(N,)``, int64; the same number for the same pattern, of splits with the same modalities in `present`.
        """
        numbers = torch.zeros(len(self), dtype=torch.int64)
        for place, name in enumerate(sorted(self.present)):
            numbers += (~self.present[name].cpu()).long() << place
        return numbers

    def patterns(self) -> dict[tuple[str, ...], int]:
        """Count rows by the modalities that they have.

        Returns:
            Names of the modalities that are there -> rows; the most frequent first.
        """
        numbers, counts = self.pattern_of_rows().unique(return_counts=True)
        named = sorted(self.present)
        found = {
            tuple(name for name in self.inputs if name not in named or not (number >> named.index(name)) & 1): count
            for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)
        }
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    @classmethod
    def from_loader(
        cls,
        loader: Any,
        modalities: Iterable[str] | None = None,
        *,
        target: str = "target",
        present: str | None = None,
        weights: str | None = None,
    ) -> "Split":
        """Read a whole loader, or data set, into memory.

        Args:
            loader: Yields batches: mappings with the modalities and the target by name, or pairs ``(inputs, target)``. A data
                set of such samples (with a length and numbered samples) is put into batches by torch's default rule.
            modalities: Which entries of a mapping are inputs; all but target, present and weights where None.
            target: Name of the target in a mapping.
            present: Name of the mapping of modality -> boolean masks, if rows may lack modalities.
            weights: Name of the rows' weights, if they have such.

        Returns:
            The split, in the loader's order: do not shuffle it if you split by row numbers.

        Raises:
            InvalidTypeError: If a batch is something else.
            InvalidValueError: If there is none, a name is missing, or batches have other shapes.

        Cost: memory for all of it.

        Example:
            >>> data = [{"image": torch.ones(2), "label": 0}, {"image": torch.zeros(2), "label": 1}]
            >>> split = Split.from_loader(torch.utils.data.DataLoader(data, batch_size=2), target="label")
            >>> split.inputs["image"].shape, split.target
            (torch.Size([2, 2]), tensor([0, 1]))
        """
        if isinstance(modalities, str):
            raise InvalidTypeError(f"modalities must be names, found {modalities!r}; write ({modalities!r},)")
        chosen = None if modalities is None else list(modalities)
        wanted = {"target": target} | ({"present": present} if present else {}) | ({"weights": weights} if weights else {})
        parts = [read_batch(batch, chosen, wanted) for batch in as_batches(loader)]
        if not parts:
            raise InvalidValueError("a split needs at least one batch, found none; look at what the loader yields")
        return cls(**join_batches(parts))


def _blank(value: Any, there: Tensor) -> Any:
    """Put zeros where rows lack a modality; integers and booleans stay, as 0 may be a token."""

    def blank(leaf: Tensor) -> Tensor:
        if leaf.layout is not torch.strided:
            raise InvalidValueError(
                f"inputs of modalities that rows may lack must be dense, found a tensor of {leaf.layout}; use to_dense()"
            )
        if not (leaf.is_floating_point() or leaf.is_complex()):
            return leaf
        return torch.where(there.to(leaf.device).reshape(-1, *[1] * (leaf.ndim - 1)), leaf, torch.zeros_like(leaf))

    return map_nested(blank, value)


@dataclass(frozen=True)
class Splits:
    """The splits of one seed: three, and further test splits where there are such.

    They are checked where they are made, once: one pass over the data.

    Whether rows are in two splits cannot be seen from them, unless they are then more than the pool.

    Raises:
        InvalidTypeError: If a split is no `Split`, or a name of `others` is no text.
        InvalidValueError: If a split is empty, a number is not finite, splits differ in their inputs, in types or in numbers of
            axes, they have more rows than the pool, or a further split has no name of its own.
    """

    train: Split
    validation: Split
    test: Split
    pool: int | None
    """Rows of the data set from which splits of different seeds are drawn; tells how much two seeds' splits overlap. None where
    the test split is the same for every seed: what is found then holds on this test set."""
    others: Mapping[str, Split] = field(default_factory=dict)
    """Name -> further test split, such as one of another distribution than `test`. Its rows may be rows of `test`."""

    def __post_init__(self) -> None:
        check_names(self.others)
        parts = {}
        for name, split in {**{name: getattr(self, name) for name in SPLITS}, **self.others}.items():
            check_type(f"the {name} split", split, Split, "a msam.data.Split", remedy="write Split(inputs, target)")
            parts[name] = list_parts(split.inputs, split.target)
        check_alike_presence({name: getattr(self, name).present for name in SPLITS})
        object.__setattr__(self, "pool", check_splits(parts, self.pool))
