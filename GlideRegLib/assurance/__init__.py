"""Quality assurance of any registration: measures, profiles with verdicts, a report.

:func:`.assess.assess` measures a transform between two volumes, :func:`.job.run_assess_job` does it
from files to files. Definitions follow AAPM TG-132 and Learn2Reg; see the modules' docstrings.
"""
