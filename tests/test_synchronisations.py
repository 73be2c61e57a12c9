"""How often a layer waits for a GPU: what is counted, and that no layer waits more often than it did."""

import pytest
import torch
from torch import nn

import nansparse
from benchmarks.synchronisations import LEAVING, count_waits, measure_waits

# What each layer needed when this was written. A change that needs fewer lowers the number; one that needs
# more stalls every GPU once more a layer, and has to be worth it.
MOST = {
    ("conservative", "gather"): {"first": 5, "pool": 6, "inner": 4, "norm": 0, "unpool": 0, "last": 11},
    ("conservative", "tile"): {"first": 10, "pool": 6, "inner": 9, "norm": 0, "unpool": 0, "last": 16},
    ("conservative", "dense"): {"first": 6, "pool": 6, "inner": 4, "norm": 0, "unpool": 0, "last": 11},
    ("aggressive", "gather"): {"first": 5, "pool": 9, "inner": 7, "norm": 0, "unpool": 0, "last": 11},
    ("aggressive", "tile"): {"first": 10, "pool": 9, "inner": 12, "norm": 0, "unpool": 0, "last": 16},
    ("aggressive", "dense"): {"first": 6, "pool": 9, "inner": 7, "norm": 0, "unpool": 0, "last": 11},
}
MOST_OUTSIDE = 7  # the scan of the input, its sites, the check of the output


@pytest.mark.parametrize(("mode", "engine"), MOST)
def test_no_layer_waits_more_often_than_it_did(mode, engine):
    waits = {row.cell["layer"]: row.values["waits"] for row in measure_waits(engine, mode)}
    outside = waits.pop("(input and output)")
    too_many = {name: count for name, count in waits.items() if count > MOST[mode, engine][name]}
    assert too_many == {}
    assert 0 < outside <= MOST_OUTSIDE
    assert waits["first"] > 0  # the sites that are kept: without them nothing is known


class Waiting(nn.Module):
    """Waits once in each way that is known."""

    def forward(self, x):
        x = torch.as_tensor(x)
        bool(x.sum() > 0)
        x.sum().item()
        x.nonzero()
        x[x > 0]
        x.masked_select(x > 0)
        x.unique()
        torch.equal(x, x + 1)
        x.flatten()[0:2].tolist()
        return x


def test_every_way_of_waiting_is_counted():
    model = nn.Sequential(nn.Identity(), Waiting()).eval()
    with pytest.warns(nansparse.NothingToDoWarning):
        found = count_waits(model, torch.rand(1, 1, 4, 4))
    assert found["1"] == {
        "item": 2,
        "nonzero": 1,
        "index by mask": 1,
        "masked select": 1,
        "unique": 1,
        "equal": 1,
        LEAVING[torch.Tensor.tolist]: 1,
    }
    assert "0" not in found
