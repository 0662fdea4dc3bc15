"""Nodules in the scene: what is tracked, the table, the markers, decisions, and the views."""
