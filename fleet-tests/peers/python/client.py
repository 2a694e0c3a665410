"""python-tuf as a client: reads cases, one JSON object a line, and says what it makes of each.

Usage: client.py < cases.jsonl > answers.jsonl
"""

import base64
import datetime
import json
import logging
import sys
import tempfile

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

METADATA = "https://localhost/metadata/"


class Shelf(FetcherInterface):
    """Files in memory instead of a server."""

    def __init__(self, files):
        self.files = files

    def _fetch(self, url):
        name = url.removeprefix(METADATA)
        if name not in self.files:
            raise DownloadHTTPError(f"no {name}", 404)
        return iter([self.files[name]])


def found(target):
    if target is None:
        return "absent"
    sha256 = target.hashes.get("sha256", "")
    return {"found": {"sha256": sha256, "length": target.length}}


def words(error):
    return f"{type(error).__name__}: {error}"[:200]


def look(folder, root, files, paths, now):
    # Whatever it raises is a refusal: a client that ends has taken nothing.
    try:
        updater = Updater(folder, METADATA, fetcher=Shelf(files), bootstrap=root)
        updater._trusted_set.reference_time = now
        updater.refresh()
    except Exception as error:
        return {"refused": words(error)}
    answers = {}
    for path in paths:
        try:
            answers[path] = found(updater.get_targetinfo(path))
        except Exception as error:
            answers[path] = {"refused": words(error)}
    return {"paths": answers}


def answer(case):
    now = datetime.datetime.fromisoformat(case["now"].replace("Z", "+00:00"))
    root = base64.b64decode(case["root"])
    steps = []
    with tempfile.TemporaryDirectory() as folder:
        for step in case["steps"]:
            files = {name: base64.b64decode(text) for name, text in step.items()}
            steps.append(look(folder, root, files, case["paths"], now))
    return {"id": case["id"], "steps": steps}


def main():
    logging.disable(logging.CRITICAL)
    for line in sys.stdin:
        if line.strip():
            print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
