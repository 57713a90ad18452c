"""EquiformerV2 beside the reference implementation: the same numbers, and time and memory at the published 31M size.

Run in an environment that has fairchem-core 1.10.0 as well (``pip install --no-deps fairchem-core==1.10.0``, what it then asks for, and a
stand-in for torch_scatter):

    python -m benchmarks.equiformer_v2_reference parity     (rewrites docs/parity.md)
    python -m benchmarks.equiformer_v2_reference speed      (rewrites docs/benchmarks.md)

For the speed the two take turns, call by call, in one process: on a shared machine the ratios are worth more than the times. Peaks of
memory need a process each, which ``speed`` starts (``memory --only ours``).
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from torch import Tensor, nn
from torch_geometric.data import Data

from benchmarks.tables import ROOT, markdown_table, stamp, write_between_markers
from zoo.backbones import load_family
from zoo.backbones.equiformer_v2.backbone import structures_of
from zoo.backbones.equiformer_v2.coefficients import Coefficients
from zoo.backbones.equiformer_v2.config import Architecture, parse_config
from zoo.backbones.equiformer_v2.network import Structures, build_network
from zoo.backbones.equiformer_v2.rotation import EdgeFrames, unit_vectors
from zoo.data.frame import Frame
from zoo.graph import AtomGraph, GraphRecipe
from zoo.loading import load

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
ORGANIC = Atoms(
    "COHN", [[0, 0, 0], [1.2, 0.1, 0], [0.2, 1.5, 0.4], [0.3, 0.2, 2.1]], cell=[[5, 0.2, 0], [0, 4.5, 0.3], [0.1, 0, 5.5]], pbc=True
)


def reference_network(settings: dict[str, Any], structures: Structures) -> tuple[nn.Module, Callable[[], dict[str, Tensor]]]:
    """Upstream's network in the default dtype, and a call of it on ready-made edges."""
    from fairchem.core.models.equiformer_v2 import equiformer_v2_deprecated as upstream

    network = upstream.EquiformerV2(**settings).eval()
    network.direct_forces = True  # else it keeps what a gradient would need even where none is asked for
    return network, call_on(network, structures)


def call_on(network: nn.Module, structures: Structures) -> Callable[[], dict[str, Tensor]]:
    """A call of upstream's network on ready-made edges, in place of those that it was called on before."""
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
    return lambda: network(data)


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


def compare_variants() -> list[list[str]]:
    """A row a variant: largest differences of energies and forces, in float64 and in the frames that upstream drew."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(5)
    graphs = torch.tensor([0] * 5 + [1] * 4)
    positions = 3.5 * torch.rand(9, 3)
    pairs = ((graphs[:, None] == graphs) & ~torch.eye(9, dtype=torch.bool)).nonzero()
    centre, neighbour = pairs[torch.rand(len(pairs)) > 0.2].T
    numbers = torch.tensor([1, 6, 8, 29, 78, 1, 8, 8, 6])
    structures = Structures(numbers, torch.stack([neighbour, centre]), positions[neighbour] - positions[centre], graphs, 2)
    rows = []
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
        rows.append([name, *(f"{difference:.0e}" for difference in differences), f"{float(outputs['forces'].abs().max()):.2g}"])
    torch.set_default_dtype(torch.float32)
    return rows


def compare_calculators(folder: Path) -> list[list[str]]:
    """A row a toy: ours against upstream's calculator on the file that we write, float32, upstream's frames drawn at random."""
    import_reference()
    from fairchem.core.common.relaxation.ase_utils import OCPCalculator

    family = load_family("equiformer_v2")
    rows = []
    for name, toy in {"L = 2": family.toy, **family.more_toys}.items():
        path = folder / f"{name}.pt"
        toy(0).rebuilt(torch.float32).write_upstream_checkpoint(path, {6: 0.3, 8: -0.2})
        ours, theirs = ORGANIC.copy(), ORGANIC.copy()
        ours.calc, theirs.calc = load(path).calculator(), OCPCalculator(checkpoint_path=str(path), cpu=True)
        wanted = theirs.get_forces()
        has_stress = "stress" in theirs.calc.implemented_properties
        differences = [
            f"{abs(ours.get_potential_energy() - theirs.get_potential_energy()) / len(ours):.0e}",
            f"{np.abs(ours.get_forces() - wanted).max():.0e}",
            f"{np.abs(ours.get_stress() - theirs.get_stress()).max():.0e}" if has_stress else "",
        ]
        rows.append([name, *differences, f"{np.abs(wanted).max():.2g}"])
    return rows


def import_reference() -> None:
    """Upstream's models of this family alone: its own set-up would import all it has, and the packages that those ask for."""
    from fairchem.core.common.registry import registry

    registry.register("imports_setup", True)
    for module in ("trainers", "models.base", "models.equiformer_v2.equiformer_v2", "models.equiformer_v2.trainers.forces_trainer"):
        importlib.import_module(f"fairchem.core.{module}")
    # it loads its files without saying whether they may run code; these are ours
    upstream_load = torch.load
    torch.load = lambda *args, **settings: upstream_load(*args, **{"weights_only": True, **settings})


