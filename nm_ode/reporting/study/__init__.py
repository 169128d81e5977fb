"""A study of many members for a reader: its plots and its page."""

from nm_ode.reporting.study.page import write_study_report
from nm_ode.reporting.study.plots import STUDY_PLOTS

__all__ = ["STUDY_PLOTS", "write_study_report"]
