"""Reports: a comparison in words, as tables in a terminal, and as one HTML page."""

from msam.report.page import write_page
from msam.report.tables import print_report
from msam.report.verdict import Verdict, state_verdict

__all__ = ["Verdict", "print_report", "state_verdict", "write_page"]
