"""The networks that cases name."""

from nm_ode.models.activations import ACTIVATIONS
from nm_ode.models.cnn import cnn
from nm_ode.models.mlp import NORMS, mlp
from nm_ode.models.resnet import resnet18
from nm_ode.models.vgg import PLANS, vgg
from nm_ode.models.vit import vit

__all__ = ["ACTIVATIONS", "NORMS", "PLANS", "cnn", "mlp", "resnet18", "vgg", "vit"]
