"""Named architectures as small random networks, a judge of what is found of them, and what is right by hand."""

import contextlib

from zoo.stubs import import_timm

with contextlib.suppress(ModuleNotFoundError):  # the page is written from the results, without the networks
    import_timm()
