"""Images from bytes to what a network takes: normalised, flipped and cropped, against NumPy by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional as F

import nm_ode
from nm_ode import Problem
from nm_ode.data import Augmentation, DataError, DataSet, Preparation, PreparedSource, TensorSource
from nm_ode.loss.expected import expected_loss

N, SIDE = 10, 6
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def bytes_of(n: int = N, side: int = SIDE, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, 3, side, side), dtype=np.uint8))


def classes(n: int = N) -> Tensor:
    return torch.arange(n, device="cpu") % 2


def beside(problem: Problem, run: xr.Dataset) -> nm_ode.MinibatchFlow:
    return nm_ode.MinibatchFlow.beside(nm_ode.GradientFlow(problem), run)


def by_hash(seed: int, index: int, stream: int) -> int:
    """The documented function, in Python's integers."""

    def mixed(h: int) -> int:
        h = (h ^ h >> 16) * 0x21F0AAAD % 2**32
        h = (h ^ h >> 15) * 0x735A2D97 % 2**32
        return h ^ h >> 15

    h = mixed(index % 2**32 ^ mixed(seed % 2**32))
    h = mixed(h ^ index >> 32 ^ mixed(seed >> 32))
    return mixed(h ^ mixed(stream + 1))


def by_hand(pixels: np.ndarray, index: int, augment: Augmentation | None) -> np.ndarray:
    """One image, shape (channels, side, side)."""
    sample, side = pixels[index % N], pixels.shape[-1]
    if augment is not None and index >= N:
        pad = augment.pad
        down, right = (by_hash(augment.seed, index, i) % (2 * pad + 1) for i in (1, 2))
        black = np.pad(sample, [(0, 0), (pad, pad), (pad, pad)])
        sample = black[:, down : down + side, right : right + side]
        if augment.flip and by_hash(augment.seed, index, 0) % 2:
            sample = sample[:, :, ::-1]
    mean, std = (np.array(one)[:, None, None] for one in (MEAN, STD))
    return (sample / 255 - mean) / std


@pytest.mark.parametrize(
    "augment",
    [None, Augmentation(), Augmentation(flip=False, pad=2, seed=2**40 + 3), Augmentation(pad=0, seed=1)],
    ids=str,
)
def test_a_batch_is_what_numpy_makes_of_it_by_hand(augment: Augmentation | None) -> None:
    pixels = bytes_of()
    source = PreparedSource(TensorSource((pixels, classes())), Preparation(MEAN, STD, augment))
    wanted = [3, 0, 9, 3] if augment is None else [3, 13, 23, 7 + N * 2**33, 0, 19, 12, 4 + N * 10**6]
    x, y = source.take(torch.tensor(wanted))
    assert x.dtype == torch.float64
    np.testing.assert_allclose(x.numpy(), [by_hand(pixels.numpy(), i, augment) for i in wanted], rtol=1e-14)
    assert y.tolist() == [i % N % 2 for i in wanted]
    assert len(source) == N


def test_flips_and_crops_come_as_often_as_they_should() -> None:
    column = torch.arange(9, dtype=torch.uint8).expand(1, 3, 9, 9).clone()
    source = PreparedSource(TensorSource((column, classes(1))), Preparation(MEAN, STD, Augmentation(pad=1)))
    x, _ = source.take(torch.arange(1, 4001))
    value = torch.round((x[:, 0] * STD[0] + MEAN[0]) * 255)
    flipped = (value[:, 4, 5] < value[:, 4, 3]).double()
    assert abs(float(flipped.mean()) - 0.5) < 0.03
    shift = torch.where(flipped.bool(), value[:, 4, 4] - 4, 4 - value[:, 4, 4])
    counts = torch.stack([(shift == s).double().mean() for s in (-1, 0, 1)])
    assert (counts - 1 / 3).abs().max() < 0.03
    assert abs(float(torch.corrcoef(torch.stack([flipped, shift]))[0, 1])) < 0.05


def test_a_problem_keeps_bytes_and_trains_as_on_the_numbers_themselves(tmp_path: Path) -> None:
    pixels, y = bytes_of(), classes()
    np.save(tmp_path / "x.npy", pixels.numpy())
    numbers = torch.from_numpy(np.stack([by_hand(pixels.numpy(), i, None) for i in range(N)]))
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 2)).double()
    data = DataSet(pixels, y, preparation=Preparation(MEAN, STD))
    on_disk = DataSet(np.load(tmp_path / "x.npy", mmap_mode="r"), y, preparation=Preparation(MEAN, STD))
    problems = [
        Problem(model, F.cross_entropy, DataSet(numbers, y)),
        Problem(model, F.cross_entropy, data),
        Problem(model, F.cross_entropy, on_disk.source(), chunk_size=4),
    ]
    assert problems[1].source.raw(None)[0].dtype == torch.uint8
    assert problems[1].n_samples == N
    runs = [nm_ode.train(one, nm_ode.SGD(lr=0.001), 4, batch_size=4) for one in problems]
    for run in runs[1:]:
        np.testing.assert_allclose(run.theta, runs[0].theta, rtol=1e-12)
        np.testing.assert_allclose(run.full_loss, runs[0].full_loss, rtol=1e-12)
    flows = [nm_ode.solve(beside(one, runs[0]), runs[0]) for one in problems[::2]]
    np.testing.assert_allclose(flows[1].theta, flows[0].theta, rtol=1e-7)


