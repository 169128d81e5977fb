"""Tables of a study as rows of text, made once for the page and the terminal."""

from nm_ode.reporting.tables.edge import edge_table
from nm_ode.reporting.tables.flows import cost_table, flow_label, flow_table
from nm_ode.reporting.tables.orders import layer_order_table, order_table, unexpected
from nm_ode.reporting.tables.stability import stability_table
from nm_ode.reporting.tables.symmetries import constraint_table, ended_table, law_table
from nm_ode.reporting.tables.table import Cell, Column, Table

__all__ = [
    "Cell",
    "Column",
    "Table",
    "constraint_table",
    "cost_table",
    "edge_table",
    "ended_table",
    "flow_label",
    "flow_table",
    "law_table",
    "layer_order_table",
    "order_table",
    "stability_table",
    "unexpected",
]
