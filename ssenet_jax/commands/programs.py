"""What the stages that apply networks and CRFs run on a device, at the size of a typical photo."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ssenet_jax import datasets, pretrained
from ssenet_jax import random_walk as walks
from ssenet_jax.affinity import pair_offsets
from ssenet_jax.commands.compiling import Program
from ssenet_jax.crf import jax_backend, lattice
from ssenet_jax.stages import apply, batching, inference, labels, measure, propagation
from ssenet_jax.training import recipes

VOC_PHOTO = (375, 500)
# Vertices of the lattice a pixel, at the published widths: the most of five VOC photos is 0.131 and 0.125.
VERTICES = {"gaussian": 0.131, "bilateral": 0.125}


class Sizes:
    """What the shapes of a call depend on: rows on one device, the padded photo, the slots of its classes."""

    def __init__(self, config: ConfigDict, rows: int, num_classes: int):
        self.rows, self.num_classes = rows, num_classes
        self.canvas = batching.bucket_of(*_photo(config.data), config.inference.bucket)
        self.classes, self.present = batching.class_slots([np.ones(2)], rows)
        photos = batching.padded_images([np.zeros((*self.canvas, 3), np.uint8)], self.canvas, rows)
        self.photos = jax.eval_shape(lambda: photos)
        self.cams = _shape((rows, *self.canvas, self.classes.shape[1]), "float16")


def _photo(data: ConfigDict) -> tuple[int, int]:
    if data.name == "voc12" and not data.root:
        return VOC_PHOTO
    return datasets.open_listed(data, data.train_split)[0]["image"].shape[:2]


def _shape(shape: tuple[int, ...], dtype: str) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))


def _cams(config: ConfigDict, sizes: Sizes) -> list[Program]:
    model = recipes.network(config, "classifier", sizes.num_classes)
    function = inference.cam_function(model, scales=config.cam.scales, flip=config.cam.flip, dtype=jnp.float16)
    shapes = (pretrained.shapes_of(model), sizes.photos, sizes.classes, sizes.present)
    return [Program("CAM", function, shapes, sizes.rows)]


def _measures(config: ConfigDict, sizes: Sizes) -> list[Program]:
    model = recipes.network(config, "classifier", sizes.num_classes)
    variables, side = pretrained.shapes_of(model), config.classifier.crop
    crops, labels = _shape((sizes.rows, side, side, 3), "float32"), _shape((sizes.rows, sizes.num_classes), "float32")
    programs = [Program("errors of a crop", measure.error_function(model), (variables, crops, labels), sizes.rows)]
    for scale in config.cam.scales:
        function = inference.cam_function(model, scales=(scale,), flip=config.cam.flip)
        shapes = (variables, sizes.photos, sizes.classes, sizes.present)
        programs.append(Program(f"CAM at scale {scale:g}", function, shapes, sizes.rows))
    return programs


def _walk(config: ConfigDict, sizes: Sizes) -> list[Program]:
    model, settings = recipes.walk_network(config), config.random_walk
    function = propagation.walk_function(model, **apply.walk_options(config))
    rows, columns = (-(-side // config.affinity.stride) for side in sizes.canvas)
    method, cells = settings.method, rows * columns
    if method == "auto":
        method = walks.pick_method(cells, settings.steps, on_cpu=False)
    times = applications(method, settings.steps) - 1
    maps = sizes.cams.shape[-1] + (settings.contrast > 0)
    flops, traffic = application(cells, maps, config.affinity.radius)
    looped = (sizes.rows * times * flops, sizes.rows * times * traffic)
    shapes = (pretrained.shapes_of(model), sizes.photos, sizes.cams)
    return [Program(f"features and walk, {method}", function, shapes, sizes.rows, looped=looped)]


def applications(method: str, steps: int) -> int:
    """How often a walk applies its stencil; the dense method is squarings, which no loop hides."""
    return {"dense": 1, "stencil": steps}.get(method, len(walks.chebyshev_coefficients(steps)) - 1)


def application(cells: int, maps: int, radius: int = 5) -> tuple[float, float]:
    """Operations and bytes of applying the stencil of one image once: its taps are read once for all maps."""
    taps = 2 * len(pair_offsets(radius))
    return 3.0 * taps * cells * maps, 4.0 * cells * (taps + 4 * maps)


def _seeds(config: ConfigDict, sizes: Sizes) -> list[Program]:
    k = sizes.classes.shape[1] + 1
    return _crf(config, sizes, k, fields=2)


def _labels(config: ConfigDict, sizes: Sizes) -> list[Program]:
    return _crf(config, sizes, sizes.classes.shape[1] + 1, fields=1) if config.labels.crf else []


def _segment(config: ConfigDict, sizes: Sizes) -> list[Program]:
    model, settings = recipes.network(config, "segmenter", sizes.num_classes), config.segment
    function = inference.probability_function(model, scales=settings.scales, flip=settings.flip)
    network = Program("DeepLab", function, (pretrained.shapes_of(model), sizes.photos), sizes.rows)
    return [network, *(_crf(config, sizes, sizes.num_classes + 1, fields=1) if settings.crf else [])]


def _crf(config: ConfigDict, sizes: Sizes, k: int, fields: int) -> list[Program]:
    """Both kernels, built and normalised, and so many mean fields of k maps on them."""
    (height, width), crf, rows = sizes.canvas, config.crf, sizes.rows
    near = ((width - 1) / crf.sxy_gaussian, (height - 1) / crf.sxy_gaussian)
    alike = ((width - 1) / crf.sxy_bilateral, (height - 1) / crf.sxy_bilateral, *[255 / crf.srgb] * 3)
    programs, kernels = [], []
    for name, span in (("gaussian", near), ("bilateral", alike)):
        build, shapes = _build(rows, height * width, span, VERTICES[name])
        programs.append(Program(f"CRF, {name} kernel", build, shapes, rows))
        kernels.append(jax.eval_shape(build, *shapes))
    infer = functools.partial(jax_backend.infer, iterations=crf.iterations)
    scores, present = _shape((rows, height, width, k), "float32"), _shape((rows, k), "bool")
    once = [sum(figures) for figures in zip(*(_filtering(kernel, k) for kernel in kernels), strict=True)]
    looped = tuple(rows * crf.iterations * figure for figure in once)
    field = Program("CRF, mean field", jax.jit(infer), (tuple(kernels), scores, present, _shape((2,), "float32")), rows,
                    looped=looped)  # fmt: skip
    return [*programs, *[field] * fields]


def _build(rows: int, points: int, span: tuple[float, ...], vertices: float) -> tuple[Callable, tuple]:
    packing, count = lattice.pack(points, span), lattice.round_up(round(points * vertices))

    def build(features, valid):
        with jax.enable_x64(True):
            entries, weight, _ = lattice.sorted_entries(features, valid, packing=packing)
            built = lattice.link(entries, weight, packing=packing, vertices=count)
        return lattice.normalized_symmetrically(built)

    return jax.jit(build), (_shape((rows, points, len(span)), "float32"), _shape((rows, points), "bool"))


def _filtering(kernel: lattice.Lattice, k: int) -> tuple[float, float]:
    """Operations and bytes of filtering k maps of one image once: splat, blur along each axis, slice."""
    _, points, corners = kernel.vertex.shape
    vertices = kernel.neighbours.shape[-1]
    entries = points * corners
    flops = k * (4.0 * entries + 3.0 * corners * vertices)
    return flops, 4.0 * (2 * entries * (k + 2) + corners * vertices * (4 * k + 2) + points * k)


# by the function that a row of `stages.table` runs; what is not here runs on the host
_ON_DEVICE: dict[Any, Callable[[ConfigDict, Sizes], list[Program]]] = {
    apply.infer_cams: _cams,
    measure.measure_cams: _measures,
    labels.refine_seeds: _seeds,
    labels.label: _labels,
    labels.relabel: _segment,
    apply.propagate: _walk,
    apply.segment: _segment,
}


def of_stage(config: ConfigDict, run: Callable, sizes: Sizes) -> list[Program]:
    """The programs of a stage, given what its row runs; none for work of the host."""
    found = _ON_DEVICE[run](config, sizes) if run in _ON_DEVICE else []
    on_host = config.crf.backend == "pydensecrf" and run in (labels.refine_seeds, labels.label)
    return [] if on_host else found
