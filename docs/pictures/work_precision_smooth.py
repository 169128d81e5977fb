"""Work–precision of the smooth flow."""

from work_precision import draw

draw("smooth")
