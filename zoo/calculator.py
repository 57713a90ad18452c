"""A Potential as an ASE calculator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from torch import Tensor

if TYPE_CHECKING:
    from zoo.potential import Potential


class ZooCalculator(Calculator):
    """Energy (eV), free energy (the same), forces (eV/Å) and, for 3D-periodic structures, stress (eV/Å^3, Voigt order xx yy zz yz xz xy).

    Asking for the stress of a molecule, a wire or a slab raises ASE's `PropertyNotImplementedError`: without a volume it means nothing. So
    does asking a model that predicts none (`Potential.has_stress`).
    Results are kept until the structure or the potential changes: another active adapter, trained weights, other reference energies.

    Threads may share a potential and not a calculator, which holds one structure's results.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012 - as ASE declares it

    def __init__(self, potential: Potential, **kwargs: Any) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        self.potential = potential
        self._computed_with: tuple[object, ...] = ()

    def set_adapter(self, names: str | Sequence[str] | None) -> None:
        """Compute with this adapter (or these, or None, the base) from the next calculation on; nothing is built anew.

        The same as ``potential.adapters.activate([...])``, so that every calculator of the potential follows.

        Raises:
            adapters.errors.AdapterError: an adapter that the potential does not have (`Potential.load_adapter` attaches a file), or while
                adapters are merged.
        """
        self.potential.adapters.activate([names] if isinstance(names, str) else names or [])

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What changed since the last calculation; everything, where the potential did."""
        if self.results and not _same(self._computed_with, _state_of(self.potential)):
            return list(all_changes)
        changes: list[str] = super().check_state(atoms, tol=tol)  # type: ignore[no-untyped-call]
        if isinstance(self.atoms, Atoms) and any(self.atoms.info.get(name) != atoms.info.get(name) for name in ("charge", "spin")):
            changes.append("info")  # ASE looks at no charge that is not an atom's
        return changes

    def calculate(self, atoms: Atoms | None = None, properties: list[str] | None = None, system_changes: list[str] = all_changes) -> None:
        """Fill ``results`` for ``atoms``; raises `ZooError` for an unknown element."""
        self.results = {}  # those of the structure before, which must not pass for this one's if it is refused
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        assert isinstance(self.atoms, Atoms)
        with self.potential.adapters.exclusive():  # what is remembered is what was computed with
            self._computed_with = _state_of(self.potential)
            prediction = self.potential.predict([self.atoms])[0]
        self.results = {"energy": prediction.energy, "free_energy": prediction.energy, "forces": prediction.forces}
        if prediction.stress is not None:
            self.results["stress"] = full_3x3_to_voigt_6_stress(prediction.stress)
        elif properties and "stress" in properties and not self.potential.has_stress:
            raise PropertyNotImplementedError(f"{self.potential.source} predicts no stress; load it with forces='gradient' to derive one")
        elif properties and "stress" in properties:
            raise PropertyNotImplementedError(
                f"stress needs a structure periodic in all three directions, found pbc={self.atoms.pbc.tolist()}"
            )


def _state_of(potential: Potential) -> tuple[object, ...]:
    """The active adapters and their scales, and every tensor with torch's count of its changes in place.

    The tensors themselves, for an id is reused.
    """
    tensors: list[Tensor] = [*potential.parameters(), potential.reference_shifts]
    return (potential.adapters.state, *((tensor, tensor._version) for tensor in tensors))


def _same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    if len(one) != len(other) or one[:1] != other[:1]:
        return False
    return all(a[0] is b[0] and a[1] == b[1] for a, b in zip(one[1:], other[1:], strict=True))  # type: ignore[index]
