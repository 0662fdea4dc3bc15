"""The optimizer: feature volumes in, a displacement in voxels of their grid out.

Everything here works on tensors: features (C, Z, Y, X); displacements (3, Z, Y, X) with components
x, y, z in voxels of the grid they live on, mapping fixed to moving. Borders are replicated.
"""
