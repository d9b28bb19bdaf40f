"""Which runs a comparison is made of, round by round: the same rule for running, resuming and reporting."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from msam.compare.recipes import RHO, alone_recipe, find_recipe
from msam.compare.records import Record, RunKey
from msam.compare.refine import ROUNDS, refined_strengths
from msam.errors import InvalidValueError
from msam.training import Recipe


@dataclass(frozen=True)
class Scope:
    """What is compared.

    Raises:
        InvalidValueError: If a method is unknown, or of a modality that the task does not have.
    """

    methods: tuple[str, ...]
    seeds: int
    rho: tuple[float, ...]
    """Fixed radii in place of the search."""
    modalities: tuple[str, ...]

    @classmethod
    def of(cls, comparison: Mapping[str, Any]) -> "Scope":
        """Take the scope of a comparison that was stored.

        Args:
            comparison: The content of ``comparison.json``.

        Returns:
            Its scope.
        """
        names = tuple(comparison["task"]["modalities"])
        return cls(tuple(comparison["methods"]), comparison["seeds"], tuple(comparison["rho"]), names)

    def __post_init__(self) -> None:
        known = [recipe.name for recipe in self._alone()]
        for name in self.methods:
            if find_recipe(name).present is not None and name not in known:
                raise InvalidValueError(f"methods of one modality alone are {known}, found {name!r}")

    def _alone(self) -> list[Recipe]:
        return [alone_recipe(name) for name in self.modalities]

    def compared(self) -> list[Recipe]:
        """Return the recipes that are compared, ``base`` always among them and first.

        Returns:
            In the order in which they were named.
        """
        return [find_recipe(name) for name in dict.fromkeys(("base", *self.methods))]

    def recipes(self) -> list[Recipe]:
        """Return all recipes that are run, those of each modality alone included.

        Returns:
            Each once.
        """
        alone = self._alone() if len(self.modalities) > 1 else []
        return list({recipe.name: recipe for recipe in (*self.compared(), *alone)}.values())

    def fixed_strengths(self, recipe: Recipe) -> list[float | None]:
        """Return the strengths of a recipe that are known before any run.

        Args:
            recipe: Which.

        Returns:
            ``[None]`` where nothing is tuned, else the coarse grid or the radii that were asked for.
        """
        if recipe.strength is None:
            return [None]
        return list(dict.fromkeys(self.rho)) if self.rho and recipe.strength == RHO else [*recipe.strength.coarse]

    def is_searched(self, recipe: Recipe) -> bool:
        """Tell whether a recipe's strength is refined.

        Args:
            recipe: Which.

        Returns:
            Whether it is.
        """
        return recipe.strength is not None and not (self.rho and recipe.strength == RHO)

    def total(self) -> int:
        """Count the runs.

        Returns:
            Of all rounds.
        """
        recipes = self.recipes()
        per_seed = sum(len(self.fixed_strengths(recipe)) + 2 * ROUNDS * self.is_searched(recipe) for recipe in recipes)
        return per_seed * self.seeds

    def _keys(self, recipe: Recipe, strengths: Iterable[float | None]) -> list[RunKey]:
        return [RunKey(recipe.name, strength, seed) for strength in strengths for seed in range(self.seeds)]

    def rounds(self, records: Mapping[RunKey, Record]) -> Iterator[list[RunKey]]:
        """Go through the rounds; the records of one must be there before the next is asked for.

        Args:
            records: Of runs that are done; others than those asked for do not count.

        Yields:
            The runs of a round.
        """
        recipes = self.recipes()
        known = [key for recipe in recipes for key in self._keys(recipe, self.fixed_strengths(recipe))]
        yield list(known)
        searched = [recipe for recipe in recipes if self.is_searched(recipe)]
        for _ in range(ROUNDS):
            # Earlier rounds only: when resuming, records of later ones are there too, and must not steer this one.
            earlier = [records[key] for key in known]
            keys = [key for recipe in searched for key in self._keys(recipe, _refined(recipe, earlier))]
            known += keys
            yield keys

    def collect(
        self, records: Mapping[RunKey, Record], find: Callable[[RunKey], Record | None]
    ) -> tuple[dict[RunKey, Record], list[RunKey]]:
        """Take the records of this comparison's runs, up to the first round that is not complete.

        Args:
            records: At hand.
            find: Looks for one that is not.

        Returns:
            Key -> record, and the keys of that round that were not found.
        """
        found: dict[RunKey, Record] = {}
        for keys in self.rounds(found):
            for key in keys:
                record = records.get(key) or find(key)
                if record is not None:
                    found[key] = record
            missing = [key for key in keys if key not in found]
            if missing:
                return found, missing
        return found, []


def _refined(recipe: Recipe, records: Iterable[Record]) -> list[float]:
    assert recipe.strength is not None
    return refined_strengths(recipe.strength, validation_scores(records, recipe.name))


def validation_scores(records: Iterable[Record], method: str) -> dict[float, float]:
    """Average a method's validation metric over seeds, for each strength.

    Args:
        records: Of one comparison.
        method: The recipe's name.

    Returns:
        Strength -> mean validation metric; minus infinity where a run had none that is finite.
    """
    by_strength: dict[float, list[float]] = {}
    for record in records:
        if record["method"] == method and record["strength"] is not None:
            metric = record["validation"]["metric"]
            by_strength.setdefault(record["strength"], []).append(-math.inf if metric is None else metric)
    return {strength: fmean(metrics) for strength, metrics in by_strength.items()}
