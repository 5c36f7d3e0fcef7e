"""The photos of a run as the review page shows them, each read when it is asked for."""

import functools
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from ssenet_jax.artifacts import Cam, read_cam, read_mask, replacing
from ssenet_jax.datasets import Source
from ssenet_jax.datasets.augment import long_edge_size, resize_mask
from ssenet_jax.datasets.records import shrink
from ssenet_jax.report.pictures import IGNORE, IGNORE_COLOR, palette
from ssenet_jax.stages import reviewed
from ssenet_jax.stages.context import Place
from ssenet_jax.stages.doubt import Doubt
from ssenet_jax.stages.labels import SCORES
from ssenet_jax.stages.seeds import Background
from ssenet_jax.stages.table import LABEL_NEEDS, LABELS, place_of

LONGEST = 2048  # long edge, in pixels, at which a photo is shown and corrected
THUMBNAIL = 320
SCORES_LONGEST = 1024  # finer scores are shrunk for the page


class Album:
    """The photos with scores, by id.

    Args:
        workdir: of the run.
        config: of the run.
        source: the training images.
        scores: where the scores of the run lie.
        doubts: of the photos, see `doubt.measure_all`.
    """

    def __init__(self, workdir: Path, config: ConfigDict, source: Source, scores: Place, doubts: Mapping[str, Doubt]):
        self.class_names = source.class_names
        self.doubts = doubts
        self.alpha, self.background = config.labels.alpha, config.labels.background
        self._workdir, self._source, self._scores = workdir, source, scores
        self._split, self._stride = config.data.train_split, config.affinity.stride
        self._bring = SCORES["walk" if scores.stage in LABEL_NEEDS["walk"] else "cam"]
        self._labels = place_of(LABELS, workdir)
        self._index = {image_id: index for index, image_id in enumerate(source.ids) if image_id in doubts}
        # a page asks for several views of one photo at once
        self._record = functools.lru_cache(maxsize=4)(lambda image_id: source[self._index[image_id]])

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._index

    def __iter__(self):
        return iter(self._index)

    def describe(self, image_id: str) -> dict:
        """The sizes of a photo and its scores, and its classes as label numbers."""
        height, width = self._shown(image_id).shape[:2]
        scores = self._page_scores(image_id)
        rows, columns = scores.maps.shape[:2]
        return {
            "id": image_id, "height": height, "width": width, "rows": rows, "columns": columns,
            "cell": self._cell(image_id, scores.maps.shape), "classes": [int(index) + 1 for index in scores.classes],
            "has_run_labels": self._run_file(image_id).exists(),
        }  # fmt: skip

    def photo(self, image_id: str) -> bytes:
        """A JPEG, its long edge at most LONGEST."""
        return _encoded(Image.fromarray(self._shown(image_id)), "JPEG", quality=92)

    def scores(self, image_id: str) -> bytes:
        """The scores of the classes, one after the other, row by row, 65535 for 1, little endian."""
        maps = np.moveaxis(self._page_scores(image_id).maps, -1, 0)
        return (maps.astype(np.float32) * 65535).round().astype("<u2").tobytes()

    def labels(self, image_id: str, which: str) -> bytes | None:
        """The label map of the "run" or the "reviewed" one, a byte a pixel of the photo as it is shown."""
        path = self._run_file(image_id) if which == "run" else reviewed.mask_path(self._workdir, image_id)
        if not path.exists():
            return None
        return resize_mask(read_mask(path), self._shown(image_id).shape[:2]).tobytes()

    def mask(self, image_id: str, alpha: float | None, drawn: bytes | None = None) -> np.ndarray:
        """The mask of a photo at its own size, as the stage `label` would make it.

        Args:
            image_id: of the photo.
            alpha: that the scores are cut at; None for the label map of the run.
            drawn: a label map of the photo as it is shown, which is taken instead.

        Raises:
            ValueError: `drawn` has another size or a class that there is not; or there is no label map.
        """
        if drawn is not None:
            labels = self._drawn(image_id, drawn)
        elif alpha is not None:
            labels = self._cut(image_id, alpha)
        elif self._run_file(image_id).exists():
            labels = read_mask(self._run_file(image_id))
        else:
            raise ValueError(f"the run has no label map of {image_id} yet; give an alpha")
        return resize_mask(labels, self._own_size(image_id))

    def thumbnail(self, image_id: str) -> bytes:
        """A small JPEG, made once and kept in the workdir."""
        path = self._workdir / "thumbnails" / f"{image_id}.jpg"
        if not path.exists():
            small = shrink(self._record(image_id)["image"], THUMBNAIL)
            with replacing(path) as temporary:
                temporary.write_bytes(_encoded(Image.fromarray(small), "JPEG", quality=82))
        return path.read_bytes()

    def overlay(self, image_id: str) -> bytes:
        """The mask that holds at present, as a small PNG to lie over the thumbnail."""
        path = reviewed.mask_path(self._workdir, image_id)
        path = path if path.exists() else self._run_file(image_id)
        labels = read_mask(path) if path.exists() else self._cut(image_id, self.alpha)
        height, width = labels.shape
        small = long_edge_size(height, width, min(THUMBNAIL, max(height, width)))
        picture = Image.fromarray(resize_mask(labels, small))
        colors = palette(256)
        colors[IGNORE] = IGNORE_COLOR
        picture.putpalette(colors.tobytes())
        return _encoded(picture, "PNG", transparency=bytes([0] + 255 * [165]))

    def colors(self) -> list[str]:
        """The colour of each label, the background's first, in CSS."""
        return [f"#{bytes(color).hex()}" for color in palette(len(self.class_names) + 1)]

    def _shown(self, image_id: str) -> np.ndarray:
        return shrink(self._record(image_id)["image"], LONGEST)

    def _own_size(self, image_id: str) -> tuple[int, int]:
        record = self._record(image_id)
        height, width = record.get("size", record["image"].shape[:2])
        return height, width

    def _run_file(self, image_id: str) -> Path:
        return self._labels.file(image_id, self._split)

    def _read_scores(self, image_id: str) -> Cam:
        return read_cam(self._scores.file(image_id, self._split))

    def _page_scores(self, image_id: str) -> Cam:
        cam = self._read_scores(image_id)
        if max(cam.maps.shape[:2]) <= SCORES_LONGEST or not len(cam.classes):
            return cam
        height, width = cam.maps.shape[:2]
        scale = SCORES_LONGEST / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        each = (Image.fromarray(one) for one in np.moveaxis(cam.maps.astype(np.float32), -1, 0))
        maps = [np.asarray(one.resize(size, Image.Resampling.BILINEAR)) for one in each]
        return cam._replace(maps=np.stack(maps, -1))

    def _cell(self, image_id: str, shape: tuple[int, ...]) -> list[float]:
        """How many pixels of the photo as it is shown a score of the page stands for, down and across."""
        shown, image = self._shown(image_id).shape, self._record(image_id)["image"].shape
        stored = self._read_scores(image_id).maps.shape
        stride = self._stride if self._scores.stage in LABEL_NEEDS["walk"] else 1
        return [stride * stored[i] / shape[i] * shown[i] / image[i] for i in (0, 1)]

    def _cut(self, image_id: str, alpha: float) -> np.ndarray:
        scores = self._bring(self._read_scores(image_id), self._record(image_id)["image"].shape[:2], self._stride)
        return scores.labels_of(Background(self.background, alpha).before(scores.maps).argmax(-1))

    def _drawn(self, image_id: str, drawn: bytes) -> np.ndarray:
        height, width = self._shown(image_id).shape[:2]
        if len(drawn) != height * width:
            raise ValueError(f"the mask has {len(drawn)} pixels, but {image_id} is shown with {height} x {width}")
        labels = np.frombuffer(drawn, np.uint8).reshape(height, width)
        wrong = labels[(labels > len(self.class_names)) & (labels != IGNORE)]
        if wrong.size:
            raise ValueError(f"the mask holds the class {int(wrong[0])}; there are {len(self.class_names)} classes")
        return labels


def _encoded(picture: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()
