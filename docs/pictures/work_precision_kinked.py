"""Work–precision of the kinked flow."""

from work_precision import draw

draw("kinked")