@pytest.fixture(scope="module")
def augmented() -> tuple[Problem, np.ndarray, Augmentation]:
    augment, pixels = Augmentation(pad=2, seed=5), bytes_of()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 2)).double()
    data = DataSet(pixels, classes(), preparation=Preparation(MEAN, STD, augment))
    return Problem(model, F.cross_entropy, data.source(), chunk_size=4), pixels.numpy(), augment


@pytest.fixture(scope="module")
def run(augmented: tuple[Problem, np.ndarray, Augmentation]) -> xr.Dataset:
    return nm_ode.train(augmented[0], nm_ode.SGD(lr=0.0005), 6, batch_size=4, seed=3)


def test_each_epoch_of_a_run_has_the_next_augmentation(
    augmented: tuple[Problem, np.ndarray, Augmentation], run: xr.Dataset
) -> None:
    problem, pixels, augment = augmented
    grid = nm_ode.run_info(run).grid
    assert grid.augmentation == str(augment)
    epochs = torch.cat(grid.batches).split(N)
    assert [sorted((part % N).tolist()) for part in epochs] == [list(range(N))] * 2
    assert [set((part // N).tolist()) for part in epochs] == [{1}, {2}]
    plain = Problem(problem.model, F.cross_entropy, bytes_as_they_are(pixels))
    for step, samples in enumerate(grid.batches):
        theta = torch.from_numpy(run.theta.values[step])
        images = torch.from_numpy(np.stack([by_hand(pixels, int(i), augment) for i in samples]))
        by_itself = Problem(problem.model, F.cross_entropy, (images, samples % N % 2))
        assert float(run.loss[step]) == pytest.approx(float(by_itself.loss(theta)), rel=1e-12)
        assert float(run.full_loss[step]) == pytest.approx(float(plain.loss(theta)), rel=1e-12)
        torch.testing.assert_close(
            problem.subset(samples).grad(theta), by_itself.grad(theta), rtol=1e-12, atol=1e-14
        )


def test_a_part_keeps_the_augmentations_that_it_was_taken_in(
    augmented: tuple[Problem, np.ndarray, Augmentation],
) -> None:
    problem, pixels, augment = augmented
    wanted = torch.tensor([3, 17, 28, 9, 12, 41])
    part = problem.subset(wanted)  # more than a chunk: none of it is read yet
    assert part.augmentation is None
    np.testing.assert_array_equal(problem.batch([3, 17])[0], part.batch(slice(0, 2))[0])
    with pytest.raises(DataError, match="no sample -11"):
        problem.batch(np.array([2, -11]))
    for some in (slice(1, 5), torch.tensor([5, 0]), None):
        x, y = part.batch(some)
        chosen = wanted if some is None else wanted[some]
        np.testing.assert_allclose(x, [by_hand(pixels, int(i), augment) for i in chosen], rtol=1e-14)
        assert y.tolist() == (chosen % N % 2).tolist()


@pytest.mark.parametrize("kind", [torch.int32, torch.int16, torch.uint8])
def test_numbers_of_fewer_bits_and_masks_are_the_samples_that_they_say(
    augmented: tuple[Problem, np.ndarray, Augmentation], kind: torch.dtype
) -> None:
    problem, pixels, augment = augmented
    wanted = torch.tensor([3, 17, 28])
    for taken in (problem.batch, problem.source.take):
        x, y = taken(wanted.to(kind))
        np.testing.assert_allclose(x, [by_hand(pixels, int(i), augment) for i in wanted], rtol=1e-14)
        assert y.tolist() == [1, 1, 0]
        mask = torch.arange(N) % 4 == 1
        np.testing.assert_allclose(taken(mask)[0], [by_hand(pixels, i, None) for i in (1, 5, 9)], rtol=1e-14)
        with pytest.raises(DataError, match="mask of 12"):
            taken(torch.ones(12, dtype=torch.bool))


def test_members_and_a_same_batch_flow_see_the_samples_of_each_step(
    augmented: tuple[Problem, np.ndarray, Augmentation], run: xr.Dataset
) -> None:
    problem, _, _ = augmented
    runs = nm_ode.train(problem, nm_ode.SGD(lr=0.0005), 6, batch_size=4, members=nm_ode.Members(seed=[3, 4]))
    np.testing.assert_allclose(nm_ode.member_run(runs, 0).theta, run.theta, rtol=1e-12)
    errors = []
    for order in (1, 2):
        flow = nm_ode.modified_flow(problem, nm_ode.SGD(lr=0.0005), order)
        solution = nm_ode.solve(nm_ode.MinibatchFlow.beside(flow, run), run)
        errors.append(float(nm_ode.compare(run, solution).relative_error[-1]))
    assert errors[1] < 0.1 * errors[0]
    plain = Problem(problem.model, F.cross_entropy, bytes_as_they_are(augmented[1]))
    with pytest.raises(nm_ode.FlowError, match="those of the flow's problem are not"):
        beside(plain, run)
    with pytest.raises(nm_ode.ProblemError, match="flow's problem are not"):
        nm_ode.solve(nm_ode.GradientFlow(plain), run)


def test_what_is_expected_of_batches_counts_the_augmentation(
    augmented: tuple[Problem, np.ndarray, Augmentation], run: xr.Dataset
) -> None:
    problem, _, _ = augmented
    expected = expected_loss(problem, nm_ode.run_info(run).grid, problem.theta0)
    assert expected.bias is not None
    assert expected.bias.distance > 5 * expected.bias.standard_error
    with pytest.raises(nm_ode.ProblemError, match=r"augmented \(flips, crops by up to 2 pixels"):
        nm_ode.gradient_noise(problem, problem.theta0, 4)
    plain = Problem(problem.model, F.cross_entropy, bytes_as_they_are(augmented[1]))
    noise = [nm_ode.gradient_noise(one, problem.theta0, 10, draws=400).total for one in (problem, plain)]
    assert noise[0] > 1.05 * noise[1]
    measured = nm_ode.gradient_noise(problem, problem.theta0, 4, draws=5)
    with pytest.raises(nm_ode.FlowError, match="augmented"):
        nm_ode.StochasticModifiedFlow(problem, nm_ode.SGD(lr=0.0005), measured)
    ends = nm_ode.sgd_ensemble(problem, nm_ode.SGD(lr=0.0005), 2, batch_size=4, members=3)
    others = nm_ode.sgd_ensemble(plain, nm_ode.SGD(lr=0.0005), 2, batch_size=4, members=3)
    assert np.abs(ends.theta - others.theta).max() > 1e-6


def bytes_as_they_are(pixels: np.ndarray) -> PreparedSource:
    return PreparedSource(TensorSource((pixels, classes())), Preparation(MEAN, STD))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: Preparation((0.5,), (0.2, 0.2)), "for each channel"),
        (lambda: Preparation((0.5,), (0.0,)), "above 0"),
        (lambda: Preparation(augment=4), "Augmentation or None"),  # type: ignore[arg-type]
        (lambda: Augmentation(flip=False, pad=0), "changes nothing"),
        (lambda: Augmentation(pad=-1), "at least 0"),
        (lambda: DataSet(bytes_of(), classes(), preparation=Preparation()).source(), "3 channels"),
        (lambda: DataSet(bytes_of().double(), classes(), preparation=Preparation()).source(), "uint8"),
    ],
)
def test_what_cannot_be_prepared_is_refused(wrong: object, said: str) -> None:
    assert callable(wrong)
    with pytest.raises(DataError, match=said):
        wrong()


