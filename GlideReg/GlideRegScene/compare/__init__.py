"""Two volumes compared in the slice views: checkerboard, split, red-cyan, difference, fading."""
