"""A Potential as an ASE calculator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

if TYPE_CHECKING:
    from zoo.potential import Potential


class ZooCalculator(Calculator):
    """Energy (eV), free energy (the same), forces (eV/Å) and, for 3D-periodic structures, stress (eV/Å^3, Voigt order xx yy zz yz xz xy).

    Asking for the stress of a molecule, a wire or a slab raises ASE's `PropertyNotImplementedError`: without a volume it means nothing.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012 - as ASE declares it

    def __init__(self, potential: Potential, **kwargs: Any) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        self.potential = potential

    def calculate(self, atoms: Atoms | None = None, properties: list[str] | None = None, system_changes: list[str] = all_changes) -> None:
        """Fill ``results`` for ``atoms``; raises `ZooError` for an unknown element."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        assert isinstance(self.atoms, Atoms)
        prediction = self.potential.predict([self.atoms])[0]
        self.results = {"energy": prediction.energy, "free_energy": prediction.energy, "forces": prediction.forces}
        if prediction.stress is not None:
            self.results["stress"] = full_3x3_to_voigt_6_stress(prediction.stress)
        elif properties and "stress" in properties:
            raise PropertyNotImplementedError(
                f"stress needs a structure periodic in all three directions, found pbc={self.atoms.pbc.tolist()}"
            )
