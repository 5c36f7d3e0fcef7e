"""verify-data: every fault of every split in one table, and an exit code that a script can use."""

from pathlib import Path

from PIL import Image

from ssenet_jax.main import main

CONFIGS = Path(__file__).parents[1] / "configs"


def verify(root, capsys, *arguments):
    config = [f"--config={CONFIGS}/folder.py", f"--config.data.root={root}", "--config.data.folder.masks=masks"]
    code = main(["verify-data", *config, *arguments])
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err


def write_photos(root):
    (root / "images").mkdir()
    (root / "masks").mkdir()
    for name in ("a", "b", "held"):
        Image.new("RGB", (30, 20), (9, 80, 90)).save(root / f"images/{name}.jpg")
    (root / "train.csv").write_text("image,labels\na.jpg,oak\nb.jpg,elm\n")
    (root / "eval.csv").write_text("image,labels\nheld.jpg,elm\n")


def test_good_data_pass_with_a_line_of_progress_for_each_split(tmp_path, capsys):
    write_photos(tmp_path)
    more = ("--config.data.folder.eval_csv=eval.csv", "--config.data.eval_split=eval")
    code, lines, progress = verify(tmp_path, capsys, *more)
    assert (code, lines) == (0, ["nothing is wrong"])
    assert "reading train: 2/2 images" in progress and "reading eval: 1/1 images" in progress


def test_what_a_run_refuses_among_folders_of_classes_is_a_fault(tmp_path, capsys):
    write_photos(tmp_path)
    for name, oak in (("a.jpg", "images/oak/a.jpg"), ("b.jpg", "images/oak/b.jfif"), ("held.jpg", "images/elm/c.jpg")):
        (tmp_path / oak).parent.mkdir(exist_ok=True)
        (tmp_path / "images" / name).rename(tmp_path / oak)
    code, lines, _ = verify(tmp_path, capsys, "--config.data.folder.csv=")
    assert code == 1 and len(lines) == 2 and "b.jfif is no photo (.jpg" in lines[1]


def test_every_fault_is_a_row_whatever_on_error_says(tmp_path, capsys):
    write_photos(tmp_path)
    (tmp_path / "images/a.jpg").write_bytes(b"cut")
    Image.new("L", (30, 21), 1).save(tmp_path / "masks/b.png")
    with open(tmp_path / "train.csv", "a") as file:
        file.write("nil.jpg,elm\n")
    more = ("--config.data.folder.eval_csv=nil.csv", "--config.data.eval_split=eval")
    for on_error in ("raise", "skip"):
        code, lines, _ = verify(tmp_path, capsys, *more, f"--config.data.on_error={on_error}")
        assert code == 1 and [line.split()[:2] for line in lines] == [
            ["split", "image"],
            ["train", "a"],
            ["train", "b"],
            ["train", "nil"],
            ["eval", "(the"],
        ]
        assert "does not decode" in lines[1] and "30 x 21 pixels" in lines[2] and "nil.csv" in lines[4]
