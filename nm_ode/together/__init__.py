"""One training of many members, which differ in their start, their batches, or numbers of the optimiser.

members.py   what the members differ in
view.py      a step of all of them, and of one
observed.py  observers of all of them: of rows, and of each member by itself
fates.py     which members are living
training.py  the loop
gathered.py  the dataset that becomes of it
worth.py     is it faster than one after another? measured
choice.py    at once or one after another
"""

from nm_ode.together.choice import train_members, worthwhile
from nm_ode.together.members import Members
from nm_ode.together.worth import Worth

__all__ = ["Members", "Worth", "train_members", "worthwhile"]
