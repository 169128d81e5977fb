"""The recorder: observers on a training loop of the user's own.

recorder.py     what the user sees: one `with` line
hooks.py        torch's optimiser hooks, and what a step was: its gradient, its update, whether it was taken
known.py        a torch optimiser as one of nm_ode's, where there is one
"""

from nm_ode.recorder.recorder import Recorder

__all__ = ["Recorder"]
