"""The harness of ``../shared/bench/peers`` with Calotype as two more gateways; see ``peers.py``.

``calotype`` is the surface that the others have too: the request stays open and is answered with
the image. ``calotype-202`` is its own: submit, with ``Prefer: wait``, and be told of the end; the
image is fetched by nobody. Both keep the task and sync the image to disk, as no other does.

Runs in the harness's own environment, which knows nothing of this repository.
"""

import base64
import importlib
import json
import os
import shutil
import sys
import urllib.request
from pathlib import Path
from typing import Any, Final

_SURROUNDINGS: Final = os.environ  # noqa: TID251 -- the harness is told everything so
_SAID: Final[dict[str, Any]] = json.loads(_SURROUNDINGS["PEERS_CALOTYPE"])
_PATHS: Final = {
    "calotype": "/openai/v1/images/generations",
    "calotype-202": "/v1/images/generations",
}
_PORTS: Final = {"calotype": 18105, "calotype-202": 18106}

sys.path.insert(0, _SURROUNDINGS["PEERS_HARNESS"])
harness: Any = importlib.import_module("run")
_post, _wrk, _body = harness.post, harness.wrk, harness.body


def _folder(name: str) -> Path:
    return Path(_SAID["template"]).with_name(name)


def _serve(port: int) -> list[str]:
    """The command, over a data folder that is as new."""
    folder = next(_folder(name) for name in _PORTS if _PORTS[name] == port)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(_SAID["template"], folder)
    return [_SAID["python"], "-m", "calotype", "serve"]


def post(port: int, data: str, headers: dict[str, str], timeout: float = 60) -> Any:
    """One request, and the image it leads to in OpenAI's document."""
    path = next((path for name, path in _PATHS.items() if _PORTS[name] == port), None)
    if path is None:
        return _post(port, data, headers, timeout)
    head = {"Content-Type": "application/json", **headers}
    answer = _fetched(port, path, head, data.encode(), timeout)
    if "task_id" not in answer:
        return answer
    task = _fetched(port, answer["poll_url"], head, None, timeout)
    url = task["result"]["data"][0]["url"]
    with urllib.request.urlopen(url, timeout=timeout) as image:  # noqa: S310 -- our own server
        return {"data": [{"b64_json": base64.b64encode(image.read()).decode()}]}


def _fetched(
    port: int, path: str, headers: dict[str, str], data: bytes | None, timeout: float
) -> Any:
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    with urllib.request.urlopen(asked, timeout=timeout) as answer:  # noqa: S310 -- our own server
        return json.load(answer)


def wrk(name: str, *said: Any) -> Any:
    """The harness's load, to our own path where it is us."""
    _SURROUNDINGS["BENCH_PATH"] = _PATHS.get(name, "/v1/images/generations")
    return _wrk(name, *said)


def body(size: str, delay: int) -> str:
    """The harness's request, for a model that we have."""
    asked = json.loads(_body(size, delay))
    if harness.MODEL in _PATHS:
        asked["model"] = "gpt-image-2"
    if harness.MODEL == "calotype-202":
        asked = {"model": asked["model"], "prompt": asked["prompt"]}
    text: str = json.dumps(asked)
    return text


def main() -> None:
    """Run the harness."""
    headers = {"Authorization": f"Bearer {_SAID['key']}"}
    for name, port in _PORTS.items():
        settings = {
            **_SAID["settings"],
            "CALOTYPE_DATA_DIR": str(_folder(name)),
            "CALOTYPE_PORT": str(port),
        }
        more = {"Prefer": "wait=60"} if name == "calotype-202" else {}
        harness.PEERS[name] = (port, _serve, settings, {**headers, **more})
    harness.post, harness.wrk, harness.body = post, wrk, body
    harness.main()


if __name__ == "__main__":
    main()
