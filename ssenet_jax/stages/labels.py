"""The stages that turn scores into seeds and label maps."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ssenet_jax.artifacts import Cam, mask_origin, read_cam, read_seeds, write_mask
from ssenet_jax.crf import pick_backend
from ssenet_jax.datasets.augment import resize_mask
from ssenet_jax.equivariance import linear_matrix
from ssenet_jax.messages import shown
from ssenet_jax.stages import apply, batching, seeds
from ssenet_jax.stages.context import Context, Job, Place
from ssenet_jax.stages.reviewed import fingerprints, label_map, read_decisions
from ssenet_jax.stages.seeds import Background

AHEAD = 8  # label maps in the making


def check_seeds(context: Context) -> None:
    """Raises an ImportError when the CRF that the config names is not installed."""
    pick_backend(context.config.crf.backend)


def check_labels(context: Context) -> None:
    """As `check_seeds`, where label maps take a CRF.

    Raises:
        ValueError: they are to be masks, and an image has none.
    """
    settings, source = context.config.labels, context.train_source
    if settings.source == "masks":
        have = source.mask_fingerprints()
        for image_id in source.ids:
            if not have.get(image_id):
                raise _lacks_mask(image_id)
    elif settings.crf:
        check_seeds(context)


def refine_seeds(context: Context, job: Job) -> None:
    """Dense CRFs of the training images' CAMs at a low and a high alpha."""
    crf, (cams,) = context.config.crf, job.reads
    backgrounds = (Background("power", crf.alpha_low), Background("power", crf.alpha_high))

    def with_cam(record):
        return {**record, "cam": read_cam(cams.file(record["id"], record["split"]))}

    todo = apply.records(context, job, with_cam)
    refine_records(context, job.writes, todo, backgrounds, seeds.write_seeds)


def label(context: Context, job: Job) -> None:
    """Label maps of the training images at the photos' own size, from the source that ``labels.source`` names."""
    settings = context.config.labels
    source = settings.source
    if source == "reviewed":
        job, source = _write_reviewed(context, job), settings.unreviewed
    scores_of = SCORES.get(source)
    if scores_of is None:
        return _write_each(context, job, LABELS[source])
    background = Background(settings.background, settings.alpha)
    (place,) = job.reads

    def with_scores(record):
        cam = read_cam(place.file(record["id"], record["split"]))
        return {**record, "cam": scores_of(cam, record["image"].shape[:2], context.config.affinity.stride)}

    if settings.crf:
        todo = apply.records(context, job, with_scores)
        return refine_records(context, job.writes, todo, (background,), seeds.write_labels)

    def labels_of(place, record):
        cam = with_scores(record)["cam"]
        return cam.labels_of(background.before(cam.maps).argmax(-1))

    _write_each(context, job, labels_of)


def relabel(context: Context, job: Job) -> None:
    """Label maps of the training images from the trained network; what a person decided stays."""
    if context.config.labels.source == "reviewed":
        job = _write_reviewed(context, job)
    apply.segment(context, job)


def _write_reviewed(context: Context, job: Job) -> Job:
    """Writes what a person decided; the rest is left to do."""
    decisions = read_decisions(context.workdir)  # once: a review may be going on
    origins = fingerprints(context.workdir, decisions)
    (split,) = job.todo
    ids = context.sources[split].ids
    decided = [index for index in job.todo[split] if ids[index] in decisions]

    def write(record):
        image_id = record["id"]
        labels = label_map(context.workdir, decisions[image_id], record["size"], len(record["labels"]))
        write_mask(job.writes.file(image_id, split), labels, origin=origins[image_id])

    _in_threads(write, apply.records(context, job._replace(todo={split: decided})))
    return job._replace(todo={split: sorted({*job.todo[split]} - {*decided})})


def origins(context: Context, place: Place) -> dict[str, str]:
    """By id the fingerprint of the review that a label map was made from, empty for one that no person decided.

    A label map that is gone has that which it will be made from.
    """
    ((split, source),) = context.training_images().items()
    files = {image_id: place.file(image_id, split) for image_id in source.ids}
    there = {image_id: file for image_id, file in files.items() if file.exists()}
    now = {} if len(there) == len(files) else fingerprints(context.workdir, read_decisions(context.workdir))
    return {i: mask_origin(file) if i in there else now.get(i, "") for i, file in files.items()}


def made_otherwise(context: Context, place: Place) -> set[str]:
    """The ids whose label maps were made from another state of what was reviewed."""
    if context.config.labels.source != "reviewed":
        return set()
    wanted = fingerprints(context.workdir, read_decisions(context.workdir))
    return {image_id for image_id, origin in origins(context, place).items() if origin != wanted.get(image_id, "")}


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
        raise _lacks_mask(record["id"])
    return record["mask"]


def _lacks_mask(image_id: str) -> ValueError:
    return ValueError(f"labels.source is 'masks', and image {shown(image_id)} has none; give it one, or leave it out")


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

    _in_threads(write, apply.records(context, job))


def _in_threads(write: Callable, records: Iterable[dict]) -> None:
    with ThreadPoolExecutor(2) as pool:
        running = []
        for record in records:
            running.append(pool.submit(write, record))
            if len(running) == AHEAD:
                running.pop(0).result()
        for future in running:
            future.result()


def refine_records(
    context: Context, writes: Place, records: Iterator[dict], backgrounds: Sequence[Background], write: Callable
) -> None:
    """Runs the CRF on records with a "cam" against each background.

    Args:
        context: its config's section crf settles the CRF.
        writes: the file of each record.
        records: with "cam", "id", "image", "size" and "split".
        backgrounds: see `Background`.
        write: of `seeds`, takes a path, the marginals of every background, the classes and the record's size.
    """
    crf, options = context.config.crf, apply.crf_options(context.config)
    if pick_backend(crf.backend) == "jax":
        return _refine_on_device(context, writes, records, backgrounds, write)
    options["backend"] = "pydensecrf"  # by name, so that a worker process does not look for an accelerator
    wanted = ("image", "cam", "size")
    calls = (
        (write, writes.file(r["id"], r["split"]), {name: r[name] for name in wanted}, tuple(backgrounds), options)
        for r in records
    )
    seeds.in_processes(seeds.refine_to_file, calls, crf.workers)


def _refine_on_device(
    context: Context, writes: Place, records: Iterator[dict], backgrounds: Sequence[Background], write: Callable
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
        write(writes.file(record["id"], record["split"]), marginals, classes, record["size"])

    apply.run_network(context.config, records, prepare, refine, {}, finish)
