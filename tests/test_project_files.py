"""What a repository has beside its code: citation, workflow, hooks and templates agree with the rest."""

import re

import yaml

from runtime.program import PROJECT_ROOT
from tests.test_installation import PROJECT


def _yaml(name):
    return yaml.safe_load((PROJECT_ROOT / name).read_text())


def test_the_citation_names_this_version_and_both_papers():
    citation = _yaml("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert (citation["version"], citation["license"]) == (PROJECT["project"]["version"], PROJECT["project"]["license"])
    known = re.findall(r"arXiv (\d{4}\.\d{5})", (PROJECT_ROOT / "README.md").read_text())
    cited = [paper["identifiers"][0]["value"].removeprefix("arXiv:") for paper in citation["references"]]
    assert cited == ["2512.10891", "2506.15799"]
    assert set(known) <= set(cited)


def test_the_changelog_has_this_version():
    assert f"\n## {PROJECT['project']['version']}\n" in (PROJECT_ROOT / "CHANGELOG.md").read_text()


def test_the_workflow_runs_what_is_run_by_hand():
    workflow = _yaml(".github/workflows/ci.yml")
    for job in workflow["jobs"].values():
        assert job["steps"][-1] == {"run": ".ci/run"}
    least = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert least in workflow["jobs"]["test"]["strategy"]["matrix"]["python"]


def test_the_hooks_run_what_is_there():
    for repository in _yaml(".pre-commit-config.yaml")["repos"]:
        for hook in repository["hooks"]:
            assert hook["entry"].startswith(".venv/bin/")
            for file in re.findall(r"\S+\.py", hook["entry"]):
                assert (PROJECT_ROOT / file).is_file()


def test_the_issue_templates_are_forms():
    forms = [path for path in (PROJECT_ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"]
    assert len(forms) == 3
    for path in forms:
        form = yaml.safe_load(path.read_text())
        assert {"name", "description", "body"} <= set(form)
        names = [field["id"] for field in form["body"]]
        assert len(set(names)) == len(names)


def test_links_of_the_project_files_lead_somewhere():
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        for link in re.findall(r"\]\(([^)]+)\)", (PROJECT_ROOT / name).read_text()):
            assert link.startswith("https://") or (PROJECT_ROOT / link).exists(), f"{name}: {link}"
