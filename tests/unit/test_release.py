"""A release is whole or not there, whatever happened before; pruning keeps what is used."""

import base64
import getpass
import grp
import io
import json
import os
import shutil
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from loading import load

release = load("modules/release")

ME = getpass.getuser()
PYTHON = sys.executable
PLATFORM = release.platform_of(PYTHON)
VERSION = ".".join(PLATFORM.split(".")[:2])
KEY = release.environment_key("requirements", PYTHON, PLATFORM)
ENV = "SECRET_KEY='x'\n"

pytestmark = pytest.mark.skipif(
    grp.getgrgid(os.getgid()).gr_name != ME, reason="needs a group of the user's own name"
)


def tar(path: Path, files: dict[str, str]) -> str:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text), 0o644
            archive.addfile(info, io.BytesIO(text.encode()))
    return str(path)


class Stack:
    """A stack's directories below a temporary one, and the two archives."""

    def __init__(self, root: Path) -> None:
        self.home, self.state = root / "opt", root / "var"
        self.env_file = root / "etc" / "shop.env"
        for one in (self.state, self.env_file.parent):
            one.mkdir()
        self.code = tar(root / "code.tar.gz", {"manage.py": "print()", "media/old.txt": "x"})
        self.environment = tar(
            root / "environment.tar.gz",
            {"bin/python": "", f"lib/python{VERSION}/site-packages/a.py": "a = 1"},
        )
        self.place: dict[str, Any] = {
            "home": str(self.home),
            "user": ME,
            "state_dir": str(self.state),
            "python": PYTHON,
            "release": "r1",
            "requirements_id": "requirements",
            "writable": ["static_root"],
            "shared": ["media"],
            "directories": [str(root / "uploads")],
            "files": {
                str(root / "bin"): {"owner": ME, "group": ME, "mode": "0755"},
                str(root / "bin/shell"): {
                    "owner": ME, "group": ME, "mode": "0755", "content": "#!/bin/sh\n",
                },
            },
            "env_file": str(self.env_file),
            "env_sum": release.hashlib.sha256(ENV.encode()).hexdigest(),
        }  # fmt: skip
        self.release = self.home / "releases/r1"
        self.venv = self.home / "venvs" / KEY
        self.next = Path(f"{self.env_file}.next")

    def look(self) -> dict[str, Any]:
        found: dict[str, Any] = release.look(self.place)
        return found

    def prepare(self) -> None:
        release.prepare(self.place, self.look(), self.code, self.environment, ENV)

    def is_whole(self) -> bool:
        return (
            (self.release / "manage.py").read_text() == "print()"
            and (self.release / ".release").read_text() == "r1"
            and (self.release / ".venv/bin/python").exists()
            and (self.release / "static_root").is_dir()
            and (self.release / "media").resolve() == self.state / "shared/media"
            and list((self.release / "__pycache__").glob("manage.*.pyc")) != []
            and self.next.read_text() == ENV
            and self.look()["due"] == []
        )


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    monkeypatch.setattr(release, "OWNER", ME)
    monkeypatch.setattr(release, "platform_of", lambda python: PLATFORM)  # Asked once is enough.
    return Stack(tmp_path)


def test_everything_is_due_on_a_fresh_host(stack: Stack, tmp_path: Path) -> None:
    found = stack.look()
    assert found["due"] == [
        str(tmp_path / "bin"),
        str(tmp_path / "bin/shell"),
        str(stack.state / "shared"),
        str(stack.state / "shared/media"),
        str(tmp_path / "uploads"),
        str(stack.venv),
        str(stack.release),
        str(stack.next),
    ]
    assert (found["has_release"], found["has_environment"], found["current"]) == (False, False, "")


def test_a_prepared_release_is_whole_and_nothing_is_switched(stack: Stack) -> None:
    stack.prepare()
    assert stack.is_whole()
    assert not (stack.home / "current").exists()
    assert not stack.env_file.exists()
    assert oct(stack.next.stat().st_mode)[-4:] == "0640"


def interrupted_while_unpacking(stack: Stack) -> None:
    for path in (stack.release, stack.venv):
        new = path.with_name(f"{path.name}.new")
        (new / "lib").mkdir(parents=True)
        (new / "manage.py").write_text("half")


def interrupted_between_both(stack: Stack) -> None:
    stack.prepare()
    shutil.rmtree(stack.release)
    interrupted_while_unpacking(stack)


