"""The networks that cases name."""

from nm_ode.models.activations import ACTIVATIONS
from nm_ode.models.cnn import cnn
from nm_ode.models.linear import linear
from nm_ode.models.mlp import mlp
from nm_ode.models.network import Network
from nm_ode.models.resnet import resnet18
from nm_ode.models.vgg import PLANS, vgg
from nm_ode.models.vit import vit
from nm_ode.registry import Registry

MODELS: Registry[Network] = Registry(
    "network",
    {
        "mlp": Network(mlp, inputs="widths[0]", outputs="widths[-1]"),
        "linear": Network(linear, inputs="inputs", outputs="outputs"),
        "cnn": Network(cnn, takes_images=True, outputs="classes"),
        "vgg": Network(vgg, takes_images=True, outputs="classes"),
        "resnet18": Network(resnet18, takes_images=True, outputs="classes"),
        "vit": Network(vit, takes_images=True, outputs="classes"),
    },
)
"""Name in a case file → network.

Example:
    >>> from nm_ode.models import MODELS
    >>> sorted(MODELS)
    ['cnn', 'linear', 'mlp', 'resnet18', 'vgg', 'vit']
    >>> type(MODELS["linear"].build(inputs=3, outputs=1)).__name__
    'Sequential'
"""

__all__ = [
    "ACTIVATIONS",
    "MODELS",
    "PLANS",
    "Network",
    "cnn",
    "linear",
    "mlp",
    "resnet18",
    "vgg",
    "vit",
]
