"""Which sweeps there are: the setting that each varies, over what by default, and what its figure shows.

"ELoRA" is C. Wang et al., ICML 2025; "the sparse paper" is "Sparsity-promoting fine-tuning for equivariant materials foundation models",
arXiv:2606.18691. Where a default is in neither text (their figures' ticks are not) the summary does not claim it.
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.errors import ZooError, nearest_name_hint

Value = int | float
PANELS = ("loss", "energy", "forces", "sparsity", "parameters", "forces_against_sparsity")
"""What a figure can show; see `zoo.sweeps.figures`."""
CURVE_PANELS = ("loss", "energy", "forces")
"""What can be shown against steps: what a run validates."""


@dataclass(frozen=True)
class Kind:
    """One sweep.

    Attributes:
        name: the word after ``zoo sweep``.
        figure: which figure of which paper it is.
        key: the configuration key that takes the values; None where runs differ in method alone and are compared over their steps.
        values: by default.
        methods: by default, as `zoo.sweeps.request.Method` reads them.
        axis: what the horizontal axis says.
        panels: by default, of `PANELS`.
        fixed_by: keys that would fix the swept quantity, so that sweeping ``key`` changed nothing; they must stay unset.
        words: of every run, before the user's, which override them.
    """

    name: str
    figure: str
    key: str | None
    values: tuple[Value, ...]
    methods: tuple[str, ...]
    axis: str
    panels: tuple[str, ...]
    fixed_by: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def known_panels(self) -> tuple[str, ...]:
        """What its figure can show."""
        return PANELS if self.key is not None else CURVE_PANELS


_ALL = (
    Kind("rank", "ELoRA, Fig. 5", "adapter.rank", (1, 2, 4, 8, 16, 32), ("elora",), "rank", ("loss", "parameters")),
    Kind(
        "lambda_tau",
        "the sparse paper, Figs. 1 and I",
        "adapter.tau_weight_decay",
        (0.003, 0.01, 0.03, 0.1, 0.3, 1.0),  # with its two regimes, 0.01 and 0.3
        ("sparse:setting=linear", "sparse:setting=fctp", "sparse:setting=all"),
        r"threshold decay $\lambda_\tau$",
        ("energy", "forces", "sparsity", "forces_against_sparsity"),
        fixed_by=("threshold_end",),
        words=("training.keep=last",),  # the sparsity is that of the end
    ),
    Kind(
        "learning_rate",
        "ELoRA, Fig. 7, left",
        "training.optimizer.learning_rate",
        (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
        ("full", "elora"),
        "learning rate",
        ("loss",),
    ),
    Kind(
        "weight_decay",
        "ELoRA, Fig. 7, right",
        "training.optimizer.weight_decay",
        (0, 1e-8, 1e-6, 1e-4, 1e-2),
        ("full",),
        "weight decay",
        ("loss",),
    ),
    Kind(
        "training_size",
        "ELoRA, Fig. 4",
        "data.n_train",
        (50, 100, 200, 500, 1000),  # "from 50 to 1000"
        ("full", "elora"),
        "training frames",
        ("energy", "forces"),
    ),
    Kind(
        "convergence",
        "the sparse paper, Fig. II",
        None,
        (),
        ("full", "elora", "sparse:setting=linear"),
        "optimizer step",
        ("loss",),
    ),
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
"""Every sweep of runs by name; ``cuts``, which trains nothing, is `zoo.sweeps.cuts`."""


def kind_of(name: str) -> Kind:
    """The sweep of that name; raises `ZooError` with the nearest name."""
    if name not in KINDS:
        raise ZooError(f"zoo sweep {name}: no such sweep; {nearest_name_hint(name, [*KINDS, 'cuts'])}")
    return KINDS[name]
