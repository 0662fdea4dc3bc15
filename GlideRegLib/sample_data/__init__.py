"""Data to develop, test and demonstrate with: phantom, semi-synthetic pairs, local real data."""
