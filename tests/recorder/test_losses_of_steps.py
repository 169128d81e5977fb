"""Whatever a loop does between two steps, the loss recorded with a step is that of the gradient it took."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import nm_ode

WINDOWS = st.lists(
    st.tuples(
        st.integers(1, 3),  # backward passes
        st.sampled_from(["step", "step", "dropped"]),
        st.booleans(),  # is the gradient set to None, or to zero?
        st.booleans(),  # is it scaled by hand in between, as by clipping?
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(WINDOWS, st.booleans(), st.booleans())
def test_dropped_gradients_take_their_losses_with_them(
    windows: list[tuple[int, str, bool, bool]], loss_first: bool, add: bool
) -> None:
    """The gradient of a·w is a: so the gradient itself says of which losses the step is."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
    numbers = iter(range(1, 100))
    scaled, wanted, dropped, open_drops = [], [], 0, 0
    with nm_ode.Recorder(model, optimizer, save_every=1) as recorder:
        for passes, ending, set_to_none, is_scaled in windows:
            optimizer.zero_grad(set_to_none=set_to_none)
            losses = []
            for _ in range(passes):
                losses.append(float(next(numbers)))
                loss = losses[-1] * model.weight.sum()
                if loss_first:
                    recorder.loss(losses[-1], add=add)
                loss.backward()
                if not loss_first:
                    recorder.loss(losses[-1], add=add)
            dropped, open_drops = dropped + open_drops, 0
            if is_scaled:
                assert model.weight.grad is not None
                model.weight.grad *= 0.5
            if ending == "step":
                wanted.append(sum(losses) if add else np.mean(losses))
                scaled.append(sum(losses) * (0.5 if is_scaled else 1.0))
                optimizer.step()
            else:
                open_drops = 1
    run = recorder.run
    np.testing.assert_allclose(run.loss, wanted)
    np.testing.assert_allclose(run.grad_norm, scaled)
    assert recorder.skipped_steps == dropped
