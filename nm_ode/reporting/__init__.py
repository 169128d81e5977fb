"""A run as one self-contained page."""

from nm_ode.reporting.report import write_report

__all__ = ["write_report"]
