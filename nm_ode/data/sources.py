"""Sources of samples: `len`, and `take(indices)` for a batch. In memory, or read a batch at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from nm_ode.arguments import said
from nm_ode.data.base import DataError, DataSet
from nm_ode.data.indices import Samples, indices_of
from nm_ode.data.leaves import as_leaf, in_dtype, is_array, numbers
from nm_ode.data.trees import flatten, map_leaves, named_leaves


@runtime_checkable
class Source(Protocol):
    """Samples in a fixed order; the same indices give the same batch every time.

    Example:
        >>> import torch
        >>> from nm_ode.data import Source, source_of
        >>> class Squares:
        ...     def __len__(self):
        ...         return 10
        ...     def take(self, indices):
        ...         x = torch.arange(10.0) if indices is None else torch.arange(10.0)[indices]
        ...         return x[:, None], x[:, None] ** 2
        >>> isinstance(Squares(), Source), [part.shape for part in source_of(Squares()).take(slice(0, 3))]
        (True, [torch.Size([3, 1]), torch.Size([3, 1])])
    """

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def take(self, indices: Samples) -> Any:
        """These samples as one batch: a tree of tensors whose first dimension counts the samples."""
        ...


class TensorSource:
    """Tensors or arrays in memory: any tree of them, samples along the first dimension.

    Args:
        tree: its leaves are tensors or arrays; NumPy arrays are shared, not copied, where torch can.
        name: for messages.

    Raises:
        DataError: a leaf that is no tensor of numbers (see `as_leaf`), lengths that differ, or no sample at all.

    Example:
        >>> import torch
        >>> from nm_ode.data import TensorSource
        >>> source = TensorSource({"ids": torch.arange(12).reshape(4, 3), "weight": torch.ones(4)})
        >>> len(source), source.take(torch.tensor([2, 0]))["ids"].tolist()
        (4, [[6, 7, 8], [0, 1, 2]])
    """

    def __init__(self, tree: Any, name: str = "data") -> None:
        places = [place for place, _ in named_leaves(tree, name)]
        leaves, self._rebuild = flatten(tree)
        self._leaves = [as_leaf(leaf, place) for leaf, place in zip(leaves, places, strict=True)]
        self.tree: Any = self._rebuild(self._leaves)
        _require_equal_lengths(self.tree, name)

    def __repr__(self) -> str:
        return f"<TensorSource of {len(self)} samples>"

    def __len__(self) -> int:
        return len(self._leaves[0])

    def take(self, indices: Samples) -> Any:
        """These samples; views where `indices` is a slice or None."""
        if indices is None:
            return self.tree
        return self._rebuild([leaf[indices] for leaf in self._leaves])

    def placed(self, device: torch.device, dtype: torch.dtype) -> TensorSource:
        """All of it on a device, floating-point leaves in `dtype`; nothing is copied that is there already."""
        return TensorSource(place(self.tree, device, dtype))


class ArraySource:
    """Arrays on disk (`np.memmap`): any tree of them, of which a batch at a time is read into memory.

    Args:
        tree: its leaves are arrays or tensors, samples along the first dimension.
        name: for messages.

    Raises:
        DataError: a leaf that is no array of numbers, lengths that differ, or no sample at all.

    Example:
        >>> import numpy as np
        >>> from nm_ode.data import ArraySource
        >>> np.save("x.npy", np.arange(12.0).reshape(4, 3))
        >>> source = ArraySource((np.load("x.npy", mmap_mode="r"),))
        >>> source.nbytes, source.take(slice(2, 4))[0].tolist()
        (96, [[6.0, 7.0, 8.0], [9.0, 10.0, 11.0]])
    """

    def __init__(self, tree: Any, name: str = "data") -> None:
        for place, leaf in named_leaves(tree, name):
            as_leaf(leaf[:1] if isinstance(leaf, np.memmap) and leaf.ndim else leaf, place)
        _require_equal_lengths(tree, name)
        self._tree = tree

    def __repr__(self) -> str:
        return f"<ArraySource of {len(self)} samples>"

    def __len__(self) -> int:
        return len(flatten(self._tree)[0][0])

    @property
    def nbytes(self) -> int:
        """That all of it would take in memory."""
        return sum(int(leaf.nbytes) for leaf in flatten(self._tree)[0])

    def take(self, indices: Samples) -> Any:
        """These samples, copied into memory."""
        part = slice(None) if indices is None else indices

        def read(leaf: Any) -> Tensor:
            if isinstance(leaf, Tensor):
                return leaf[part]
            if isinstance(part, slice):
                return as_leaf(np.array(leaf[part]), "data")
            places = part.numpy()
            if places.dtype == bool:
                places = np.flatnonzero(places)
            # Three times as fast as an index.
            return as_leaf(np.take(np.asarray(leaf), places, axis=0), "data")

        return map_leaves(read, self._tree)


class DatasetSource:
    """Any map-style `torch.utils.data.Dataset`: of each batch its items are read and put together, in order.

    Where the Dataset has `__getitems__`, a batch is one call of it, as in torch's DataLoader.

    Args:
        dataset: has `__len__` and `__getitem__`, and gives the same item for the same index every time.
        collate_fn: items to batch; torch's `default_collate` if None, which here also knows dataclasses.
        at_once: the most samples that a batch is meant to have, for who is not told by others.

    Raises:
        DataError: a Dataset without indices or without samples.

    Example:
        >>> import torch
        >>> from torch.utils.data import Dataset
        >>> from nm_ode.data import DatasetSource
        >>> class Pairs(Dataset):
        ...     def __len__(self):
        ...         return 5
        ...     def __getitem__(self, i):
        ...         return torch.tensor([float(i), 1.0]), i % 2
        >>> x, y = DatasetSource(Pairs()).take(torch.tensor([3, 1]))
        >>> x.tolist(), y.tolist()
        ([[3.0, 1.0], [1.0, 1.0]], [1, 1])
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        collate_fn: Callable[[list[Any]], Any] | None = None,
        *,
        at_once: int | None = None,
    ) -> None:
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
            raise DataError(
                f"data: {type(dataset).__name__} has no length or no indices; give a map-style Dataset, with "
                "__len__ and __getitem__"
            )
        if len(dataset) == 0:
            raise DataError(f"data: {type(dataset).__name__} is empty; give at least one sample")
        self.dataset, self.at_once = dataset, at_once
        self._collate = collate if collate_fn is None else collate_fn

    def __repr__(self) -> str:
        return f"<DatasetSource of {len(self)} samples>"

    def __len__(self) -> int:
        return len(self.dataset)

    def take(self, indices: Samples) -> Any:
        """These samples, read now.

        Raises:
            NoSuchSampleError: an index out of range.
        """
        everywhere = range(len(self))  # counts negative indices from the end, as tensors do
        wanted = [everywhere[i] for i in indices_of(indices, len(self)).tolist()]
        together = getattr(self.dataset, "__getitems__", None)
        items = together(wanted) if together is not None else [self.dataset[i] for i in wanted]
        return self._collate(items)


