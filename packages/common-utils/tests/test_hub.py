"""`--push-to-hub`: refused before the first step, and a model's folder that arrives whole at a server that speaks the Hub's words."""

import base64
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from scarce_common_utils.errors import UserError
from scarce_common_utils.hub import push_model, refuse_push

hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed: pip install huggingface_hub")
pytest.importorskip("huggingface_hub.constants")


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as an upload needs: who am I, a new repository, how files go up, a commit."""

    def do_GET(self):
        if "whoami" in self.path and self.headers.get("Authorization") == "Bearer hf_right":
            self.answer({"name": "me", "type": "user", "orgs": [], "auth": {"type": "access_token"}})
        elif "/api/models/me/digits" in self.path:
            self.answer({"id": "me/digits", "modelId": "me/digits", "sha": "0" * 40, "siblings": [], "tags": []})
        else:
            self.answer({"error": "Invalid credentials"}, 401)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(self.chunks())
        self.server.seen.append(self.path)
        if self.path == "/api/repos/create":
            self.answer({"url": f"http://{self.headers['Host']}/me/digits"})
        elif "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self.answer({"files": files})
        elif "/commit/" in self.path and self.server.refuses:
            self.answer({"error": "no right to write"}, self.server.refuses)
        elif "/commit/" in self.path:
            lines = [json.loads(line) for line in body.splitlines()]
            for line in lines:
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer(
                {
                    "success": True,
                    "commitOid": "1" * 40,
                    "commitUrl": f"http://{self.headers['Host']}/me/digits/commit/1",
                }
            )
        else:
            self.answer({})  # such as the check of a card's head

    def chunks(self):
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()

    def answer(self, content, status=200):
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *words):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    made = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    made.seen, made.files, made.refuses = [], {}, None
    threading.Thread(target=made.serve_forever, daemon=True).start()
    monkeypatch.setattr(hub.constants, "ENDPOINT", f"http://127.0.0.1:{made.server_port}")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "run" / "model"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"\x00weights")
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("# card\n")
    return folder


def test_the_model_s_folder_arrives_whole(server, model):
    refuse_push("me/digits")
    address = push_model(model, "me/digits")
    assert address.endswith("/me/digits")
    assert server.files == {path.name: path.read_bytes() for path in model.iterdir()}


def test_what_cannot_be_pushed_is_refused_first(server, monkeypatch):
    for name in ("two words", "a/b/c", "-x"):
        with pytest.raises(UserError, match="is no name on the Hub"):
            refuse_push(name)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match=f"the Hub at http://127.0.0.1:{server.server_port} did not take the login"):
        refuse_push("me/digits")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match=r"nobody is logged in\. Log in by `hf auth login`"):
        refuse_push("me/digits")
    assert server.seen == []


def test_a_refusal_at_the_end_says_where_the_model_is(server, model):
    server.refuses = 403
    with pytest.raises(UserError, match=r"its model lies in .*run/model.*\n?.*hf upload me/digits"):
        push_model(model, "me/digits")
    assert server.files == {}


def test_without_the_option_nothing_is_asked_or_imported(monkeypatch, model):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refuse_push(None)
    assert push_model(model, None) is None
    with pytest.raises(UserError, match="pip install huggingface_hub"):
        refuse_push("me/digits")
