"""An environment is built once on the controller, by whoever comes first, and kept whole."""

import multiprocessing
import os
import tarfile
import time
from pathlib import Path

import pytest
from loading import load

action = load("action/release")

GIVEN = {"code": "", "requirements": "", "beside": [], "environment": {}}


def slow_build(archive: Path, python: str, given: object) -> None:
    with archive.with_suffix(".count").open("a") as count:
        count.write(f"{os.getpid()}\n")
    time.sleep(0.1)
    archive.write_text(python)


def failing_build(archive: Path, python: str, given: object) -> None:
    with archive.with_suffix(".count").open("a") as count:
        count.write(f"{os.getpid()}\n")
    time.sleep(0.1)
    raise action.BuildError("no such package")


def build(archive: Path, failures: "multiprocessing.Queue[str]") -> None:
    try:
        action.build_once(archive, "python", GIVEN)
    except action.BuildError as error:
        failures.put(str(error))


@pytest.mark.parametrize(
    ("builder", "errors"),
    [(slow_build, []), (failing_build, ["no such package"] * 4)],
    ids=["that works", "that fails"],
)
def test_of_many_at_once_one_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, builder: object, errors: list[str]
) -> None:
    monkeypatch.setattr(action, "build", builder)
    fork = multiprocessing.get_context("fork")
    failures: multiprocessing.Queue[str] = fork.Queue()
    archive = tmp_path / "cache/key.tar.gz"
    hosts = [fork.Process(target=build, args=(archive, failures)) for _ in range(4)]
    for host in hosts:
        host.start()
    for host in hosts:
        host.join()
    assert len(archive.with_suffix(".count").read_text().split()) == 1
    assert [failures.get(timeout=5) for _ in errors] == errors
    assert archive.exists() == (not errors)


def test_the_next_run_tries_a_failed_build_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "key.tar.gz"
    monkeypatch.setattr(action, "build", failing_build)
    with pytest.raises(action.BuildError):
        action.build_once(archive, "python", GIVEN)
    monkeypatch.setattr(action, "build", slow_build)
    action.build_once(archive, "python", GIVEN)
    assert archive.read_text() == "python"


def test_an_environment_is_readable_for_all_whatever_the_umask(tmp_path: Path) -> None:
    made = tmp_path / "environment"
    (made / "bin").mkdir(parents=True, mode=0o700)
    for name, mode in (("python.py", 0o600), ("celery", 0o700)):
        (made / "bin" / name).touch(mode)
    (made / "lib64").symlink_to("bin")
    action.pack(made, tmp_path / "e.tar.gz")
    with tarfile.open(tmp_path / "e.tar.gz") as packed:
        found = {one.name: (one.mode, one.uid, one.linkname) for one in packed if not one.issym()}
        assert packed.getmember("lib64").linkname == "bin"
    assert found == {
        "bin": (0o755, 0, ""),
        "bin/python.py": (0o644, 0, ""),
        "bin/celery": (0o755, 0, ""),
    }
    assert [one.name for one in tmp_path.iterdir() if "tar.gz." in one.name] == []


def test_a_failed_command_does_not_tell_the_credentials(tmp_path: Path) -> None:
    secrets = {"UV_INDEX_OURS_PASSWORD": "hunter2", "UV_DEFAULT_INDEX": "https://me:pw@i.example"}
    script = 'echo "$UV_INDEX_OURS_PASSWORD $UV_DEFAULT_INDEX is down"; exit 1'
    with pytest.raises(action.BuildError) as error:
        action.command(["/bin/sh", "-c", script], tmp_path, secrets)
    assert str(error.value) == "sh -c: *** https://***@i.example is down"


@pytest.mark.parametrize("name", ["PYTHONPATH", "VIRTUAL_ENV", "UV_PYTHON"])
def test_the_build_does_not_see_the_operators_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "/elsewhere")
    action.command(["/bin/sh", "-c", f'test -z "${name}"'], tmp_path, {})


def test_a_controller_without_the_interpreter_builds_nothing() -> None:
    assert action.platform_here("/no/such/python") == ""
