"""What the official client downloads from a hub, ours downloads, with the same tokens.

The hub is `loopback.Hub`, so that the official client is also what that one is held to.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from loopback import EXPIRED
from shell import in_process
from simprompt.errors import SimpromptError
from simprompt.utils.files.hub import hub_file
from simprompt.utils.files.hub_requests import FetchError, MissingError, new_request

pytestmark = pytest.mark.integration

FILES = {"config.json": b'{"a": 1}', "sub/weights.bin": bytes(range(256)) * 40}
SECRET = "hf_secret"

OFFICIAL = """
import sys
from huggingface_hub import hf_hub_download
for name in sys.argv[2:]:
    print(hf_hub_download(sys.argv[1], name))
"""


@pytest.fixture
def served(hub, monkeypatch, tmp_path):
    """A hub with one public and one private repository, and no token in the environment."""
    hub.repos = {"me/public": {**FILES}, "me/private": {**FILES}}
    hub.private = {"me/private": SECRET}
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    return hub


def official(repo: str, cache: Path, monkeypatch) -> dict[str, bytes] | None:
    """What huggingface_hub downloads, in a process of its own; None where it is refused."""
    with monkeypatch.context() as patch:
        patch.setenv("HF_HUB_CACHE", str(cache))
        ran = subprocess.run(
            [sys.executable, "-c", OFFICIAL, repo, *FILES],
            capture_output=True, encoding="utf-8", timeout=120, check=False,
        )  # fmt: skip
    if ran.returncode:
        assert "RepositoryNotFoundError" in ran.stderr, ran.stderr
        return None
    return dict(zip(FILES, (Path(p).read_bytes() for p in ran.stdout.split()), strict=True))


def ours(repo: str, cache: Path, monkeypatch) -> dict[str, bytes] | None:
    with monkeypatch.context() as patch:
        patch.setenv("HF_HUB_CACHE", str(cache))
        try:
            return {name: hub_file(repo, name, progress=False).read_bytes() for name in FILES}
        except FetchError as refused:
            error = str(refused)
    assert "hf auth login" in error
    assert SECRET not in error
    return None


def run_official(code: str, *words: str) -> Any:
    """What a program for `huggingface_hub` prints as JSON, in a process of its own: what it takes
    from the environment it takes when it is imported."""
    pytest.importorskip("huggingface_hub")
    ran = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True, encoding="utf-8", timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_what_the_official_client_downloads_ours_does(served, tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    file = tmp_path / "token"
    for number, (where, repo, wanted) in enumerate([
        ("nowhere", "me/public", FILES), ("nowhere", "me/private", None),
        ("variable", "me/private", FILES), ("home", "me/private", FILES),
    ]):  # fmt: skip
        with monkeypatch.context() as patch:
            if where == "variable":
                patch.setenv("HF_TOKEN", f" {SECRET}\n")
            elif where == "home":
                (tmp_path / "home").mkdir()
                (tmp_path / "home" / "token").write_text(f"{SECRET}\n", encoding="utf-8")
            got = [f(repo, tmp_path / f"{f.__name__}{number}", patch) for f in (official, ours)]
        assert got == [wanted, wanted], where
        # the two keep their files alike, so that each finds the other's
        trees = [
            {
                p.relative_to(tmp_path / f"{name}{number}").as_posix(): p.read_bytes()
                for p in (tmp_path / f"{name}{number}").rglob("*")
                if p.is_file() and {"blobs", "refs", "snapshots"} & {*p.parts} and p.stat().st_size
            }
            for name in ("official", "ours")
        ]
        assert {*trees[1].items()} <= {*trees[0].items()}
    assert not file.exists()


@pytest.mark.parametrize("where", ["variable", "path", "home"])
def test_the_token_is_where_the_official_client_has_it(where, served, tmp_path, monkeypatch):
    if where == "variable":
        monkeypatch.setenv("HF_TOKEN", SECRET)
    else:
        file = tmp_path / ("somewhere" if where == "path" else "home/token")
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"{SECRET}\n", encoding="utf-8")
        if where == "path":
            monkeypatch.setenv("HF_TOKEN_PATH", str(file))
    assert ours("me/private", tmp_path / "c", monkeypatch) == FILES
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    assert ours("me/private", tmp_path / "d", monkeypatch) is None


def test_the_token_goes_to_the_hub_alone(served, tmp_path, monkeypatch):
    served.renamed = {"me/old": "me/private"}
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert ours("me/old", tmp_path / "c", monkeypatch) == FILES
    shown = {(path.split("/")[1], token) for path, token in served.tokens}
    bearer = f"Bearer {SECRET}"
    assert {name for name, token in shown if token == bearer} >= {"me", "api"}
    assert ("storage", None) in shown
    assert ("storage", bearer) not in shown
    request = new_request(f"{served.storage_url}/me/x")
    assert not request.has_header("Authorization"), "another port is another host"
    assert not new_request(served.url.replace("http:", "https:")).has_header("Authorization")


def test_an_expired_token_does_not_close_public_repositories(served, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert ours("me/public", tmp_path / "c", monkeypatch) == FILES
    assert ours("me/private", tmp_path / "c", monkeypatch) is None


@pytest.mark.parametrize("secret", ["hf_\nx y", "hf_é", "hf_\x01x", "hf x"])
def test_a_token_that_is_none_is_not_shown(secret, served, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", secret)
    with pytest.raises(FetchError, match="HF_TOKEN is not a token") as refused:
        hub_file("me/public", "config.json", progress=False)
    assert not re.search("hf_|hf x", str(refused.value))


def test_a_private_prompt_from_the_hub(served, tmp_path, monkeypatch):
    import simprompt

    clip = simprompt.load_clip("icons")
    shots = simprompt.load_dataset("icons/food").base.few_shot(1, 1)
    prompt = simprompt.learn(clip, shots, "zero-shot", progress=False)
    folder = prompt.save(tmp_path / "p")
    served.repos["me/private"] = {p.name: p.read_bytes() for p in folder.iterdir()}
    image = tmp_path / "a.png"
    shots.load(0).save(image)
    ran = in_process("predict", "hf://me/private", str(image))
    assert (ran.returncode, "hf auth login" in ran.stderr) == (2, True)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    ran = in_process("predict", "hf://me/private", str(image))
    assert ran.returncode == 0, ran.stderr
    assert SECRET not in ran.stdout + ran.stderr
    # what a command line makes a Path of
    assert simprompt.load_prompt(Path("hf://me/private"), clip).classes == prompt.classes
    from simprompt.deploy.engine import load_prompts

    assert load_prompts([Path("hf://me/private")])[0].classes == prompt.classes
    with pytest.raises(SimpromptError, match="no repository"):
        simprompt.load_prompt("hf://private", clip)


SNAPSHOTS = """
import json, sys
from pathlib import Path
from huggingface_hub import snapshot_download
contents = []
for repo, kind, revision in json.loads(sys.argv[1]):
    folder = Path(snapshot_download(repo, repo_type=kind, revision=revision))
    files = [path for path in folder.rglob("*") if path.is_file()]
    contents.append({p.relative_to(folder).as_posix(): p.read_bytes().hex() for p in files})
