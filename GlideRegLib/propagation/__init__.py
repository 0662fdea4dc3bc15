"""Takes what was drawn, measured or planned on one image to the other one, through a transform."""
