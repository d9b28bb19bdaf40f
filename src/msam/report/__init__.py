"""Reports: a comparison in words, as tables in a terminal, and as one HTML page."""

from msam.report.page import write_page
from msam.report.printing import print_report, print_reports
from msam.report.verdict import Verdict, state_verdict

__all__ = ["Verdict", "print_report", "print_reports", "state_verdict", "write_page"]
