"""The review page's server: what it answers, what it refuses, and the decisions that it writes."""

import itertools
import os
import shutil
import socket

import numpy as np
import pytest

from ssenet_jax import artifacts
from ssenet_jax.main import main
from ssenet_jax.stages import doubt, runner

pytest.importorskip("starlette", reason="the extra `review` is not installed")

from starlette.testclient import TestClient  # noqa: E402

from ssenet_jax.commands.review import open_album, server  # noqa: E402
from ssenet_jax.commands.review.ledger import Ledger  # noqa: E402

ODD_CLASS, ODD_PHOTO = "<script>alert(1)</script>", "<img src=x onerror=alert(1)>"
HEIGHT, WIDTH = 48, 64
PART = f".{'0f' * 16}.ssenet-part"  # a temporary file of this package
DRAWN = bytes([2]) * (HEIGHT * WIDTH)


def client_of(config, workdir, token="token", host="127.0.0.1:80"):
    app = server.application(open_album(config, workdir), Ledger(workdir), title=config.title, token="token")
    return TestClient(app, base_url=f"http://{host}/{token}/", follow_redirects=False)


@pytest.fixture
def page(scored_run):
    return client_of(*scored_run)


def decide(page, image_id, decision, content=b"", **values):
    return page.put("decision", params={"id": image_id, "decision": decision, **values}, content=content)


def files_in(workdir):
    """The files of the review; of the lock, caches and temporary names none is a result."""
    found = (workdir / "reviewed").rglob("*") if (workdir / "reviewed").exists() else ()
    return {path.name for path in found if not path.name.startswith(".lock")}


def test_the_page_comes_with_its_scripts_and_may_load_nothing_else(page):
    index = page.get("")
    assert index.status_code == 200 and "page/main.js" in index.text
    assert "default-src 'none'" in index.headers["content-security-policy"]
    for name in (
        "main.js",
        "studio.js",
        "grid.js",
        "mask.js",
        "photo.js",
        "server.js",
        "tools.js",
        "view.js",
        "review.css",
    ):
        assert page.get(f"page/{name}").status_code == 200


def test_photos_come_with_their_doubt_and_names_as_they_are(page):
    run = page.get("run").json()
    assert run["classes"] == ["background", ODD_CLASS, "oak"] and run["colors"][1] == "#800000"
    photos = {photo["id"]: photo for photo in run["photos"]}
    assert set(photos) == {"a", "b", ODD_PHOTO}
    assert photos["b"]["coverage"] == [[2, 0.5]]
    assert photos["b"]["doubt"] == 0 and photos[ODD_PHOTO]["undecided"] == 1


def test_a_photo_with_all_that_its_mask_is_made_of(page):
    about = page.get("description", params={"id": "a"}).json()
    assert (about["height"], about["width"], about["rows"], about["columns"]) == (48, 64, 6, 8)
    assert about["cell"] == [8, 8] and about["classes"] == [1, 2] and about["decision"] is None
    scores = np.frombuffer(page.get("scores", params={"id": "a"}).content, "<u2").reshape(2, 6, 8)
    np.testing.assert_allclose(scores[0, 0] / 65535, [0.9] * 4 + [0] * 4, atol=1e-3)
    for view in ("photo", "thumbnail", "overlay"):
        answer = page.get(view, params={"id": ODD_PHOTO})
        assert answer.status_code == 200 and answer.headers["content-type"] in ("image/jpeg", "image/png")


def test_an_accepted_mask_is_what_the_label_stage_makes_at_that_alpha(page, scored_run):
    _, workdir = scored_run
    for alpha, labels in ((0.2, {1, 2}), (0.7, {0, 1}), (0.95, {0})):
        known = page.get("description", params={"id": "a"}).json()["decision"] or {"time": ""}
        row = decide(page, "a", "accepted", alpha=alpha, known=known["time"]).json()
        assert (row["decision"], row["alpha"]) == ("accepted", alpha)
        mask = artifacts.read_mask(workdir / "reviewed/a.png")
        assert mask.shape == (HEIGHT, WIDTH) and set(np.unique(mask)) == labels
    assert page.get("labels", params={"id": "a", "of": "reviewed"}).content == bytes(HEIGHT * WIDTH)


