"""Images read from disk: trained on, a flow solved and compared; and data that would not fit in memory as float64."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

import nm_ode
from nm_ode import Problem

ROOT = Path(__file__).resolve().parents[2]


class ImagesOnDisk(Dataset):
    """uint8 images in one file; labels by their place."""

    def __init__(self, path: Path, count: int, side: int) -> None:
        self.path, self.count, self.side = path, count, side

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        size = self.side**2
        pixels = np.fromfile(self.path, np.uint8, size, offset=i * size)
        return torch.from_numpy(pixels.reshape(1, self.side, self.side)), i % 10


class OfBytes(nn.Module):
    """Every fourth pixel of a uint8 image, as a number in [0, 1], through a small network."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear((side // 4) ** 2, 8), nn.Tanh(), nn.Linear(8, 10))

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        few = images[..., ::4, ::4].flatten(1)
        return self.layers(few.to(self.layers[0].weight.dtype) / 255)


def test_images_on_disk_are_trained_on_and_the_flow_is_solved_and_compared(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 1, 16, 16), dtype=np.uint8)
    pixels.tofile(tmp_path / "images")
    data = ImagesOnDisk(tmp_path / "images", 60, 16)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = OfBytes(16)
    from_disk = Problem(model, F.cross_entropy, data, chunk_size=25)
    in_memory = Problem(model, F.cross_entropy, (torch.from_numpy(pixels), torch.arange(60) % 10))
    optimizer = nm_ode.SGD(lr=0.1, momentum=0.5)
    runs = [nm_ode.train(problem, optimizer, 5, batch_size=16, seed=1) for problem in (from_disk, in_memory)]
    for name in ("loss", "full_loss", "theta"):
        np.testing.assert_allclose(runs[0][name], runs[1][name], rtol=1e-10, atol=1e-13)
    plain = nm_ode.SGD(lr=0.1)
    full = nm_ode.train(from_disk, plain, 5)
    errors = [
        float(nm_ode.compare(full, nm_ode.solve(flow, full))["relative_error"][-1])
        for flow in (nm_ode.GradientFlow(from_disk), nm_ode.modified_flow(from_disk, plain, order=2))
    ]
    assert 0 < errors[1] < errors[0] / 5 < 0.01


STEPS_ON_A_LARGE_FILE = """
import sys
from pathlib import Path
import torch
from torch.nn import functional as F
from nm_ode import Problem
from tests.data_sources.test_data_on_disk import ImagesOnDisk, OfBytes

path, count, side = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
torch.manual_seed(0)
problem = Problem(OfBytes(side), F.cross_entropy, ImagesOnDisk(path, count, side), chunk_size=256)
theta, losses = problem.theta0, []
generator = torch.Generator().manual_seed(0)
for _ in range(5):
    loss, gradient = problem.loss_and_grad(theta, torch.randint(count, (64,), generator=generator))
    theta = theta - 0.1 * gradient
    losses.append(float(loss))
losses.append(float(problem.loss(theta, slice(0, count, 8))))
assert all(0 < loss < 10 for loss in losses), losses
# Not getrusage, whose peak is that of the process that started this one, if that was larger.
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_data_that_would_be_ten_gigabytes_in_float64_need_little_memory(tmp_path: Path) -> None:
    side = 256
    count = 10**10 // (8 * side**2) + 1
    with open(tmp_path / "images", "wb") as file:
        file.truncate(count * side**2)  # a sparse file: all zero, and no room on the disk
    done = subprocess.run(
        [sys.executable, "-c", STEPS_ON_A_LARGE_FILE, tmp_path / "images", str(count), str(side)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert 8 * count * side**2 > 10**10
    assert int(done.stdout) < 10**9
