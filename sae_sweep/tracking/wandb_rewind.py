"""Taking back what wandb's server has of a run beyond a step, where it can (https://docs.wandb.ai, "Rewind a run").

`wandb.init(resume_from=...)` asks the server for the same; but where that cannot, wandb's helper keeps the run that it
failed to open, and does not open it in another way.
"""

import base64
import json
import netrc
import os
from contextlib import suppress
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

SECONDS = 10.0
"""After which a server that does not answer cannot."""
QUERY = (
    "mutation RewindRun($runName: String!, $entity: String, $project: String, $metricName: String!,"
    " $metricValue: Float!) { rewindRun(input: {runName: $runName, entityName: $entity, projectName: $project,"
    " metricName: $metricName, metricValue: $metricValue}) { rewoundRun { id } } }"
)


def rewound(server: str, entity: str | None, project: str | None, run_id: str, step: int) -> bool:
    """Whether the server has taken back the steps of a run after this one; False where it cannot, or has no such."""
    if (key := _key(server)) is None:
        return False
    values = {"runName": run_id, "entity": entity, "project": project, "metricName": "_step", "metricValue": step}
    body = json.dumps({"query": QUERY, "variables": values}).encode()
    login = base64.b64encode(f"api:{key}".encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {login}"}
    try:
        with urlopen(Request(f"{server.rstrip('/')}/graphql", body, headers), timeout=SECONDS) as answer:
            told = json.load(answer)
    except (URLError, OSError, ValueError):
        return False
    return not told.get("errors") and bool((told.get("data") or {}).get("rewindRun"))


def _key(server: str) -> str | None:
    """Of the API: where wandb keeps it."""
    if key := os.environ.get("WANDB_API_KEY"):
        return key
    with suppress(OSError, netrc.NetrcParseError):
        found = netrc.netrc().authenticators(urlsplit(server).hostname or "")
        return found[2] if found else None
    return None
