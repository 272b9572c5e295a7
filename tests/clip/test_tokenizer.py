"""Token ids against independent implementations on hard strings."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from simprompt.clip.tokenizer import (
    BundledTokenizer,
    Tokenizer,
    TokenizerError,
    _byte_letters,
    clean,
)

HARD = [
    "a photo of a cat.", "Café crème brûlée", "cafe\u0301", "e\u0301\u0323", "😀 👩‍👩‍👧 emoji",
    "Tom &amp; Jerry", "&lt;b&gt; &amp;amp;", "A&nbsp;B &#128512;", "1234567890 50,000.00",
    "707-320",
    "", "   ", "x" * 500, "don't I'll we've HE'S", "`'s'''s ...'s !!'t", "ﬁre ½ ² Ⅷ ٣",
    "Straße İstanbul ǅ ẞ ſ", "日本語 テスト", "한국어", "Привет мир", "क्षि नमस्ते", "naïve—dash…",
    "â€™ mojibake", "tab\tnew\nline", "_under_score_", "a\u00a0b", "\u200bzero", "\x00 null",
    "２０２４ fullwidth", "𝕳ello ℌ",
]  # fmt: skip

MARKS = ["<|endoftext|>", "a <|startoftext|> b <|endoftext|> c"]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory) -> Path:
    """A small vocabulary in OpenAI's and in Hugging Face's form."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "oracles"))
    import foreign

    folder = tmp_path_factory.mktemp("vocabulary")
    foreign.write_vocabulary(folder)
    return folder


def test_the_same_ids_as_transformers(vocabulary):
    """`transformers` neither mends nor unescapes text (it only folds case and spaces): it is
    given cleaned text, so that the splitting and merging are what is compared."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.CLIPTokenizer.from_pretrained(vocabulary)
    ours = Tokenizer(vocabulary / "vocab.json")
    for text in HARD:
        assert [ours.sot, *ours.encode(text), ours.eot] == theirs(clean(text)).input_ids, text
    theirs.save_pretrained(vocabulary / "saved")
    saved = Tokenizer(vocabulary / "saved" / "tokenizer.json")
    assert all(saved.encode(text) == ours.encode(text) for text in HARD + MARKS)
    # Left as it is, text differs where OpenAI's cleaning changes it: entities are undone; ftfy
    # mends mojibake, takes ligatures and full-width letters apart and drops control characters;
    # and it composes accents before lower case, not after (the dotted capital I).
    raw = [t for t in HARD if theirs(t).input_ids[1:-1] != ours.encode(t)]
    assert raw == [
        "Tom &amp; Jerry", "&lt;b&gt; &amp;amp;", "A&nbsp;B &#128512;", "ﬁre ½ ² Ⅷ ٣",
        "Straße İstanbul ǅ ẞ ſ",
        "â€™ mojibake", "\x00 null", "２０２４ fullwidth",
    ]  # fmt: skip


def test_the_same_ids_as_the_rust_tokenizer():
    """OpenAI's whole vocabulary, as the wheel carries it, against known ids of OpenAI's code."""
    pytest.importorskip("instant_clip_tokenizer")
    wheel = BundledTokenizer()
    assert (wheel.sot, wheel.eot) == (49406, 49407)
    assert wheel.encode("A photo of a CAT.") == [320, 1125, 539, 320, 2368, 269]
    assert wheel.encode("a &lt;b&gt;") == wheel.encode("a <b>")
    assert wheel.encode(MARKS[0]) == []
    assert wheel.encode(MARKS[1]) == [320, 49406, 321]
    assert wheel.encode("") == []


def test_openai_file_gives_openai_vocabulary(tmp_path):
    """The vocabulary follows from the merges: byte letters first, the marks last."""
    letters = _byte_letters()
    assert len(set(letters)) == 256
    assert letters[:3] == ["!", '"', "#"]
    merges = [("t", "h"), ("th", "e</w>"), ("a", "n")]
    lines = ["#version", *(" ".join(m) for m in merges)]
    file = tmp_path / "bpe_simple_vocab_16e6.txt.gz"
    file.write_bytes(gzip.compress("\n".join(lines).encode()))
    tokenizer = Tokenizer(file)
    assert tokenizer.encode("the") == [513]
    assert tokenizer.encode("!") == [256]
    assert (tokenizer.sot, tokenizer.eot) == (515, 516)
    assert tokenizer.encode("than") == [512, 514] or len(tokenizer.encode("than")) == 3


def test_ids_are_cut_at_an_end_mark_and_survive_a_copy(vocabulary, tmp_path):
    ours = Tokenizer(vocabulary / "vocab.json")
    assert ours.encode("a <|endoftext|> b") == ours.encode("a")
    ours.save(tmp_path)
    copy = Tokenizer(tmp_path / "tokenizer.json")
    assert all(copy.encode(t) == ours.encode(t) for t in HARD + MARKS)


def test_what_is_no_tokenizer_is_refused(vocabulary, tmp_path, monkeypatch):
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(TokenizerError, match="not a tokenizer file"):
        Tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(TokenizerError, match="belongs to another model"):
        Tokenizer.find(vocabulary, vocab_size=100)
    with pytest.raises(TokenizerError, match="no tokenizer at"):
        Tokenizer.find(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(TokenizerError, match="at most the model's 100 tokens"):
        Tokenizer.find(empty, vocab_size=100)
    monkeypatch.setitem(__import__("sys").modules, "instant_clip_tokenizer", None)
    with pytest.raises(TokenizerError, match="pip install 'instant-clip-tokenizer"):
        Tokenizer.find(empty)
    values = json.loads((vocabulary / "vocab.json").read_text(encoding="utf-8"))
    values.pop("<|endoftext|>")
    for name, text in (
        ("vocab.json", json.dumps(values)), ("merges.txt", ""),
    ):  # fmt: skip
        (empty / name).write_text(text, encoding="utf-8")
    with pytest.raises(TokenizerError):
        Tokenizer(empty / "vocab.json")


@pytest.mark.parametrize("pad", ["<|endoftext|>", "!"])
def test_padding_and_truncation_of_a_file_are_switched_off(vocabulary, tmp_path, pad):
    """Some CLIPs pad with "!", id 0; `transformers` does neither unless it is asked to."""
    transformers = pytest.importorskip("transformers")
    plain = Tokenizer(vocabulary / "vocab.json")
    fast = plain.fast.from_str(plain.fast.to_str())
    fast.enable_padding(length=77, pad_id=fast.token_to_id(pad), pad_token=pad)
    fast.enable_truncation(5)
    fast.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer(tmp_path / "tokenizer.json")
    assert all(ours.encode(text) == plain.encode(text) for text in HARD + MARKS)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    text = "a photo of a cat."
    assert theirs(text, add_special_tokens=False).input_ids == ours.encode(text)