def test_decisions_are_files_that_a_new_server_finds(page, scored_run):
    config, workdir = scored_run
    decide(page, "a", "corrected", DRAWN, alpha=0.3)
    decide(page, "b", "rejected")
    decide(page, ODD_PHOTO, "accepted", alpha=0.25)
    assert files_in(workdir) == {"a.png", f"{ODD_PHOTO}.png", "reviewed.csv"}
    lines = (workdir / "reviewed/reviewed.csv").read_text().splitlines()
    assert lines[0] == "id,decision,alpha,time" and [line.rpartition(",")[0] for line in lines[1:]] == [
        "a,corrected,0.3", "b,rejected,", f"{ODD_PHOTO},accepted,0.25",
    ]  # fmt: skip
    assert (artifacts.read_mask(workdir / "reviewed/a.png") == 2).all()
    again = client_of(config, workdir)
    found = {photo["id"]: photo["decision"]["decision"] for photo in again.get("run").json()["photos"]}
    assert found == {"a": "corrected", "b": "rejected", ODD_PHOTO: "accepted"}
    assert again.get("labels", params={"id": "a", "of": "reviewed"}).content == DRAWN


def test_a_save_that_does_not_know_of_the_one_before_is_told_of_it(page, scored_run):
    _, workdir = scored_run
    first = decide(page, "a", "accepted", alpha=0.2).json()
    late = decide(page, "a", "corrected", DRAWN)
    assert late.status_code == 409 and late.json()["current"] == first
    assert not (artifacts.read_mask(workdir / "reviewed/a.png") == 2).all()
    assert decide(page, "a", "corrected", DRAWN, known=first["time"]).status_code == 200
    assert page.delete("decision", params={"id": "a", "known": first["time"]}).status_code == 409
    news = page.get("changes", params={"after": 1}).json()
    assert news["saves"] == 2 and news["changed"]["a"]["decision"] == "corrected"


def test_a_decision_taken_back_leaves_nothing(page, scored_run):
    row = decide(page, "a", "accepted", alpha=0.2).json()
    assert page.delete("decision", params={"id": "a", "known": row["time"]}).json() is None
    assert files_in(scored_run[1]) == {"reviewed.csv"}
    assert page.get("description", params={"id": "a"}).json()["decision"] is None


def test_large_photos_keep_their_own_size(scored_run, monkeypatch):
    config, workdir = scored_run
    monkeypatch.setattr("ssenet_jax.commands.review.album.LONGEST", 32)
    page = client_of(config, workdir)
    about = page.get("description", params={"id": "b"}).json()
    assert (about["height"], about["width"], about["cell"]) == (24, 32, [4, 4])
    assert decide(page, "b", "corrected", bytes([2]) * (24 * 32)).status_code == 200
    assert artifacts.read_mask(workdir / "reviewed/b.png").shape == (HEIGHT, WIDTH)


def test_the_label_map_of_the_run_can_be_accepted_as_it_is(page, scored_run):
    _, workdir = scored_run
    refused = decide(page, "b", "accepted")
    assert refused.status_code == 400 and "no label map of b yet" in refused.json()["error"]
    artifacts.write_mask(workdir / "pseudo_labels/b.png", np.full((HEIGHT, WIDTH), 2))
    assert decide(page, "b", "accepted").json()["alpha"] is None
    assert (artifacts.read_mask(workdir / "reviewed/b.png") == 2).all()


