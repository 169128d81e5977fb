"""Sources of samples: what they take, in which order, and what they refuse."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from nm_ode import Problem, ProblemError
from nm_ode.data import (
    DATA,
    ArraySource,
    DataError,
    DatasetSource,
    Source,
    TensorSource,
    digits,
    npz,
    npz_source,
    source_of,
)
from nm_ode.data.trees import flatten, map_leaves, named_leaves

N = 10


@dataclass(frozen=True)
class Item:
    image: Any
    label: Any


class Pair(NamedTuple):
    x: Any
    y: Any


class Squares(Dataset):
    """Item i: the numbers i and i², and a label. Remembers what was read."""

    def __init__(self, form: str = "tuple") -> None:
        self.form, self.read = form, []

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> Any:
        assert 0 <= i < N
        self.read.append(i)
        x, y = torch.tensor([i, i**2], dtype=torch.float32), i % 3
        forms = {"tuple": (x, y), "dict": {"x": x, "y": y}, "dataclass": Item(x, y), "named": Pair(x, y)}
        return forms[self.form]


class Together(Squares):
    """As `Squares`, a batch at a time."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        self.read.append(tuple(indices))
        return [super(Together, self).__getitem__(i) for i in indices]


def arrays() -> tuple[np.ndarray, np.ndarray]:
    return np.arange(2.0 * N).reshape(N, 2), np.arange(N) % 3


