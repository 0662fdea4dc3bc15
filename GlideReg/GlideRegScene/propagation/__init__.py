"""Structures, markups, models and volumes of one image as new nodes on the other one.

The numbers are the library's (``GlideRegLib.propagation``), in the worker; here nodes become world
LPS mm and come back. Nodes that are given are never changed.
"""
