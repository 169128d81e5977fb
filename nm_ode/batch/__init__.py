"""Many cases and members of studies, run in this process or by the workers of a Dask cluster."""
