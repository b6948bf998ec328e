"""What our clients of Google's storage ask of it (its JSON API), answered from memory: a bucket to train into."""

import contextlib
import json
import re
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c

_OBJECT = re.compile(r"(?:/download)?/storage/v1/b/([^/]+)/o/([^/]+)(?:/(?:rewriteTo/b/([^/]+)|moveTo)/o/([^/]+))?")
_BUCKET = re.compile(r"/storage/v1/b/([^/]+)(/o)?")


class _Missing(Exception):
    """What was asked for is not there."""


class _Changed(Exception):
    """An object is not of the generation that the client has seen."""


class Storage(ThreadingHTTPServer):
    """Serves buckets that need not be made, to one machine.

    Attributes:
      objects: {(bucket, name): (generation, contents)}.
      full: a part of names; nothing whose name has it can be written.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("localhost", 0), _Handler)
        self.objects: dict[tuple[str, str], tuple[int, bytes]] = {}
        self.full: str | None = None
        self.lock, self.generation = threading.Lock(), 0
        self.uploads: list[str] = []  # names, of resumable uploads

    def handle_error(self, request: object, address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # of a client that was killed
            super().handle_error(request, address)

    @property
    def environment(self) -> dict[str, str]:
        """Variables that send gcsfs, TensorStore and Google's own client here."""
        address = f"http://localhost:{self.server_port}"
        return {
            "STORAGE_EMULATOR_HOST": address,
            "TENSORSTORE_GCS_HTTP_URL": address,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # or it asks elsewhere what kind of bucket it is
            "NO_GCE_CHECK": "true",  # nor where a machine of Google's has its credentials
        }

    def put(self, bucket: str, name: str, data: bytes, query: dict[str, str]) -> dict:
        key = bucket, name
        self.check(self.objects.get(key, (0,))[0], query)
        self.generation += 1
        self.objects[key] = self.generation, data
        return self.describe(key)

    def find(self, bucket: str, name: str, query: dict[str, str]) -> tuple[int, bytes]:
        if (bucket, name) not in self.objects:
            raise _Missing
        self.check(self.objects[bucket, name][0], query)
        return self.objects[bucket, name]

    def check(self, generation: int, query: dict[str, str]) -> None:
        if int(query.get("ifGenerationMatch", generation)) != generation:
            raise _Changed

    def describe(self, key: tuple[str, str]) -> dict:
        generation, data = self.objects[key]
        return {
            "kind": "storage#object",
            "bucket": key[0],
            "name": key[1],
            "size": str(len(data)),
            "generation": str(generation),
            "updated": "2026-01-01T00:00:00Z",
            "crc32c": b64encode(google_crc32c.Checksum(data).digest()).decode(),
            "timeCreated": "2026-01-01T00:00:00Z",
            "contentType": "application/octet-stream",
        }

    def list(self, bucket: str, query: dict[str, str]) -> dict:
        """In one page."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        items, folders = [], set()
        for key in sorted(self.objects):
            if key[0] != bucket or not key[1].startswith(prefix):
                continue
            rest = key[1][len(prefix) :]
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter)[0] + delimiter)
            else:
                items.append(self.describe(key))
        return {"kind": "storage#objects", "items": items, "prefixes": sorted(folders)}


class _Handler(BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True
    server: Storage

    def log_message(self, *arguments: object) -> None:
        pass

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        with self.server.lock:
            try:
                status, headers, content = self._answer(url.path, query, body)
            except _Missing:
                status, headers, content = 404, {}, b'{"error": {"code": 404, "message": "no such object"}}'
            except _Changed:
                status, headers, content = 412, {}, b'{"error": {"code": 412, "message": "another generation"}}'
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = _serve

    def _answer(self, path: str, query: dict[str, str], body: bytes) -> tuple[int, dict, bytes]:
        if path.startswith("/upload/"):
            return self._upload(path.split("/")[5], query, body)
        if path.startswith("/batch/"):
            return self._delete_many(body)
        if found := _OBJECT.fullmatch(path):
            bucket, name, to_bucket, to_name = (part and unquote(part) for part in found.groups())
            return self._object(path, bucket, name, to_bucket, to_name, query)
        if not (found := _BUCKET.fullmatch(path)):
            return 400, {}, b"not one of the requests that are known here"
        return _json(self.server.list(found[1], query) if found[2] else {"kind": "storage#bucket", "name": found[1]})

    def _object(
        self, path: str, bucket: str, name: str, to_bucket: str | None, to_name: str | None, query: dict[str, str]
    ) -> tuple[int, dict, bytes]:
        storage = self.server
        if self.command == "DELETE":
            storage.find(bucket, name, query)
            del storage.objects[bucket, name]
            return 204, {}, b""
        generation, data = storage.find(bucket, name, query)
        if self.command == "POST":
            copy = storage.put(to_bucket or bucket, to_name, data, {})
            if "/moveTo/" in path:
                del storage.objects[bucket, name]
            return _json(copy if "/moveTo/" in path else {"done": True, "resource": copy})
        if query.get("alt") != "media":
            return _json(storage.describe((bucket, name)))
        if query.get("ifGenerationNotMatch") == str(generation):
            return 304, {}, b""
        headers = {"x-goog-generation": generation, "Content-Type": "application/octet-stream"}
        if wanted := re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            return 206, headers, data[first : last + 1]
        return 200, headers, data

    def _upload(self, bucket: str, query: dict[str, str], body: bytes) -> tuple[int, dict, bytes]:
        storage, kind = self.server, query["uploadType"]
        if "upload_id" in query:
            if self.headers["Content-Range"].endswith("/*"):  # more is to come
                return 400, {}, b"uploads in several pieces are not known here"
            return _json(storage.put(bucket, storage.uploads[int(query["upload_id"])], body, query))
        if kind == "multipart":
            boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
            _, about, contents, *_ = (
                (b"\n" + body).replace(b"\r\n--" + boundary, b"\n--" + boundary).split(b"\n--" + boundary)
            )
            name = json.loads(_after_headers(about))["name"]
            body = _after_headers(contents)
        else:
            name = query.get("name") or json.loads(body)["name"]
        if storage.full and storage.full in name:
            return 403, {}, b'{"error": {"code": 403, "message": "the quota is used up"}}'
        if kind == "resumable":
            storage.uploads.append(name)
            address = f"http://{self.headers['Host']}/upload/storage/v1/b/{bucket}/o?uploadType=resumable"
            return 200, {"Location": f"{address}&upload_id={len(storage.uploads) - 1}"}, b""
        return _json(storage.put(bucket, name, body, query))

    def _delete_many(self, body: bytes) -> tuple[int, dict, bytes]:
        answers = []
        for bucket, name in re.findall(rb"DELETE /storage/v1/b/([^/]+)/o/([^/? ]+)", body):
            there = self.server.objects.pop((unquote(bucket.decode()), unquote(name.decode())), None)
            answers.append("--parts\r\n\r\nHTTP/1.1 " + ("204 No Content" if there else "404 Not Found") + "\r\n\r\n")
        return 200, {"Content-Type": "multipart/mixed; boundary=parts"}, "".join([*answers, "--parts--"]).encode()


def _after_headers(part: bytes) -> bytes:
    return re.split(rb"\r?\n\r?\n", part, maxsplit=1)[1]


def _json(value: dict) -> tuple[int, dict, bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


@contextlib.contextmanager
def serving() -> Iterator[Storage]:
    """A storage that answers as long as the block runs."""
    with Storage() as storage:
        thread = threading.Thread(target=storage.serve_forever)
        thread.start()
        try:
            yield storage
        finally:
            storage.shutdown()
            thread.join()
