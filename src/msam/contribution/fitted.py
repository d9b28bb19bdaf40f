"""Stand-ins that take data: the mean of each modality, or a learned token."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from msam.checks import check_type
from msam.contribution.baselines import Baseline
from msam.contribution.loaders import list_inputs
from msam.contribution.nested import (
    Path,
    SampleNumbers,
    first_leaf,
    is_replaced,
    list_leaves,
    map_paths,
    replace_leaves,
)
from msam.errors import InvalidValueError


class TrainingMean(Baseline):
    """The mean input of each modality, over data that you give once.

    Args:
        means: Modality name -> the mean of one sample, without the batch axis; tensors or nested structures. Leaves of
            integers and booleans, which stay, need none.

    Raises:
        InvalidTypeError: If it is no mapping.
        InvalidValueError: Later, if a modality has no mean, or a mean has not the shape of a sample.

    Example:
        >>> baseline = TrainingMean.fit([{"image": torch.tensor([[1.0], [3.0]])}, {"image": torch.tensor([[5.0]])}])
        >>> baseline.absent("image", torch.zeros(2, 1))
        tensor([[3.],
                [3.]])
    """

    def __init__(self, means: Mapping[str, Any]) -> None:
        check_type("means", means, Mapping, "a mapping of modality name -> mean of one sample")
        self.means = dict(means)

    @classmethod
    def fit(cls, batches: Iterable[Any]) -> "TrainingMean":
        """Average over batches of inputs.

        Args:
            batches: What `msam.diagnose` takes as a loader: pairs ``(inputs, target)``, a single one, or a ``DataLoader`` that
                yields them; or batches of inputs alone. Inputs map modality name -> input, first axis the sample; leaves
                of integers and booleans are left out. A batch may be without some modalities.

        Returns:
            The baseline.

        Raises:
            InvalidTypeError: If it yields something else.
            InvalidValueError: If there is no sample, a modality has no tensor of floating point, or samples differ in shape.
        """
        sums: dict[str, Any] = {}
        samples: dict[str, int] = {}
        for inputs in list_inputs(batches):
            for name, value in inputs.items():
                sums[name] = _add_samples(name, sums.get(name), value)
                samples[name] = samples.get(name, 0) + len(first_leaf(value))
        if not samples or not all(samples.values()):
            raise InvalidValueError(
                f"a mean needs at least one sample of each modality, found {samples}; give batches of inputs"
            )
        return cls({name: map_paths(lambda leaf, _, n=samples[name]: leaf / n, total) for name, total in sums.items()})  # type: ignore[misc]

    @override
    def absent(self, name: str, value: Any) -> Any:
        if name not in self.means:
            raise InvalidValueError(
                f"the baseline needs a mean of every modality, found none of {name!r}; it has {list(self.means)}"
            )
        return replace_leaves(name, value, lambda leaf, path: _repeat(name, leaf, look_up(self.means[name], path), path))


class LearnedToken(nn.Module, Baseline):
    """A learned stand-in for each modality: parameters, which start at zero.

    Add ``token.parameters()`` to your optimizer, and let training see absent modalities, by `mask_inputs` with this
    baseline in a penalty, or by ``ModalityDropout(p, baseline=token)``; coalition passes take no gradient.

    Args:
        like: Modality name -> one sample, or its shape's tensor, without the batch axis; nested as the input is. Leaves of
            integers and booleans, which stay, get no token.

    Raises:
        InvalidTypeError: If it is no mapping, or a leaf is no tensor.

    Example:
        >>> token = LearnedToken({"image": torch.ones(3)})
        >>> token.absent("image", torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """

    def __init__(self, like: Mapping[str, Any]) -> None:
        super().__init__()
        check_type("like", like, Mapping, "a mapping of modality name -> one sample")
        self._names = tuple(like)
        self.tokens = nn.ParameterDict()
        for name, sample in like.items():
            map_paths(lambda leaf, path, name=name: self._add(name, leaf, path), sample)  # type: ignore[misc]

    def _add(self, name: str, leaf: Tensor, path: Path) -> Tensor:
        if is_replaced(leaf):
            self.tokens[_label(name, path)] = nn.Parameter(torch.zeros_like(leaf))
        return leaf

    @override
    def absent(self, name: str, value: Any) -> Any:
        if name not in self._names:
            raise InvalidValueError(
                f"the baseline needs a token of each modality, found none of {name!r}; it has {list(self._names)}"
            )
        return replace_leaves(name, value, lambda leaf, path: _repeat(name, leaf, self._find(name, path), path))

    def _find(self, name: str, path: Path) -> Tensor | None:
        token: Tensor | None = self.tokens.get(_label(name, path))
        return token


def _label(name: str, path: Path) -> str:
    return "/".join(str(step).replace(".", "_") for step in (name, *path)) if path else name


def look_up(value: Any, path: Path) -> Any:
    """Follow a path into a nested structure.

    Args:
        value: The structure.
        path: Of a leaf.

    Returns:
        What is there; None if nothing is.

    Example:
        >>> look_up({"a": [1, 2]}, ("a", 1)), look_up({"a": [1, 2]}, ("b",))
        (2, None)
    """
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _add_samples(name: str, total: Any, value: Any) -> Any:
    """Add up the samples of a batch, in double precision, on what was added up before; leaves that stay are 0."""
    leaves = list_leaves(value)
    if not any(map(is_replaced, leaves)):
        raise InvalidValueError(
            f"a mean needs inputs of floating point, found {leaves[0].dtype if leaves else 'nothing'} in {name!r}; "
            "use another baseline for such inputs"
        )

    def add(leaf: Tensor, path: Path) -> Tensor:
        found = leaf.double().sum(0) if is_replaced(leaf) else torch.zeros((), device=leaf.device)
        before = look_up(total, path) if total is not None else torch.zeros_like(found)
        if not isinstance(before, Tensor) or before.shape != found.shape:
            raise InvalidValueError(
                f"a mean needs samples of one shape, found {_shape_of(before)} and {tuple(found.shape)} in {name!r}; "
                "pad them to one size, or use another baseline"
            )
        return before.to(found.device) + found

    return map_paths(add, value)


def _shape_of(found: Any) -> str:
    return str(tuple(found.shape)) if isinstance(found, Tensor) else "none"


def _repeat(name: str, leaf: Tensor, sample: Any, path: Path) -> Tensor:
    if isinstance(leaf, SampleNumbers):
        return torch.zeros_like(leaf)
    if not isinstance(sample, Tensor) or leaf.shape[1:] != sample.shape:
        where = f"{name!r}" + "".join(f"[{step!r}]" for step in path)
        raise InvalidValueError(
            f"a stand-in must have the shape of one sample, {tuple(leaf.shape[1:])}, found {_shape_of(sample)} for {where}; "
            "give one that has, of the same structure as the input"
        )
    return sample.to(leaf).expand_as(leaf)
