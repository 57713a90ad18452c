"""Published linear references: one energy per element, whose sum over a frame's atoms is what models leave out of total energies.

OC20 and OC22 publish theirs as an npz file whose array ``coeff`` is indexed by atomic number. They come from a least-squares fit that kept
the columns of elements that the data lack, and those entries hold whatever the solver left there: exact zeros, a few meV, or 150 eV and
more in size:

====  ========  ==========================  =========================================================================
set   physical  from, to (eV)               not physical (besides zeros for most lanthanides and from Po on)
====  ========  ==========================  =========================================================================
OC20  56        -11.64 (W), +0.28 (Hg)      19 of 8e10 to 6e12 eV: He, Li, Be, F, Ne, Mg, Ar, Br, Kr, I, Xe, Ba, La to Eu
OC22  57        -16.20 (Ta), +1.24 (Hg)     Xe 0.0004, I -0.005, Tc 156, Kr -4690, and 9 of 2e4 to 6e10 eV: He, B, F, Ne, ...
====  ========  ==========================  =========================================================================

A coefficient is a cohesive energy counted from the pseudo-atoms that the DFT code takes as zero: some eV below zero. The rule lies in the
gaps of both files: a coefficient counts if it is within `LOWEST_EV` to `HIGHEST_EV` (gaps -4690 to -16.2 and 1.24 to 156 eV) and at least
`SMALLEST_EV` in size (gap 0.005 to 0.21 eV).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo.data.npy_files import read_npz
from zoo.data.reference_energies import MAX_ATOMIC_NUMBER
from zoo.errors import ZooError

LOWEST_EV, HIGHEST_EV = -25.0, 5.0
SMALLEST_EV = 0.05


def read_linear_references(path: str | Path) -> dict[int, float]:
    """Atomic number to eV, for the elements whose coefficient is physical; the others are absent, so that asking for them is an error.

    Args:
        path: an npz file with an array ``coeff`` (Z,), eV, where ``coeff[Z]`` belongs to atomic number Z.

    Raises:
        ZooError: where the file cannot be read without unpickling, has no such array, or none of its values is physical.
    """
    coefficients = _read_coefficients(Path(path))
    sizes = np.abs(coefficients)
    # False for NaN as well
    physical = (coefficients >= LOWEST_EV) & (coefficients <= HIGHEST_EV) & (sizes >= SMALLEST_EV)
    references = {number: float(coefficients[number]) for number in range(1, len(coefficients)) if physical[number]}
    if not references:
        raise ZooError(
            f"{path}: no coefficient lies within {LOWEST_EV:g} to {HIGHEST_EV:g} eV, wanted one energy per atom in eV indexed by atomic "
            "number; give the file of the set's linear references"
        )
    return references


def _read_coefficients(path: Path) -> NDArray[np.float64]:
    try:
        arrays = read_npz(path)
    except FileNotFoundError:
        raise ZooError(f"{path}: no such file; give the npz file of the linear references") from None
    except OSError as error:
        raise ZooError(f"{path}: cannot be read ({error.strerror or error}); give the npz file of the linear references") from None
    except ZooError as error:
        raise ZooError(f"{error} (linear references are numbers, read without unpickling)") from None
    if "coeff" not in arrays:
        raise ZooError(f"{path}: no array 'coeff', wanted an npz file with one energy an element under this name; give the set's own file")
    values = arrays["coeff"]
    if values.ndim != 1 or values.dtype.kind not in "fiu" or len(values) > MAX_ATOMIC_NUMBER + 1:
        raise ZooError(
            f"{path}: 'coeff' has shape {values.shape} and type {values.dtype}, wanted at most {MAX_ATOMIC_NUMBER + 1} numbers, one for "
            "each atomic number from 0; give the set's own file"
        )
    coefficients: NDArray[np.float64] = values.astype(np.float64)
    return coefficients
