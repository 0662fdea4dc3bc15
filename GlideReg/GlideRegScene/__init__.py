"""MRML only: vtk and slicer.*, no Qt."""
