"""Pictures of ensembles: labelled fields in, matplotlib figures out.

    fig = plot.recovery(truth, posterior, sensors)
    plot.save(fig, "recovery.png")

Rules that hold in every picture: fields that are compared share one colour scale, drawn once;
colours are perceptually uniform and safe for colour-blind readers (viridis, magma; lines also
differ in dash); axes carry the names and units in the attrs; what is masked is grey. Figures are
made without pyplot, so nothing global changes and nothing has to be closed.
"""

from sciddm.plot import series
from sciddm.plot.curves import fan, learning_curves, rank_histogram, spectrum
from sciddm.plot.lead import by_lead, lead_maps, ranks_by_lead, spectra_by_lead, spread_skill
from sciddm.plot.maps import maps, recovery
from sciddm.plot.style import DASHES, FIELD, LINES, SPREAD, STYLE, save

__all__ = [
    "DASHES",
    "FIELD",
    "LINES",
    "SPREAD",
    "STYLE",
    "by_lead",
    "fan",
    "lead_maps",
    "learning_curves",
    "maps",
    "rank_histogram",
    "ranks_by_lead",
    "recovery",
    "save",
    "series",
    "spectra_by_lead",
    "spectrum",
    "spread_skill",
]
