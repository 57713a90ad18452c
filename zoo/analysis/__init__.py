"""What an adapter did to its base: coverage, correlations, ranks, norms, zeros and spectra, as tables, CSV and figures.

`analyse` measures, ``Analysis.write`` leaves the files; ``zoo analyse`` does both.
"""

from __future__ import annotations

from zoo.analysis.analysis import Analysis, analyse

__all__ = ["Analysis", "analyse"]
