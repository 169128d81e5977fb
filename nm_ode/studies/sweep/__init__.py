"""Sweeps: one case file, many members that differ in some of its keys.

What a file says is in `table`, the values that vary in `axes`, what follows from them in `constraint`, what members are
called in `naming`, and `expand` makes the members of all that. The schema of cases imports `table`, and `expand` the
schema, so each is imported from its own module.
"""
