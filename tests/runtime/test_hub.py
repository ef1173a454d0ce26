"""Weights by name, against a stand-in of the hub on this machine: no test asks another one."""

import hashlib
import http.server
import json
import threading

import pytest

from affectjax.errors import InputError
from affectjax.runtime import hub
from affectjax.training import loop

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "someone/tiny-clip"


class Hub(http.server.BaseHTTPRequestHandler):
    """Gives the files of a folder as the hub gives those of a model."""

    folder, asked = None, []

    def log_message(self, *said):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = self.path.split("?")[0]
        self.asked.append(path)
        files = {f.name: f.read_bytes() for f in self.folder.iterdir()} if self.folder else {}
        kind, *rest = path.strip("/").split("/")
        name = "/".join(path.strip("/").split("/")[-1:])
        if kind == "api" and "/".join(rest[1:3]) == NAME:
            parts = [{"rfilename": file} for file in files]
            tree = [
                {"type": "file", "path": f, "size": len(d), "oid": "0"} for f, d in files.items()
            ]
            said = tree if "tree" in rest else {"id": NAME, "sha": COMMIT, "siblings": parts}
            self.send(json.dumps(said).encode(), body, "application/json")
        elif path.startswith(f"/{NAME}/resolve/") and name in files:
            self.send(files[name], body, "application/octet-stream")
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()

    def send(self, data, body, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(data)


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A hub whose folder is set by the test, and an empty cache."""
    import huggingface_hub.constants

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{served.server_port}")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    hub._of_hub.cache_clear()
    Hub.asked.clear()
    yield Hub
    served.shutdown()
    thread.join()
    hub._of_hub.cache_clear()


def test_a_folder_is_itself(tmp_path, server):
    assert hub.local(tmp_path) == tmp_path
    assert hub.local("no-owner") == hub.Path("no-owner")
    assert hub.local("a/b/c") == hub.Path("a/b/c") and hub.local("") == hub.Path("")
    assert server.asked == []


def test_a_name_is_downloaded_once_and_then_found_offline(server, tmp_path, monkeypatch):
    (tmp_path / "files").mkdir()
    for name in ("config.json", "model.safetensors", "pytorch_model.bin", "vocab.txt"):
        (tmp_path / "files" / name).write_text(f"the {name}")
    server.folder = tmp_path / "files"
    found = hub.local(NAME)
    here = {file.name: file.read_text() for file in found.iterdir()}
    # No pickle comes along.
    assert here == {n: f"the {n}" for n in ("config.json", "model.safetensors", "vocab.txt")}
    asked = len(server.asked)
    hub._of_hub.cache_clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub.local(NAME) == found == hub.local(f"{NAME}@{COMMIT}")
    assert len(server.asked) == asked


def test_what_cannot_be_had(server, monkeypatch):
    server.folder = None
    with pytest.raises(
        InputError, match="someone/else is neither a folder here nor a model that the hub"
    ):
        hub.local("someone/else")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(server.asked)
    with pytest.raises(InputError, match="not in the cache of the hub; HF_HUB_OFFLINE forbids"):
        hub.local("someone/else")
    assert len(server.asked) == asked
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(InputError, match="neither a folder here nor a model"):
        hub.local("someone/else")


def test_a_run_says_so_before_data_is_opened(server, monkeypatch, tmp_path):
    server.folder = None
    config = {"model": {"learner": {"clap_weights": "someone/else"}}, "data": {"tokenizer": ""}}
    with pytest.raises(InputError, match=r'"config.model.learner.clap_weights": someone/else is'):
        hub.check(config)
    opened = []
    monkeypatch.setattr(loop.open_datasets, "open_all", lambda *_: opened.append(1))
    monkeypatch.setattr(loop.run_config, "resolve", lambda _: config)
    with pytest.raises(InputError, match="clap_weights"):
        loop.train(config, tmp_path / "run")
    assert not opened and not (tmp_path / "run").exists()
