"""The zoo that cases name."""

from nm_ode.models.mlp import ACTIVATIONS, mlp

__all__ = ["ACTIVATIONS", "mlp"]
