"""EquiformerV2 beside the reference implementation: the same numbers in every variant, and time and memory at the published 31M size.

Run in an environment that has fairchem-core 1.10.0 as well (``pip install --no-deps fairchem-core==1.10.0`` and what it asks for):

    python -m benchmarks.equiformer_v2_reference parity
    python -m benchmarks.equiformer_v2_reference time --threads 2
    python -m benchmarks.equiformer_v2_reference memory --threads 2 --only ours

The two take turns, call by call, in one process: on a shared machine the ratios are worth more than the times. Peaks of memory need a
process each (``memory``).
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from ase.build import add_adsorbate, fcc111
from torch import Tensor, nn
from torch_geometric.data import Data

from zoo.backbones.equiformer_v2.backbone import structures_of
from zoo.backbones.equiformer_v2.coefficients import Coefficients
from zoo.backbones.equiformer_v2.config import Architecture, parse_config
from zoo.backbones.equiformer_v2.network import Structures, build_network
from zoo.backbones.equiformer_v2.rotation import EdgeFrames, unit_vectors
from zoo.data.frame import Frame
from zoo.graph import AtomGraph, GraphRecipe

SHARED: dict[str, Any] = {
    "max_neighbors": 20, "max_radius": 12.0, "norm_type": "layer_norm_sh", "lmax_list": [4], "mmax_list": [2], "grid_resolution": 18,
    "use_grid_mlp": True, "weight_init": "uniform", "alpha_drop": 0.0, "drop_path_rate": 0.0,
}  # fmt: skip
SMALL = SHARED | {
    "max_radius": 6.0, "num_layers": 2, "sphere_channels": 16, "attn_hidden_channels": 16, "num_heads": 2, "attn_alpha_channels": 8,
    "attn_value_channels": 8, "ffn_hidden_channels": 12, "edge_channels": 16,
}  # fmt: skip
PUBLISHED_31M = SHARED | {
    "num_layers": 8, "sphere_channels": 128, "attn_hidden_channels": 64, "num_heads": 8, "attn_alpha_channels": 64,
    "attn_value_channels": 16, "ffn_hidden_channels": 128, "edge_channels": 128,
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "L4 M2": {},
    "L6 M2": {"lmax_list": [6]},
    "L6 M3": {"lmax_list": [6], "mmax_list": [3]},
    "L6 M4": {"lmax_list": [6], "mmax_list": [4]},
    "L4 M4": {"mmax_list": [4]},
    "L3 M0": {"lmax_list": [3], "mmax_list": [0]},
    "grid of 14": {"grid_resolution": 14},
    "sparse grid": {"grid_resolution": None},
    "sparse grid, L3 M3": {"grid_resolution": None, "lmax_list": [3], "mmax_list": [3]},
    "S2 activation": {"use_sep_s2_act": False},
    "no grid MLP": {"use_grid_mlp": False},
    "S2 activation, no grid MLP": {"use_sep_s2_act": False, "use_grid_mlp": False},
    "gate": {"use_gate_act": True, "use_grid_mlp": False},
    "gate, grid MLP": {"use_gate_act": True},
    "no attention re-normalisation": {"use_attn_renorm": False},
    "layer_norm": {"norm_type": "layer_norm"},
    "rms_norm_sh": {"norm_type": "rms_norm_sh"},
    "normal weights": {"weight_init": "normal"},
    "linear references": {"use_energy_lin_ref": True, "load_energy_lin_ref": True},
}


def reference_network(settings: dict[str, Any], structures: Structures) -> tuple[nn.Module, Callable[[], dict[str, Tensor]]]:
    """Upstream's network in the default dtype, and a call of it on ready-made edges."""
    from fairchem.core.models.equiformer_v2 import equiformer_v2_deprecated as upstream

    network = upstream.EquiformerV2(**settings).eval()
    network.direct_forces = True  # else it keeps what a gradient would need even where none is asked for
    edges = SimpleNamespace(
        edge_index=structures.edge_index,
        edge_distance=structures.edge_vectors.norm(dim=1),
        edge_distance_vec=structures.edge_vectors,
        node_offset=0,
        batch_full=structures.graph_of_atom,
        atomic_numbers_full=structures.atomic_numbers,
    )
    # upstream writes into what it is given
    network.generate_graph = lambda *_, **__: SimpleNamespace(**vars(edges))
    data = Data(
        pos=torch.zeros(len(structures.atomic_numbers), 3),
        atomic_numbers=structures.atomic_numbers,
        natoms=torch.bincount(structures.graph_of_atom),
        batch=structures.graph_of_atom,
    )
    return network, lambda: network(data)


def with_drawn_frames(structures: Structures, call: Callable[[], dict[str, Tensor]]) -> tuple[dict[str, Tensor], Tensor]:
    """What upstream's call gives, and the gauge (E,) of the frames that it drew at random."""
    from fairchem.core.models.equiformer_v2 import equiformer_v2_deprecated as upstream

    drawn: list[Tensor] = []
    original = upstream.init_edge_rot_mat
    upstream.init_edge_rot_mat = lambda vectors: drawn.append(original(vectors)) or drawn[-1]
    try:
        with torch.no_grad():
            outputs = call()
    finally:
        upstream.init_edge_rot_mat = original
    vectors_only = Coefficients(1, 1)
    into = EdgeFrames(vectors_only, torch.float64)(unit_vectors(structures.edge_vectors)).into
    ours = into[:, torch.as_tensor(vectors_only.index_in_full).argsort()][:, 1:, 1:]
    turn = drawn[0] @ ours.transpose(1, 2)
    return outputs, torch.atan2(turn[:, 0, 2], turn[:, 0, 0])


