"""Golden importance scores of nest-tiny: an own forward pass in numpy float64, written from the specification
(nemotron-h.md 3 to 5, elastic-files.md "importance.safetensors"), token by token where the specification is.
Prints how far its logits are from the checkpoint's own goldens, then writes nest-tiny/golden/importance.safetensors.
    /usr/bin/env python3 tests/golden/importance.py
"""
import json, os, struct
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
DIR = os.path.join(HERE, "nest-tiny")
WINDOW = 64


def load(path):
    raw = open(path, "rb").read()
    size = struct.unpack("<Q", raw[:8])[0]
    out = {}
    for name, t in json.loads(raw[8:8 + size]).items():
        if name == "__metadata__":
            continue
        a, e = t["data_offsets"]
        data = raw[8 + size + a:8 + size + e]
        if t["dtype"] == "BF16":
            v = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
        elif t["dtype"] == "F32":
            v = np.frombuffer(data, "<f4").astype(np.float64)
        else:
            v = np.frombuffer(data, "<i4")
        out[name] = v.reshape(t["shape"])
    return out


C = json.load(open(os.path.join(DIR, "config.json")))
W = {}
for shard in ("model-00001-of-00002", "model-00002-of-00002"):
    W.update(load(os.path.join(DIR, shard + ".safetensors")))
PATTERN = C["hybrid_override_pattern"]
L, EPS = len(PATTERN), C.get("layer_norm_epsilon", 1e-5)
NH, P, N, G = C["mamba_num_heads"], C["mamba_head_dim"], C["ssm_state_size"], C["n_groups"]
NQ, NKV, HD = C["num_attention_heads"], C["num_key_value_heads"], C["head_dim"]
E, K = C["n_routed_experts"], C["num_experts_per_tok"]


def rms(x, w):
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + EPS) * w


def silu(v):
    return v / (1 + np.exp(-v))


def mamba(w, u, seen):
    inner, T = NH * P, len(u)
    p = u @ w("in_proj.weight").T
    z, xbc, dt = p[:, :inner], p[:, inner:-NH], p[:, -NH:]
    seen["x"] = xbc[:, :inner].reshape(T, NH, P)
    kernel = w("conv1d.weight")[:, 0, :]
    padded = np.concatenate([np.zeros((kernel.shape[1] - 1, xbc.shape[1])), xbc])
    y = sum(padded[k:k + T] * kernel[:, k] for k in range(kernel.shape[1])) + w("conv1d.bias")
    xbc = silu(y)
    x = xbc[:, :inner].reshape(T, NH, P)
    b = xbc[:, inner:inner + G * N].reshape(T, G, N)
    c = xbc[:, inner + G * N:].reshape(T, G, N)
    a = -np.exp(w("A_log"))
    d = np.logaddexp(0, dt + w("dt_bias"))
    state, out = np.zeros((NH, P, N)), np.zeros((T, NH, P))
    group = np.arange(NH) // (NH // G)
    for t in range(T):
        state = np.exp(d[t] * a)[:, None, None] * state + (d[t][:, None] * x[t])[:, :, None] * b[t, group][:, None, :]
        out[t] = np.einsum("hpn,hn->hp", state, c[t, group]) + w("D")[:, None] * x[t]
    v = out.reshape(T, inner) * silu(z)
    v = v.reshape(T, G, -1)
    v = (v / np.sqrt(np.mean(v * v, -1, keepdims=True) + EPS)).reshape(T, inner) * w("norm.weight")
    return v @ w("out_proj.weight").T


def attention(w, u, seen):
    T = len(u)
    q = (u @ w("q_proj.weight").T).reshape(T, NQ, HD)
    k = (u @ w("k_proj.weight").T).reshape(T, NKV, HD)
    v = (u @ w("v_proj.weight").T).reshape(T, NKV, HD)
    out = np.zeros((T, NQ, HD))
    for h in range(NQ):
        kv = h // (NQ // NKV)
        s = q[:, h] @ k[:, kv].T / np.sqrt(HD)
        s[np.triu_indices(T, 1)] = -np.inf
        s = np.exp(s - s.max(-1, keepdims=True))
        out[:, h] = s / s.sum(-1, keepdims=True) @ v[:, kv]
    seen["o"] = out
    return out.reshape(T, -1) @ w("o_proj.weight").T


def relu2(v):
    return np.maximum(v, 0) ** 2


