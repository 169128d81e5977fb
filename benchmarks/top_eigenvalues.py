"""The five largest eigenvalues of a ResNet-18's Hessian along a training: products and time, beside other ways.

Width 1/4 (P = 7e5) on 32×32 images, float32, eval mode, 64 samples, three times 20 steps apart: `cold` from nothing,
`warm` from what the time before left. `nm_ode` is `largest_eigenpairs` to a residual of 1e-3 λ₁, its start included.

- `scipy`: `eigsh` on the same products, to the same tolerance; warm from the sum of the eigenvectors before.
- `curvlinops`: `eigsh` on its HessianLinearOperator, warm in the same way. Where it is installed.
- `pyhessian`: its power iterations, tol 1e-3, at most 100 an eigenvalue, without a warm start. Where it is
  installed.

`error`: of the eigenvalues, relative to λ₁, against `largest_eigenpairs` to 1e-5.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from measuring import keep_pages, report
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn
from torch.nn import functional as F

from nm_ode.loss.eigenpairs import largest_eigenpairs
from nm_ode.loss.objective import Supervised
from nm_ode.loss.probed import probed
from nm_ode.models.resnet import resnet18
from nm_ode.parameters import Layout, Parts

COUNT, TOL, TIMES, STEPS = 5, 1e-3, 3, 20
Found = tuple[
    np.ndarray, int, Any
]  # values from the largest down, products, what the next search starts from


def images(samples: int = 512) -> tuple[Tensor, Tensor]:
    """Ten smooth pictures under noise."""
    source = torch.Generator().manual_seed(0)
    means = F.interpolate(torch.randn(10, 3, 4, 4, generator=source), size=32, mode="bilinear")
    y = torch.randint(0, 10, (samples,), generator=source)
    return means[y] + torch.randn(samples, 3, 32, 32, generator=source), y


def by_nm_ode(model: nn.Module, batch: Any, start: Any) -> Found:
    with open_probe(model, batch) as matrix:
        found = largest_eigenpairs(matrix, COUNT, start=start, also=matrix.gradient, tol=TOL)
    return found.values.numpy(), found.products, found.start


def by_scipy(model: nn.Module, batch: Any, start: Any) -> Found:
    with open_probe(model, batch) as matrix:
        return by_eigsh(matrix.matvec, matrix.size, start)


def by_curvlinops(model: nn.Module, batch: Any, start: Any) -> Found:
    from curvlinops import HessianLinearOperator

    parameters = [p for p in model.parameters() if p.requires_grad]
    criterion = nn.CrossEntropyLoss()
    matrix = HessianLinearOperator(model, criterion, parameters, [batch], check_deterministic=False)
    return by_eigsh(lambda v: matrix @ v, Layout.of(model).size, start)


def by_pyhessian(model: nn.Module, batch: Any, _: Any) -> Found:
    from pyhessian import hessian

    products = 0
    plain = torch.autograd.grad

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal products
        products += 1
        return plain(*args, **kwargs)

    torch.autograd.grad = counted
    try:
        made = hessian(copy.deepcopy(model), nn.CrossEntropyLoss(), data=batch, cuda=False)
        values, _vectors = made.eigenvalues(top_n=COUNT, tol=TOL)
    finally:
        torch.autograd.grad = plain
    return np.sort(values)[::-1], products, None


def by_eigsh(product: Callable[[Tensor], Tensor], size: int, start: Any) -> Found:
    products = 0

    def counted(v: np.ndarray) -> np.ndarray:
        nonlocal products
        products += 1
        return product(torch.from_numpy(v.reshape(-1)).float()).detach().numpy()

    operator = LinearOperator((size, size), matvec=counted, dtype=np.float32)
    v0 = np.random.default_rng(0).standard_normal(size) if start is None else start
    values, vectors = eigsh(operator, k=COUNT, which="LA", v0=v0.astype(np.float32), tol=TOL)
    return np.sort(values)[::-1], products, vectors.sum(axis=1)


def open_probe(model: nn.Module, batch: Any):
    layout, parameters = Layout.of(model), dict(model.named_parameters())
    tensors = [parameters[name].detach() for name in layout.names]
    theta = Parts(layout.slots, tensors, tensors[0])
    return probed(model, Supervised(F.cross_entropy), batch, theta, layout)


def main() -> None:
    torch.set_num_threads(1)
    ways = {"nm_ode": by_nm_ode, "scipy": by_scipy}
    for name, way in (("curvlinops", by_curvlinops), ("pyhessian", by_pyhessian)):
        try:
            __import__(name)
        except ImportError:
            continue
        ways[name] = way
    model, (x, y) = resnet18(classes=10, width=0.25).float(), images()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    probe, starts = (x[:64], y[:64]), dict.fromkeys(ways)
    results: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for at in range(TIMES + 1):
        for k in range(STEPS):
            some = slice(64 * (k % 8), 64 * (k % 8 + 1))
            optimizer.zero_grad()
            F.cross_entropy(model(x[some]), y[some]).backward()
            optimizer.step()
        model.eval()
        with open_probe(model, probe) as matrix:
            exact = largest_eigenpairs(matrix, COUNT, also=matrix.gradient, tol=1e-5, most=400).values.numpy()
        for name, way in ways.items():
            row: dict[str, float] = {"step": STEPS * (at + 1)}
            for which, start in (("cold", None), ("warm", starts[name])):
                if which == "warm" and (at == 0 or name == "pyhessian"):
                    continue
                began = time.perf_counter()
                values, products, following = way(model, probe, start)
                row[f"{which}_seconds"] = time.perf_counter() - began
                row[f"{which}_products"] = products
                row[f"{which}_error"] = float(np.abs(values - exact).max() / exact[0])
            starts[name] = following
            results[name].append(row)
        model.train()
    report("top_eigenvalues", __doc__ or "", {"parameters": Layout.of(model).size, "ways": results})


if __name__ == "__main__":
    keep_pages()
    main()
