"""A study of many members for a reader: its numbers, for other programs too, its plots, its page."""

from nm_ode.reporting.study.frame import study_frame, write_csv, write_netcdf
from nm_ode.reporting.study.numbers import study_numbers
from nm_ode.reporting.study.orders import study_orders
from nm_ode.reporting.study.page import write_study_report
from nm_ode.reporting.study.plots import STUDY_PLOTS

__all__ = [
    "STUDY_PLOTS",
    "study_frame",
    "study_numbers",
    "study_orders",
    "write_csv",
    "write_netcdf",
    "write_study_report",
]