def moe(w, u, seen):
    T = len(u)
    s = 1 / (1 + np.exp(-(u @ w("gate.weight").T)))
    chosen = np.argsort(-(s + w("gate.e_score_correction_bias")), -1, kind="stable")[:, :K]
    weight = np.take_along_axis(s, chosen, -1)
    weight = weight / (weight.sum(-1, keepdims=True) + 1e-20) * C["routed_scaling_factor"]
    out, seen["experts"] = np.zeros_like(u), {}
    for e in range(E):
        t, k = np.nonzero(chosen == e)
        hidden = relu2(u[t] @ w("experts.%d.up_proj.weight" % e).T)
        f = hidden @ w("experts.%d.down_proj.weight" % e).T
        out[t] += weight[t, k][:, None] * f
        seen["experts"][e] = (hidden, weight[t, k] * np.linalg.norm(f, axis=-1))
    seen["ffn"] = relu2(u @ w("shared_experts.up_proj.weight").T)
    return out + seen["ffn"] @ w("shared_experts.down_proj.weight").T


def mlp(w, u, seen):
    seen["ffn"] = relu2(u @ w("up_proj.weight").T)
    return seen["ffn"] @ w("down_proj.weight").T


MIXERS = {"M": mamba, "*": attention, "E": moe, "-": mlp}


def forward(ids, skip=None):
    h, seen = W["backbone.embeddings.weight"][ids], []
    for i, kind in enumerate(PATTERN):
        seen.append({})
        if i == skip:
            continue
        u = rms(h, W["backbone.layers.%d.norm.weight" % i])
        seen[i]["u"] = u
        h = h + MIXERS[kind](lambda n: W["backbone.layers.%d.mixer.%s" % (i, n)], u, seen[i])
    return rms(h, W["backbone.norm_f.weight"]) @ W["lm_head.weight"].T, seen


def scores(texts):
    windows = [ids[i:i + WINDOW] for ids in texts for i in range(0, len(ids), WINDOW)]
    runs = [forward(w) for w in windows]
    cat = lambda i, key: np.concatenate([seen[i][key] for _, seen in runs])
    out, total = {}, sum(len(w) for w in windows)
    layers = np.stack([np.abs(cat(i, "u")).mean(0) for i in range(L)])
    out["importance.hidden_size.layers"], out["importance.hidden_size"] = layers, layers.sum(0)
    for i, kind in enumerate(PATTERN):
        name = "importance.%d." % i
        if kind == "M":
            s = np.sqrt((cat(i, "x") ** 2).mean(0))  # (heads, channels)
            channel = np.linalg.norm(s, axis=0)
            top = np.argsort(-channel, kind="stable")[:(P + 1) // 2]
            out[name + "mamba_head_dim"] = channel
            out[name + "mamba_num_heads"] = np.linalg.norm(s[:, top], axis=1)
        elif kind == "*":
            out[name + "num_attention_heads"] = np.linalg.norm(cat(i, "o"), axis=-1).mean(0)
        elif kind == "-":
            out[name + "intermediate_size"] = np.abs(cat(i, "ffn")).mean(0)
        else:
            out[name + "moe_shared_expert_intermediate_size"] = np.abs(cat(i, "ffn")).mean(0)
            hidden, reap, count = [], [], []
            for e in range(E):
                h = np.concatenate([seen[i]["experts"][e][0] for _, seen in runs])
                r = np.concatenate([seen[i]["experts"][e][1] for _, seen in runs])
                hidden.append(np.abs(h).mean(0) if len(h) else np.zeros(C["moe_intermediate_size"]))
                reap.append(r.mean() if len(r) else 0)
                count.append(len(r) / total)
            out[name + "moe_intermediate_size"] = np.stack(hidden)
            out[name + "n_routed_experts.reap"] = np.array(reap)
            out[name + "n_routed_experts.count"] = np.array(count)
    energy = sum((z ** 2).sum() for z, _ in runs)
    out["importance.layers"] = np.array(
        [sum(((forward(w, i)[0] - z) ** 2).sum() for w, (z, _) in zip(windows, runs)) / energy for i in range(L)])
    return out


def save(path, tensors):
    header, data = {}, b""
    for name in sorted(tensors):
        t = tensors[name].astype("<f4") if tensors[name].dtype.kind == "f" else tensors[name].astype("<i4")
        header[name] = {"dtype": "F32" if t.dtype.kind == "f" else "I32", "shape": list(t.shape),
                        "data_offsets": [len(data), len(data) + t.nbytes]}
        data += t.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    open(path, "wb").write(struct.pack("<Q", len(text)) + text + data)


golden = load(os.path.join(DIR, "golden", "large.safetensors"))
for T in (7, 150):
    z = forward(golden["tokens.%d" % T])[0]
    print("logits.%d: %.1e relative" % (T, np.abs(z - golden["logits.%d" % T]).max() / np.abs(z).max()))
out = scores([golden["tokens.150"], golden["tokens.7"]])
save(os.path.join(DIR, "golden", "importance.safetensors"), out)
print("%d tensors, windows of %d" % (len(out), WINDOW))
