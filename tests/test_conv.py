"""Conv-2, -4 and -6: sizes, rates and what is alive in them."""

import pytest
import torch
import torch.nn.functional as F

from lthcore.config import configure
from lthcore.models import build
from lthcore.probes.collapse import diagnose
from lthcore.pruning import dense_mask
from lthcore.schedule import ARCHITECTURES


def test_sizes_and_rates_of_the_conv_networks_are_the_papers():
    """4.3 and 2.4 million weights, and 10% (Conv-6: 15%), 20% and 10% a round (Figure 2 of the paper)."""
    for name, millions, rate in (("conv2", 4.3, 0.1), ("conv4", 2.4, 0.1), ("conv6", 2.3, 0.15)):
        net = build(name, device="meta")
        assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == millions
        assert {n: tuple(p.shape) for n, p in net.named_parameters() if n.endswith("weight")} == {
            f"{n}.weight": shape for n, shape in ARCHITECTURES[name].weights.items()
        }
        full, one = configure(name, "report").schedule[:2]
        for layer, n in full.items():
            wanted = rate if layer.startswith("conv") else 0.1 if layer == "head" else 0.2
            assert abs(one[layer] - (1 - wanted) * n) <= 0.5, layer


@pytest.mark.parametrize("pool", ["max", "avg"])
def test_conv_networks_read_colours_and_widened_digits(pool):
    net = build("conv2", pool=pool)
    with torch.no_grad():
        x = torch.randn(2, 1, 28, 28)
        extended = F.pad(x, (2, 2, 2, 2), mode="replicate").expand(-1, 3, -1, -1)
        assert torch.equal(net(x), net(extended)) and net(extended).shape == (2, 10)
        pooled = F.relu(F.conv2d(F.relu(F.conv2d(extended, net.conv1.weight, net.conv1.bias, padding=1)),
                                 net.conv2.weight, net.conv2.bias, padding=1))  # fmt: skip
        features = {"max": F.max_pool2d, "avg": F.avg_pool2d}[pool](pooled, 2).flatten(1)
        hidden = F.relu(F.linear(features, net.fc1.weight, net.fc1.bias))
        hidden = F.relu(F.linear(hidden, net.fc2.weight, net.fc2.bias))
        assert torch.allclose(net(x), F.linear(hidden, net.head.weight, net.head.bias), atol=1e-5)


def test_a_dead_filter_of_a_conv_network_is_seen():
    mask = dense_mask("conv2")
    mask["conv2"][5] = False
    facts = diagnose("conv2", mask)
    assert facts["live_units:conv2"] == 63 and facts["live_outputs"] == 10
