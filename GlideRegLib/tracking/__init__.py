"""Nodules: found again in the current scan, measured on native images, compared over time."""
