"""One file per method, each with ``register(fixed, moving, workdir) -> displacement image``.

``fixed`` and ``moving`` are SimpleITK images on one 1.5 mm grid, the moving one already resampled
through the affine start. The answer is a vector image in LPS mm on the grid of ``fixed``: the fixed
point p belongs to the point p + u(p) of ``moving``. ``workdir`` is an own folder for scratch files.
An adapter imports its package at the top, so that only the registration itself is timed.
"""
