"""Whether a network rebuilt from a package's configuration is the package's own: a setting of another version may not have been seen.

Both are asked for the energy of every atom and the force on it, in small clusters from bonded distances to the cutoff. Energies are taken
relative to the atom alone, and atoms alone compared for themselves: shifts are a thousand times larger than what a wrong setting changes.
No distance is so short that the repulsion of nuclei, in a model with a pair term, would hide the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from ase.data import covalent_radii
from nequip.data import AtomicDataDict as keys
from torch import Tensor, nn

from zoo.errors import ZooError

# of the largest value in the cluster, and of the largest in any: rounding in the networks' own dtype, summed over layers
_TOLERANCE = {torch.float64: (1e-8, 1e-10), torch.float32: (1e-4, 1e-5)}
_OF_ATOM_ALONE = 1e-7
_ATOMS = 6  # of a cluster: the corners of a distorted octahedron
_BONDED = (1.1, 1.5)  # shortest distance in sums of covalent radii
_OF_CUTOFF = (0.6, 0.8)  # shortest distance in cutoffs


def compare_networks(
    rebuilt: nn.Module, packaged: nn.Module, elements: Sequence[int], cutoff: float, dtype: torch.dtype, path: Path
) -> None:
    """Refuse a rebuilt network that is not the packaged one.

    Args:
        rebuilt: an energy network of the framework, built here.
        packaged: the package's.
        elements: atomic number of each atom type, in the models' order.
        cutoff: Å.
        dtype: of both.
        path: of the package, for the message.

    Raises:
        ZooError: where an atom's energy or force differs by more than rounding.
    """
    data, cluster = _clusters(torch.as_tensor(elements), cutoff)
    found, wanted = (_answers(network.eval(), data, len(elements)) for network in (rebuilt, packaged))
    in_cluster, in_any = _TOLERANCE[dtype]
    for quantity, unit in (("energy", "eV"), ("force", "eV/Å"), ("energy alone", "eV")):
        difference, size = (found[quantity] - wanted[quantity]).abs().amax(1), wanted[quantity].abs().amax(1)  # (N,)
        if quantity == "energy alone":
            allowed = _OF_ATOM_ALONE * size + in_any * wanted["energy"].abs().max()
        else:
            largest = torch.zeros(len(cluster), dtype=size.dtype).scatter_reduce(0, cluster, size, "amax")[cluster]
            allowed = in_cluster * largest + in_any * size.max()
        beyond = ~(difference <= allowed + 1e-12)  # with what is not a number
        if beyond.any():
            raise ZooError(
                f"{path}: rebuilt here, the {quantity} of an atom differs by {difference[beyond].max().item():.2g} {unit} from what "
                "the package's own code gives; it is of another version: load it with the nequip it names"
            )


def _clusters(elements: Tensor, cutoff: float) -> tuple[dict[str, Tensor], Tensor]:
    """One structure of clusters that do not see each other, as upstream's data, and the cluster of each atom.

    The first are single atoms, one of each type.
    """
    generator = torch.Generator().manual_seed(0)
    count = len(elements)
    corners = torch.cat([torch.eye(3, dtype=torch.float64), -torch.eye(3, dtype=torch.float64)])
    positions, types = [torch.zeros(count, 3, dtype=torch.float64)], [torch.arange(count)]
    for share in (*_BONDED, *_OF_CUTOFF):
        order = torch.randperm(count, generator=generator).repeat(_ATOMS)[: -(-count // _ATOMS) * _ATOMS]
        for members in order.view(-1, _ATOMS):
            corner = corners + 0.15 * torch.randn(_ATOMS, 3, generator=generator, dtype=torch.float64)
            distances = torch.cdist(corner, corner).fill_diagonal_(torch.inf)
            radii = torch.as_tensor(covalent_radii)[elements[members]]
            unit = ((radii[:, None] + radii) / distances).max() if share in _BONDED else cutoff / distances.min()
            positions.append(share * unit * corner)
            types.append(members)
    sizes = torch.tensor([1] * count + [_ATOMS] * (len(types) - 1))
    cluster = torch.arange(len(sizes)).repeat_interleave(sizes)  # (N,)
    place, kind = torch.cat(positions), torch.cat(types)
    near = (place[:, None] - place).norm(dim=-1).lt(cutoff) & (cluster[:, None] == cluster)
    data = {
        keys.POSITIONS_KEY: place,  # (N, 3)
        keys.EDGE_INDEX_KEY: near.fill_diagonal_(False).nonzero().T,  # (2, E)
        keys.ATOM_TYPE_KEY: kind,  # (N,)
        keys.BATCH_KEY: torch.zeros_like(kind),
        keys.NUM_NODES_KEY: torch.tensor([len(kind)]),
    }
    return data, cluster


def _answers(network: nn.Module, data: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """``energy`` (N, 1) relative to the atom alone and ``force`` (N, 3) of each atom, and ``energy alone`` (``count``, 1) of each type."""
    positions = data[keys.POSITIONS_KEY].clone().requires_grad_()
    centre, neighbour = data[keys.EDGE_INDEX_KEY]
    with torch.enable_grad():
        vectors = positions[neighbour] - positions[centre]
        energies = network({**data, keys.POSITIONS_KEY: positions, keys.EDGE_VECTORS_KEY: vectors})[keys.PER_ATOM_ENERGY_KEY]
        (gradient,) = torch.autograd.grad(energies.sum(), positions)
    alone = energies.detach()[:count].double()
    return {"energy": energies.detach().double() - alone[data[keys.ATOM_TYPE_KEY]], "force": -gradient, "energy alone": alone}
