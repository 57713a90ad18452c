"""An independent copy of a potential, perhaps in another precision."""

from __future__ import annotations

import torch

from zoo.errors import ZooError
from zoo.potential import Potential


def copied(potential: Potential, dtype: torch.dtype) -> Potential:
    """`zoo.potential.Potential.to_dtype`: built anew, so that constants are computed in ``dtype``, with the same adapters."""
    adapters = potential.adapters
    with adapters.exclusive():
        if adapters.is_merged:
            raise ZooError(f"cannot copy while the adapters {list(adapters.active)} are merged; call potential.adapters.unmerge() first")
        twin = Potential(
            potential.backbone.rebuilt(dtype),
            card=potential.card,
            source=potential.source,
            level_of_theory=potential.own_level_of_theory,
            forces=potential.forces,
        )
        for name in adapters.names:
            own = adapters.get(name)
            fresh = twin.adapters.add(name, own.method)
            fresh.provenance = own.provenance
            if (scale := adapters.scale_of(name)) != 1:
                twin.adapters.scale(name, scale)
            with torch.no_grad():
                for key, tensor in fresh.tensors.items():
                    tensor.copy_(own.tensors[key])
        twin.adapters.activate(adapters.active)
        twin.reference_shifts.copy_(potential.reference_shifts)
        return twin.to(potential.device)