def interrupted_before_the_environment_file(stack: Stack) -> None:
    stack.prepare()
    stack.next.unlink()
    stack.next.with_name(f".{stack.next.name}.new").write_text("SECR")


def lost_its_environment(stack: Stack) -> None:
    stack.prepare()
    shutil.rmtree(stack.venv)


def holds_half_a_release(stack: Stack) -> None:
    stack.prepare()
    for name in ("manage.py", ".release"):
        (stack.release / name).unlink()
    (stack.release.parent / "r1.broken.new").mkdir()


def belongs_to_another_python(stack: Stack) -> None:
    stack.prepare()
    other = stack.home / "venvs/other"
    (other / "bin").mkdir(parents=True)
    (other / "bin/python").touch()
    (stack.release / ".venv").unlink()
    (stack.release / ".venv").symlink_to(other)


@pytest.mark.parametrize(
    "leave",
    [
        interrupted_while_unpacking,
        interrupted_between_both,
        interrupted_before_the_environment_file,
        lost_its_environment,
        holds_half_a_release,
        belongs_to_another_python,
    ],
)
def test_the_next_run_completes_what_was_left(stack: Stack, leave: Any) -> None:
    leave(stack)
    assert stack.look()["due"] != []
    stack.prepare()
    assert stack.is_whole()
    assert [one.name for one in stack.home.glob("*/*.new")] == []


def test_an_archive_that_breaks_off_leaves_no_release(stack: Stack) -> None:
    Path(stack.code).write_bytes(Path(stack.code).read_bytes()[:40])
    with pytest.raises(release.ReleaseError, match=r"code\.tar\.gz could not be unpacked"):
        stack.prepare()
    assert not stack.release.exists()


def test_a_missing_archive_is_named(stack: Stack) -> None:
    with pytest.raises(release.ReleaseError, match="no archive of it was shipped"):
        release.prepare(stack.place, stack.look(), None, None, ENV)


@pytest.mark.parametrize(
    ("present", "following", "due"),
    [
        (None, None, True),
        (None, ENV, False),
        ("old", ENV, False),
        ("old", "older", True),
        (ENV, None, False),
        (ENV, ENV, True),
        (ENV, "old", True),
    ],
)
def test_the_next_environment_file_is_there_only_if_it_changes(
    stack: Stack, present: str | None, following: str | None, due: bool
) -> None:
    stack.prepare()
    stack.next.unlink()
    for path, text in ((stack.env_file, present), (stack.next, following)):
        if text is not None:
            path.write_text(text)
            path.chmod(0o640)
    assert stack.look()["due"] == ([str(stack.next)] if due else [])
    stack.prepare()
    assert stack.look()["due"] == []
    assert stack.next.exists() == (present != ENV)
    assert not stack.next.exists() or stack.next.read_text() == ENV


def test_a_wrong_mode_of_the_environment_file_is_a_change(stack: Stack) -> None:
    stack.env_file.write_text(ENV)
    stack.env_file.chmod(0o644)
    assert stack.look()["env_changes"]


@pytest.mark.parametrize("change", ["content", "mode", "kind", "missing"])
def test_a_file_that_differs_is_written_again(stack: Stack, tmp_path: Path, change: str) -> None:
    stack.prepare()
    shell = tmp_path / "bin/shell"
    if change == "content":
        shell.write_text("#!/bin/bash\n")
    elif change == "mode":
        shell.chmod(0o700)
    else:
        shell.unlink()
        if change == "kind":
            shell.symlink_to("/bin/sh")
    assert stack.look()["due"] == [str(shell)]
    stack.prepare()
    assert shell.read_text() == "#!/bin/sh\n"
    assert oct(shell.stat().st_mode)[-4:] == "0755"


def test_only_what_the_releases_share_survives_in_them(stack: Stack) -> None:
    stack.prepare()
    (stack.release / "media/upload.txt").write_text("kept")
    stack.place["release"] = "r2"
    stack.prepare()
    assert (stack.home / "releases/r2/media/upload.txt").read_text() == "kept"
    assert not (stack.home / "releases/r2/media/old.txt").exists()


# --- listing and pruning ---------------------------------------------------------------------


