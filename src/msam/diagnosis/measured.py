"""The numbers of a diagnosis, from which sentences and tables are made."""

from dataclasses import dataclass, field

from msam.diagnosis.estimates import Estimate
from msam.diagnosis.probes import BranchProbe
from msam.diagnosis.view import View


@dataclass(frozen=True)
class Measured:
    """What was measured of a trained model."""

    modalities: tuple[str, ...]
    samples: int
    """In the loader."""
    value: str
    """What a coalition is worth, such as "probability"; Shapley values and interactions are in its units."""
    metric: str
    """"accuracy", or "mean value" if the target is not a class."""
    views: dict[str, View]
    """Baseline -> all numbers under it. The first one decides where sentences name one number."""
    probes: dict[str, BranchProbe]
    """Modality name -> linear probes; empty without `probe_loader`."""
    unused: dict[str, Estimate]
    """Modality name -> how much better than the model without it the best linear probe of another modality is."""
    resamples: int
    seed: int
    notes: list[str] = field(default_factory=list)
    """What was skipped, and why."""

    @property
    def main(self) -> View:
        """The numbers under the first baseline."""
        return next(iter(self.views.values()))

    @property
    def starved(self) -> list[str]:
        """The modalities whose branch reads measurably worse than its raw inputs."""
        return [name for name, probe in self.probes.items() if probe.starved]
