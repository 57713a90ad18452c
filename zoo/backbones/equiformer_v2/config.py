"""The hyper-parameters of EquiformerV2 under upstream's names, with upstream's defaults.

Official configurations load as they are: names that upstream accepts and never reads are accepted here as well, and choices that no
published model makes (and upstream asserts away) are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from zoo.errors import ZooError, first_problem, nearest_name_hint

GAUSSIAN_COUNT = 600
"""Basis functions of a distance: upstream's code has this number, whatever ``num_distance_basis`` says."""

# far above any published model: a file that claims more would only fill the memory
_MOST_LAYERS, _MOST_CHANNELS, _MOST_ELEMENTS, _FINEST_GRID = 100, 2048, 256, 128
_AVERAGE_ATOMS = 77.81317
_AVERAGE_DEGREE = 23.395238876342773


class EquiformerV2Config(BaseModel):
    """What decides the network (arXiv:2306.12059) and its graph.

    Attributes:
        max_neighbors: nearest neighbours kept per atom.
        enforce_max_neighbors_strictly: exactly that many, ties by order; else all that are as near as the next one, too.
        max_radius: Å.
        max_num_elements: rows of the embeddings; the row is the atomic number.
        lmax_list, mmax_list: one number each: the highest degree and the highest order kept in the frames of the edges.
        grid_resolution: points of the sphere's grid along each angle, even; None for upstream's sparser product grid.
        norm_type, use_attn_renorm, use_gate_act, use_sep_s2_act, use_grid_mlp: the paper's ablations (its Table 1): which norm; whether
            attention logits pass a layer norm; gates in place of the activation on the sphere; its scalars apart from it (separable); and
            an MLP on the sphere in the feed-forward network.
        avg_num_nodes, avg_degree: the energy is divided by the one, the sum of edge-degree embeddings by the other.
        use_energy_lin_ref, load_energy_lin_ref: add the file's energy of each element to the output (OC22); the file has them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_neighbors: int = Field(500, ge=1, le=10_000)
    enforce_max_neighbors_strictly: bool = True
    max_radius: float = Field(5.0, gt=0, le=100)
    max_num_elements: int = Field(90, ge=2, le=_MOST_ELEMENTS)
    num_layers: int = Field(12, ge=1, le=_MOST_LAYERS)
    sphere_channels: int = Field(128, ge=1, le=_MOST_CHANNELS)
    attn_hidden_channels: int = Field(128, ge=1, le=_MOST_CHANNELS)
    num_heads: int = Field(8, ge=1, le=_MOST_CHANNELS)
    attn_alpha_channels: int = Field(32, ge=1, le=_MOST_CHANNELS)
    attn_value_channels: int = Field(16, ge=1, le=_MOST_CHANNELS)
    ffn_hidden_channels: int = Field(512, ge=1, le=_MOST_CHANNELS)
    norm_type: Literal["layer_norm", "layer_norm_sh", "rms_norm_sh"] = "rms_norm_sh"
    lmax_list: tuple[int] = (6,)
    mmax_list: tuple[int] = (2,)
    grid_resolution: int | None = Field(None, ge=2, le=_FINEST_GRID, multiple_of=2)
    edge_channels: int = Field(128, ge=1, le=_MOST_CHANNELS)
    use_attn_renorm: bool = True
    use_gate_act: bool = False
    use_grid_mlp: bool = False
    use_sep_s2_act: bool = True
    alpha_drop: float = Field(0.1, ge=0, lt=1)
    drop_path_rate: float = Field(0.05, ge=0, lt=1)
    proj_drop: float = Field(0.0, ge=0, lt=1)
    weight_init: Literal["normal", "uniform"] = "normal"
    avg_num_nodes: float = Field(_AVERAGE_ATOMS, gt=0)
    avg_degree: float = Field(_AVERAGE_DEGREE, gt=0)
    regress_forces: bool = True
    use_energy_lin_ref: bool = False
    load_energy_lin_ref: bool = False

    # accepted by upstream with one value that means anything
    use_atom_edge_embedding: Literal[True] = True
    share_atom_edge_embedding: Literal[False] = False
    use_m_share_rad: Literal[False] = False
    use_s2_act_attn: Literal[False] = False
    distance_function: Literal["gaussian"] = "gaussian"

    # accepted by upstream and never read, or read by the construction of its graph alone, which is ours here
    use_pbc: bool = True
    use_pbc_single: bool = False
    otf_graph: bool = True
    num_sphere_samples: int = 128
    num_distance_basis: int = 512
    attn_activation: str = "silu"
    ffn_activation: str = "silu"
    activation_checkpoint: bool | None = None

    @field_validator("avg_num_nodes", "avg_degree", mode="before")
    @classmethod
    def _upstream_default(cls, value: Any, info: Any) -> Any:
        """Upstream reads ``x or default``: null and 0 are the default as well."""
        return value or (_AVERAGE_ATOMS if info.field_name == "avg_num_nodes" else _AVERAGE_DEGREE)

    @field_validator("use_energy_lin_ref", "load_energy_lin_ref", mode="before")
    @classmethod
    def _null_is_false(cls, value: Any) -> Any:
        return value or False

    @model_validator(mode="after")
    def _degrees_and_orders(self) -> EquiformerV2Config:
        if not 1 <= self.lmax <= 11:
            raise ValueError(f"found lmax_list [{self.lmax}], wanted one degree between 1 and 11")
        if not 0 <= self.mmax <= self.lmax:
            raise ValueError(f"found mmax_list [{self.mmax}], wanted one order between 0 and lmax {self.lmax}")
        if self.use_energy_lin_ref and not self.load_energy_lin_ref:
            raise ValueError("found use_energy_lin_ref without load_energy_lin_ref, wanted both: the references are part of the model")
        return self

    @property
    def lmax(self) -> int:
        """Highest degree."""
        return self.lmax_list[0]

    @property
    def mmax(self) -> int:
        """Highest order in the edges' frames."""
        return self.mmax_list[0]


