"""The pages: their Python runs, their commands are taken, the messages that they explain exist, the site is built."""

import ast
import functools
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ssenet_jax import datasets
from ssenet_jax.commands.configs import load_config
from ssenet_jax.main import COMMANDS, _parser, main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])
# ```python is run, each page in one namespace; ```py shows a part of a file
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NOTEBOOK = DOCS / "scenes.ipynb"


def of_page(path):
    return str(path.relative_to(ROOT))


def blocks(path):
    return [(language.strip(), text) for language, text in FENCE.findall(path.read_text())]


def commands_in(text):
    """The words of each `ssenet` command, its continued lines joined."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        for match in re.finditer(rf"(?<![`\w/.-])ssenet (?=(?:{'|'.join(COMMANDS)})\b)", line):
            rest = line[match.end() :]
            if line[: match.start()].count('"') % 2:  # inside a quoted command of another program
                rest = rest.partition('"')[0]
            words = shlex.shlex(rest, posix=True, punctuation_chars=True)
            words.whitespace_split = True
            found = []
            for word in words:
                if not word.strip(";&|()<>"):
                    break
                found.append(word)
            yield found


COMMAND_LINES = [
    pytest.param(words, id=f"{of_page(path)}: {' '.join(words)}"[:110])
    for path in PAGES
    for language, text in blocks(path)
    if not language.startswith(("py", "{"))
    for words in commands_in(text)
]


def test_there_are_commands_on_the_pages():
    assert len(COMMAND_LINES) > 40


@pytest.mark.parametrize("words", COMMAND_LINES)
def test_a_command_on_a_page_is_taken(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    options, overrides = _parser(words).parse_known_args(words)
    if getattr(options, "config", None):
        load_config(options.config, overrides)
    else:
        assert not overrides


@pytest.fixture(scope="module")
def at_home(tiny, tmp_path_factory):
    """A folder as a reader of the pages has it: a run on tiny scenes, its model exported, a photo."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(tiny, home / "runs" / "scenes")
    config = load_config("scenes:tiny", [])
    Image.fromarray(datasets.load(config.data, "test")[0]["image"]).save(home / "photo.jpg")
    assert main(["export", "model", f"--workdir={home}/runs/scenes", f"--out={home}/model"]) == 0
    return home


@pytest.mark.parametrize(
    "path", [path for path in PAGES if any(language == "python" for language, _ in blocks(path))], ids=of_page
)
def test_the_python_of_a_page_runs(path, at_home, monkeypatch):
    monkeypatch.chdir(at_home)
    namespace = {"__name__": "page"}
    for number, text in enumerate(text for language, text in blocks(path) if language == "python"):
        exec(compile(text, f"{of_page(path)}, block {number}", "exec"), namespace)


def test_the_notebook_runs(at_home, monkeypatch, capsys):
    monkeypatch.chdir(at_home)
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    namespace = {"__name__": "notebook"}
    for number, cell in enumerate(cell for cell in cells if cell["cell_type"] == "code"):
        assert not cell["outputs"], "a notebook is kept without what it printed"
        exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}, cell {number}", "exec"), namespace)
    assert "mIoU" in capsys.readouterr().out


@functools.cache
def templates():
    """Every text of the package, with `...` for what is filled in."""
    found = set()
    for path in (ROOT / "ssenet_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.add("".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return "\n".join(found)


def explained():
    """The messages in the first column of the tables of the page."""
    rows = re.findall(r"^\| `([^`]+)` \|", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    return [row.replace(r"\|", "|") for row in rows]


def test_many_messages_are_explained_and_each_once():
    assert len(explained()) > 80 and len(set(explained())) == len(explained())


@pytest.mark.parametrize("message", explained())
def test_a_message_that_is_explained_is_one_of_the_package(message):
    parts = [re.escape(part) for part in message.split("...")]
    assert re.search(r"[^\n]*?".join(parts), templates()), message


@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="the site takes the extra docs")
def test_the_site_is_built_without_a_warning(tmp_path):
    sphinx = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q"]
    done = subprocess.run([*sphinx, "-d", tmp_path / "kept", DOCS, tmp_path / "site"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "index.html").is_file()
