#!/usr/bin/env python3
"""An energy counter of one processor package, as Linux shows those of RAPL: powercap.py DIR WATTS RANGE_UJ.

It grows by the time that has passed since the start, and begins anew where it reaches its range.
"""

import os
import sys
import time


def put(zone, name, text):
    """Whoever reads finds all of the old text or of the new."""
    path = os.path.join(zone, name)
    with open(path + ".next", "w") as file:
        file.write(f"{text}\n")
    os.rename(path + ".next", path)


def main():
    folder, watts, range_uj = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    zone = os.path.join(folder, "intel-rapl:0")
    os.makedirs(zone)
    put(zone, "name", "package-0")
    put(zone, "max_energy_range_uj", range_uj)
    start = time.monotonic()
    while True:
        put(zone, "energy_uj", int((time.monotonic() - start) * watts * 1e6) % range_uj)
        time.sleep(0.002)


if __name__ == "__main__":
    main()
