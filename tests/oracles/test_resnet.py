"""ModifiedResNet against the formulas of its paper, written out once more in float64 NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from simprompt.clip.resnet import ModifiedResNet, ResNetConfig


def conv(x, w, stride=1, pad=0):
    """x [B, C, H, W], w [O, C, k, k]: the sum over a window, position by position."""
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    k = w.shape[-1]
    rows = (x.shape[2] - k) // stride + 1
    cols = (x.shape[3] - k) // stride + 1
    out = np.zeros((len(x), len(w), rows, cols))
    for i in range(k):
        for j in range(k):
            part = x[:, :, i : i + rows * stride : stride, j : j + cols * stride : stride]
            out += np.einsum("bchw,oc->bohw", part, w[:, :, i, j])
    return out


def norm(x, p, name):
    mean, var = p[f"{name}.running_mean"], p[f"{name}.running_var"]
    scale = p[f"{name}.weight"] / np.sqrt(var + 1e-5)
    shift = p[f"{name}.bias"] - mean * scale
    return x * scale[:, None, None] + shift[:, None, None]


def pool(x, n):
    b, c, h, w = x.shape
    return x.reshape(b, c, h // n, n, w // n, n).mean(axis=(3, 5))


def relu(x):
    return np.maximum(x, 0)


def bottleneck(x, p, name, stride):
    y = relu(norm(conv(x, p[f"{name}.conv1.weight"]), p, f"{name}.bn1"))
    y = relu(norm(conv(y, p[f"{name}.conv2.weight"], pad=1), p, f"{name}.bn2"))
    y = pool(y, stride) if stride > 1 else y
    y = norm(conv(y, p[f"{name}.conv3.weight"]), p, f"{name}.bn3")
    if f"{name}.downsample.0.weight" in p:
        x = pool(x, stride) if stride > 1 else x
        x = norm(conv(x, p[f"{name}.downsample.0.weight"]), p, f"{name}.downsample.1")
    return relu(x + y)


def attention_pool(x, p, heads):
    b, c, h, w = x.shape
    x = x.reshape(b, c, h * w).transpose(0, 2, 1)
    x = np.concatenate([x.mean(axis=1, keepdims=True), x], axis=1)
    x = x + p["attnpool.positional_embedding"]

    def linear(name, t):
        return t @ p[f"attnpool.{name}.weight"].T + p[f"attnpool.{name}.bias"]

    q, k, v = linear("q_proj", x[:, 0]), linear("k_proj", x), linear("v_proj", x)
    d = c // heads
    out = np.zeros((b, c))
    for head in range(heads):
        s = slice(head * d, (head + 1) * d)
        logits = np.einsum("bd,bnd->bn", q[:, s], k[:, :, s]) / np.sqrt(d)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        out[:, s] = np.einsum("bn,bnd->bd", weights, v[:, :, s])
    return linear("c_proj", out)


def transcription(pixels, p, layers, heads):
    x = relu(norm(conv(pixels, p["conv1.weight"], 2, 1), p, "bn1"))
    x = relu(norm(conv(x, p["conv2.weight"], 1, 1), p, "bn2"))
    x = relu(norm(conv(x, p["conv3.weight"], 1, 1), p, "bn3"))
    x = pool(x, 2)
    for stage, blocks in enumerate(layers):
        for block in range(blocks):
            stride = 2 if stage and block == 0 else 1
            x = bottleneck(x, p, f"layer{stage + 1}.{block}", stride)
    return attention_pool(x, p, heads)


@pytest.mark.parametrize("layers", [(1, 1, 1, 1), (2, 1, 3, 2)])
def test_features_equal_the_formulas(layers, record_property):
    torch.manual_seed(0)
    config = ResNetConfig(96, layers, width=8, heads=4, embed_dim=20)
    net = ModifiedResNet(config).eval()
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if "running_var" in name:
                value.uniform_(0.5, 2)
            elif "running_mean" in name or "bias" in name:
                value.normal_(std=0.3)
            elif value.dim() == 1:
                value.uniform_(0.5, 1.5)
    pixels = torch.randn(3, 3, 96, 96)
    weights = {k: v.double().numpy() for k, v in net.state_dict().items()}
    expected = transcription(pixels.double().numpy(), weights, layers, 4)
    with torch.no_grad():
        got = net(pixels)
        exact = net.double()(pixels.double())
    assert np.abs(exact.numpy() - expected).max() < 1e-11
    error = np.abs(got.numpy() - expected).max() / np.abs(expected).max()
    record_property("largest relative error in float32", float(error))
    assert error < 1e-5
    with pytest.raises(ValueError, match="no visual prompts"):
        net(pixels, [torch.zeros(1, 8)])
