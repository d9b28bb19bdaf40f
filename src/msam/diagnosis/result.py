"""The result of a diagnosis: numbers, sentences, a table, and a file."""

import json
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msam.diagnosis.estimates import LEVEL
from msam.diagnosis.findings import state_findings
from msam.diagnosis.measured import Measured
from msam.shown import make_visible, map_strings, show_names

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Diagnosis(Measured):
    """What a trained model makes of each modality; see `diagnose`.

    ``str(diagnosis)`` is the table and the findings as text.
    """

    def findings(self) -> list[str]:
        """Say in plain sentences what the evidence supports, and what to do about it.

        Returns:
            Sentences: who dominates, which modalities are redundant or complementary, what a missing one costs, what the
            baselines disagree about, which branches lost something, and the remedy, if any.
        """
        return state_findings(self._shown)

    def table(self) -> "Table":
        """Draw all numbers for a terminal.

        Returns:
            A rich table, one below the other: contributions, pairs, missing modalities, probes.
        """
        # Drawing needs rich, which `import msam` shall not load.
        from msam.diagnosis.drawing import draw_diagnosis

        return draw_diagnosis(self._shown)

    @property
    def _shown(self) -> Measured:
        """The numbers, under names that are fit to be shown."""
        names = show_names(self.modalities)
        if all(name == text for name, text in names.items()):
            return self
        return map_strings(self, lambda text: names.get(text, make_visible(text)))

    def to_dict(self) -> dict[str, Any]:
        """Write everything in builtins.

        Returns:
            JSON-able.
        """
        return {
            "modalities": list(self.modalities),
            "samples": self.samples,
            "value": self.value,
            "metric": self.metric,
            "level": LEVEL,
            "resamples": self.resamples,
            "seed": self.seed,
            "baselines": {name: view.to_dict() for name, view in self.views.items()},
            "probes": {name: probe.to_dict() for name, probe in self.probes.items()},
            "unused": {name: found.to_dict() for name, found in self.unused.items()},
            "notes": list(self.notes),
            "findings": self.findings(),
        }

    def save(self, path: str | Path) -> None:
        """Write everything to a JSON file.

        Args:
            path: Of the file; an older one is overwritten, missing folders are made.
        """
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")

    def __str__(self) -> str:
        from msam.terminal import Console

        console = Console(file=StringIO(), width=110, color_system=None)
        with console.capture() as text:
            console.print(self.table())
            for sentence in self.findings():
                console.print(f"- {sentence}")
        return "\n".join(line.rstrip() for line in text.get().splitlines())
