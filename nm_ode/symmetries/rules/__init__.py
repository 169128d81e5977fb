"""How symmetries are found in a graph: one kind, or kinds that one look finds together, a package."""
