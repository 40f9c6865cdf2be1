"""One HTML file that shows scores, errors and piano rolls, and plays both sides; it needs no network and no server."""

from mt3eval.report.page import PieceReport, write_report

__all__ = ["PieceReport", "write_report"]
