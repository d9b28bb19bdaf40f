"""How comparisons of version 0.1 were tuned: on the reported seeds, by strength alone. Their records can still be reported."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from typing_extensions import override

from msam.compare.recipes import RHO
from msam.compare.records import Record, RunKey
from msam.compare.refine import ROUNDS, best_strength, refined_strengths
from msam.compare.rounds import Scope, Scores
from msam.compare.trials import Setting
from msam.training import Recipe


@dataclass(frozen=True)
class FirstScope(Scope):
    """A coarse grid of strengths, refined twice around the best mean validation metric over all seeds."""

    @override
    def settings(self, recipe: Recipe) -> list[Setting]:
        if recipe.strength is None:
            return [Setting()]
        is_fixed = bool(self.rho) and recipe.strength == RHO
        return [Setting(strength) for strength in dict.fromkeys(self.rho if is_fixed else recipe.strength.coarse)]

    def _is_searched(self, recipe: Recipe) -> bool:
        return recipe.strength is not None and not (self.rho and recipe.strength == RHO)

    @override
    def total(self) -> int:
        recipes = self.recipes()
        return self.seeds * sum(len(self.settings(each)) + 2 * ROUNDS * self._is_searched(each) for each in recipes)

    def _keys(self, recipe: Recipe, strengths: Iterable[float | None]) -> list[RunKey]:
        return [RunKey(recipe.name, strength, seed) for strength in strengths for seed in range(self.seeds)]

    @override
    def rounds(self, records: Mapping[RunKey, Record]) -> Iterator[list[RunKey]]:
        known = [key for recipe in self.recipes() for key in self._keys(recipe, [s.strength for s in self.settings(recipe)])]
        yield list(known)
        for _ in range(ROUNDS):
            # Earlier rounds only: records of later ones are there too, and must not steer this one.
            earlier = {key: records[key] for key in known}
            keys = [
                key
                for recipe in self.recipes()
                if recipe.strength is not None and self._is_searched(recipe)
                for key in self._keys(recipe, refined_strengths(recipe.strength, _means(self.scores(recipe, earlier))))
            ]
            known += keys
            yield keys

    @override
    def scores(self, recipe: Recipe, records: Mapping[RunKey, Record]) -> Scores:
        found: Scores = {}
        for key, record in sorted(records.items(), key=lambda item: item[0].seed):
            if key.method == recipe.name and key.seed < self.seeds and self._counts(recipe, key):
                metric = record["validation"]["metric"]
                found.setdefault(Setting(key.strength), []).append(-math.inf if metric is None else metric)
        return found if recipe.strength is not None else {}

    def _counts(self, recipe: Recipe, key: RunKey) -> bool:
        """With radii fixed by the user, those only."""
        is_fixed = bool(self.rho) and recipe.strength is not None and recipe.strength.name == RHO.name
        return not is_fixed or key.strength in self.rho

    @override
    def choose(self, recipe: Recipe, records: Mapping[RunKey, Record]) -> Setting:
        scores = self.scores(recipe, records)
        return Setting(best_strength(_means(scores))) if scores else Setting()


def _means(scores: Scores) -> dict[float, float]:
    return {setting.strength: math.fsum(v) / len(v) for setting, v in scores.items() if setting.strength is not None}
