"""Named architectures as small random networks, a judge of what is found of them, and what is right by hand."""

from zoo.stubs import import_timm

import_timm()