def slab() -> Structures:
    """48 copper atoms and CO: 50 atoms with 1000 edges."""
    atoms = fcc111("Cu", (4, 4, 3), vacuum=8, periodic=True)
    atoms.rattle(0.05, seed=1)
    add_adsorbate(atoms, "C", 1.8)
    add_adsorbate(atoms, "O", 2.9)
    recipe = GraphRecipe(PUBLISHED_31M["max_radius"], PUBLISHED_31M["max_neighbors"])
    return structures_of(AtomGraph.from_frame(Frame.unlabelled(atoms), recipe), torch.float32)


def measure(only: str | None, calls: int) -> dict[str, tuple[float, dict[str, float]]]:
    """Of a forward, and of one with the gradients of all weights: the median of reference over ours, and each one's best seconds.

    With ``only`` one of the two runs, and the process's peaks of memory in MB take the place of seconds.
    """
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
    found = {}
    for name, step in (("forward", _forward), ("forward and backward", _forward_and_backward)):
        times: dict[str, list[float]] = {key: [] for key in networks}
        for _ in range(calls):
            for key, (network, call) in networks.items():
                started = time.perf_counter()
                step(network, call)
                times[key].append(time.perf_counter() - started)
        if only is None:
            ratio = statistics.median(r / o for r, o in zip(times["reference"], times["ours"], strict=True))
            found[name] = (ratio, {key: min(values) for key, values in times.items()})
        else:
            found[name] = (math.nan, {only: float(_peak_mb())})
    return found


def speed_table(threads: int, calls: int) -> str:
    """Ratios, seconds and peaks of memory, as a table."""
    peaks: dict[str, dict[str, float]] = {}
    for only in ("reference", "ours"):
        command = [sys.executable, "-m", "benchmarks.equiformer_v2_reference", "memory", "--only", only, "--threads", str(threads)]
        peaks[only] = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    rows = []
    for name, (ratio, seconds) in measure(None, calls).items():
        times = [f"{seconds[key]:.2f}" for key in ("reference", "ours")]
        rows.append([name, f"{ratio:.2f}", *times, *(f"{peaks[key][name]:,.0f}" for key in ("reference", "ours"))])
    header = ["", "reference / ours", "reference, best s", "ours, best s", "reference, peak MB", "ours, peak MB"]
    return markdown_table(header, rows)


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
    parser.add_argument("what", choices=["parity", "speed", "memory"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--calls", type=int, default=6)
    parser.add_argument("--only", choices=["ours", "reference"], default="ours", help="of memory")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    command = f"python -m benchmarks.equiformer_v2_reference {options.what}"
    if options.what == "memory":
        print(json.dumps({name: peak[options.only] for name, (_, peak) in measure(options.only, 2).items()}))
    elif options.what == "speed":
        note = f"31M, float32, 50 atoms with 1000 edges, {options.threads} threads, {options.calls} calls each in turns. "
        content = f"{speed_table(options.threads, options.calls)}\n\n{note}{stamp(command)}"
        write_between_markers(ROOT / "docs" / "benchmarks.md", "EquiformerV2", content)
    else:
        with tempfile.TemporaryDirectory() as folder:
            calculators = compare_calculators(Path(folder))
        networks = markdown_table(["network, float64", "energy", "forces", "largest force"], compare_variants())
        files = markdown_table(
            ["calculator, float32", "energy, eV/atom", "forces, eV/Å", "stress, eV/Å³", "largest force, eV/Å"], calculators
        )
        content = f"{networks}\n\n{files}\n\n{stamp(command)}"
        write_between_markers(ROOT / "docs" / "parity.md", "parity of EquiformerV2", content)


if __name__ == "__main__":
    main()
