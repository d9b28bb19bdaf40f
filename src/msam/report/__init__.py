"""Reports: a comparison in words, as tables in a terminal, and as one HTML page."""

from msam.report.verdict import Verdict, state_verdict

__all__ = ["Verdict", "state_verdict"]