def deployed(home: Path, names: list[str], current: str = "") -> None:
    """Make releases, the oldest first; each has an environment of its own."""
    for age, name in enumerate(names):
        environment, directory = home / "venvs" / f"v-{name}", home / "releases" / name
        environment.mkdir(parents=True)
        directory.mkdir(parents=True)
        (directory / ".release").write_text(name)
        (directory / ".venv").symlink_to(environment)
        os.utime(directory, (1000 + age, 1000 + age))
    if current:
        (home / "current").symlink_to(home / "releases" / current)


def journal(home: Path, *entries: tuple[str, str]) -> None:
    lines = [json.dumps({"release": one, "result": result}) for one, result in entries]
    (home / "deploys.jsonl").write_text("\n".join([*lines, '{"broken']))


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], "c"),
        ([("a", "ok"), ("d", "ok")], "a"),
        ([("b", "ok"), ("a", "rolled back"), ("d", "ok")], "b"),
        ([("a", "ok"), ("gone", "ok"), ("d", "ok")], "a"),
        # Its scheduler did not come up, after all else had.
        ([("b", "ok"), ("d", "ok"), ("a", "ok"), ("a", "rolled back")], "b"),
    ],
)
def test_the_previous_release_is_the_one_that_was_in_use(
    tmp_path: Path, entries: list[tuple[str, str]], expected: str
) -> None:
    deployed(tmp_path, ["a", "b", "c", "d"], current="d")
    journal(tmp_path, *entries)
    found = release.releases_in(tmp_path)
    assert release.previous_release(found, release.read_journal(tmp_path)) == expected


def test_releases_are_listed_newest_first(tmp_path: Path) -> None:
    deployed(tmp_path, ["a", "b"], current="a")
    (tmp_path / "releases/c.new").mkdir()
    (tmp_path / "releases/half").mkdir()
    assert release.releases_in(tmp_path) == [
        {"id": "b", "mtime": 1001, "current": False},
        {"id": "a", "mtime": 1000, "current": True},
    ]


def pruned(home: Path, keep: int, now: float = 2000.0) -> list[str]:
    doomed = release.to_prune(home, keep, now)
    release.prune(doomed)
    return sorted(one.name for one in [*(home / "releases").iterdir(), *(home / "venvs").iterdir()])


def test_the_newest_the_current_and_the_previous_stay(tmp_path: Path) -> None:
    deployed(tmp_path, ["a", "b", "c", "d", "e", "f"], current="b")
    journal(tmp_path, ("a", "ok"), ("b", "ok"))
    assert pruned(tmp_path, 2) == ["a", "b", "e", "f", "v-a", "v-b", "v-e", "v-f"]


def test_the_release_that_comes_is_one_of_those_that_stay(tmp_path: Path) -> None:
    deployed(tmp_path, ["a", "b", "c", "d"], current="d")
    journal(tmp_path, ("d", "ok"))
    doomed = release.to_prune(tmp_path, 3, 2000.0, "e")
    assert [one.name for one in doomed] == ["a", "b", "v-a", "v-b"]
    # As it is afterwards, and as it is when it comes back.
    assert doomed == release.to_prune(tmp_path, 3, 2000.0, "e")
    assert [one.name for one in release.to_prune(tmp_path, 2, 2000.0, "a")] == ["b", "v-b"]


def ask(
    stack: Stack, state: str, warn: Any = None, check: bool = False, **more: Any
) -> dict[str, Any]:
    """Run the module with two releases to keep."""
    params = {"state": state, "place": stack.place, "keep": 2, "packages": []}
    params |= {"code": stack.code, "environment": stack.environment, "env_content": ENV}
    params |= {"at_once": False, "code_content": None, **more}
    module = SimpleNamespace(params=params, check_mode=check, warn=warn)
    found: dict[str, Any] = release.run(module)
    return found


def test_what_nobody_needs_goes_when_a_release_comes(stack: Stack) -> None:
    deployed(stack.home, ["a", "b", "c"], current="c")
    gone = [str(stack.home / name) for name in ("releases/a", "venvs/v-a")]
    assert set(gone) < set(ask(stack, "looked")["due"])
    assert ask(stack, "present")["changed"]
    # The current one may have to stay current, so the one before it stays too.
    left = ["b", "c", "r1"]
    assert sorted(one.name for one in (stack.home / "releases").iterdir()) == left
    assert not ask(stack, "present")["changed"]
    # Also when it is all that has to be done.
    deployed(stack.home, ["d"])
    os.utime(stack.home / "releases/d", (1, 1))
    assert ask(stack, "looked")["due"] == [
        str(stack.home / one) for one in ("releases/d", "venvs/v-d")
    ]
    assert ask(stack, "present")["changed"]
    assert not (stack.home / "releases/d").exists()


