"""Which runs a comparison is made of, round by round: the same rule for running, resuming and reporting."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from msam.compare.recipes import alone_recipe, find_recipe, recipe_from
from msam.compare.records import Record, RunKey
from msam.compare.trials import Setting, choose_setting, list_trials
from msam.data.splits.sides import FIRST_TUNING_SEED
from msam.errors import InvalidValueError
from msam.training import Recipe

Scores = dict[Setting, list[float]]


@dataclass(frozen=True)
class Scope:
    """What is compared, and how it is tuned.

    Raises:
        InvalidValueError: If a method is unknown, or of a modality that the task does not have.
    """

    methods: tuple[str, ...]
    seeds: int
    rho: tuple[float, ...]
    """Radii that are used as they are."""
    modalities: tuple[str, ...]
    trials: int
    tuning_seeds: int
    select_by: str
    """The criterion by which settings and epochs are chosen."""
    one_standard_error: bool = False
    own: tuple[Recipe, ...] = ()
    """Recipes of the user's."""

    @classmethod
    def of(cls, comparison: Mapping[str, Any]) -> "Scope":
        """Take the scope of a comparison that was stored.

        Args:
            comparison: The content of ``comparison.json``.

        Returns:
            Its scope.
        """
        from msam.compare.first_protocol import FirstScope

        chosen = cls if comparison["trials"] else FirstScope
        return chosen(
            methods=tuple(comparison["methods"]),
            seeds=comparison["seeds"],
            rho=tuple(comparison["rho"]),
            modalities=tuple(comparison["task"]["modalities"]),
            trials=comparison["trials"],
            tuning_seeds=comparison["tuning_seeds"],
            select_by=comparison["select_by"],
            one_standard_error=comparison["one_standard_error"],
            own=tuple(map(recipe_from, comparison.get("recipes", ()))),
        )

    def __post_init__(self) -> None:
        known = [recipe.name for recipe in self._alone()]
        for name in self.methods:
            if self.find(name).present is not None and name not in known:
                raise InvalidValueError(f"methods of one modality alone are {known}, found {name!r}")

    def _alone(self) -> list[Recipe]:
        return [alone_recipe(name) for name in self.modalities]

    def compared(self) -> list[Recipe]:
        """Return the recipes that are compared, ``base`` always among them and first.

        Returns:
            In the order in which they were named.
        """
        return [self.find(name) for name in dict.fromkeys(("base", *self.methods))]

    def find(self, name: str) -> Recipe:
        """Look a recipe up.

        Args:
            name: Of a method.

        Returns:
            The recipe; one of the user's is known by its description only.
        """
        return find_recipe(name, self.own)

    def recipes(self) -> list[Recipe]:
        """Return all recipes that are run, those of each modality alone included.

        Returns:
            Each once.
        """
        alone = self._alone() if len(self.modalities) > 1 else []
        return list({recipe.name: recipe for recipe in (*self.compared(), *alone)}.values())

    def settings(self, recipe: Recipe) -> list[Setting]:
        """Return the settings that are tried for a recipe.

        Args:
            recipe: Which.

        Returns:
            One where nothing is tuned.
        """
        return list_trials(recipe, self.trials, self.rho)

    def tuning_keys(self, recipe: Recipe) -> list[RunKey]:
        """Return the runs that tune a recipe.

        Args:
            recipe: Which.

        Returns:
            None where nothing is tuned.
        """
        settings = self.settings(recipe)
        seeds = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + self.tuning_seeds)
        return [RunKey.of(recipe.name, setting, seed) for setting in settings for seed in seeds] if len(settings) > 1 else []

    def total(self) -> int:
        """Count the runs.

        Returns:
            Of both rounds.
        """
        return sum(len(self.tuning_keys(recipe)) + self.seeds for recipe in self.recipes())

    def choose(self, recipe: Recipe, records: Mapping[RunKey, Record]) -> Setting:
        """Choose a recipe's setting.

        Args:
            recipe: Which.
            records: Of all runs that tune it.

        Returns:
            The setting.
        """
        scores = self.scores(recipe, records)
        if not scores:
            return self.settings(recipe)[0]
        return choose_setting(scores, one_standard_error=self.one_standard_error)

    def scores(self, recipe: Recipe, records: Mapping[RunKey, Record]) -> Scores:
        """Collect the scores of a recipe's trials.

        Args:
            recipe: Which.
            records: Of all runs that tune it.

        Returns:
            Setting -> score on validation for each tuning seed, minus infinity where a run had none that is finite; nothing
            where nothing is tuned.
        """
        scores: Scores = {}
        for key in self.tuning_keys(recipe):
            score = goal_of(records[key], self.select_by)["score"]
            scores.setdefault(key.setting, []).append(-math.inf if score is None else score)
        return scores

    def rounds(self, records: Mapping[RunKey, Record]) -> Iterator[list[RunKey]]:
        """Go through the rounds; the records of one must be there before the next is asked for.

        Args:
            records: Of runs that are done; others than those asked for do not count.

        Yields:
            The runs of a round: those that tune, then those that are reported.
        """
        yield [key for recipe in self.recipes() for key in self.tuning_keys(recipe)]
        chosen = {recipe.name: self.choose(recipe, records) for recipe in self.recipes()}
        yield [RunKey.of(name, setting, seed) for name, setting in chosen.items() for seed in range(self.seeds)]

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


def goal_of(record: Record, name: str) -> Record:
    """Take what a run selected for a criterion.

    Args:
        record: The run.
        name: Of the criterion.

    Returns:
        The goal.

    Raises:
        InvalidValueError: If the run did not select for it.
    """
    for goal in record["goals"]:
        if goal["name"] == name:
            found: Record = goal
            return found
    known = [goal["name"] for goal in record["goals"]]
    raise InvalidValueError(f"select_by must be one of {known} in these records, found {name!r}; run the comparison again")
