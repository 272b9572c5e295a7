"""Pickled weights are those that were saved; small files that are made to harm do none."""

from __future__ import annotations

import argparse
import collections
import pickle
import random
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import hostile
import pickles
from simprompt.clip.checkpoints import read_weights
from simprompt.clip.layouts.common import CheckpointError
from simprompt.clip.pickled import read_pickled

pytestmark = pytest.mark.integration

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32,
          torch.int16, torch.int8, torch.uint8, torch.bool]  # fmt: skip


def tensors() -> dict[str, torch.Tensor]:
    """Tensors of every kind, and of every way to lie in a storage."""
    generator = torch.Generator().manual_seed(0)
    made = collections.OrderedDict(
        (f"kinds.{dtype}", (9 * torch.rand(3, 4, generator=generator)).to(dtype))
        for dtype in DTYPES
    )
    made["transposed"] = torch.rand(4, 5, generator=generator).T
    made["part"] = torch.rand(10, generator=generator)[3:7]
    made["tied"] = made["part"]
    made["parameter"] = nn.Parameter(torch.rand(3, generator=generator))
    made["parameter with an attribute"] = nn.Parameter(torch.rand(3, generator=generator))
    made["parameter with an attribute"].colour = "red"
    made["empty"] = torch.empty(0, 3)
    made["scalar"] = torch.tensor(2.5)
    made["one"] = torch.rand(1, generator=generator).expand(1, 1)
    return made


def same(given: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return set(given) == set(wanted) and all(
        given[k].dtype == v.dtype and torch.equal(given[k], v) for k, v in wanted.items()
    )


FORMS = [(protocol, zipped) for protocol in (2, 3, 4, 5) for zipped in (True, False)]


@pytest.mark.parametrize(("protocol", "zipped"), FORMS)
def test_a_training_checkpoint_gives_its_weights(tmp_path, protocol, zipped):
    """They are what torch reads, past an optimizer, numpy's numbers, a Namespace and a set."""
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.randn(4, 2)).sum().backward()
    optimizer.step()
    wanted = tensors()
    path = tmp_path / "epoch_3.pt"
    beside = {
        "epoch": 3, "args": argparse.Namespace(lr=0.1, out=Path("a")), "best": np.float64(81.2),
        "curve": np.arange(5), "names": {"a", "b"}, (1, 2): "a tuple's name", 7: [1.5, None, True],
        "optimizer": optimizer.state_dict(), "random": torch.get_rng_state(), "model": "ViT-B/16",
        "kind": nn.Linear, "long": "x" * 5000, "dtype": torch.float16, "big": 1 << 200,
    }  # fmt: skip
    torch.save(
        {**beside, "state_dict": wanted}, path, pickle_protocol=protocol,
        _use_new_zipfile_serialization=zipped,
    )  # fmt: skip
    assert same(read_pickled(path), wanted)
    assert same(read_pickled(path), torch.load(path, weights_only=False)["state_dict"])