print(json.dumps(contents))
"""


def test_the_official_client_downloads_whole_repositories(served):
    first = served.push("me/repo", {**FILES, "a name/with %20.txt": b"small", "old": b"1"})
    second = served.push("me/repo", {**FILES, "config.json": b"{}"})
    served.tags["me/repo", "v1"] = first
    served.is_mirror = False
    wanted = [
        (kind, revision, served.at("me/repo", revision)[1])
        for kind in ("model", "dataset")
        for revision in ("main", "v1", first, second)
    ]
    contents = run_official(
        SNAPSHOTS, json.dumps([("me/repo", kind, revision) for kind, revision, _ in wanted])
    )
    for (kind, revision, files), official_files in zip(wanted, contents, strict=True):
        assert official_files == {path: data.hex() for path, data in files.items()}
        for path, data in files.items():
            path_on_disk = hub_file("me/repo", path, revision, kind=kind, progress=False)
            assert path_on_disk.read_bytes() == data


ERRORS = """
import json, sys
from huggingface_hub import hf_hub_download
errors = []
for repo, path, revision, token in json.loads(sys.argv[1]):
    try:
        errors.append(hf_hub_download(repo, path, revision=revision, token=token or False))
    except Exception as error:
        errors.append([kind.__name__ for kind in type(error).__mro__])
