"""What wandb's server is asked that its library does not ask: what it has of a run, and to take back what is beyond a
step, where it can (https://docs.wandb.ai, "Rewind a run").

`wandb.init(resume_from=...)` asks for the latter too; but where the server cannot, wandb's helper keeps the run that it
failed to open, and does not open it in another way.
"""

import base64
import json
import netrc
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

SECONDS = 10.0
"""After which a server that does not answer cannot."""
REWIND = (
    "mutation RewindRun($runName: String!, $entity: String, $project: String, $metricName: String!,"
    " $metricValue: Float!) { rewindRun(input: {runName: $runName, entityName: $entity, projectName: $project,"
    " metricName: $metricName, metricValue: $metricValue}) { rewoundRun { id } } }"
)
TAIL = (
    "query RunResumeStatus($project: String, $entity: String, $name: String!) { model(name: $project, entityName:"
    " $entity) { bucket(name: $name, missingOk: true) { historyTail } } }"
)


def rewound(server: str, entity: str | None, project: str | None, run_id: str, step: int) -> bool:
    """Whether the server has taken back the steps of a run after this one; False where it cannot, or has no such."""
    values = {"runName": run_id, "entity": entity, "project": project, "metricName": "_step", "metricValue": step}
    return bool(_asked(server, REWIND, values).get("rewindRun"))


def last_step(server: str, entity: str | None, project: str | None, run_id: str) -> int:
    """The last step that the server has of a run; -1 where it has none, or does not tell."""
    told = _asked(server, TAIL, {"name": run_id, "entity": entity, "project": project})
    try:
        tail = json.loads(told["model"]["bucket"]["historyTail"])
        return int(json.loads(tail[-1])["_step"])
    except (KeyError, IndexError, TypeError, ValueError):
        return -1


def _asked(server: str, query: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What the server answers; nothing where it does not, or not to this."""
    if (key := _key(server)) is None:
        return {}
    body = json.dumps({"query": query, "variables": values}).encode()
    login = base64.b64encode(f"api:{key}".encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {login}"}
    try:
        with urlopen(Request(f"{server.rstrip('/')}/graphql", body, headers), timeout=SECONDS) as answer:
            told = json.load(answer)
    except (OSError, ValueError):  # URLError is one of the former
        return {}
    return {} if told.get("errors") else told.get("data") or {}


def _key(server: str) -> str | None:
    """Of the API: where wandb keeps it."""
    if key := os.environ.get("WANDB_API_KEY"):
        return key
    with suppress(OSError, netrc.NetrcParseError):
        found = netrc.netrc().authenticators(urlsplit(server).hostname or "")
        return found[2] if found else None
    return None