REFUSED = {  # how -> method, path, values, content, status, what the answer says
    "an unknown photo": ("GET", "photo", {"id": "z"}, b"", 404, "no photo 'z'"),
    "a photo that is a path": ("GET", "photo", {"id": "../config"}, b"", 404, "no photo '../config'"),
    "a save to a path": ("PUT", "decision", {"id": "../../x", "decision": "rejected"}, b"", 404, "no photo"),
    "an absolute path": ("PUT", "decision", {"id": "/tmp/x", "decision": "corrected"}, DRAWN, 404, "no photo"),
    "no photo": ("GET", "description", {}, b"", 404, "no photo ''"),
    "an unknown decision": ("PUT", "decision", {"id": "a", "decision": "loved"}, b"", 400, "must be one of accepted"),
    "an alpha of text": ("PUT", "decision", {"id": "a", "decision": "accepted", "alpha": "x"}, b"", 400, "alpha"),
    "an alpha of nan": ("PUT", "decision", {"id": "a", "decision": "accepted", "alpha": "nan"}, b"", 400, "alpha"),
    "a negative alpha": ("PUT", "decision", {"id": "a", "decision": "accepted", "alpha": "-1"}, b"", 400, "alpha"),
    "a correction without a mask": ("PUT", "decision", {"id": "a", "decision": "corrected"}, b"", 400, "pixels"),
    "an acceptance with one": ("PUT", "decision", {"id": "a", "decision": "accepted"}, DRAWN, 400, "pixels"),
    "a mask of another size": ("PUT", "decision", {"id": "a", "decision": "corrected"}, DRAWN[1:], 400, "3071 pixels"),
    "an unknown class": ("PUT", "decision", {"id": "a", "decision": "corrected"}, DRAWN[1:] + b"\3", 400, "class 3"),
    "a huge mask": ("PUT", "decision", {"id": "a", "decision": "corrected"}, bytes(2048**2 + 1), 413, "larger"),
    "an unknown kind of mask": ("GET", "labels", {"id": "a", "of": "all"}, b"", 400, "must be one of run"),
    "a mask that is not there": ("GET", "labels", {"id": "a", "of": "run"}, b"", 404, "no run mask"),
    "changes after no number": ("GET", "changes", {"after": "x"}, b"", 400, "number"),
}  # fmt: skip


