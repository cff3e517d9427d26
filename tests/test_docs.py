"""What README and docs say can be done can be done: every command is parsed, links and pictures are there."""

import dataclasses
import functools
import importlib
import inspect
import itertools
import re
import shlex
import subprocess
import sys
import typing
from urllib.parse import unquote

import pytest

from pipeline.loop.config import PipelineConfig
from runtime import cli
from tests.conftest import ROOT
from tests.test_import_order import LEVEL

PAGES = sorted(
    path
    for path in (
        ROOT / line for line in subprocess.check_output(["git", "ls-files", "*.md"], cwd=ROOT, text=True).split()
    )
    if path.exists() and ".github" not in path.parts
)
READ_IN_ORDER = [page for page in PAGES if page.parent.name != "tests"]


def _name(path):
    return str(path.relative_to(ROOT))


def _blocks(text):
    """Indented and fenced blocks of code, each as its lines without the indentation."""
    text = re.sub(
        r"^```.*?^```$", lambda m: re.sub("^", "    ", m[0].replace("```", ""), flags=re.M), text, flags=re.M | re.S
    )
    block = []
    for line in [*text.splitlines(), "end"]:
        if line.startswith("    ") or (block and not line.strip()):
            block.append(line[4:])
        elif block:
            yield "\n".join(block).strip()
            block = []


def _commands(page):
    """Every command of a page, as words: shell lines of its blocks, and `python -m ...` within the text."""
    text = page.read_text()
    for block in _blocks(text):
        if re.match(r"import |from .* import|[A-Z_]+\[|[A-Z]\w+\(|class |OBJECT", block):
            continue
        variables = {}
        for line in block.replace("\\\n", " ").splitlines():
            line = line.removeprefix("$ ")
            if found := re.fullmatch(r'([A-Z])="(.*)"', line.strip()):
                variables[found[1]] = found[2]
                continue
            for variable, value in variables.items():
                line = re.sub(rf"\${variable}\b", value, line)
            yield from _command(line)
    for inline in re.findall(r"(?<!`)`([^`]+)`(?!`)", text.replace("\n", " ")):
        if re.match(r"(python|make|torchrun|cd) ", inline):
            yield from _command(inline)


def _command(line):
    for part in re.split(r"&&|;(?= )", re.sub(r"2>&1.*|\s#.*|^#.*", "", line)):
        part = re.sub(r"<[^>]*>|\[[^\]]*\]", "PLACEHOLDER", part)
        try:
            words = shlex.split(part)
        except ValueError:
            continue
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words.pop(0)
        words = ["python" if re.search(r"(^|/)python3?$", word) else word for word in words]
        if words[:1] == ["torchrun"]:
            words = ["python", *words[words.index("-m") :]]
        if words[:1] in (["python"], ["make"]):
            yield tuple(word for word in words if word not in ("-u",))


COMMANDS = sorted({(_name(page), command) for page in READ_IN_ORDER for command in _commands(page)})


def _main(module):
    """The function that a command's flags are those of; None where it takes none."""
    imported = importlib.import_module(module)
    found = re.search(r"parse_flags\((\w+)", inspect.getsource(imported))
    return getattr(imported, found[1]) if found else None


@pytest.mark.parametrize(
    ("page", "command"), COMMANDS, ids=lambda value: value if isinstance(value, str) else " ".join(value)[:60]
)
def test_a_command_is_one_that_its_program_takes(page, command):
    program, *words = command
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert not {word for word in words if "=" not in word} - set(targets)
        return
    if words[0] != "-m":  # a script, or any program: python ...
        assert words[0] in ("-c", "...") or (ROOT / words[0]).exists() or (ROOT / "dsrl" / words[0]).exists(), (
            f"{page}: {words[0]}"
        )
        return
    module, *flags = words[1:]
    if module in ("pytest", "json.tool", "benchmarks.PLACEHOLDER"):
        assert all((ROOT / flag).exists() for flag in flags if flag.startswith("tests/")), f"{page}: {flags}"
        return
    main = _main(module)
    if all(re.match(r"\w[\w.]*=", flag) for flag in flags) and flags:  # key=value, parsed by the program's own settings
        module_flags = importlib.import_module("pipeline.commands.offline")
        assert module_flags
        return
    if main is None:
        assert not [flag for flag in flags if flag.startswith("--")], f"{page}: {module} takes no flags"
        return
    if "..." in flags or not flags:
        flags = [flag for flag in flags if flag != "..."]
        cli._given(flags, cli._flags_of(main))
        return

    @functools.wraps(main)
    def parsed(*args, **kwargs):
        return args, kwargs

    prepare = getattr(importlib.import_module(module), "_with_flag", list)
    cli.parse_flags(parsed, prepare(flags))
    for flag, value in itertools.pairwise(flags):
        if flag in ("--config", "--study", "--cluster_config"):
            assert (ROOT / value).exists() or value.startswith(("results/", "PLACEHOLDER")), f"{page}: {value}"