class Part:
    """Some samples of another source, none of them read yet."""

    def __init__(self, source: Source, samples: Tensor | slice) -> None:
        self.source = source
        self._indices = indices_of(samples, len(source))

    def __len__(self) -> int:
        return len(self._indices)

    def take(self, indices: Samples) -> Any:
        """The samples at these places among those of the part."""
        return self.source.take(self._indices if indices is None else self._indices[indices])


def source_of(data: Any) -> Source:
    """A source as it is; a `DataSet`'s pairs, prepared as it says; a map-style Dataset; or a tree of tensors or arrays.

    A plain `TensorDataset` is in memory like its tensors. A tree with an `np.memmap` in it stays on disk. A DataLoader
    is its dataset, put together by its `collate_fn`, no more samples at once than its batches have; the order in which
    it would give them is another matter (`train(batch_size=…)`).

    Args:
        data: any of these.

    Returns:
        A `Source`.

    Raises:
        DataError: nothing that samples could be taken from.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> from nm_ode.data import digits, source_of
        >>> several = digits(), (torch.ones(8, 3), torch.ones(8)), TensorDataset(torch.ones(4, 2))
        >>> [f"{len(source_of(data))} in a {type(source_of(data)).__name__}" for data in several]
        ['1797 in a TensorSource', '8 in a TensorSource', '4 in a TensorSource']
    """
    if isinstance(data, str | bytes):
        raise DataError(
            f"data is the text {said(data)}: give the arrays themselves (nm_ode.data.npz reads a file)"
        )
    if isinstance(data, DataSet):
        return data.source()
    if type(data) is TensorDataset:
        return TensorSource(data.tensors)
    if isinstance(data, Dataset):
        return DatasetSource(data)
    if isinstance(data, DataLoader):
        return _of_loader(data)
    if Source in type(data).__mro__ or (isinstance(data, Source) and not hasattr(data, "__getitem__")):
        source: Source = data  # a tensor and many a table have `take` too, but also `__getitem__`
        if len(source) == 0:
            raise DataError(f"data: {type(data).__name__} is empty; give at least one sample")
        return source
    leaves = flatten(data)[0]
    if leaves and leaves[0] is data and not is_array(data) and hasattr(data, "__getitem__"):
        return DatasetSource(data)  # what other libraries call a dataset
    if any(isinstance(leaf, np.memmap) for leaf in leaves):
        return ArraySource(data)
    return TensorSource(data)


