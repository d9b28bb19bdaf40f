"""Tables whose rows have names, joined by these."""

from msam.data.named.join import Joined, join
from msam.data.named.mudata import from_mudata

__all__ = ["Joined", "from_mudata", "join"]
