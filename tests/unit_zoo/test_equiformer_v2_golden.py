"""EquiformerV2 gives upstream's stored numbers: constants, intermediate features and outputs, in both forms of its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit_zoo.equiformer_v2_golden import CASES, FORMS, gauge_of, read_architecture, read_case, read_network, structures_of
from zoo.backbones.equiformer_v2.coefficients import Coefficients
from zoo.backbones.equiformer_v2.grid import grid_matrices
from zoo.backbones.equiformer_v2.network import build_network, rebuilt_network, trunk_of
from zoo.backbones.equiformer_v2.rotation import EdgeFrames, unit_vectors

ENERGIES = ("energy", "stress_isotropic", "stress_anisotropic")
LISTED = {"31M": 31_058_690, "base": 83_164_802, "153M": 153_602_690, "omat_31M": 31_207_434}


@pytest.fixture(scope="module")
def folder(golden_folder) -> Path:
    return golden_folder("equiformer_v2")


@pytest.mark.parametrize("form", FORMS)
def test_constants_are_those_of_the_files_to_2e_15(folder, form):
    prefix = "backbone." if form == "hydra" else ""
    stored = np.load(folder / "golden" / f"{form}_L4M2_buffers.npz")
    frames, atoms = Coefficients(4, 2), Coefficients(4, 4)
    by_degree = np.argsort(frames.index_in_full)  # the files have the edges' coefficients by degree as well
    to_m = frames.index_in_full[:, None] == frames.index_in_full[by_degree]
    assert np.array_equal(stored[f"{prefix}mappingReduced.to_m"], to_m)
    for name, coefficients in (("4.2", frames), ("4.4", atoms)):
        for matrix, kind in zip(grid_matrices(coefficients, 18), ("to_grid_mat", "from_grid_mat"), strict=True):
            wanted = stored[f"{prefix}SO3_grid.{name}.{kind}"].reshape(18 * 18, -1)
            assert np.abs(matrix[:, np.argsort(coefficients.index_in_full)] - wanted).max() < 2e-15, (name, kind)
            assert np.abs(wanted).max() > 1e-2
    basis = trunk_of(build_network(read_architecture(folder, form), torch.float64)).basis
    assert np.abs(basis.centres.numpy() - stored[f"{prefix}distance_expansion.offset"]).max() < 1e-15


def test_wigner_matrices_of_stored_frames_agree_to_2e_14(folder):
    stored = read_case(folder, "mono", "slab")
    everything = Coefficients(4, 4)
    turned = EdgeFrames(everything, torch.float64)(unit_vectors(stored["mid_edge_distance_vec"]), gauge_of(stored)).into
    found = turned[:16, np.argsort(everything.index_in_full)]
    assert (found - stored["mid_wigner_first16"]).abs().max() < 2e-14  # upstream's arc cosine loses two digits


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", FORMS)
def test_outputs_in_stored_frames_agree_to_1e_14(folder, form, case):
    stored = read_case(folder, form, case)
    with torch.no_grad():
        outputs = read_network(folder, form, torch.float64)(structures_of(stored, torch.float64, gauge_of(stored)))
    assert set(outputs) == {name.removeprefix("out_") for name in stored if name.startswith("out_")}
    for name, value in outputs.items():
        assert (value - stored[f"out_{name}"]).abs().max() < 1e-14, name
        assert stored[f"out_{name}"].abs().max() > 1e-2, name


@pytest.mark.parametrize("form", FORMS)
def test_features_between_the_layers_agree_to_1e_12(folder, form):
    stored = read_case(folder, form, "slab")
    network = read_network(folder, form, torch.float64)
    trunk = trunk_of(network)
    found = {}

    def keep(module: torch.nn.Module, name: str) -> None:
        module.register_forward_hook(lambda _, __, output: found.__setitem__(name, output))

    keep(trunk.edge_degree_embedding, "mid_edge_degree_out")
    keep(trunk.norm, "mid_final_norm_out")
    for number, block in enumerate(trunk.blocks):
        for part, name in ((block.norm_1, "norm1_out"), (block.ga, "attn_out"), (block, "out")):
            keep(part, f"mid_block{number}_{name}")
    with torch.no_grad():
        network(structures_of(stored, torch.float64, gauge_of(stored)))
    assert len(found) == 8
    for name, value in found.items():
        assert (value - stored[name]).abs().max() < 1e-12, name


@pytest.mark.parametrize(("dtype", "energy", "forces"), [(torch.float64, 1e-8, 1e-6), (torch.float32, 5e-7, 5e-6)])
@pytest.mark.parametrize("form", FORMS)
def test_outputs_in_its_own_frames_agree_within_upstreams_scatter(folder, form, dtype, energy, forces):
    network = read_network(folder, form, dtype)
    for case in CASES:
        stored = read_case(folder, form, case)
        with torch.no_grad():
            outputs = network(structures_of(stored, dtype))
        for name, value in outputs.items():
            error = (value.double() - stored[f"out_{name}"]).abs().max()
            assert error < (energy if name in ENERGIES else forces), (case, name)


def test_a_quantity_that_is_not_asked_for_is_not_worked_out(folder):
    stored = read_case(folder, "hydra", "ethanol")
    network = read_network(folder, "hydra", torch.float64)
    assert set(network(structures_of(stored, torch.float64), ("energy",))) == {"energy"}


@pytest.mark.parametrize("form", FORMS)
def test_a_network_rebuilt_in_float64_has_its_constants_anew(folder, form):
    stored = read_case(folder, form, "slab")
    single = read_network(folder, form, torch.float32)
    double, cast = rebuilt_network(single, torch.float64), read_network(folder, form, torch.float32).double()
    errors = []
    for network in (double, cast):
        with torch.no_grad():
            forces = network(structures_of(stored, torch.float64, gauge_of(stored)))["forces"]
        errors.append((forces - stored["out_forces"]).abs().max())
    assert errors[0] < 1e-14  # the stored weights are float32's
    assert errors[1] > 1e-9
    assert next(single.parameters()).dtype == torch.float32


@pytest.mark.parametrize("size", LISTED)
def test_parameters_have_the_listed_names_shapes_and_order(folder, size):
    lines = [line.split("\t") for line in (folder / f"parameters_{size}.txt").read_text().splitlines() if not line.startswith("#")]
    form = "hydra" if size.startswith("omat") else "mono"
    large = {"31M": (4, 2, 8), "base": (6, 2, 12), "153M": (6, 3, 20), "omat_31M": (4, 2, 8)}[size]
    shared = {"sphere_channels": 128, "attn_hidden_channels": 64, "ffn_hidden_channels": 128, "edge_channels": 128}
    heads = {"num_heads": 8, "attn_alpha_channels": 64, "attn_value_channels": 16}
    depth = {"lmax_list": [large[0]], "mmax_list": [large[1]], "num_layers": large[2]}
    with torch.device("meta"):
        network = build_network(read_architecture(folder, form, **shared, **heads, **depth), torch.float32)
    found = [[name, str(list(value.shape))] for name, value in network.named_parameters()]
    assert found == lines
    assert sum(value.numel() for value in network.parameters()) == LISTED[size]
    assert list(network.state_dict()) == [name for name, _ in lines]  # no constant is part of the state
