import html.parser
import json

import numpy as np
import pytest

from ssenet_jax import artifacts
from ssenet_jax.report import page as report
from ssenet_jax.report.gallery import Shown
from ssenet_jax.report.pictures import cam_picture, overlay_labels
from ssenet_jax.stages.doubt import Doubt

NAMES = ("cat & dog", "<script>alert(1)</script>")


class FakeSource:
    """What the report needs of a data set: two classes, an image of noise and a mask for each id."""

    class_names = NAMES

    def __init__(self, *ids, masks=True, labels=None):
        self.ids = list(ids)
        self.masks, self.labels = masks, labels

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        record = {
            "id": self.ids[index],
            "image": rng.integers(0, 256, (20, 30, 3)).astype(np.uint8),
            "labels": np.array(self.labels or (1, index % 2), np.float32),
        }
        if self.masks:
            record["mask"] = rng.integers(0, 3, (20, 30)).astype(np.uint8)
        return record


class Page(html.parser.HTMLParser):
    """The tags of a page, with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.text += " " if tag in ("td", "th") else ""

    def handle_data(self, data):
        self.text += data

    def images(self):
        return [attrs for tag, attrs in self.tags if tag == "img"]


def add_metrics(workdir, stage, split, miou, **changes):
    entry = {
        "stage": stage, "split": split, "num_images": 1200, "mask_source": "drawn", "config_hash": "0123456789ab",
        "alpha": None, "miou": miou, "m_fn": 0.5, "m_fp": 0.25, "undefined": 0,
        "iou": {"background": 0.9, NAMES[0]: miou, NAMES[1]: None}, "alpha_sweep": None,
    }  # fmt: skip
    artifacts.write_json(workdir / "metrics" / f"{stage}.{split}.json", entry | changes)


def add_log(workdir, stage, lines):
    artifacts.write_text(workdir / "logs" / f"{stage}.jsonl", "\n".join(lines))


def fill(workdir):
    """A whole small run: two training examples, the second without a baseline CAM, and one test example."""
    cam = np.random.default_rng(0).random((20, 30, 1)).astype(np.float16)
    labels = np.random.default_rng(1).integers(0, 3, (20, 30)).astype(np.uint8)
    sweep = {"alphas": [0.1, 0.2, 0.3], "miou": [0.2, 0.31, 0.25], "m_fn": [1.0, None, 1.0], "m_fp": [1, 1, 1]}
    for name, folder in (("train_0", "cams"), ("train_1", "cams"), ("train_0", "baseline/cams")):
        artifacts.write_arrays(workdir / folder / f"{name}.npz", cam=cam, classes=np.array([0]))
    artifacts.write_mask(workdir / "pseudo_labels" / "train_0.png", labels)
    artifacts.write_mask(workdir / "predictions" / "test" / "test_0.png", labels)
    add_metrics(workdir, "infer_baseline_cams", "train", 0.3, alpha=0.2, alpha_sweep=sweep, m_fn=None, undefined=1)
    add_metrics(workdir, "infer_cams", "train", 0.325, alpha=0.2, alpha_sweep=sweep)
    add_metrics(workdir, "label", "train", 0.4)
    add_metrics(workdir, "segment", "test", 0.412, num_images=300)
    steps = [json.dumps({"step": step, "loss": 1 / (step + 1), "loss_ser": 0.0, "lr": 0.1}) for step in range(4)]
    add_log(workdir, "train_classifier", steps)


@pytest.fixture
def sources():
    return {"train": FakeSource("train_0", "train_1"), "test": FakeSource("test_0")}


def shown(workdir):
    """The stages as the table shows them, in its order."""

    def cam_of(folder):
        path = lambda name: workdir / folder / f"{name}.npz"  # noqa: E731
        return lambda image, name, split, alpha: (
            cam_picture(image, artifacts.read_cam(path(name)).maps, alpha=alpha) if path(name).exists() else None
        )

    def labels_of(folder):
        path = lambda name: workdir / folder / f"{name}.png"  # noqa: E731
        return lambda image, name, split, alpha: (
            overlay_labels(image, artifacts.read_mask(path(name))) if path(name).exists() else None
        )

    return [
        Shown("infer_baseline_cams", "Baseline CAM", cam_of("baseline/cams")),
        Shown("train_classifier", "Classifier", None),
        Shown("infer_cams", "CAM", cam_of("cams")),
        Shown("refine_seeds", "CRF seeds", None),
        Shown("label", "Label", labels_of("pseudo_labels")),
        Shown("segment", "Prediction", labels_of("predictions/test")),
    ]


def write(workdir, sources, ids=("train_0", "train_1", "test_0"), doubts=None):
    texts = {"title": "A <run>", "config_text": "key: '</pre><i>'"}
    path = report.write(workdir, shown(workdir), **texts, sources=sources, ids=ids, doubts=doubts or {})
    return Page(path.read_text(encoding="utf-8"))


def test_page_stands_alone_and_is_accessible(tmp_path, sources):
    fill(tmp_path)
    page = write(tmp_path, sources)
    links = [value for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "href", "xlink:href")]
    assert len(links) == 11
    assert all(link.startswith("data:image/jpeg;base64,") for link in links)
    assert not any(tag in ("script", "link", "iframe") for tag, _ in page.tags)
    assert all(attrs["alt"] for attrs in page.images())
    assert all(attrs.get("aria-label") for tag, attrs in page.tags if tag == "svg")
    assert "url(" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_names_title_and_config_are_escaped(tmp_path, sources):
    fill(tmp_path)
    page = write(tmp_path, sources)
    assert not any(tag in ("script", "run", "i") for tag, _ in page.tags)
    assert "key: '</pre><i>'" in page.text and "A <run>" in page.text
    assert any(NAMES[0] in attrs["alt"] and NAMES[1] in attrs["alt"] for attrs in page.images())


def test_headline_compares_within_a_split(tmp_path, sources):
    fill(tmp_path)
    text = " ".join(write(tmp_path, sources).text.split())
    assert "Prediction reaches 41.2 % mIoU on test. Label on train: 10.0 points above the Baseline CAM." in text
    add_metrics(tmp_path, "infer_baseline_cams", "test", 0.45)
    text = " ".join(write(tmp_path, sources).text.split())
    assert "Prediction reaches 41.2 % mIoU on test, 3.8 points below the Baseline CAM." in text


def test_stages_come_in_the_order_of_the_data_flow_with_undefined_means_as_dashes(tmp_path, sources):
    fill(tmp_path)
    add_metrics(tmp_path, "refine_seeds", "train", 0.35)
    text = " ".join(write(tmp_path, sources).text.split())
    rows = [
        "Baseline CAM train 30.0 – 25.0 1 0.2 1,200 drawn 01234567",
        "CAM train 32.5 50.0 25.0 0 0.2 1,200 drawn",
        "CRF seeds train 35.0",
        "Label train 40.0 50.0 25.0 0 – 1,200",
        "Prediction test 41.2 50.0 25.0 0 – 300",
    ]
    places = [text.find(row) for row in rows]
    assert -1 not in places and places == sorted(places)


def test_gallery_leaves_out_columns_that_no_example_fills(tmp_path, sources):
    fill(tmp_path)
    page = write(tmp_path, sources)
    alts = [attrs["alt"].split(":")[0] for attrs in page.images()]
    assert alts == [
        "Image of train_0", "Ground truth of train_0", "Baseline CAM of train_0", "CAM of train_0",
        "Label of train_0", "Image of train_1", "Ground truth of train_1", "CAM of train_1",
        "Image of test_0", "Ground truth of test_0", "Prediction of test_0",
    ]  # fmt: skip
    assert page.text.count("Baseline CAM: none") == 1 and "Prediction: none" not in page.text


def test_empty_workdir_still_gives_a_page(tmp_path):
    page = write(tmp_path, {"train": FakeSource("train_0", masks=False)}, ids=["train_0"])
    assert "No stage was scored" in page.text
    assert [attrs["alt"].split(" of")[0] for attrs in page.images()] == ["Image"]
    assert not any(tag in ("svg", "table") for tag, _ in page.tags)


def test_masks_that_ignore_every_pixel_leave_dashes(tmp_path, sources):
    sweep = {"alphas": [0.1, 0.2], "miou": [None, None], "m_fn": [None, None], "m_fp": [None, None]}
    for stage in ("infer_baseline_cams", "infer_cams"):
        add_metrics(tmp_path, stage, "train", None, m_fn=None, m_fp=None, alpha=0.1, alpha_sweep=sweep)
    page = write(tmp_path, sources)
    assert "CAM reaches – % mIoU on train." in page.text
    assert not any(tag == "svg" for tag, _ in page.tags)


def test_measures_that_no_photo_of_the_sample_gives_are_dashes(tmp_path, sources):
    nothing = {"mean_ap": None, "ap": {}, "equivariance": {"hflip": None}, "scales": {"1": None}}
    artifacts.write_json(
        tmp_path / "metrics" / "infer_cams.test.json",
        {"stage": "infer_cams", "split": "test", "num_images": 2} | nothing,
    )
    assert "CAM test 2 – – –" in " ".join(write(tmp_path, sources).text.split())


def test_same_run_gives_the_same_bytes_and_leaves_no_other_file(tmp_path, sources):
    fill(tmp_path)
    before = set(tmp_path.iterdir())
    write(tmp_path, sources)
    first = (tmp_path / "report.html").read_bytes()
    write(tmp_path, sources)
    assert (tmp_path / "report.html").read_bytes() == first
    assert set(tmp_path.iterdir()) - before == {tmp_path / "report.html"}


def test_log_of_a_killed_and_resumed_run(tmp_path, sources):
    lines = ['{"step": 0, "loss": 4.0}', '{"step": 1, "loss": 9.0}', '{"step": 1, "loss": 2.0}', '{"step": 2, "lo']
    add_log(tmp_path, "train_classifier", lines)
    (svg,) = [attrs for tag, attrs in write(tmp_path, sources).tags if tag == "svg"]
    assert svg["aria-label"].endswith("loss: 4 to 2")


def test_unknown_example_and_no_source_are_errors(tmp_path, sources):
    with pytest.raises(ValueError, match="no example 'x' in train, test"):
        write(tmp_path, sources, ids=["x"])
    with pytest.raises(ValueError, match="at least one source"):
        write(tmp_path, {}, ids=[])
    assert not (tmp_path / "report.html").exists()


def test_photos_without_masks_are_shown_by_what_was_found_the_least_certain_first(tmp_path):
    fill(tmp_path)
    for metrics in (tmp_path / "metrics").iterdir():
        metrics.unlink()
    doubts = {
        "train_0": Doubt(0.4, 0.1, 0.0, 0.3, [(0, 0.25)]),
        "train_1": Doubt(0.625, 0.5, 0.125, None, [(0, 0.75), (1, 0.0)]),
    }
    sources = {"train": FakeSource("train_0", "train_1", masks=False)}
    page = write(tmp_path, sources, ids=["train_0"], doubts=doubts)
    text = " ".join(page.text.split())
    assert f"{NAMES[0]} 2 2 50.0" in text and f"{NAMES[1]} 1 0 –" in text
    assert "Covered by objects50.0" in text and "CRF and mask disagree30.0" in text
    assert text.index("train_1") < text.index("train_0")
    assert f"doubt 62.5 %: two best scores close 50.0, two classes close 12.5, not found: {NAMES[1]}" in text
    assert not any(tag == "script" for tag, _ in page.tags)


def test_a_photo_with_none_of_the_classes_is_called_that_and_has_no_doubt(tmp_path):
    fill(tmp_path)
    source = FakeSource("train_0", labels=(0, 0))
    text = " ".join(write(tmp_path, {"train": source}, ["train_0"], {"train_0": Doubt(0, 0, 0, None, [])}).text.split())
    assert "none of the classes" in text and "doubt 0.0 %" not in text


@pytest.mark.parametrize("line", ["5", '{"step": "one"}'])
def test_a_line_that_no_training_wrote_is_named(tmp_path, sources, line):
    add_log(tmp_path, "train_classifier", [line, ""])
    with pytest.raises(ValueError, match=r"train_classifier\.jsonl holds the line .* delete that line"):
        write(tmp_path, sources)
