"""What comes from elsewhere is pinned, is data and not code, and is fetched once."""

import ast
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from conftest import TEST_FOLDERS
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import forgetlib
from forgetlib.data import assets, gguf
from forgetlib.errors import ModelError
from forgetlib.models import catalogue, loading

ROOT = Path(forgetlib.__file__).parent.parent
PACKAGE = sorted((ROOT / "forgetlib").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))


# --- downloads -----------------------------------------------------------------------------------


def test_every_wheel_that_is_downloaded_has_a_version_and_a_hash_of_its_own():
    wheels = [*assets.DATA_WHEELS, *(w for model in catalogue.MODELS for w in model.wheels)]
    assert len(wheels) == len({w.sha256 for w in wheels}) == 1 + 4 + 1 + 6 + 22
    for wheel in wheels:
        assert re.fullmatch(r"[\w-]+==[\d.]+", wheel.requirement)
        assert re.fullmatch(r"[0-9a-f]{64}", wheel.sha256)
    digests = {model.gguf_sha256 for model in catalogue.MODELS}
    assert len(digests) == len(catalogue.MODELS)
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in digests)


def calls(tree):
    """(dotted name of the function, call) of every call."""
    return [(ast.unparse(n.func), n) for n in ast.walk(tree) if isinstance(n, ast.Call)]


def test_only_what_compares_the_hash_downloads():
    tree = ast.parse(Path(assets.__file__).read_text())
    functions = [f for f in tree.body if isinstance(f, ast.FunctionDef)]
    callers = {
        name: {f.name for f in functions if name in dict(calls(f))}
        for name in ("subprocess.run", "_pip_download", "_download")
    }
    assert callers == {
        # The first looks only ask: for pip's settings, and for a version that cannot exist.
        "subprocess.run": {"_pip_download", "_first_look", "_pip_has_a_timeout"},
        "_pip_download": {"_download"},
        "_download": {"_wheels"},
    }
    assert {ast.unparse(c.args[0]) for name, c in calls(tree) if name == "_wheels"} == {
        "DATA_WHEELS",
        "model.wheels",
    }


def test_what_the_hub_gives_is_compared_with_the_pinned_hash_too():
    """And nothing else in the package asks the hub for a file of its own accord."""
    asking = {p.stem for p in PACKAGE if "hf_hub_download" in p.read_text()}
    assert asking == {"gguf"}
    tree = ast.parse(Path(gguf.__file__).read_text())
    functions = {f.name: f for f in tree.body if isinstance(f, ast.FunctionDef)}
    for wanted, caller in (("hf_hub_download", "_from_hub"), ("_from_hub", "obtain")):
        assert [n for n, f in functions.items() if wanted in dict(calls(f))] == [caller]
    assert "sha256_of(target)" in ast.unparse(functions["obtain"])
    for model in catalogue.MODELS:
        if model.hub:
            repository, name = model.hub
            assert re.fullmatch(r"[\w.-]+/[\w.-]+", repository)
            assert re.fullmatch(r"[\w.-]+\.gguf", name)


