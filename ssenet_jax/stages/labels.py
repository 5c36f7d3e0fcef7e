"""The stages that turn scores into seeds and label maps."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ssenet_jax.artifacts import Cam, read_cam, read_seeds, write_mask
from ssenet_jax.crf import pick_backend
from ssenet_jax.datasets.augment import resize_mask
from ssenet_jax.equivariance import linear_matrix
from ssenet_jax.stages import apply, batching, seeds
from ssenet_jax.stages.context import Context, Job
from ssenet_jax.stages.seeds import Background

AHEAD = 8  # label maps in the making


def refine_seeds(context: Context, job: Job) -> None:
    """Dense CRFs of the training images' CAMs at a low and a high alpha."""
    crf, (cams,) = context.config.crf, job.reads
    backgrounds = (Background("power", crf.alpha_low), Background("power", crf.alpha_high))

    def with_cam(record):
        return {**record, "cam": read_cam(cams.file(record["id"], record["split"]))}

    _refine(context, job, apply.records(context, job, with_cam), backgrounds, seeds.write_seeds)


def label(context: Context, job: Job) -> None:
    """Label maps of the training images at the photos' own size, from the source that ``labels.source`` names.

    Raises:
        ValueError: settings of the section ``labels`` that do not go together.
    """
    settings = context.config.labels
    if settings.background not in ("constant", "power"):
        raise ValueError(f"labels.background is {settings.background!r}; it must be 'constant' or 'power'")
    scores_of = SCORES.get(settings.source)
    if scores_of is None:
        if settings.crf:
            raise ValueError(
                f"labels.crf needs scores, which labels.source={settings.source!r} has not; set it False"
            )
        return _write_each(context, job, LABELS[settings.source])
    background = Background(settings.background, settings.alpha)
    (place,) = job.reads

    def with_scores(record):
        cam = read_cam(place.file(record["id"], record["split"]))
        return {**record, "cam": scores_of(cam, record["image"].shape[:2], context.config.affinity.stride)}

    if settings.crf:
        return _refine(context, job, apply.records(context, job, with_scores), (background,), seeds.write_labels)

    def labels_of(place, record):
        cam = with_scores(record)["cam"]
        return cam.labels_of(background.before(cam.maps).argmax(-1))

    _write_each(context, job, labels_of)


def walk_scores(cam: Cam, size: tuple[int, int], stride: int) -> Cam:
    """The scores of a walk, float32 at an image's height and width; a cell spans `stride` pixels of it."""
    rows, columns = (
        linear_matrix(cells, cells * stride)[:length].astype(np.float32)
        for cells, length in zip(cam.maps.shape[:2], size, strict=True)
    )
    wide = np.tensordot(columns, cam.maps.astype(np.float32), (1, 1))  # (w, cells, m)
    return Cam(np.tensordot(rows, wide, (1, 1)), cam.classes)


def seed_labels(cam: Cam) -> np.ndarray:
    """The CRF's labels at one alpha, (h, w) uint8."""
    return cam.labels_of(cam.maps.argmax(-1))


def _from_seeds(place, record):
    # the low alpha leaves most to the background: what AffinityNet takes as an object
    return seed_labels(read_seeds(place.file(record["id"], record["split"]))[0])


def _from_masks(place, record):
    if "mask" not in record:
        raise ValueError(f"labels.source is 'masks', and image {record['id']} has none; give it one, or leave it out")
    return record["mask"]


def cam_scores(cam: Cam, size: tuple[int, int], stride: int) -> Cam:
    """CAMs have their image's size already."""
    return cam


SCORES: dict[str, Callable] = {"walk": walk_scores, "cam": cam_scores}  # of the maps at the image's size
LABELS: dict[str, Callable] = {"seeds": _from_seeds, "masks": _from_masks}  # of the place read from and the record


def _write_each(context: Context, job: Job, labels_of: Callable) -> None:
    place = job.reads[0] if job.reads else None

    def write(record):
        labels = resize_mask(labels_of(place, record), record["size"])
        write_mask(job.writes.file(record["id"], record["split"]), labels)

    with ThreadPoolExecutor(2) as pool:
        running = []
        for record in apply.records(context, job):
            running.append(pool.submit(write, record))
            if len(running) == AHEAD:
                running.pop(0).result()
        for future in running:
            future.result()


def _refine(
    context: Context, job: Job, records: Iterator[dict], backgrounds: Sequence[Background], write: Callable
) -> None:
    """Runs the CRF on records with a "cam", and writes its marginals."""
    crf, options = context.config.crf, apply.crf_options(context.config)
    if pick_backend(crf.backend) == "jax":
        return _refine_on_device(context, job, records, backgrounds, write)
    options["backend"] = "pydensecrf"  # by name, so that a worker process does not look for an accelerator
    wanted = ("image", "cam", "size")
    calls = (
        (write, job.writes.file(r["id"], r["split"]), {name: r[name] for name in wanted}, tuple(backgrounds), options)
        for r in records
    )
    seeds.in_processes(seeds.refine_to_file, calls, crf.workers)


def _refine_on_device(
    context: Context, job: Job, records: Iterator[dict], backgrounds: Sequence[Background], write: Callable
) -> None:
    options = apply.crf_options(context.config)

    def prepare(records, canvas, rows):
        photos = batching.padded_images([r["image"] for r in records], canvas, rows)
        scores = batching.padded_cams([r["cam"].maps for r in records], canvas, rows)
        present = np.zeros((rows, scores.shape[-1]), bool)
        for row, record in enumerate(records):
            present[row, : len(record["cam"].classes)] = True
        return photos, scores, present

    def refine(_, photos, scores, present):
        return seeds.refine_batch(photos, scores, present, backgrounds, options)

    def finish(record, marginals):
        height, width = record["image"].shape[:2]
        classes = record["cam"].classes
        marginals = marginals[:, :height, :width, : len(classes) + 1]
        write(job.writes.file(record["id"], record["split"]), marginals, classes, record["size"])

    apply.run_network(context.config, records, prepare, refine, {}, finish)
