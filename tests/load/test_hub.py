"""Hub names, against a hub of our own on this machine."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from headprobe.errors import HeadprobeError
from headprobe.load.hub import _wanted, local_path
from headprobe.settings import LoadOptions
from tests.conftest import SAMPLES

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A server that knows one model, or fails in one way."""

    folder: Path
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        path = self.path.split("?")[0]
        if self.hub.status != 200:
            self._send(self.hub.status, b"{}", body=body, **self.hub.headers)
        elif path.startswith("/api/models/org/tiny/tree"):
            entries = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": f.name} for f in self._files()]
            self._send(200, json.dumps(entries).encode(), body=body)
        elif path.startswith("/api/models/org/tiny"):
            siblings = [{"rfilename": f.name} for f in self._files()]
            found = {"id": "org/tiny", "modelId": "org/tiny", "sha": COMMIT, "siblings": siblings, "tags": []}
            self._send(200, json.dumps(found).encode(), body=body)
        elif path.startswith(f"/org/tiny/resolve/{COMMIT}/"):
            file = self.hub.folder / path.rsplit("/", 1)[1]
            self._send(200, file.read_bytes(), body=body, **{"X-Repo-Commit": COMMIT, "ETag": f'"{file.name}"'})
        else:
            self._send(404, b"{}", body=body, **{"X-Error-Code": "RepoNotFound"})

    def _files(self) -> list[Path]:
        return sorted(self.hub.folder.iterdir())

    def _send(self, status: int, content: bytes, *, body: bool, **headers: Any) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), "Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Stay silent."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    known = Hub(SAMPLES / "tiny-vit")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Mine", (Handler,), {"hub": known}))
    known.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield known
    server.shutdown()
    server.server_close()
    thread.join()


def scan(name: str, cache: Path, url: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headprobe", "scan", name, "-n", "2", "-f", "json", "--cache-dir", str(cache)]
    variables = {
        **os.environ,
        "HF_ENDPOINT": url,
        "HF_HOME": str(cache / "home"),
        "HF_HUB_DISABLE_XET": "1",
        **environment,
    }
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)


def test_a_hub_model_is_downloaded_once_and_its_commit_recorded(hub: Hub, tmp_path: Path) -> None:
    first = scan("org/tiny", tmp_path, hub.url)
    assert (first.returncode, first.stderr) == (0, "")
    assert json.loads(first.stdout)["provenance"]["commit"] == COMMIT
    assert all("/api/models/org/tiny" in request or "/resolve/" in request for request in hub.asked), hub.asked
    cached = scan("org/tiny", tmp_path, "http://127.0.0.1:9")
    assert cached.returncode == 0, cached.stderr
    assert "taken from the cache" in json.loads(cached.stdout)["notes"][0]
    offline = scan("org/tiny", tmp_path, hub.url, HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    tables = [json.loads(run.stdout)["results_sha256"] for run in (first, cached, offline)]
    assert len(set(tables)) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "status", "headers", "code"),
    [
        ("org/nope", 200, {}, "E-NOTFOUND"),
        ("org/tiny", 401, {"X-Error-Code": "RepoNotFound"}, "E-NOTFOUND"),
        ("org/tiny", 403, {"X-Error-Code": "GatedRepo"}, "E-GATED"),
        ("org/tiny", 404, {"X-Error-Code": "RevisionNotFound"}, "E-REVISION"),
        ("org/tiny", 403, {}, "E-AUTH"),
        ("org/tiny", 503, {}, "E-HUB"),
    ],
)
def test_a_hub_that_refuses_is_told(
    hub: Hub, tmp_path: Path, name: str, status: int, headers: dict[str, str], code: str
) -> None:
    hub.status, hub.headers = status, headers
    found = scan(name, tmp_path, hub.url, HF_TOKEN="hf_secretsecretsecretsecret")
    assert found.returncode == 4, found.stderr
    assert found.stdout == ""
    assert found.stderr.startswith(f"headprobe: error[{code}]: ")
    assert len(found.stderr.splitlines()) == 1
    assert "hf_secret" not in found.stderr


def test_what_looks_like_a_path_is_never_looked_up(tmp_path: Path) -> None:
    assert local_path("org/model") is None
    assert local_path(str(tmp_path)) == tmp_path


@pytest.mark.parametrize(
    ("files", "options", "wanted"),
    [
        (["model.safetensors", "onnx/model.onnx"], {}, "model.safetensors"),
        (["0_Transformer/model.safetensors", "modules.json"], {}, "0_Transformer/model.safetensors"),
        (["adapter_config.json", "adapter_model.safetensors"], {}, "adapter_model.safetensors"),
        (["a.gguf", "b.gguf", "model.safetensors"], {"gguf_file": "b.gguf"}, "b.gguf"),
        (["adapter_model.bin"], {"allow_pickle": True}, "adapter_model.bin"),
    ],
)
def test_one_form_of_weights_is_downloaded(files: list[str], options: dict[str, Any], wanted: str) -> None:
    found = _wanted("org/tiny", files, LoadOptions(**options))
    assert [name for name in found if "*" not in name] == [wanted]


@pytest.mark.parametrize(
    ("files", "options", "code", "says"),
    [
        (["a.gguf"], {}, "E-FORMAT", "only GGUF weights"),
        (["a.gguf"], {"gguf_file": "b.gguf"}, "E-GGUF", "no file b.gguf"),
        (["adapter_model.bin"], {}, "E-PICKLE", "only pickled weights"),
    ],
)
def test_weights_that_can_not_be_used_are_not_downloaded(
    files: list[str], options: dict[str, Any], code: str, says: str
) -> None:
    with pytest.raises(HeadprobeError, match=says) as told:
        _wanted("org/tiny", files, LoadOptions(**options))
    assert told.value.code == code
