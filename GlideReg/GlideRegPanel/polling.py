"""A Qt timer that watches a run, so that the application stays alive."""

import qt

from GlideRegRun.registration import Registration

#: Milliseconds between two looks.
INTERVAL = 100


def pollWithTimer(registration: Registration) -> None:
    """Polls in the main thread until the run is over."""
    timer = qt.QTimer()
    timer.setInterval(INTERVAL)

    def look() -> None:
        if registration.poll():
            timer.stop()

    timer.connect("timeout()", look)
    registration.timer = timer  # kept alive as long as the run is
    timer.start()
