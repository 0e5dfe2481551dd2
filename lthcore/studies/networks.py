"""The convolutional networks that the studies beyond the report add; :mod:`lthcore.studies.conv` has their shapes."""

import torch
import torch.nn.functional as F
from torch import nn

from ..models import Network


class ConvNet(Network):
    """Conv-2, -4, -6, a small VGG (Frankle & Carbin 2019, Figure 2): 4.3, 2.4 and 2.3 million parameters.

    The paper prints 1.7 million for Conv-6, which its layers, as it gives them, do not add up to.
    """

    def padding(self, layer: str) -> int:
        return 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, 32, 32), or (B, 1, 28, 28), whose border and channel are repeated -> logits (B, 10)."""
        if x.shape[1] == 1:
            x = F.pad(x, (2, 2, 2, 2), mode="replicate").expand(-1, 3, -1, -1)
        convolutions = [layer for layer in self.children() if isinstance(layer, nn.Conv2d)]
        for i, layer in enumerate(convolutions):
            x = self.activation(layer(x))
            x = self.pool(x, 2) if i % 2 else x
        return self.classify(x)
