"""The bottleneck adapter that breaks equivariance: a control, not a method to use.

N. Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", ICML 2019, section 2.1, as ELoRA's Table 7 sets it beside equivariant
methods. All numbers h' that a layer returns for an atom, whatever irreps they are of, become

    h' + W_up SiLU(W_down h' + b_down) + b_up.

W_down and W_up mix components of vectors as if they were scalars, so the energy depends on how the structure is turned in space. W_up and
b_up are zero at the start: step 0 is the base.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from adapters.activation import BottleneckMethod, network
from adapters.features import LayerFeatures, flattened
from adapters.method import register


@register
class Bottleneck(BottleneckMethod):
    """A control: an MLP across all components of a layer's output."""

    name = "bottleneck"
    equivariant: ClassVar[bool] = False

    def widths(self, features: LayerFeatures) -> tuple[int, int]:
        """All components that come out, in and out."""
        return features.output_dim, features.output_dim

    def changed(self, features: LayerFeatures, factors: Mapping[str, Tensor], inputs: Tensor, outputs: Tensor) -> Tensor:
        """``outputs`` and the MLP of all their components."""
        return outputs + network(factors, flattened(outputs, features.layout)).reshape(outputs.shape)