print(json.dumps(errors))
"""
REFUSED = [
    (("me/none", "config.json", "main", ""), "RepositoryNotFoundError", "answers 401"),
    (("me/none", "config.json", "main", "hf_mine"), "RepositoryNotFoundError", "answers 404"),
    (("me/private", "config.json", "main", ""), "RepositoryNotFoundError", "hf auth login"),
    (("me/private", "config.json", "main", "hf_mine"), "RepositoryNotFoundError", "no such repo"),
    (("me/gated", "config.json", "main", ""), "GatedRepoError", "hf auth login"),
    (("me/gated", "config.json", "main", "hf_mine"), "GatedRepoError", "accept that on the repo"),
    (("me/public", "config.json", "v9", ""), "RevisionNotFoundError", "no such repo"),
    (
        ("me/public", "config.json", "9" * 40, ""),
        "RevisionNotFoundError",
        "no such repo",
    ),
    (("me/public", "none.json", "main", ""), "EntryNotFoundError", "no such repo"),
    (("me/private", "config.json", "main", EXPIRED), "HfHubHTTPError", "hf auth login"),
]


def test_what_the_official_client_is_refused_ours_is_with_a_remedy(served, monkeypatch):
    served.repos["me/gated"] = {**FILES}
    served.gated["me/gated"] = SECRET
    served.is_mirror = False
    official_errors = run_official(ERRORS, json.dumps([case for case, *_ in REFUSED]))
    for (case, kind, words), official_error in zip(REFUSED, official_errors, strict=True):
        assert kind in official_error, case
        repo, path, revision, token = case
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(FetchError, match=words):
            hub_file(repo, path, revision, progress=False)


UPLOAD = """
import json, sys
from huggingface_hub import HfApi
api = HfApi(token="hf_mine")
api.create_repo("me/new", private=True)
api.create_repo("me/new", exist_ok=True)
first = api.upload_folder(repo_id="me/new", folder_path=sys.argv[1])
second = api.delete_file("config.json", repo_id="me/new")
print(json.dumps([first.oid, second.oid, sorted(api.list_repo_files("me/new"))]))
"""


def test_what_the_official_client_uploads_both_download(served, tmp_path, monkeypatch):
    for name, data in FILES.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(data)
    first, second, names = run_official(UPLOAD, str(tmp_path / "folder"))
    assert names == ["sub/weights.bin"]
    assert list(served.uploaded.values()) == [FILES["sub/weights.bin"]], "the small one is in git"
    assert official("me/new", tmp_path / "nothing", monkeypatch) is None
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    contents = run_official(
        SNAPSHOTS, json.dumps([("me/new", "model", revision) for revision in (first, second)])
    )
    whole = {path: data.hex() for path, data in FILES.items()}
    assert contents == [whole, {"sub/weights.bin": whole["sub/weights.bin"]}]
    for name, data in FILES.items():
        assert hub_file("me/new", name, first, progress=False).read_bytes() == data
    with pytest.raises(MissingError):
        hub_file("me/new", "config.json", second, progress=False)


def test_the_official_client_takes_up_a_download_that_broke(served):
    data = bytes(range(256)) * 50_000  # more than the ten megabytes that it writes at once
    served.repos["me/large"] = {"weights.bin": data}
    served.drop_after = 11_000_000
    [files] = run_official(SNAPSHOTS, json.dumps([("me/large", "model", "main")]))
    assert bytes.fromhex(files["weights.bin"]) == data
    assert any(part and part.startswith("bytes=1") for _, _, part in served.log)


@pytest.mark.parametrize(
    ("wanted", "status", "part"),
    [
        (None, 200, slice(None)), ("bytes=0-9", 206, slice(10)), ("bytes=-5", 206, slice(-5, None)),
        ("bytes=9990-", 206, slice(9990, None)), ("bytes=9-99999", 206, slice(9, None)),
    ],
)  # fmt: skip
def test_the_storage_knows_ranges(wanted, status, part, served):
    headers = {"Range": wanted} if wanted else {}
    url = f"{served.storage_url}/storage/me/public/main/sub/weights.bin"
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as response:
        assert (response.status, response.read()) == (status, FILES["sub/weights.bin"][part])
    request = urllib.request.Request(url, headers={"Range": "bytes=20000-"})
    with pytest.raises(urllib.error.HTTPError, match="416"):
        urllib.request.urlopen(request)