class EnergyHeadConfig(BaseModel):
    """The head of hydra's energy: a sum over atoms, divided by ``avg_num_nodes``, or their mean."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    module: Literal["equiformer_v2_energy_head", "equiformerV2_scalar_head"] = "equiformer_v2_energy_head"
    output_name: Literal["energy"] = "energy"
    reduce: Literal["sum", "mean"] = "sum"


class ForceHeadConfig(BaseModel):
    """The head of hydra's forces."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    module: Literal["equiformer_v2_force_head", "equiformerV2_vector_head"] = "equiformer_v2_force_head"
    output_name: Literal["forces"] = "forces"


class StressHeadConfig(BaseModel):
    """The head of hydra's stress, as every published model has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    module: Literal["rank2_symmetric_head"] = "rank2_symmetric_head"
    output_name: Literal["stress"] = "stress"
    decompose: Literal[True]
    use_source_target_embedding: Literal[True]
    edge_level_mlp: Literal[False] = False
    num_mlp_layers: Literal[2] = 2
    extensive: Literal[False] = False
    # read by upstream for an extensive stress alone, and where a backbone has no norm of its own
    avg_num_nodes: float = 1.0
    default_norm_type: str = "layer_norm_sh"


class HydraHeads(BaseModel):
    """The heads of the hydra form, in which upstream published its OMat24 models."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    energy: EnergyHeadConfig
    forces: ForceHeadConfig | None = None
    stress: StressHeadConfig | None = None


@dataclass(frozen=True)
class Architecture:
    """What a network is built from.

    Attributes:
        config: hyper-parameters.
        heads: of the hydra form; None for the monolithic one, whose two heads follow from the hyper-parameters.
    """

    config: EquiformerV2Config
    heads: HydraHeads | None = None


def parse_heads(settings: Mapping[str, Any], source: str) -> HydraHeads:
    """The heads in hydra's ``heads``; raises `ZooError` for any that no published model has."""
    try:
        return HydraHeads.model_validate(dict(settings))
    except ValidationError as error:
        first = first_problem(error)
        raise ZooError(f"{source}: heads.{first.key or ''}: {first.message}; pass a model with EquiformerV2's heads") from None


def parse_config(settings: Mapping[str, Any], source: str) -> EquiformerV2Config:
    """The configuration in ``settings``.

    Args:
        settings: upstream's hyper-parameters by name.
        source: where they are from, for messages.

    Raises:
        ZooError: an unknown name, or a value that no network is known for.
    """
    known = EquiformerV2Config.model_fields
    for name in settings:
        if name not in known:
            raise ZooError(f"{source}: unknown hyper-parameter {name!r} of EquiformerV2; {nearest_name_hint(str(name), known)}")
    try:
        return EquiformerV2Config.model_validate(dict(settings))
    except ValidationError as error:
        first = first_problem(error)
        raise ZooError(f"{source}: {first.key or 'hyper-parameters'}: {first.message}; pass a configuration of EquiformerV2") from None
