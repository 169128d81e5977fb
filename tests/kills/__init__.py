"""Runs that are killed at their file operations."""