def imported(tree):
    """Dotted names of what a file imports, also of single functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_nothing_else_in_the_package_reaches_the_network_or_starts_a_program():
    """But for transformers and datasets, which fetch what the user names."""
    network = {"aiohttp", "ftplib", "http", "httpx", "requests", "socket", "urllib"}
    starting = set()
    for path in PACKAGE:
        names = set(imported(ast.parse(path.read_text())))
        assert not {n.split(".")[0] for n in names} & network, path
        if "subprocess" in names:
            starting.add(path.stem)
    assert starting == {"assets", "kernels", "provenance"}  # pip, the compiler, git


# --- code in disguise ----------------------------------------------------------------------------

RUNS_CODE = {"cPickle", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "pickle"}
RUNS_CODE |= {"shelve", "torch.load", "torch.hub", "os.system", "os.popen", "pandas.read_pickle"}
FUNCTIONS = {"eval", "exec", "compile", "__import__"}
LAST_NAMES = {"read_pickle", "unsafe_load", "full_load"}
MUST_BE_FALSE = {"allow_pickle", "shell", "trust_remote_code"}


def dangers(tree):
    """What in a file could run code that came as data, or a command put together from it."""
    found = [n for n in imported(tree) if n in RUNS_CODE or n.split(".")[0] in RUNS_CODE]
    for name, call in calls(tree):
        full = name.removeprefix("builtins.")
        if full in RUNS_CODE | FUNCTIONS | {"yaml.load"} or full.split(".")[-1] in LAST_NAMES:
            found.append(full)
        found += [k.arg for k in call.keywords if k.arg in MUST_BE_FALSE and not is_false(k.value)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            given = [(k.value, v) for k, v in pairs if is_constant(k)]
            found += [k for k, v in given if k in MUST_BE_FALSE and not is_false(v)]
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                key = target.slice if isinstance(target, ast.Subscript) else None
                if is_constant(key) and key.value in MUST_BE_FALSE and not is_false(node.value):
                    found.append(key.value)
    return found


def is_constant(node):
    return isinstance(node, ast.Constant)


def is_false(node):
    return isinstance(node, ast.Constant) and node.value is False


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "torch.load('weights.bin', weights_only=True)",
        "from torch import load",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=given)",
        "pd.read_pickle(path)",
        "yaml.load(text)",
        "eval(text)",
        "builtins.exec(text)",
        "subprocess.run(text, shell=True)",
        "from os import system",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "options = {'trust_remote_code': True}",
        "options['trust_remote_code'] = True",
    ],
)
def test_the_search_for_dangers_finds(code):
    assert dangers(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        "model.eval()",
        "re.compile(pattern)",
        "np.load(path)",
        "options = {'trust_remote_code': False}",
        "json.load(file)",
        "yaml.safe_load(text)",
    ],
)
def test_the_search_for_dangers_leaves_out(code):
    assert not dangers(ast.parse(code))


@pytest.mark.parametrize("path", [*PACKAGE, *TESTS], ids=lambda p: p.stem)
def test_no_file_runs_code_that_came_as_data(path):
    found = set(dangers(ast.parse(path.read_text())))
    if path.name.startswith("test_"):  # which may execute the project's own notebooks
        found -= {"exec", "compile"}
    if path.stem == "test_harness":  # of what it has pickled itself: Ray sends tasks so
        found -= {"pickle", "pickle.loads"}
    assert not found


def test_code_in_a_model_s_folder_is_not_run(tiny, tmp_path):
    tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'was run')!r}, 'w')")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="custom code"):
        loading.load(str(tmp_path))
    assert not (tmp_path / "was run").exists()


# --- pinned versions -----------------------------------------------------------------------------


PART = "# Beside that, to compute and to test:"  # where what drawing needs ends, as make knows


def pins(*, to_read=False):
    """Canonical name -> version."""
    first, *lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert first == "# To read and draw:"
    place = lines.index(PART)
    lines = lines[:place] if to_read else lines[:place] + lines[place + 1 :]
    found = [re.fullmatch(r"([A-Za-z0-9][\w.-]*)==(\d[\w.]*)", line) for line in lines]
    assert all(found), [line for line, ok in zip(lines, found, strict=True) if not ok]
    assert len({canonicalize_name(m[1]) for m in found}) == len(lines)
    return {canonicalize_name(m[1]): m[2] for m in found}


def test_requirements_are_exact_versions_that_pyproject_admits():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = {*project["dependencies"], *extras["train"], *extras["harness"], *extras["test"]}
    for requirement in map(Requirement, asked - {"forgetlib[train,harness]"}):
        assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def test_what_the_pinned_packages_need_is_pinned_too():
    """Else pip would install the newest: of these versions, as far as they are installed here."""
    # torch brings what its build needs; pip freeze leaves out setuptools.
    unpinned = set()
    for name, version in pins().items():
        try:
            installed = distribution(name)
        except ModuleNotFoundError:
            continue
        if installed.version == version and name != "torch":
            unpinned |= {n for n, _ in needed(installed.requires)} - set(pins())
    assert unpinned <= {"setuptools"}


def test_what_drawing_needs_is_pinned_apart_and_whole():
    """As pip installs it without looking into dependencies: they have to be there, and no more."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = needed(project["dependencies"])
    new = wanted
    while new:
        new = {n for name, extra in new for n in needed(distribution(name).requires, extra)}
        new -= wanted
        wanted |= new
    assert set(pins(to_read=True)) - {"setuptools"} == {name for name, _ in wanted} - {"setuptools"}


