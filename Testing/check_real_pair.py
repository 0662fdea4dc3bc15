"""Fails when the real follow-up pair was not registered as well as the README says.

Usage: python Testing/check_real_pair.py out/real-pair/result.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

#: Limits of issue 2: TRE in mm, folding in percent of the body, memory in MB.
LIMITS = {
    "TRE mean, mm": (("quality", "tre_mm", "after", "mean"), 1.5),
    "TRE median, mm": (("quality", "tre_mm", "after", "median"), 1.1),
    "folding in the body, %": (("quality", "folding_percent", "body"), 0.05),
    "peak memory, MB": (("cost", "peak_memory_mb"), 3072),
}


def main(path: str) -> int:
    """Prints each measure with its limit; returns 1 when one is above it."""
    report = json.loads(Path(path).read_text(encoding="utf-8"))
    failed = report["encoder"]["name"] != "mobile_sam" or not report["encoder"]["trained"]
    print(f"encoder: {report['encoder']['name']}, trained: {report['encoder']['trained']}")
    for name, (keys, limit) in LIMITS.items():
        value = report
        for key in keys:
            value = value[key]
        verdict = "ok" if value <= limit else "ABOVE THE LIMIT"
        failed |= value > limit
        print(f"{name}: {value:.4f} (at most {limit}): {verdict}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
