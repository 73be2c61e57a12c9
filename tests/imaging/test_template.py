"""The template, its labels, and what is said when nilearn is missing."""

import sys

import numpy as np
import pytest

from nansparse.errors import InputError
from nansparse.imaging import TISSUES, Template, Volume, conform, load_template, tissue_labels


def test_labels_are_the_most_probable_tissue_inside_the_mask() -> None:
    def volume(*values: float) -> Volume:
        return Volume(np.array(values, np.float32).reshape(-1, 1, 1), np.eye(4))

    template = Template(
        t1=volume(0, 1, 1, 1, 1),
        brain_mask=volume(0, 1, 1, 1, 1),
        grey=volume(0.9, 0.1, 0.6, 0.3, 0.35),
        white=volume(0.0, 0.2, 0.3, 0.5, 0.4),
    )
    assert tissue_labels(template).data.ravel().tolist() == [0, 1, 2, 3, 3]
    assert TISSUES[2] == "grey"


def test_the_template_conforms_without_loss_and_keeps_its_zeros() -> None:
    template = load_template()
    assert template.t1.shape == (197, 233, 189)
    for volume in (template.brain_mask, template.grey, template.white):
        assert volume.shape == template.t1.shape
        assert np.array_equal(volume.affine, template.t1.affine)
    conformed = conform(template.t1)
    # On a shared grid of 1 mm nothing is interpolated: as many zeros inside the box as before, no more, no
    # less.
    assert np.count_nonzero(conformed.data) == np.count_nonzero(template.t1.data)
    labels = tissue_labels(template)
    assert [np.count_nonzero(labels.data == tissue) > 100_000 for tissue in range(4)] == [True] * 4


def test_without_nilearn_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nilearn", None)
    with pytest.raises(InputError, match=r"pip install 'nansparse\[demo\]'"):
        load_template()


def test_without_nibabel_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(InputError, match=r"pip install 'nansparse\[imaging\]'"):
        conform(Volume(np.ones((3, 3, 3), np.float32), np.eye(4)))
