"""Data sets of images from the files that people have."""

from __future__ import annotations
