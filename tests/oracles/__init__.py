"""Independent answers that the package is held against."""