def at_once(stack: Stack, **more: Any) -> dict[str, Any]:
    """Look at a host, with the code at hand in case that nothing else is missing."""
    code = base64.b64encode(Path(stack.code).read_bytes()).decode()
    asked = {"at_once": True, "code": None, "environment": None, "code_content": code}
    return ask(stack, "looked", **asked, **more)


def test_new_code_alone_is_brought_at_once(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "has_user", lambda name: True)
    lacks_environment = at_once(stack)
    assert not lacks_environment["changed"]
    assert str(stack.venv) in lacks_environment["due"]
    assert not stack.home.exists()

    stack.prepare()
    stack.place["release"] = "r2"
    stack.release = stack.home / "releases/r2"
    for looked in (
        at_once(stack, check=True),
        at_once(stack, packages=["no-such-package"]),
        ask(stack, "looked", at_once=True),  # Its code is too large to come along.
    ):
        assert str(stack.release) in looked["due"]
        assert not stack.release.exists()

    brought = at_once(stack)
    assert brought["changed"]
    assert str(stack.release) in brought["made"]
    assert brought["due"] == []
    assert not brought["has_release"], "What was there before decides what is done next."
    assert (stack.release / ".release").read_text() == "r2"
    again = at_once(stack)
    assert not again["changed"]
    assert again["made"] == []


def test_without_its_user_a_host_gets_no_code(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.prepare()
    stack.place["release"] = "r2"
    monkeypatch.setattr(release, "has_user", lambda name: False)
    assert str(stack.home / "releases/r2") in at_once(stack)["due"]
    assert not (stack.home / "releases/r2").exists()


def test_a_release_does_not_fail_for_what_cannot_be_removed(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(paths: list[Path]) -> None:
        raise PermissionError(paths[0])

    deployed(stack.home, ["a", "b", "c"], current="c")
    monkeypatch.setattr(release, "prune", refuse)
    said: list[str] = []
    ask(stack, "present", said.append)
    assert stack.release.is_dir()
    assert "could not be removed" in said[0]


def test_the_release_of_a_running_process_stays(tmp_path: Path) -> None:
    deployed(tmp_path, ["a", "b", "c", "d"], current="d")
    process = release.subprocess.Popen(["sleep", "60"], cwd=tmp_path / "releases/a")
    try:
        assert pruned(tmp_path, 2) == ["a", "c", "d", "v-a", "v-c", "v-d"]
    finally:
        process.kill()
        process.wait()


def test_an_environment_stays_while_a_release_links_to_it(tmp_path: Path) -> None:
    deployed(tmp_path, ["a", "b", "c"], current="c")
    (tmp_path / "releases/c/.venv").unlink()
    (tmp_path / "releases/c/.venv").symlink_to(tmp_path / "venvs/v-a")
    assert pruned(tmp_path, 2) == ["b", "c", "v-a", "v-b"]


@pytest.mark.parametrize(("age", "left"), [(25, []), (23, ["x.new", "y.old.new"])])
def test_leftovers_go_after_a_day(tmp_path: Path, age: int, left: list[str]) -> None:
    for path in ("releases/x.new", "venvs/y.old.new"):
        (tmp_path / path).mkdir(parents=True)
    now = (tmp_path / "releases/x.new").stat().st_mtime + age * 3600
    assert pruned(tmp_path, 2, now) == left


def test_a_host_without_releases_has_nothing_to_prune(tmp_path: Path) -> None:
    assert release.to_prune(tmp_path / "none", 2, 0.0) == []


@pytest.mark.parametrize(
    ("asked", "missing"),
    [
        (["tar"], []),
        (["tar=1*"], []),
        (["tar=0.0"], ["tar=0.0"]),
        (["tar/stable", "no-such-package"], ["no-such-package"]),
    ],
)
@pytest.mark.skipif(not Path("/usr/bin/dpkg-query").exists(), reason="needs dpkg")
def test_missing_packages(asked: list[str], missing: list[str]) -> None:
    assert release.missing_packages(asked) == missing
