"""The benchmark of the literature: data sets, methods, tables, and files for challenges.

``datasets`` reads each layout into pairs, ``runner`` runs every method on every pair in a process
of its own, ``statistics`` and ``tables`` make the tables of the GLIDE-Reg paper of the records.
"""
