"""Small real results of every kind: each name that a dataset of nm_ode's can have is in one of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import xarray as xr
from torch import nn

import nm_ode
from nm_ode.observers import Noise
from nm_ode.results.study import StudyStore
from tests.reporting.trees import ladder, symmetries_dataset
from tests.results.studies import record, work

STEPS = 8
OWN = {"score"}
"""Named by whoever asked for it."""
AXES = {"lr", "seed"}
"""Of the study below: keys of its case."""


def datasets(folder: Path) -> Iterator[xr.Dataset]:
    torch.manual_seed(0)
    x, y, labels = torch.randn(24, 4), torch.randn(24, 1), torch.randint(3, (24,))
    yield from _of_a_network(x, labels)
    smooth = nm_ode.Problem(
        nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)), nn.functional.mse_loss, (x, y)
    )
    yield from _of_flows(smooth)
    yield from _of_ensembles(smooth)
    yield from _of_a_study(smooth, folder)


def _of_a_network(x: torch.Tensor, labels: torch.Tensor) -> Iterator[xr.Dataset]:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    loss = nn.functional.cross_entropy
    problem = nm_ode.Problem(model, loss, (x, labels))
    found = nm_ode.find_symmetries(model, x, loss="cross_entropy")
    yield symmetries_dataset(found)

    nesterov = nm_ode.SGD(lr=0.05, momentum=0.5, nesterov=True)
    observers = [
        nm_ode.Charges(found),
        nm_ode.Averages(),
        nm_ode.Curvature(points=3),
        nm_ode.Statistics(every=2),
        nm_ode.HeldOut((x, labels)),
        nm_ode.Constraints(found, every=4),
        nm_ode.KinkCrossings(),
        Noise(every=4, parts=4),
        nm_ode.Scores({"score": lambda view: 1.0}),
    ]
    run = nm_ode.train(problem, nesterov, STEPS, batch_size=12, observe=observers)
    law = nm_ode.predict_charges(run, "exact", with_residual=True)
    yield from (run, law, nm_ode.compare(run, law))

    plain = nm_ode.SGD(lr=0.05, momentum=0.5)
    hessian = nm_ode.Hessian(
        batch=(x, labels), loss_fn=loss, every=4, top=2, trace=3, density=2, symmetries=found
    )
    run = nm_ode.train(
        problem, plain, STEPS, observe=[nm_ode.Charges(found, every=3), nm_ode.Sketch(), hessian]
    )
    yield from (run, nm_ode.spectral_density(run))
    flow = nm_ode.solve(nm_ode.modified_flow(problem, plain), run, check=False, observe=[nm_ode.Sketch()])
    yield nm_ode.compare(run, flow)

    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.05)
    with nm_ode.Recorder(model, optimizer, observe=[nm_ode.Charges(found)]) as recorder:
        for _ in range(2):
            optimizer.zero_grad()
            value = loss(model(x), labels)
            value.backward()
            recorder.loss(value)
            optimizer.step()
    yield recorder.run


def _of_flows(problem: nm_ode.Problem) -> Iterator[xr.Dataset]:
    sgd = nm_ode.SGD(lr=0.1)
    run = nm_ode.train(problem, sgd, STEPS)
    central = nm_ode.solve(nm_ode.CentralFlow(problem, sgd), run, rtol=1e-3)
    modified = nm_ode.solve(nm_ode.modified_flow(problem, sgd), run)
    for solution in (central, modified):
        yield from (solution, nm_ode.compare(run, solution))
    yield nm_ode.train(problem, sgd, 2, members=nm_ode.Members(seed=range(2)))


def _of_ensembles(problem: nm_ode.Problem) -> Iterator[xr.Dataset]:
    sgd = nm_ode.SGD(lr=0.1)
    yield nm_ode.sgd_ensemble(problem, sgd, steps=2, batch_size=6, members=2)
    noise = nm_ode.gradient_noise(problem, problem.theta0, batch_size=6)
    diffusion = nm_ode.StochasticModifiedFlow(problem, sgd, noise)
    yield nm_ode.solve_ensemble(diffusion, time=0.2, members=2)


def _of_a_study(problem: nm_ode.Problem, folder: Path) -> Iterator[xr.Dataset]:
    orders = ladder(problem, (0.2, 0.1), 0.8)
    yield orders
    members = record(seeds=(0,))
    store = StudyStore.at(folder, members.name)
    store.begin(members)
    for place in members.members:
        sgd = nm_ode.SGD(place.values["optimizer.lr"])
        run = nm_ode.train(problem, sgd, 4)
        flow = nm_ode.solve(nm_ode.GradientFlow(problem), run, rtol=1e-3)
        work(store, place, discrete=run, flows__gradient=flow, comparison__gradient=nm_ode.compare(run, flow))
        store.commit(place.name)
    tree = nm_ode.open_study(folder / members.name / "study.zarr")
    yield tree.to_dataset()[["whole", "status", "failure"]]
    yield tree["discrete"].to_dataset()[["lr_of_step", "loss"]]
    yield tree["flows/gradient"].to_dataset()[["loss", "time"]]
