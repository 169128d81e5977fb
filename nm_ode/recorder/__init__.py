"""The recorder: observers on a training loop of the user's own.

recorder.py     what the user sees: one `with` line
followed.py     which parameters are followed, without the wrappers of their model
hooks.py        torch's optimiser hooks, and what a step was: its gradient, its update, whether it was taken
pending.py      which loss belongs to which step
backward.py     backward passes, and whether a gradient was thrown away
conditions.py   what laws take for granted of each step: groups, hyperparameters, nobody else at theta
groups.py       the optimiser's groups of parameters in a step
written.py      who writes to parameters, or to the velocity, between two steps
known.py        a torch optimiser as one of nm_ode's, where there is one
rates.py        the learning rate of each parameter
states.py       an optimiser's whole state as one vector
taken.py        the steps that were taken: all for a run in memory, a summary where a store has them
described.py    the record of the run
stored.py       a recording on its way to a store
going_on.py     where a run is gone on with
"""

from nm_ode.recorder.recorder import Recorder

__all__ = ["Recorder"]
