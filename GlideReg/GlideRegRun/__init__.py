"""Runs the library in its own process: needs neither nodes nor widgets."""