def needed(requirements, extra=""):
    """(canonical name, extra or "") of each package, and each extra of it, that is asked for."""
    found = set()
    for requirement in map(Requirement, requirements or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            found |= {(canonicalize_name(requirement.name), e) for e in ("", *requirement.extras)}
    return found


# --- notebooks -----------------------------------------------------------------------------------

ACTIVE = re.compile(r"<\s*(script|iframe|object|embed|form|link)|javascript:|\bon\w+\s*=", re.I)
PRIVATE = re.compile(r"(/home|/root|/tmp|/mnt|/Users)/|[A-Z]:\\\\")


def text_of(source):
    return source if isinstance(source, str) else "".join(source)


TAGS = {"parameters", "nbval-ignore-output", "finding", "method"}
MAGIC = ("%matplotlib inline", '%config InlineBackend.print_figure_kwargs = {"dpi": 180}')


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
class TestEveryNotebook:
    def test_hides_no_cell(self, path):
        notebook = json.loads(path.read_text())
        keys = {"cell_type", "id", "metadata", "source", "execution_count", "outputs"}
        for cell in notebook["cells"]:
            assert cell["cell_type"] in ("code", "markdown")
            assert set(cell) <= keys
            assert set(cell["metadata"]) <= {"tags"}
            assert set(cell["metadata"].get("tags", ())) <= TAGS

    def test_is_python_that_parses_and_runs_no_code_that_came_as_data(self, path):
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "code":
                lines = text_of(cell["source"]).splitlines()
                source = "\n".join(line for line in lines if line not in MAGIC)
                assert not dangers(ast.parse(source))

    def test_has_nothing_active_in_texts_and_outputs(self, path):
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "markdown":
                assert not ACTIVE.search(text_of(cell["source"]))
            for output in cell.get("outputs", ()):
                assert output["output_type"] in ("stream", "execute_result", "display_data")
                data = output.get("data", {})
                assert set(data) <= {"text/plain", "text/html", "image/png"}
                assert not ACTIVE.search(text_of(data.get("text/html", "")))
                if "image/png" in data:
                    picture = base64.b64decode(text_of(data["image/png"]), validate=False)
                    assert picture.startswith(b"\x89PNG")

    def test_names_no_folder_of_a_machine(self, path):
        notebook = json.loads(path.read_text())
        for cell in notebook["cells"]:
            for output in cell.get("outputs", ()):
                output.get("data", {}).pop("image/png", None)
        assert not PRIVATE.search(json.dumps(notebook))


@pytest.mark.parametrize(
    "text", ["<SCRIPT src=x>", "<img onerror = 'x'>", "[a](javascript:x)", "< iframe>"]
)
def test_the_search_for_active_content_finds(text):
    assert ACTIVE.search(text)


# --- no network ----------------------------------------------------------------------------------

NO_NETWORK = """
import json, sys
attempts = []
def refuse(event, arguments):
    connects = event == "socket.connect" and not isinstance(arguments[1], (str, bytes))
    sends = event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
    if connects or sends or event == "subprocess.Popen" and "pip" in arguments[1]:
        attempts.append(f"{event} {arguments}")
        raise OSError("no network")
sys.addaudithook(refuse)
"""
SAY = "\nprint(json.dumps(attempts))"
USE = """
sys.path[:0] = sys.argv[1:]
from test_determinism import jobs as small_jobs
from forgetlib import studies
from forgetlib.figures import fig2, style
from forgetlib.runs import jobs
jobs.run(small_jobs()[0])
quick = studies.study("quick")
table = fig2.table(studies.load_results(quick, "own"))
style.save(fig2.draw(table), table, "figure", quick)
"""
TRY = """
import contextlib, urllib.request
with contextlib.suppress(OSError): urllib.request.urlopen("http://127.0.0.1:9/")
"""


def without_network(code, **environment):
    """Attempts to connect while this code runs, none of which succeeds."""
    environment = os.environ | environment
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-c", NO_NETWORK + code + SAY, *TEST_FOLDERS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_run_and_a_stored_study_s_figure_do_not_even_try_to_reach_the_network(tmp_path):
    stored = "figures/quick/results"
    shutil.copytree(ROOT / stored, tmp_path / stored)
    assert without_network(USE, FORGETLIB_ROOT=str(tmp_path)) == []
    assert (tmp_path / "figures/quick/figure.png").exists()
    assert not (tmp_path / ".work").exists()  # nothing was missing


def test_an_attempt_to_reach_the_network_would_be_seen():
    (attempt,) = without_network(TRY)
    assert "socket" in attempt
