"""Measures GlideReg beside its peers. Not part of the installed library."""