def on_disk(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    made = []
    for name, array in zip("xy", arrays(), strict=True):
        np.save(folder / f"{name}.npy", array)
        made.append(np.load(folder / f"{name}.npy", mmap_mode="r"))
    return made[0], made[1]


def sources(folder: Path) -> dict[str, Source]:
    x, y = arrays()
    return {
        "tensors": source_of((torch.from_numpy(x), torch.from_numpy(y))),
        "arrays": source_of((x, y)),
        "on disk": source_of(on_disk(folder)),
        "dataset": source_of(Rows(x, y)),
    }


class Rows(Dataset):
    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        return self.x[i], self.y[i]


INDICES = st.one_of(
    st.none(),
    st.lists(st.integers(-N, N - 1), min_size=1, max_size=8).map(torch.tensor),
    st.lists(st.booleans(), min_size=N, max_size=N).filter(any).map(torch.tensor),
    st.builds(slice, st.none() | st.integers(0, N - 1), st.none() | st.integers(N, N + 3), st.integers(1, 3)),
)


@given(indices=INDICES)
def test_every_source_takes_the_samples_that_numpy_would(
    indices: Tensor | slice | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    wanted = slice(None) if indices is None else indices.numpy() if isinstance(indices, Tensor) else indices
    expected = [array[wanted] for array in arrays()]
    for name, source in sources(tmp_path_factory.mktemp("arrays")).items():
        assert len(source) == N
        taken = source.take(indices)
        for mine, theirs in zip(taken, expected, strict=True):
            assert isinstance(mine, Tensor), name
            np.testing.assert_array_equal(mine.numpy(), theirs, err_msg=name)
            assert mine.numpy().dtype == theirs.dtype


@pytest.mark.parametrize("form", ["tuple", "dict", "named"])
@pytest.mark.parametrize("kind", [Squares, Together])
def test_a_dataset_gives_the_batches_of_torchs_data_loader(form: str, kind: type[Squares]) -> None:
    mine = DatasetSource(kind(form))
    loader = DataLoader(kind(form), batch_size=4, sampler=[7, 3, 3, 0])
    for one, other in zip(
        flatten(mine.take(torch.tensor([7, 3, 3, 0])))[0], flatten(next(iter(loader)))[0], strict=True
    ):
        assert torch.equal(one, other)
        assert one.dtype == other.dtype


def test_a_batch_of_a_dataset_is_one_call_where_the_dataset_has_one() -> None:
    data = Together()
    DatasetSource(data).take(slice(2, 4))
    assert data.read == [(2, 3), 2, 3]


def test_items_that_are_dataclasses_are_put_together_field_by_field() -> None:
    batch = source_of(Squares("dataclass")).take(torch.tensor([2, 5]))
    assert isinstance(batch, Item)
    assert batch.image.tolist() == [[2, 4], [5, 25]]
    assert batch.label.tolist() == [2, 2]


def test_items_are_put_together_as_one_wishes() -> None:
    source = DatasetSource(Squares(), collate_fn=lambda items: torch.stack([x for x, _ in items]).sum(dim=0))
    assert source.take(slice(0, 3)).tolist() == [3, 5]


def test_torchs_own_datasets_are_sources() -> None:
    x, y = (torch.from_numpy(array) for array in arrays())
    in_memory = TensorDataset(x, y)
    assert isinstance(source_of(in_memory), TensorSource)
    for data, first in (
        (Subset(in_memory, [4, 2]), 4),
        (ConcatDataset([Subset(in_memory, [9]), in_memory]), 9),
    ):
        assert source_of(data).take(slice(0, 1))[0].tolist() == x[[first]].tolist()


class OfAnotherLibrary:
    """Looks like a dataset of Hugging Face: indices, a length, and a `take` that means something else."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> dict[str, int]:
        return {"token": i}

    def take(self, n: int) -> None:
        raise AssertionError("not a source's")


class Own:
    def __len__(self) -> int:
        return N

    def take(self, indices: Any) -> Any:
        x, y = TensorSource(tuple(map(torch.from_numpy, arrays()))).take(indices)
        return {"x": x, "y": y}


def test_what_looks_like_a_dataset_or_a_source_is_one() -> None:
    assert source_of(OfAnotherLibrary()).take(torch.tensor([3]))["token"].tolist() == [3]
    own = Own()
    assert source_of(own) is own
    assert isinstance(source_of(torch.ones(3, 2)), TensorSource)  # though a tensor has `take` and a length


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        return iter(())


class Empty(Squares):
    def __len__(self) -> int:
        return 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (Stream(), "Stream has no length or no indices"),
        (Empty(), "Empty is empty"),
        ({"x": torch.ones(3, 2), "mask": torch.ones(2)}, r"data\['x'\] has 3, data\['mask'\] has 2"),
        (Item(torch.ones(3), {"a": torch.ones(4)}), r"data.image has 3, data.label\['a'\] has 4"),
        ({"x": torch.ones(3), "rate": 0.1}, r"data\['rate'\] is a single number"),
        ({"x": torch.ones(3), "names": ["a", "b", "c"]}, r"data\['names'\]\[0\] is str"),
        (torch.ones(0, 3), "data has 0"),
        ((), "no tensor"),
    ],
)
def test_what_no_sample_can_be_taken_from_is_refused(data: Any, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        source_of(data)


def test_an_index_out_of_range_is_an_error() -> None:
    with pytest.raises(IndexError):
        source_of(Squares()).take(torch.tensor([N]))


def test_in_memory_tensors_are_placed_once_and_shared_where_they_can_be(tiny: Problem) -> None:
    x, y = tiny.batch()
    problem = Problem.from_objective(
        tiny.model, lambda model, batch: F.mse_loss(model(batch["x"]), batch["y"]), {"x": x, "y": y}
    )
    assert problem.batch()["x"].data_ptr() == x.data_ptr()
    assert problem.batch(slice(2, 4))["x"].data_ptr() == x[2:].data_ptr()
    assert isinstance(problem.source, TensorSource)


def of_squares(data: Dataset, chunk_size: int | None) -> Problem:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3))
    return Problem(model, F.cross_entropy, data, chunk_size=chunk_size)


def test_a_dataset_is_read_chunk_by_chunk_and_gives_what_tensors_give() -> None:
    data = Together()
    problem = of_squares(data, 4)
    x, y = DatasetSource(Squares()).take(None)
    in_memory = of_squares(TensorDataset(x, y), None)
    theta = problem.theta0 * 1.2
    data.read.clear()
    loss, gradient = problem.loss_and_grad(theta)
    assert [batch for batch in data.read if isinstance(batch, tuple)] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9)]
    torch.testing.assert_close(loss, in_memory.loss(theta))
    torch.testing.assert_close(gradient, in_memory.grad(theta))
    torch.testing.assert_close(problem.hvp(theta, theta), in_memory.hvp(theta, theta))
    torch.testing.assert_close(problem.sample_grads(theta), in_memory.sample_grads(theta))
    thetas, batches = torch.stack([theta, theta * 1.1]), torch.tensor([[1, 2, 3, 4, 5], [9, 0, 9, 0, 1]])
    for samples in (None, batches):
        for mine, theirs in zip(
            problem.ensemble_loss_and_grad(thetas, samples),
            in_memory.ensemble_loss_and_grad(thetas, samples),
            strict=True,
        ):
            torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    "samples", [torch.tensor([7, 1, 3]), torch.arange(9, 1, -1), slice(1, 9, 2), slice(0, 3)]
)
def test_a_subset_of_a_dataset_reads_its_samples_alone(samples: Tensor | slice) -> None:
    data = Squares()
    problem = of_squares(data, 4)
    data.read.clear()
    part = problem.subset(samples)
    theta = problem.theta0 * 1.2
    torch.testing.assert_close(part.grad(theta), problem.grad(theta, samples))
    assert set(data.read) == set(torch.arange(N)[samples].tolist())
    assert part.n_samples == len(torch.arange(N)[samples])
    inner = part.subset(torch.tensor([1, 0]))
    torch.testing.assert_close(inner.grad(theta), problem.grad(theta, torch.arange(N)[samples][[1, 0]]))


def test_what_is_not_in_memory_needs_a_chunk_size(tmp_path: Path) -> None:
    for data in (Squares(), Subset(Squares(), [1, 2])):
        with pytest.raises(ProblemError, match="give chunk_size"):
            of_squares(data, None)
    x, y = on_disk(tmp_path)
    with pytest.raises(ProblemError, match="give chunk_size"):
        Problem(nn.Linear(2, 3), F.cross_entropy, (x, y))
    whole = of_squares(Squares(), N)
    assert whole.chunk_size is None
    torch.testing.assert_close(whole.loss(whole.theta0), of_squares(Squares(), 3).loss(whole.theta0))


def test_a_batch_norm_that_needs_the_whole_data_gets_it_in_one_chunk_or_is_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    whole = Problem(model, F.cross_entropy, Squares(), chunk_size=N)
    x, y = DatasetSource(Squares()).take(None)
    torch.testing.assert_close(
        whole.loss(whole.theta0), Problem(model, F.cross_entropy, (x, y)).loss(whole.theta0)
    )
    with pytest.raises(ProblemError, match="take all samples in one chunk"):
        Problem(model, F.cross_entropy, Squares(), chunk_size=4)


def test_a_dataset_that_gives_other_items_each_time_is_refused() -> None:
    class Augmented(Squares):
        def __getitem__(self, i: int) -> Any:
            x, y = super().__getitem__(i)
            return x + torch.rand(()), y

    with pytest.raises(ProblemError, match="the loss is random"):
        of_squares(Augmented(), 4)


def test_trees_are_rebuilt_as_they_were() -> None:
    tree = {"a": [torch.ones(2), (torch.zeros(3),)], "b": Item(Pair(1, None), {"c": 2})}
    leaves, rebuild = flatten(tree)
    again = rebuild(leaves)
    assert again["a"][1] == tree["a"][1]
    assert again["b"] == tree["b"]
    assert map_leaves(lambda leaf: 7, tree)["b"] == Item(Pair(7, 7), {"c": 7})
    assert tree["b"].image.x == 1
    assert [name for name, _ in named_leaves(tree, "t")] == [
        "t['a'][0]",
        "t['a'][1][0]",
        "t['b'].image.x",
        "t['b'].image.y",
        "t['b'].label['c']",
    ]


def test_all_arrays_of_an_npz_file_are_a_source(tmp_path: Path) -> None:
    x, y = arrays()
    np.savez(tmp_path / "own.npz", tokens=y.astype(np.int32), values=x.astype(np.float32))
    batch = npz_source(tmp_path / "own.npz").take(torch.tensor([2, 1]))
    assert batch["tokens"].tolist() == [2, 1]
    assert (batch["tokens"].dtype, batch["values"].dtype) == (torch.int32, torch.float32)
    np.savez(tmp_path / "other.npz", x=x, y=y[:4])
    with pytest.raises(DataError, match=r"other.npz\['y'\] has 4"):
        npz_source(tmp_path / "other.npz")
    with pytest.raises(DataError, match="no data file"):
        npz(tmp_path / "none.npz")


def test_a_data_set_is_one_function_and_one_registration() -> None:
    assert {"digits", "diabetes", "npz"} <= set(DATA)
    assert torch.equal(DATA["digits"](samples=3).x, digits(3).x)
    DATA.register("ones", lambda samples=4: digits(samples))
    try:
        assert len(DATA["ones"](samples=2).x) == 2
    finally:
        DATA.unregister("ones")
    with pytest.raises(KeyError, match="digits"):
        DATA["digit"]


def test_arrays_on_disk_are_not_read_before_they_are_asked_for(tmp_path: Path) -> None:
    x, y = on_disk(tmp_path)
    source = ArraySource({"x": x, "y": y})
    batch = source.take(slice(2, 4))
    assert batch["x"].tolist() == arrays()[0][2:4].tolist()
    batch["x"].zero_()  # memory of its own
    assert source.take(slice(2, 4))["x"].tolist() == arrays()[0][2:4].tolist()


def test_a_dataloader_is_its_dataset_where_it_gives_each_sample_once() -> None:
    data = TensorDataset(torch.arange(8.0).reshape(4, 2))
    source = source_of(DataLoader(data, batch_size=2, shuffle=True))
    assert source.take(None)[0].tolist() == data.tensors[0].tolist()
    with pytest.raises(DataError, match=r"loader\.dataset"):
        source_of(DataLoader(data, batch_size=2, sampler=[3, 3]))
