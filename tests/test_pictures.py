import numpy as np

from ssenet_jax.report.pictures import cam_picture, overlay_labels, to_long_edge

GREY = np.full((8, 12, 3), 100, np.uint8)


def test_labels_color_their_pixels_and_leave_background():
    labels = np.zeros((4, 6), np.uint8)  # half the image's size
    labels[:, 3:] = 2
    picture = overlay_labels(GREY, labels, opacity=0.5)
    assert picture.shape == GREY.shape and picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[:, :5], GREY[:, :5])
    np.testing.assert_array_equal(picture[:, 5], 255)  # the outline
    assert (picture[:, 6:] == (50, 114, 50)).all()


def test_cam_is_brightest_where_its_strongest_class_is():
    cam = np.zeros((8, 12, 2), np.float16)
    cam[2, 3, 0], cam[5, 9, 1] = 1.0, 0.5
    brightness = cam_picture(GREY, cam).astype(int).sum(axis=-1)
    assert np.unravel_index(brightness.argmax(), brightness.shape) == (2, 3)
    assert brightness[0, 0] < brightness[5, 9] < brightness[2, 3]


def test_alpha_is_drawn_as_a_border():
    cam = np.zeros((8, 12, 1), np.float32)
    cam[:, 6:] = 1.0
    assert (cam_picture(GREY, cam, alpha=0.2)[:, 5] == 255).all()
    assert not (cam_picture(GREY, cam)[:, 5] == 255).all(axis=-1).any()


def test_cam_without_classes_is_dark_and_of_another_size_is_brought_to_the_image():
    np.testing.assert_array_equal(
        cam_picture(GREY, np.zeros((3, 5, 0), np.float32)), cam_picture(GREY, np.zeros((8, 12, 1), np.float32))
    )


def test_fit_keeps_the_aspect_ratio():
    assert to_long_edge(GREY, 6).shape == (4, 6, 3)
    assert to_long_edge(GREY, 24).shape == (16, 24, 3)
    assert to_long_edge(np.zeros((1, 500, 3), np.uint8), 50).shape == (1, 50, 3)