def test_commands_are_found():
    """The tests above would hold nothing of a page whose commands are not recognised."""
    found = {command[:3] for _, command in COMMANDS}
    assert len(COMMANDS) > 60
    assert {("make", "demo"), ("make", "test"), ("make", "demo-dsrl")} <= found
    assert ("python", "-m", "scripts.automated_iterative_diffusion_dits_iiwa") in found


def _anchors(page):
    for heading in re.findall(r"^#+ (.*)", page.read_text(), re.M):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_and_pictures_lead_somewhere(page):
    text = re.sub(r"`[^`\n]*`", "", page.read_text())
    for link in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{_name(page)}: {link}"
        assert ROOT in target.parents, f"{_name(page)}: {link} leads out of the project"
        if anchor:
            assert anchor in set(_anchors(target)), f"{_name(page)}: {link}"


def test_every_page_and_picture_of_docs_is_linked():
    linked = set()
    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s#]+)", page.read_text()) + re.findall(r'src="([^"]+)"', page.read_text()):
            linked.add((page.parent / link).resolve())
    files = [path for path in (ROOT / "docs").rglob("*") if path.is_file()]
    assert not [_name(path) for path in files if path not in linked and path.name != "README.md"]


def test_the_index_names_every_page():
    index = (ROOT / "docs" / "README.md").read_text()
    pages = [path for path in (ROOT / "docs").rglob("*.md") if path.name != "README.md"]
    assert not [_name(page) for page in pages if f"({page.relative_to(ROOT / 'docs')})" not in index]


def test_files_that_the_code_refers_to_exist():
    tracked = subprocess.check_output(
        ["git", "ls-files", "*.py", "*.yaml", "*.toml", "Makefile", ".ci"], cwd=ROOT, text=True
    )
    for name in tracked.split():
        path = ROOT / name
        for page in re.findall(r"\bdocs/[\w/]+\.\w+", path.read_text() if path.exists() else ""):
            assert (ROOT / page).exists(), f"{name}: {page}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "reliability.md"], ids=_name)
def test_files_that_a_page_names_exist(page):
    folders = "|".join((*LEVEL, "config", "tests"))
    for path in re.findall(rf"`((?:{folders})/[\w/.-]*[a-z0-9])`", page.read_text()):
        assert (ROOT / path).exists() or path.startswith("scripts/policies_slurm_logs") or path == "scripts/slurm", (
            f"{_name(page)}: {path}"
        )


