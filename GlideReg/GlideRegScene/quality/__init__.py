"""Quality in the scene: what is assessed as files, and the assessment as nodes."""