def test_bytes_in_the_place_of_numbers_are_told_how_they_become_some() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * (SIDE - 2) ** 2, 2)).double()
    with pytest.raises(nm_ode.ProblemError, match=r"Preparation\(mean, std\)"):
        Problem(model, F.cross_entropy, (bytes_of(), classes()))
    with pytest.raises(nm_ode.NmOdeError, match="example_input / 255"):
        nm_ode.find_symmetries(model, bytes_of())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")
def test_a_gpu_draws_and_prepares_the_same(tmp_path: Path) -> None:
    augment = Augmentation(pad=2, seed=5)
    np.save(tmp_path / "x.npy", bytes_of().numpy())
    on_disk = np.load(tmp_path / "x.npy", mmap_mode="r")
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 2)).double()
    runs = [
        nm_ode.train(
            Problem(
                model,
                F.cross_entropy,
                DataSet(x, classes(), preparation=Preparation(MEAN, STD, augment)).source(),
                device=device,
                chunk_size=4,
            ),
            nm_ode.SGD(lr=0.001),
            6,
            batch_size=4,
        )
        for x, device in ((bytes_of(), "cpu"), (bytes_of(), "cuda"), (on_disk, "cuda"))
    ]
    for run in runs[1:]:
        np.testing.assert_allclose(run.theta, runs[0].theta, rtol=1e-10)
