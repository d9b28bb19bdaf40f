"""One row of the catalogue: what a data set is, what it needs, and how a comparison uses it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from msam.data.archives.packages import cache_folder
from msam.data.published.recipes import PublishedRecipe
from msam.data.published.registry import PUBLISHED
from msam.data.splits.arrays import split_arrays
from msam.data.splits.split import Splits
from msam.errors import InvalidValueError


@dataclass(frozen=True)
class Dataset:
    """One data set of the catalogue."""

    name: str
    title: str
    modalities: tuple[str, ...]
    default: tuple[str, ...]
    """The modalities that are used unless others are asked for."""
    rows: int
    classes: int
    licence: str
    source: str
    loader: Callable[[Sequence[str]], Any]
    """From modalities to what `split` takes, such as `msam.data.Arrays`."""
    package: str | None = None
    """The importable package that holds the data, or None if it is embedded."""
    extra: str | None = None
    """The extra of this project that installs that package."""
    file: str | None = None
    """The file in the cache that ``msam data NAME`` builds, or None if it needs none."""
    split: Callable[..., Splits] = split_arrays
    """From arrays and seed to splits, by keywords ``rows`` and ``label_noise``, and `options`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further settings of `split`, that other data sets do not have -> their defaults."""
    training_rows: int | None = 200
    """Training rows of a comparison unless others are asked for; None for all."""
    label_noise: float = 0.2
    """Share of wrong training labels in a comparison unless another is asked for."""
    epochs: int = 30
    batch_size: int = 50
    recipe: PublishedRecipe | None = None
    """How the literature trains on it; None for the optimizer and the encoders that all tasks have."""
    is_control: bool = False
    """Whether it is made to test comparisons, not methods: something is known to be there to be found."""

    @property
    def installed(self) -> bool:
        """Whether the data are on this machine."""
        if self.name in PUBLISHED:
            return PUBLISHED[self.name].prepared
        if self.file is not None:
            return (cache_folder() / self.file).exists()
        return self.package is None or find_spec(self.package) is not None

    @property
    def state(self) -> str:
        """Whether the data are on this machine, or how to get them."""
        if self.name in PUBLISHED:
            return "prepared" if self.installed else PUBLISHED[self.name].command
        if self.file is not None:
            return "built" if self.installed else f"msam data {self.name}"
        if self.package is None:
            return "embedded"
        return "installed" if self.installed else f"pip install 'msam[{self.extra}]'"

    def load(self, modalities: Sequence[str] = ()) -> Any:
        """Load some modalities.

        Args:
            modalities: Their names; the default ones if empty.

        Returns:
            The whole data set, unsplit and not standardised: `msam.data.Arrays`, but for published sets.

        Raises:
            InvalidValueError: If a name is unknown or repeated, or the data are not installed.
        """
        chosen = tuple(modalities) or self.default
        unknown = [name for name in chosen if name not in self.modalities]
        if unknown or len(set(chosen)) < len(chosen):
            raise InvalidValueError(
                f"modalities of {self.name!r} are {list(self.modalities)}, each at most once, found {list(chosen)}"
            )
        if self.package is not None and not self.installed:
            raise InvalidValueError(
                f"the data set {self.name!r} comes with the package {self.package!r}, found it not installed; "
                f"install it with: pip install 'msam[{self.extra}]'"
            )
        return self.loader(chosen)
