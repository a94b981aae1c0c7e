"""A release is named by its content."""

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from loading import ROOT, load

bundle = load("action/release_bundle")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "shop").mkdir(parents=True)
    (root / "manage.py").write_text("print()")
    (root / "shop/settings.py").write_text("DEBUG = False")
    (root / "requirements.txt").write_text("-r base.txt\ncelery==5\n")
    (root / "base.txt").write_text("django==5.2\n")
    return root


def packed(root: Path) -> bytes:
    data: bytes = bundle.pack(root, bundle.project_files(root))
    return data


def test_the_same_content_makes_the_same_archive(project: Path) -> None:
    before = packed(project)
    os.utime(project / "manage.py", (0, 0))
    assert packed(project) == before


@pytest.mark.parametrize("change", ["content", "name", "executable"])
def test_a_change_of_the_code_changes_the_archive(project: Path, change: str) -> None:
    before = packed(project)
    if change == "content":
        (project / "manage.py").write_text("print(1)")
    elif change == "name":
        (project / "manage.py").rename(project / "run.py")
    else:
        (project / "manage.py").chmod(0o755)
    assert packed(project) != before


@pytest.mark.parametrize("name", [".git/HEAD", "shop/__pycache__/a.py", "a.pyc", ".venv/bin/x"])
def test_what_is_beside_the_project_is_left_out(project: Path, name: str) -> None:
    before = packed(project)
    (project / name).parent.mkdir(parents=True, exist_ok=True)
    (project / name).write_text("x")
    assert packed(project) == before


def test_the_archive_holds_the_project(project: Path, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(packed(project))
    with tarfile.open(archive) as opened:
        assert {one.name for one in opened} == {
            "manage.py",
            "shop/settings.py",
            "requirements.txt",
            "base.txt",
        }
        assert {(one.uid, one.gid, one.mtime) for one in opened} == {(0, 0, 0)}


def test_included_requirements_count(project: Path) -> None:
    assert len(bundle.requirement_texts(project / "requirements.txt")) == 2


def test_missing_requirements_are_named(project: Path) -> None:
    with pytest.raises(bundle.AnsibleActionFail, match="app_requirements names missing"):
        bundle.requirement_texts(project / "missing.txt")


@pytest.mark.parametrize("line", [".", "-e .", "--editable src", "./lib", "file:lib"])
def test_a_local_requirement_is_recognised(line: str) -> None:
    assert bundle.LOCAL.search(f"django==5.2\n{line}\n")


@pytest.mark.parametrize("line", ["celery==5.7.0", "    --hash=sha256:00", "# ./comment"])
def test_a_named_requirement_is_not_local(line: str) -> None:
    assert not bundle.LOCAL.search(line)


PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.import_role:
        name: app
        tasks_from: bundle.yml
      vars:
        stack_name: shop
        stack_task_queue: none
        app_cache_dir: {directory}/cache
        app_requirements: ""
        app_source: {{git: {directory}/repository, version: {version}}}
    - ansible.builtin.debug:
        msg: "{{{{ __app_bundle.id }}}} from {{{{ __app_bundle.archive }}}}"
"""


def bundled(directory: Path, version: str) -> str:
    """Bundle a version of a repository as a run does; return what the run says."""
    playbook = directory / "bundle.yml"
    playbook.write_text(PLAYBOOK.format(directory=directory, version=version))
    done = subprocess.run(
        # No host is contacted: this one cannot be.
        [Path(sys.executable).with_name("ansible-playbook"), playbook, "-i", "nowhere.invalid,"]
        + ["--check"],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def test_a_version_of_a_repository_is_checked_out(tmp_path: Path) -> None:
    git = ["git", "-C", tmp_path / "repository", "-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run(["git", "init", "-q", tmp_path / "repository"], check=True)
    for number in (1, 2):
        (tmp_path / "repository/manage.py").write_text(f"print({number})")
        subprocess.run([*git, "add", "manage.py"], check=True)
        subprocess.run([*git, "commit", "-qm", "x"], check=True)
        subprocess.run([*git, "tag", f"v{number}"], check=True)
    for number in (1, 2, 1):
        said = re.search(r"\w{12} from (/\S+\.tar\.gz)", bundled(tmp_path, f"v{number}"))
        assert said
        with tarfile.open(said[1]) as archive:
            content = archive.extractfile("manage.py")
            assert content
            assert content.read() == f"print({number})".encode()
    assert "Failed to checkout" in bundled(tmp_path, "v3")