def compare_variants() -> None:
    """Largest differences of energies and forces, in float64 and in the frames that upstream drew."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(5)
    graphs = torch.tensor([0] * 5 + [1] * 4)
    positions = 3.5 * torch.rand(9, 3)
    pairs = ((graphs[:, None] == graphs) & ~torch.eye(9, dtype=torch.bool)).nonzero()
    centre, neighbour = pairs[torch.rand(len(pairs)) > 0.2].T
    numbers = torch.tensor([1, 6, 8, 29, 78, 1, 8, 8, 6])
    structures = Structures(numbers, torch.stack([neighbour, centre]), positions[neighbour] - positions[centre], graphs, 2)
    for name, changes in VARIANTS.items():
        reference, call = reference_network(SMALL | changes, structures)
        with torch.no_grad():  # fresh norms, biases and embeddings of elements change next to nothing
            for key, parameter in reference.named_parameters():
                if any(part in key for part in ("embedding", "norm", "bias", "lin_ref")):
                    parameter.add_(0.3 * torch.randn_like(parameter))
        network = build_network(Architecture(parse_config(SMALL | changes, name)), torch.float64).eval()
        network.load_state_dict(dict(reference.named_parameters()))
        outputs, gauge = with_drawn_frames(structures, call)
        with torch.no_grad():
            found = network(Structures(**{**vars(structures), "gauge": gauge}))
        differences = [float((found[key] - outputs[key]).abs().max()) for key in ("energy", "forces")]
        print(
            f"{name:32s} energy {differences[0]:.1e}, forces {differences[1]:.1e} of {float(outputs['forces'].abs().max()):.2f}", flush=True
        )


def slab() -> Structures:
    """48 copper atoms and CO: 50 atoms with 1000 edges."""
    atoms = fcc111("Cu", (4, 4, 3), vacuum=8, periodic=True)
    atoms.rattle(0.05, seed=1)
    add_adsorbate(atoms, "C", 1.8)
    add_adsorbate(atoms, "O", 2.9)
    recipe = GraphRecipe(PUBLISHED_31M["max_radius"], PUBLISHED_31M["max_neighbors"])
    return structures_of(AtomGraph.from_frame(Frame.unlabelled(atoms), recipe), torch.float32)


def measure(only: str | None, calls: int) -> None:
    """Times of a forward, and of one with the gradients of all weights; with ``only`` one of the two, and the process's peak of memory."""
    torch.manual_seed(0)
    config = parse_config(PUBLISHED_31M, "31M")
    structures = slab()
    networks: dict[str, tuple[nn.Module, Callable[[], dict[str, Tensor]]]] = {}
    if only != "ours":
        networks["reference"] = reference_network(PUBLISHED_31M, structures)
    if only != "reference":
        ours = build_network(Architecture(config), torch.float32).eval()
        networks["ours"] = (ours, lambda: ours(structures))
    if only is None:
        networks["ours"][0].load_state_dict({name: value.detach().clone() for name, value in networks["reference"][0].named_parameters()})
    before = _peak_mb()
    for name, step in (("forward", _forward), ("forward and backward", _forward_and_backward)):
        times: dict[str, list[tuple[float, float]]] = {key: [] for key in networks}
        for _ in range(calls):
            for key, (network, call) in networks.items():
                wall, cpu = time.perf_counter(), time.process_time()
                step(network, call)
                times[key].append((time.perf_counter() - wall, time.process_time() - cpu))
        for key, values in times.items():
            best, processor = min(value[0] for value in values), min(value[1] for value in values)
            print(
                f"{name}, {key}: best {best:.2f} s, {processor:.2f} s of processor time; peak {_peak_mb()} MB, {before} MB before",
                flush=True,
            )
        if only is None:
            ratios = [[r[part] / o[part] for r, o in zip(times["reference"], times["ours"], strict=True)] for part in (0, 1)]
            print(
                f"{name}: reference / ours {statistics.median(ratios[0]):.2f}, of processor time {statistics.median(ratios[1]):.2f}",
                flush=True,
            )


def _forward(_: nn.Module, call: Callable[[], dict[str, Tensor]]) -> None:
    with torch.no_grad():
        call()


def _forward_and_backward(network: nn.Module, call: Callable[[], dict[str, Tensor]]) -> None:
    outputs = call()
    (outputs["energy"].sum() + outputs["forces"].pow(2).sum()).backward()
    network.zero_grad()


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    """Run one of the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["parity", "time", "memory"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--calls", type=int, default=6)
    parser.add_argument("--only", choices=["ours", "reference"], default="ours", help="of memory")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.what == "parity":
        compare_variants()
    else:
        measure(options.only if options.what == "memory" else None, options.calls)


if __name__ == "__main__":
    main()