@pytest.mark.parametrize(("method", "path", "values", "content", "status", "says"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_writes_nothing(page, scored_run, method, path, values, content, status, says):
    answer = page.request(method, path, params=values, content=content)
    assert answer.status_code == status and says in answer.json()["error"] and "\n" not in answer.json()["error"]
    assert not files_in(scored_run[1])


@pytest.mark.parametrize("path", ["", "run", "page/main.js", "photo?id=a"])
def test_another_token_gets_nothing(scored_run, path):
    for token in ("", "toke", "token2", "%00", "..", "x/token"):
        answer = client_of(*scored_run, token=token).get(path)
        assert answer.status_code in (403, 404) and "Two trees" not in answer.text and answer.headers["referrer-policy"]


def test_a_decision_under_another_token_is_not_taken(scored_run):
    assert decide(client_of(*scored_run, token="guess"), "a", "rejected").status_code == 403
    assert not files_in(scored_run[1])


def test_only_this_machine_by_its_own_name_is_answered(scored_run):
    assert client_of(*scored_run, host="localhost:8000").get("run").status_code == 200
    assert client_of(*scored_run, host="evil.example:80").get("run").status_code == 400


@pytest.mark.parametrize(
    "path", ["page/../__init__.py", "page/%2e%2e/server.py", "page/..%2f..%2fmain.py", "page//etc/passwd"]
)
def test_files_outside_the_page_are_not_served(page, path):
    assert page.get(f"page/{path}").status_code in (403, 404)


def test_a_full_disk_is_told_and_the_decision_before_holds(page, scored_run, monkeypatch):
    _, workdir = scored_run
    first = decide(page, "a", "accepted", alpha=0.2).json()
    before = (workdir / "reviewed/reviewed.csv").read_text()
    real, calls = os.replace, itertools.count()

    def fails_at_the_csv(*arguments):
        if next(calls):
            raise OSError(28, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(os, "replace", fails_at_the_csv)
    answer = decide(page, "a", "corrected", DRAWN, known=first["time"])
    assert answer.status_code == 507 and "No space left" in answer.json()["error"]
    assert (workdir / "reviewed/reviewed.csv").read_text() == before
    assert files_in(workdir) == {"a.png", "reviewed.csv"}
    monkeypatch.undo()
    assert decide(page, "a", "corrected", DRAWN, known=first["time"]).status_code == 200


def command(workdir, *arguments, capsys):
    assert main(["review", f"--workdir={workdir}", *arguments]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]  # those before tell of progress
    assert line.startswith("ssenet: ")
    return line


def test_a_folder_that_is_no_workdir_is_named(tmp_path, capsys):
    assert "config.json is missing" in command(tmp_path / "no", capsys=capsys)
    assert not (tmp_path / "no").exists()


def test_a_run_without_scores_is_told_what_to_do(scored_run, capsys):
    _, workdir = scored_run
    shutil.rmtree(workdir / "walks")
    assert "run --stages=propagate" in command(workdir, capsys=capsys)
    assert not (workdir / "reviewed").exists()


def test_photos_that_moved_are_named_and_found_again(scored_run, capsys, tmp_path):
    config, workdir = scored_run
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    assert str(tmp_path / "photos") in command(workdir, capsys=capsys)
    config.data.root = str(tmp_path / "elsewhere")
    assert len(list(open_album(config, workdir))) == 3


def test_a_port_in_use_is_named(scored_run, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot serve on port {port} (Address already in use" in command(
            scored_run[1], f"--port={port}", capsys=capsys
        )
    assert "--port is 70000; it must be 0 to 65535" in command(scored_run[1], "--port=70000", capsys=capsys)


def test_a_second_review_of_a_workdir_is_refused(scored_run, capsys):
    with artifacts.locked(scored_run[1] / "reviewed"):
        assert "another review of" in command(scored_run[1], capsys=capsys)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,decision\na,accepted\n", "row 2: no alpha"),
        ("id,decision,alpha,time\na,liked,,\n", "row 2: the decision is 'liked'"),
        ("id,decision,alpha,time\na,accepted,x,\n", "row 2: alpha is 'x'"),
        ("id,decision,alpha,time\n../a,accepted,,\n", "row 2: '../a' is no id"),
        ("id,decision,alpha,time\n\xff\n", "no decision"),
    ],
)
def test_a_csv_broken_by_hand_is_named(scored_run, capsys, text, says):
    path = scored_run[1] / "reviewed/reviewed.csv"
    artifacts.write_text(path, text)
    line = command(scored_run[1], capsys=capsys)
    assert str(path) in line and says in line


def test_a_review_starts_by_removing_what_a_killed_one_left_and_nothing_of_a_run(scored_run, monkeypatch):
    _, workdir = scored_run
    left, of_run = workdir / "reviewed" / PART, workdir / "walks" / PART
    artifacts.write_text(left, "")
    artifacts.write_text(of_run, "")
    seen = []
    monkeypatch.setattr(server, "serve", lambda *_: seen.append((left.exists(), of_run.exists())))
    assert main(["review", f"--workdir={workdir}"]) == 0
    assert seen == [(False, True)]


def test_starting_a_run_leaves_the_save_of_a_review_alone(scored_run):
    config, workdir = scored_run
    artifacts.write_text(workdir / "walks" / PART, "")
    artifacts.write_text(workdir / "reviewed" / PART, "")
    runner.run_stages(config, workdir, ("report",))
    assert not (workdir / "walks" / PART).exists() and (workdir / "reviewed" / PART).exists()


def test_many_photos_are_listed_at_once_and_their_doubt_is_measured_once(scored_run, tmp_path, monkeypatch):
    config, workdir = scored_run
    names = [f"p{i:04}" for i in range(1000)]
    measured = []
    monkeypatch.setattr(
        doubt, "_measure_files", lambda *files: measured.append(1) or doubt.Doubt(0.5, 0.5, 0.0, None, [])
    )
    photo = (tmp_path / "photos/images/b.png").read_bytes()
    (tmp_path / "photos/train.csv").write_text("image,labels\n" + "".join(f"{name}.png,oak\n" for name in names))
    for name in names:
        (tmp_path / f"photos/images/{name}.png").write_bytes(photo)
        os.link(workdir / "walks/b.npz", workdir / f"walks/{name}.npz")
    assert len(client_of(config, workdir).get("run").json()["photos"]) == 1000
    assert len(list(open_album(config, workdir))) == 1000 and len(measured) == 1000
    artifacts.write_cam(workdir / "walks/p0007.npz", artifacts.Cam(np.zeros((6, 8, 1)), np.array([0])))
    open_album(config, workdir)
    assert len(measured) == 1001
