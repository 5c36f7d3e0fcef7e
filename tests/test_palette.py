import numpy as np
import pytest
from PIL import Image

from ssenet_jax.artifacts import read_mask, write_mask
from ssenet_jax.palette import palette


def test_palette_is_vocs():
    colors = palette(256)
    # aeroplane, bicycle, cat, person, tvmonitor, the ignore label: as in VOCdevkit's VOClabelcolormap
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 8: (64, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    assert {label: tuple(colors[label].tolist()) for label in known} == known
    assert tuple(colors[255]) == (224, 224, 192)
    assert len(np.unique(colors, axis=0)) == 256


@pytest.mark.parametrize("num_classes", [0, 257])
def test_palette_refuses_what_a_label_cannot_name(num_classes):
    with pytest.raises(ValueError, match="1 to 256"):
        palette(num_classes)


def test_a_written_mask_has_colours_for_a_viewer_and_labels_for_a_reader(tmp_path):
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_mask(tmp_path / "m.png", mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), mask)
    with Image.open(tmp_path / "m.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(image.convert("RGB"), palette(256)[mask])
