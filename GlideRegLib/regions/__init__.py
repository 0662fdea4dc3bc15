"""Regions that a segmenter finds in two images, paired: what SAMReg registers by."""
