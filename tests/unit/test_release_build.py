"""An environment is built once on the controller, by whoever comes first, and kept whole."""

import datetime
import functools
import http.server
import ipaddress
import multiprocessing
import os
import ssl
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
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


def certificate(path: Path) -> Path:
    """Write a key and a certificate for 127.0.0.1 that nobody but its holders trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a company's own")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(pem, pkcs8, plain) + signed.public_bytes(pem))
    return path


def wheel(directory: Path) -> None:
    """Make the one package of an index, as PEP 503 wants it."""
    directory.mkdir(parents=True)
    info = "closed_box-1.0.dist-info"
    with zipfile.ZipFile(directory / "closed_box-1.0-py3-none-any.whl", "w") as packed:
        packed.writestr("closed_box.py", "INSIDE = True\n")
        packed.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: closed-box\nVersion: 1.0\n"
        )
        packed.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        packed.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """Serve an index with a password over TLS; yield its address, and who vouches for it."""
    # Not fetched once more, from an index that is no matter here.
    monkeypatch.setattr(action, "uv", lambda *_: str(Path(sys.executable).with_name("uv")))
    wheel(tmp_path / "simple/closed-box")
    own = certificate(tmp_path / "own.pem")

    class Closed(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") == "Basic bWU6aHVudGVyMg==":
                return super().do_GET()
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None

        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Closed, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}/simple/", own
        server.shutdown()


@pytest.mark.parametrize(
    ("user", "is_trusted", "said"),
    [("me:hunter2@", True, ""), ("me:wrong1@", True, "401"), ("me:hunter2@", False, "certificate")],
    ids=["as it should be", "a wrong password", "nobody vouches for it"],
)
def test_a_private_index_is_asked_with_its_password_and_its_certificate(
    tmp_path: Path, index: tuple[str, Path], user: str, is_trusted: bool, said: str
) -> None:
    address, own = index
    environment = {"UV_DEFAULT_INDEX": f"https://{user}{address}", "UV_HTTP_RETRIES": "0"}
    if is_trusted:
        environment["SSL_CERT_FILE"] = str(own)
    with tarfile.open(tmp_path / "code.tar.gz", "w:gz"):
        pass
    given = {"code": str(tmp_path / "code.tar.gz"), "requirements": "", "beside": ["closed-box"]}
    archive = tmp_path / "cache/key.tar.gz"
    archive.parent.mkdir()
    if not said:
        action.build(archive, sys.executable, {**given, "environment": environment})
        with tarfile.open(archive) as packed:
            names = {Path(name).name for name in packed.getnames()}
        # Compiled as well.
        assert len([name for name in names if name.startswith("closed_box.")]) == 2
        return
    with pytest.raises(action.BuildError) as error:
        action.build(archive, sys.executable, {**given, "environment": environment})
    assert said in str(error.value).lower()
    assert user not in str(error.value)
    assert not archive.exists()
