"""report.html: one page a run, and the handlers that make it and its figures.

May import ``figures``, ``data``, ``handlers``, ``metrics`` and ``errors``; the page is made of files alone.
"""

from medmamba_monai.report.run import Run, read_run
from medmamba_monai.report.writer import ReportWriter, TrainingFigures, make_report

__all__ = ["ReportWriter", "Run", "TrainingFigures", "make_report", "read_run"]
