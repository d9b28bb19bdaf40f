"""Training under somebody else's loop: Lightning, transformers' Trainer, Accelerate, or one of your own that takes no closures.

Each loop has a module of its own, which needs that library, an extra of this one: `msam.integrations.lightning`,
`msam.integrations.transformers`, `msam.integrations.accelerate`. What they share is here, and needs nothing.
"""

from msam.integrations.contributions import ContributionReading, read_contributions
from msam.integrations.replay import Replay, find_sharpness_aware

__all__ = ["ContributionReading", "Replay", "find_sharpness_aware", "read_contributions"]
