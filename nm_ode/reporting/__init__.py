"""A study for a reader: tables and sentences, for terminal and page alike, plots, and the page."""

from nm_ode.reporting.plots import PLOTS, Plot
from nm_ode.reporting.report import write_report

__all__ = ["PLOTS", "Plot", "write_report"]
