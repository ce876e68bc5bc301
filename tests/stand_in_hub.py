"""A stand-in of the Hugging Face hub: the part of its HTTP interface that models travel by."""

import base64
import contextlib
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock
from urllib.parse import unquote, urlsplit

TOKEN = "hf_" + "t" * 34
_LARGE = (".safetensors", ".onnx", ".npy")


class StandIn:
    """The repositories of a hub, and how it misbehaves.

    Attributes:
        url: Its address.
        repositories: By name ``private`` and ``commits``: the files of each commit, the last first.
        log: Method and path of each request, and whether it bore the token.
        sent: What goes out in place of the content of a file, by the file's name.
        refuses: The status of every answer to somebody who wants to write; None: none.
    """

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}"
        self.repositories, self.objects, self.log, self.sent = {}, {}, [], {}
        self.refuses = None

    def add(self, name, files, *, private=False):
        """Add a commit to a repository, which is made where it is not there; return its hash."""
        repository = self.repositories.setdefault(name, {"private": private, "commits": {}})
        number = len(repository["commits"])
        commit = hashlib.sha1(f"{name} {number}".encode()).hexdigest()
        repository["commits"] = {commit: dict(files)} | repository["commits"]
        return commit

    def files(self, name, revision="main"):
        """Return the commit of a revision and its files; nothing where there is no such one."""
        commits = self.repositories[name]["commits"] or {"0" * 40: {}}
        commit = next(iter(commits)) if revision == "main" else revision
        return (commit, commits[commit]) if commit in commits else (None, {})


def _listed(file, data):
    """Return what the hub says of a file: of a large one Git has a pointer only."""
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    large = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    told = {"rfilename": file, "size": len(data), "blobId": blob}
    return told | ({"blobId": "0" * 40, "lfs": large} if file.endswith(_LARGE) else {})


class _Handler(BaseHTTPRequestHandler):
    hub: StandIn

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        self.hub.log.append((self.command, path, known))
        self.body = self._read()
        writes = self.command in {"POST", "PUT"} and not path.startswith("/lfs/")
        if writes and (self.hub.refuses or not known):
            self._answer(self.hub.refuses or 401, {"error": "no"})
            return
        for pattern, answer in _PATHS.items():
            if found := re.fullmatch(pattern, path):
                answer(self, *found.groups())
                return
        self._answer(404, {"error": "nothing here"})

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - the names that http.server looks for

    def log_message(self, *_arguments):
        pass

    def _read(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _answer(self, status, value=None, *, data=None, **headers):
        data = json.dumps(value).encode() if data is None else data
        self.send_response(status)
        for name, text in {"Content-Length": len(data), **headers}.items():
            self.send_header(name.replace("_", "-"), str(text))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _hidden(self, name):
        """Say that there is no such repository to somebody who may not see it."""
        found = self.hub.repositories.get(name)
        if found is None or (found["private"] and not self.hub.log[-1][2]):
            self._answer(404 if self.hub.log[-1][2] else 401, {}, X_Error_Code="RepoNotFound")
            return True
        if found.get("gated"):
            self._answer(403, {}, X_Error_Code="GatedRepo")
            return True
        return False

    def create(self):
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        url = {"url": f"{self.hub.url}/{name}"}
        if name in self.hub.repositories:
            self._answer(409, url)
            return
        private = asked.get("visibility") == "private" or asked.get("private", False)
        self.hub.repositories[name] = {"private": private, "commits": {}}
        self._answer(200, url)

    def validate(self):
        card = json.loads(self.body)["content"]
        bad = "license: nonsense" in card
        errors = [{"message": "license must be one of those known"}] * bad
        self._answer(400 if bad else 200, {"errors": errors, "warnings": []})

    def info(self, name, revision):
        if self._hidden(name):
            return
        commit, files = self.hub.files(name, revision or "main")
        if commit is None:
            self._answer(404, {}, X_Error_Code="RevisionNotFound")
            return
        siblings = [_listed(file, data) for file, data in files.items()]
        private = self.hub.repositories[name]["private"]
        told = {"id": name, "modelId": name, "sha": commit, "private": private}
        self._answer(200, {**told, "siblings": siblings, "tags": [], "downloads": 0})

    def preupload(self, _name):
        files = json.loads(self.body)["files"]
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(_LARGE) else "regular",
                "shouldIgnore": False,
            }
            for file in files
        ]
        self._answer(200, {"files": modes})

    def batch(self, _name):
        objects = [{"oid": each["oid"], "size": each["size"]} for each in self._json("objects")]
        for each in objects:
            if each["oid"] not in self.hub.objects:
                upload, verify = f"{self.hub.url}/lfs/{each['oid']}", f"{self.hub.url}/verify"
                each["actions"] = {"upload": {"href": upload}, "verify": {"href": verify}}
        self._answer(200, {"transfer": "basic", "objects": objects})

    def store(self, oid):
        if self.command == "PUT":
            same = hashlib.sha256(self.body).hexdigest() == oid
            self.hub.objects[oid] = self.body
            self._answer(200 if same else 400, {})
        else:
            self._answer(200, data=self.hub.objects[oid])

    def verify(self):
        self._answer(200 if self._json("oid") in self.hub.objects else 400, {})

    def commit(self, name):
        _, files = self.hub.files(name)
        files = dict(files)
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        commit = self.hub.add(name, files)
        self._answer(
            200, {"commitUrl": f"{self.hub.url}/{name}/commit/{commit}", "commitOid": commit}
        )

    def resolve(self, name, revision, file):
        if self._hidden(name):
            return
        commit, files = self.hub.files(name, revision)
        if file not in files:
            self._answer(404, {}, X_Error_Code="EntryNotFound")
            return
        data = files[file]
        facts = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X_Repo_Commit": commit}
        self._answer(200, data=self.hub.sent.get(file, data), **facts)

    def _json(self, name):
        return json.loads(self.body)[name]


_NAME = "([^/]+/[^/]+)"
_PATHS = {
    "/api/repos/create": _Handler.create,
    "/api/validate-yaml": _Handler.validate,
    f"/api/models/{_NAME}(?:/revision/(.+))?": _Handler.info,
    f"/api/models/{_NAME}/preupload/main": _Handler.preupload,
    f"/api/models/{_NAME}/commit/main": _Handler.commit,
    rf"/{_NAME}\.git/info/lfs/objects/batch": _Handler.batch,
    "/lfs/([0-9a-f]{64})": _Handler.store,
    "/verify": _Handler.verify,
    f"/{_NAME}/resolve/([^/]+)/(.+)": _Handler.resolve,
}


@contextlib.contextmanager
def standing_in():
    """Run a hub on 127.0.0.1 that the library speaks to over plain HTTP; yield what it holds."""
    from huggingface_hub import constants

    class Handler(_Handler):
        pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Handler.hub = StandIn(server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            with mock.patch.object(constants, "HF_HUB_DISABLE_XET", new=True):
                yield Handler.hub
        finally:
            server.shutdown()
            thread.join()
