"""Many cases and members of studies, run in this process or by the workers of a Dask cluster.

Import from its modules: a worker, whose members have a process of their own, needs few of them.
"""