@pytest.mark.parametrize("zipped", [True, False])
def test_a_whole_module_gives_its_state_dict(tmp_path, zipped):
    module = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.BatchNorm1d(3)))
    torch.save(module, tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
    assert same(read_pickled(tmp_path / "m.pt"), module.state_dict())
    torch.save({"model": module, "epoch": 1}, tmp_path / "m.pt")
    assert same(read_pickled(tmp_path / "m.pt"), module.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript deprecated
        torch.jit.script(module).save(tmp_path / "script.pt")
    assert same(read_pickled(tmp_path / "script.pt"), module.state_dict())


@pytest.mark.parametrize("seed", range(8))
def test_files_of_a_grammar_are_read_as_torch_reads_them(tmp_path, seed):
    """All kinds of numbers, views, expanded and overlapping ones, marks of sign and conjugation."""
    rng = random.Random(seed)
    for _ in range(40):
        data, wanted = pickles.right(rng)
        (tmp_path / "a.pt").write_bytes(data)
        read = read_pickled(tmp_path / "a.pt")
        assert read.keys() == wanted.keys()
        for name, tensor in wanted.items():
            assert pickles.same_bits(read[name], tensor), (name, tensor.dtype, tensor.stride())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("tensor", "what"),
    [
        (lambda: torch.eye(3).to_sparse(), "sparse"),
        (lambda: torch.eye(3).to_sparse_csr(), "sparse"),
        (lambda: torch.ones(3, device="meta"), "device meta"),
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "quantised"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested"),
    ],
    ids=["coo", "csr", "meta", "quantised", "nested"],
)
@pytest.mark.filterwarnings("ignore")
def test_a_tensor_that_cannot_be_read_is_named(tmp_path, tensor, what, zipped):
    """It does not vanish from a state dict; beside one it is no fault."""
    torch.save({"w": torch.ones(2), "odd.one": tensor()}, tmp_path / "a.pt",
               _use_new_zipfile_serialization=zipped)  # fmt: skip
    with pytest.raises(CheckpointError, match=f"odd.one is .*{what}"):
        read_pickled(tmp_path / "a.pt")
    torch.save({"state_dict": {"w": torch.ones(2)}, "mask": tensor()}, tmp_path / "a.pt",
               _use_new_zipfile_serialization=zipped)  # fmt: skip
    assert same(read_pickled(tmp_path / "a.pt"), {"w": torch.ones(2)})


def test_the_older_form_of_another_machine_is_refused(tmp_path):
    data = hostile.row(hostile.state_dict(hostile.FINE), ["0"], 4)
    little = pickle.dumps({"little_endian": True}, 2)
    assert data.count(little) == 1
    (tmp_path / "a.pt").write_bytes(data.replace(little, pickle.dumps({"little_endian": False}, 2)))
    with pytest.raises(CheckpointError, match="big end first"):
        read_pickled(tmp_path / "a.pt")


class Evil:
    """Runs code when it is unpickled the usual way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (exec, (f"open({str(self.path)!r}, 'w').close()",))


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_file_is_run_or_imported(tmp_path, zipped):
    mark = tmp_path / "ran"
    saved = {"w": torch.ones(2), "x": Evil(mark), "y": [{"z": Evil(mark)}]}
    torch.save(saved, tmp_path / "evil.pt", _use_new_zipfile_serialization=zipped)
    assert same(read_pickled(tmp_path / "evil.pt"), {"w": torch.ones(2)})
    assert not mark.exists()
    program = hostile.state_dict({"w": hostile.view((4,), (1,)), "x": b"cantigravity\nfly\n)R"})
    for data in (hostile.archive(program), hostile.row(program, ["0"], 4)):
        (tmp_path / "evil.pt").write_bytes(data)
        assert same(read_pickled(tmp_path / "evil.pt"), {"w": torch.zeros(4)})
    assert "antigravity" not in sys.modules


def test_settings_of_a_pickle_reach_no_code_of_ours(tmp_path):
    """BUILD on a function or class of the reader would change it for the process."""
    poison = b"(" + hostile.text("__defaults__") + b"Nd"
    program = hostile.state_dict({
        "w": hostile.view((4,), (1,)), "x": hostile.REBUILD + b"}" + poison + b"\x86b",
        "y": b"ccollections\nOrderedDict\n" + poison + b"b",
        "z": hostile.view((4,), (1,)) + b"(" + b"N" * 6 + b"tb",  # what a dataclass takes as state
    })  # fmt: skip
    (tmp_path / "a.pt").write_bytes(hostile.archive(program))
    before = collections.OrderedDict.__dict__.keys()
    for _ in range(2):
        assert same(read_pickled(tmp_path / "a.pt"), {"w": torch.zeros(4), "z": torch.zeros(4)})
    assert collections.OrderedDict.__dict__.keys() == before


@pytest.mark.parametrize(
    "instructions",
    [b"Pkey\n", b"\x97", b"C\x00\x98", b"\xff"],
    ids=["a storage by a line", "a buffer from outside", "a view of bytes", "none of pickle's"],
)
def test_an_instruction_that_torch_does_not_write_is_refused(tmp_path, instructions):
    """The standard library carries out some of them, and may learn more."""
    program = b"\x80\x02" + hostile.OPEN + instructions + b"0" + hostile.text("w")
    program += hostile.view((4,), (1,)) + hostile.SET + hostile.STOP
    (tmp_path / "a.pt").write_bytes(hostile.archive(program))
    with pytest.raises(CheckpointError, match="its pickle is damaged"):
        read_pickled(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([1, 2], "holds a list, not a state dict"),
        ({"epoch": 3, "lr": 0.1}, r"no tensors by name \(but epoch, lr\)"),
        (argparse.Namespace(a=1), "no tensors by name"),
        (torch.zeros(3), "holds a view"),
    ],
)
def test_what_is_no_state_dict_is_said(tmp_path, content, match):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=match):
        read_pickled(tmp_path / "a.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_file_is_read_or_refused(tmp_path, zipped):
    """Whatever byte is wrong, nothing but our own error leaves the reader."""
    path = tmp_path / "a.pt"
    torch.save(
        {"state_dict": tensors(), "best": np.float64(1)}, path,
        _use_new_zipfile_serialization=zipped,
    )  # fmt: skip
    whole, rng = path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(250):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 3, 20))):
            damaged[rng.randrange(len(whole))] = rng.randrange(256)
        if rng.random() < 0.2:
            del damaged[rng.randrange(len(damaged)) :]
        path.write_bytes(damaged)
        try:
            read_weights(path)
        except CheckpointError:
            refused += 1
    assert refused > 50


# ------------------------------------------------------------------------------- made to harm


@pytest.mark.parametrize("name", hostile.PICKLED)
def test_a_hostile_pickle_is_refused(under_limits, tmp_path, name, record_property):
    path = tmp_path / "hostile.pt"
    path.write_bytes(hostile.PICKLED[name]())
    result = under_limits("weights", path)
    for key in ("seconds", "megabytes"):
        record_property(f"{name}: {key}", result[key])
    assert hostile.harmless(result), result
    assert str(path) in result["message"]


def test_programs_of_a_grammar_do_no_harm(under_limits, tmp_path):
    """Time and memory follow the size of the file, whatever its instructions are."""
    rng = random.Random(0)
    outcomes = collections.Counter()
    for number in range(40):
        path = tmp_path / "hostile.pt"
        path.write_bytes(pickles.hostile(rng))
        result = under_limits("weights", path)
        outcomes[result["outcome"]] += 1
        assert result["outcome"] in ("read", "refused"), (number, result)
        assert result["seconds"] < 5, (number, result)
        assert result["megabytes"] < 150, (number, result)
    assert outcomes["refused"] > 20


@pytest.mark.parametrize("name", hostile.SAFETENSORS)
def test_a_hostile_safetensors_is_refused(under_limits, tmp_path, name):
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(hostile.SAFETENSORS[name]())
    result = under_limits("weights", path)
    assert hostile.harmless(result), result
    assert str(path) in result["message"]


def test_the_limits_hold(under_limits, tmp_path):
    """A file that is no fault is read under them; what takes more is seen."""
    path = tmp_path / "fine.pt"
    path.write_bytes(hostile.archive(hostile.state_dict(hostile.FINE)))
    assert under_limits("weights", path)["outcome"] == "read"
    large = tmp_path / "large.pt"
    torch.save({"visual.w": torch.zeros(50 << 20)}, large)
    result = under_limits("weights", large)
    assert result["outcome"] == "read"
    assert result["megabytes"] > 150
    torch.save({"visual.w": torch.zeros(125 << 20)}, large)
    assert under_limits("weights", large)["outcome"] == "refused"
