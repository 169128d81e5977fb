"""What a study of many members comes to: numbers of each member, orders over lr, for other programs too."""

from nm_ode.comparison.study.frame import study_frame, write_csv, write_netcdf
from nm_ode.comparison.study.numbers import study_numbers
from nm_ode.comparison.study.orders import study_orders

__all__ = ["study_frame", "study_numbers", "study_orders", "write_csv", "write_netcdf"]