def at_once_of(source: Source) -> int | None:
    """The most samples that a batch of it is meant to have, if it says so: of a DataLoader."""
    return source.at_once if isinstance(source, DatasetSource) else None


def _of_loader(loader: DataLoader[Any]) -> Source:
    dataset: Any = loader.dataset
    sampler = loader.sampler
    every_once = isinstance(sampler, SequentialSampler) or (
        isinstance(sampler, RandomSampler) and not sampler.replacement and len(sampler) == len(dataset)
    )
    if not isinstance(loader.dataset, IterableDataset) and (not every_once or loader.batch_size is None):
        raise DataError(
            f"data: the DataLoader draws by a {type(loader.batch_sampler or sampler).__name__}, so that its batches "
            "are not of all samples, each once: give the samples that are meant, as its dataset (loader.dataset) or "
            "a torch.utils.data.Subset of it"
        )
    if type(loader.dataset) is TensorDataset and loader.collate_fn is default_collate:
        return TensorSource(loader.dataset.tensors)
    collated = None if loader.collate_fn is default_collate else loader.collate_fn
    return DatasetSource(loader.dataset, collated, at_once=loader.batch_size)


def place(tree: Any, device: torch.device, dtype: torch.dtype, *, non_blocking: bool = False) -> Any:
    """The batch on a device, floating-point leaves in `dtype` (complex ones in its pair); all else as it is.

    Args:
        non_blocking: a GPU fetches what lies in pinned memory when it comes to it.
    """

    def placed(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray):
            leaf = as_leaf(leaf, "a batch") if leaf.ndim else torch.from_numpy(numbers(leaf, "a batch"))
        return in_dtype(leaf, device, dtype, non_blocking) if isinstance(leaf, Tensor) else leaf

    return map_leaves(placed, tree)


def collate(items: Sequence[Any]) -> Any:
    """torch's `default_collate`, also of dataclasses, field by field."""
    first = items[0]
    if not is_dataclass(first) or isinstance(first, type):
        return default_collate(list(items))
    made = copy.copy(first)
    for field in fields(first):
        object.__setattr__(made, field.name, collate([getattr(item, field.name) for item in items]))
    return made


def _require_equal_lengths(tree: Any, name: str) -> None:
    lengths = {place: len(leaf) for place, leaf in named_leaves(tree, name)}
    if not lengths:
        raise DataError(f"{name} has no tensor in it")
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        first = next(iter(lengths.values()))
        others = [place for place, length in lengths.items() if length != first][:3]
        listed = ", ".join(f"{place} has {lengths[place]}" for place in [next(iter(lengths)), *others])
        raise DataError(f"numbers of samples: {listed}; every leaf must have as many, at least one")
