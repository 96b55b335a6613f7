"""PDE recovery at the floor: five problems, both directions, beside the exact law and the classics.

Every part holds trained networks to fields that they were never trained on, with random sensors,
and prints the classical answers in the same table. The parts run side by side, two at a time; those
that measure time run alone, after them. The whole takes at most an hour on 2 cores, with --quick
at most 8 minutes; --large adds the 128 x 128 tables of the parts that have them, --sign writes the
tables into the cards of the models.

    python benchmarks/pde_recovery.py [--quick] [--large] [--json] [--sign] [PART ...]

    linear         Poisson and Helmholtz beside their exact posterior
    noise          Poisson at noise of 0 to 15 %, and with 1, 3 and 10 % of the points
    rules          two published guidance rules beside the default, the same network
    navier_stokes  the initial and the final vorticity from points of the other
    darcy          the two-phase coefficient and the pressure from points of the other
    burgers        shocks: wavelet coefficients against the field, equal parameters
    cost           seconds of one posterior member at 128 x 128
    generation     seconds of 1,000 fields at 128 x 128, and their bytes by number of workers
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from _parts import Benchmark  # noqa: E402

PARTS = ("navier_stokes", "darcy", "linear", "rules", "noise", "burgers")
ALONE = ("cost", "generation")
MODELS = ("poisson", "helmholtz", "navier_stokes", "darcy", "burgers")

if __name__ == "__main__":
    Benchmark("pde_recovery", "_recovery", PARTS, ALONE, True, MODELS).main(__doc__ or "")
