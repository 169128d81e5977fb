"""The store of a study of many members: one Zarr group a member, and what the study says of itself."""

from nm_ode.results.study.record import Axis, Failure, Place, StudyRecord

__all__ = ["Axis", "Failure", "Place", "StudyRecord"]
