"""The store of a run that is recorded while it goes on: Zarr arrays that grow, and open whenever the process stops.

`run.zarr` is a Zarr v3 group whose arrays grow along their first dimension, in chunks. Beside them lie two files:

    journal.jsonl   a line for each array and each chunk that was written whole, with its digests; only appended to
    tail.bin        the rows that fill no chunk yet, and what the run says of itself; only replaced as a whole

A chunk is on the disk before the journal names it, and what neither names does not exist. So at whatever moment the
process is killed, what was named opens; what may be missing are rows that came after the last tail and fill no chunk.
When a run is closed, Zarr's own metadata says the same, and the store is one that xarray opens by itself.

arrays.py      an array that grows: its chunks and metadata as bytes
journal.py     both files, and how far a store is
writer.py      appends to a store
background.py  the same by a thread of its own, with a bounded queue
reader.py      `open_run`
"""

from nm_ode.results.stream.arrays import Rows
from nm_ode.results.stream.reader import is_recorded, open_run

__all__ = ["Rows", "is_recorded", "open_run"]
