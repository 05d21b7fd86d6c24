"""A server on loopback that is to wandb what its own is, as far as runs need it: it takes, refuses, hangs, and comes
back."""

import gzip
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, Literal

Mood = Literal["takes", "refuses", "fails", "hangs"]
REFUSALS = {"refuses": 403, "fails": 503}
"""For good, or for now."""


@dataclass
class Kept:
    """What the server has of one run."""

    bucket: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Rows by their place in the stream."""
    summary: dict[str, Any] = field(default_factory=dict)
    complete: bool = False

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [self.history[place] for place in sorted(self.history)]


class Server:
    """The server, in a thread."""

    def __init__(self, *, rewinds: bool = False) -> None:
        self.mood: Mood = "takes"
        self.rewinds = rewinds
        self.runs: dict[str, Kept] = {}
        self.asked: list[str] = []
        self.files: list[str] = []
        self.artifacts: list[str] = []
        self.released = Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    @contextmanager
    def serving(self) -> Iterator["Server"]:
        thread = Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.released.set()
            self._http.shutdown()
            self._http.server_close()

    def named(self, name: str) -> Kept:
        """The run with this display name."""
        return next(run for run in self.runs.values() if run.bucket.get("displayName") == name)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if server.mood == "hangs":
                    server.released.wait(300)
                if "gzip" in (self.headers.get("Content-Encoding") or ""):
                    body = gzip.decompress(body)
                if server.mood in REFUSALS:
                    self._say(REFUSALS[server.mood], {"errors": [{"message": "not now"}]})
                elif self.path == "/graphql":
                    self._say(200, server.answer(json.loads(body)))
                else:
                    if self.path.endswith("/file_stream"):
                        server.take(self.path, json.loads(body or b"{}"))
                    self._say(200, {"exitcode": None, "limits": {}})

            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                server.files.append(self.path)
                self._say(200, {})

            def do_GET(self) -> None:
                self._say(200, {})

            def _say(self, code: int, entries: Any) -> None:
                text = json.dumps(entries).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *words: object) -> None:
                pass

        return Handler

    def take(self, path: str, body: dict[str, Any]) -> None:
        """A part of a run's stream."""
        if (found := re.fullmatch(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream", path)) is None:
            return
        run = self.runs.setdefault(found[3], Kept())
        for name, part in (body.get("files") or {}).items():
            if name == "wandb-history.jsonl":
                for place, line in enumerate(part["content"], part["offset"]):
                    run.history[place] = json.loads(line)
            elif name == "wandb-summary.json":
                run.summary = json.loads(part["content"][-1])
        run.complete = bool(body.get("complete")) or run.complete

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        query, values = asked["query"], asked.get("variables") or {}
        name = re.search(r"(?:query|mutation) (\w+)", query)
        self.asked.append(name[1] if name else query[:40])
        answer = getattr(self, f"_{self.asked[-1]}", None)
        if answer is None or (self.asked[-1] == "RewindRun" and not self.rewinds):
            return {"errors": [{"message": f"no such thing: {self.asked[-1]}"}], "data": None}
        return {"data": answer(values)}

    def _Viewer(self, values: dict[str, Any]) -> Any:
        return {"viewer": {"id": "v", "entity": "us", "username": "us", "flags": "{}", "teams": {"edges": []}}}

    def _ServerFeaturesQuery(self, values: dict[str, Any]) -> Any:
        return {"serverInfo": {"features": []}}

    def _RunResumeStatus(self, values: dict[str, Any]) -> Any:
        run = self.runs.get(values["name"])
        if run is None or not run.bucket:
            return {"model": {"id": "m", "name": "p", "entity": {"id": "e", "name": "us"}, "bucket": None}}
        last = run.rows[-1] if run.rows else {}
        bucket = {
            "id": "b",
            "name": values["name"],
            "summaryMetrics": json.dumps(run.summary),
            "displayName": run.bucket.get("displayName"),
            "logLineCount": 0,
            "historyLineCount": len(run.history),
            "eventsLineCount": 0,
            "historyTail": json.dumps([json.dumps(last)] if last else []),
            "eventsTail": "[]",
            "config": run.bucket.get("config") or "{}",
            "tags": run.bucket.get("tags") or [],
            "wandbConfig": '{"t": 1}',
        }
        return {"model": {"id": "m", "name": "p", "entity": {"id": "e", "name": "us"}, "bucket": bucket}}

    def _UpsertBucket(self, values: dict[str, Any]) -> Any:
        name = values.get("name") or values.get("id")
        run = self.runs.setdefault(str(name), Kept())
        inserted = not run.bucket
        run.bucket |= {key: value for key, value in values.items() if value is not None}
        return {"upsertBucket": {"bucket": _told(str(name), run, values), "inserted": inserted}}

    def _RewindRun(self, values: dict[str, Any]) -> Any:
        run = self.runs[values["runName"]]
        kept = [row for row in run.rows if row["_step"] <= values["metricValue"]]
        run.history, run.summary = dict(enumerate(kept)), dict(kept[-1]) if kept else {}
        return {"rewindRun": {"rewoundRun": _told(values["runName"], run, values)}}


def _told(name: str, run: Kept, values: dict[str, Any]) -> dict[str, Any]:
    """What the server says of a run that was made or changed."""
    return {
        "id": "b",
        "name": name,
        "displayName": run.bucket.get("displayName"),
        "description": None,
        "config": run.bucket.get("config"),
        "sweepName": None,
        "project": {"id": "p", "name": values.get("project"), "entity": {"id": "e", "name": "us"}},
        "historyLineCount": len(run.history),
    }