def _prose(page):
    """Paragraphs and list items of a page: no code, no tables, no headings."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    lines = [line for line in text.splitlines() if not line.startswith(("    ", "|", "#", "!["))]
    text = re.sub(r"^(- |\d+\. )", r"\n\1", "\n".join(lines), flags=re.M)
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n") if paragraph.strip()]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_a_page_is_for_tired_readers(page):
    """Short paragraphs, and none of the words that readers stumbled over."""
    for paragraph in _prose(page):
        plain = re.sub(r"`[^`]*`|\]\([^)]*\)", "", paragraph)
        assert len(plain.split()) <= 90, f"{_name(page)}: {len(plain.split())} words: {paragraph[:80]}"
        found = re.search(r"\bbeside\b|\bin place of\b|\btells\b|\bbesides\b", plain, re.I)
        assert not found, f"{_name(page)}: {found[0]!r} in: {paragraph[:120]}"


def test_the_front_page_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 150


def test_the_environment_of_the_front_page_runs():
    """The Python of README, as it stands there."""
    [code] = [block for block in _blocks((ROOT / "README.md").read_text()) if block.startswith("import envs")]
    code += "\nassert observation.shape == env.observation_space.shape"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


SMALL = ["--episodes", "2", "--horizon", "120", "--workers", "1"]


def test_commands_of_the_pages_run(tmp_path):
    """From recording to exporting, as the pages write it, with less of everything."""
    text = {" ".join(command[1:]): command for _, command in COMMANDS}
    here = ["--data_path", str(tmp_path / "data")]

    def run(start, *less):
        [found] = [command for written, command in text.items() if written == start]
        return subprocess.run(
            [sys.executable, *found[1:], *less], cwd=ROOT, check=False, capture_output=True, text=True, timeout=300
        )

    one = ["--tasks", "IIWA_Box_None_PickPlace"]
    recorded = run(
        "-m scripts.collect_expert_data --robot IIWA --episodes 20 --workers 8", *here, *SMALL, "--robot", "", *one
    )
    assert recorded.returncode == 0, recorded.stderr
    checked = run("-m scripts.check_data --robot IIWA", *here)
    assert (checked.returncode, "63 missing" in checked.stdout) == (1, True)
    exported = run(
        "-m scripts.export_data --out exported --tasks IIWA_Box_None_PickPlace", *here, "--out", str(tmp_path / "out")
    )
    assert exported.returncode == 0, exported.stderr
    status = run("-m scripts.status", "--results_path", str(tmp_path))  # there is no run: one line
    assert (status.returncode, status.stderr.count("\n")) == (2, 1)
    dry = run(
        "-m scripts.automated_iterative_diffusion_dits_iiwa --config config/pipeline/published_data.yaml "
        "--data_path PATH_OF_THE_DATA",
        *here,
        "--results_path",
        str(tmp_path / "results"),
        "--dry_run",
    )
    assert "next: the next iteration begins" in dry.stdout


def _held():
    """(row, file, what the row calls a test of it) of the last table of docs/reliability.md."""
    text = (ROOT / "docs" / "reliability.md").read_text().partition("## What is held")[2]
    for line in text.splitlines():
        if not line.startswith("|") or line.startswith(("| situation", "| ---")):
            continue
        row, cell = line.strip("| ").split(" | ")[0], line.strip("| ").split(" | ")[-1]
        for file, names in re.findall(r"`([\w/]+)\.py`(?::([^;|]*?))?(?=; |$|, `[\w/]+\.py`| \(|; on)", cell):
            yield row, file, [re.sub(r"[` ]", "_", name.strip("` ")) for name in names.split(",") if name.strip()]


@pytest.mark.parametrize(
    ("row", "file", "names"), [pytest.param(*held, id=f"{held[1]}-{held[0][:40]}") for held in _held()]
)
def test_what_is_held_is_held_by_a_test_that_exists(row, file, names):
    found = [path for path in (ROOT / "tests").rglob("*.py") if str(path.relative_to(ROOT)).endswith(f"{file}.py")]
    found = [path for path in found if path.stem == file.split("/")[-1]]
    assert found, f"{file}.py: {row}"
    tests = [name for path in found for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)]
    for name in names:
        assert any(name in test for test in tests), f"{file}.py has no test named {name}: {row}"


def test_the_table_of_what_is_held_is_read():
    assert len(list(_held())) > 90


def _is_an_option(path):
    kind = PipelineConfig
    for part in path.split("."):
        if not dataclasses.is_dataclass(kind):
            return True  # within a free-form mapping
        kind = typing.get_type_hints(kind).get(part)
        if kind is None:
            return False
        kind = next(filter(dataclasses.is_dataclass, typing.get_args(kind)), kind)
    return True


@pytest.mark.parametrize("page", [page for page in PAGES if "docs" in page.relative_to(ROOT).parts], ids=_name)
def test_options_that_a_page_names_exist(page):
    """Dotted keys of the loop's configuration, such as `policy.group`."""
    parts = set(typing.get_type_hints(PipelineConfig))
    for option in re.findall(r"`([a-z_0-9]+(?:\.[a-z_0-9]+)+)", page.read_text()):
        if option.split(".")[0] in parts and not option.endswith((".json", ".csv", ".py", ".yaml")):
            assert _is_an_option(option), f"{_name(page)}: {option}"
