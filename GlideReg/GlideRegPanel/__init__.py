"""The panel: Qt. Sections of GlideReg.ui, and the timer that watches a run."""
