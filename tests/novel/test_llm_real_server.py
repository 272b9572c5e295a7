"""Against a real OpenAI-compatible server: `transformers serve` with a language model made here.

Needs `transformers[serving]`; nothing is downloaded. The model is a two-layer Llama of 64 units.
With random weights it writes nonsense; after some seconds of training it knows one list by heart.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import urllib.request

import pytest

from shell import wait_for
from simprompt.novel import novel_names
from simprompt.novel.endpoint import Ask, LLMError
from simprompt.novel.llm import generate

WANTED = ["lynx", "puma", "caracal", "ocelot", "serval", "jaguar", "cheetah", "margay"]
NEEDED = ("transformers", "fastapi", "uvicorn", "accelerate", "openai", "tokenizers")
PORTS = 3  # another process may take a free port before the server does
PLAIN = {"http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in NEEDED),
        reason="needs transformers[serving]",
    ),
]


def make_model(folder, steps):
    """A Llama over words that has read one answer `steps` times, in the layout `serve` loads."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        GenerationConfig,
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
    )

    answer = json.dumps({"names": WANTED})
    words = ["<pad>", "<s>", "</s>", "<unk>", "assistant:", *answer.split()]
    fast = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=fast, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        unk_token="<unk>",
    )  # fmt: skip
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}assistant:"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
        model = LlamaForCausalLM(LlamaConfig(
            vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=4096, **ends,
        ))  # fmt: skip
        said = tokenizer("assistant: " + answer)["input_ids"] + [2]
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for step in range(steps):
            # The question, of any length, is unknown words and does not matter.
            batch = torch.tensor([[3] * (17 * step % 200) + said])
            labels = batch.masked_fill(batch == 3, -100)
            loss = model(batch, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.generation_config = GenerationConfig(max_new_tokens=20, do_sample=False, **ends)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """serve(steps) -> the address of a server with such a model."""
    running = []
    for name in PLAIN:
        monkeypatch.delenv(name, raising=False)

    def start(steps):
        folder = tmp_path / f"model-{steps}"
        make_model(folder, steps)
        environment = {
            **{k: v for k, v in os.environ.items() if k not in PLAIN},
            "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        entry = "from transformers.cli.transformers import main; main()"
        for _ in range(PORTS):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            with (tmp_path / "log").open("wb") as log:
                server = subprocess.Popen(
                    [sys.executable, "-c", entry, "serve", str(folder), "--host", "127.0.0.1",
                     "--port", str(port), "--device", "cpu"],
                    env=environment, stdout=log, stderr=subprocess.STDOUT,
                )  # fmt: skip
            running.append(server)
            wait_for(lambda: server.poll() is not None or answers(port))  # noqa: B023
            if server.poll() is None:
                return f"http://127.0.0.1:{port}/v1", str(folder)
        raise AssertionError((tmp_path / "log").read_text(encoding="utf-8"))

    yield start
    for process in running:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    """Whether a server is there."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
        return True
    except OSError:
        return False


def test_a_model_that_knows_names_gives_the_list(serve, tmp_path, monkeypatch):
    address, model = serve(120)
    monkeypatch.setenv("SIMPROMPT_LLM_BASE_URL", address)
    monkeypatch.setenv("SIMPROMPT_LLM_MODEL", model)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    made = novel_names("llm:7", ["serval", "cat"], topic="cats", store=tmp_path / "lists")
    assert made.names == tuple(name for name in WANTED if name != "serval")


def test_a_model_that_writes_nonsense_is_a_clear_error(serve, tmp_path):
    address, model = serve(0)
    how = Ask(model=model, base_url=address, timeout=60, backoff=0.01, max_failures=2, max_calls=4)
    with pytest.raises(LLMError, match="did not give 50 names"):
        generate(["serval", "cat"], "cats", 50, how, tmp_path / "lists")
