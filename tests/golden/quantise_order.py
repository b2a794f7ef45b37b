#!/usr/bin/env python3
"""How many bytes differ between slice-then-quantise and quantise-then-slice of nest-tiny's small budget,
in float64 numpy: the numbers of tests/unit/quantisation.c. Run in tests/golden."""
import glob
import json
import struct

import numpy as np

E4M3 = np.array([m * 2.0 ** -9 if e == 0 else (1 + m / 8) * 2.0 ** (e - 7) for e in range(16) for m in range(8)][:127])
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def load(folder):
    out = {}
    for path in glob.glob(folder + "/model*.safetensors"):
        data = open(path, "rb").read()
        n = struct.unpack("<Q", data[:8])[0]
        for name, t in json.loads(data[8:8 + n]).items():
            if name != "__metadata__":
                start, end = t["data_offsets"]
                out[name] = (t["dtype"], t["shape"], data[8 + n + start:8 + n + end])
    return out


def widen(t):
    bits = np.frombuffer(t[2], np.uint16).astype(np.uint32) << 16
    return bits.view(np.float32).astype(np.float64).reshape(t[1])


def nearest(table, x):  # ties to the even code
    a = np.minimum(np.abs(x), table[-1])
    high = np.clip(np.searchsorted(table, a), 1, len(table) - 1)
    low = high - 1
    up, down = table[high] - a, a - table[low]
    code = np.where(up < down, high, np.where(up > down, low, np.where(high % 2 == 0, high, low)))
    return code, np.signbit(x)


def fp8(w, scale):
    code, sign = nearest(E4M3, w / float(scale))
    return [(code | sign * 128).astype(np.uint8)]


def nvfp4(w, scale):
    blocks = w.reshape(w.shape[0], -1, 16)
    s, _ = nearest(E4M3, np.abs(blocks).max(2) / 6 / float(scale))
    s = np.where(s == 0, 0x38, s)
    code, sign = nearest(E2M1, blocks / (E4M3[s] * float(scale))[..., None])
    code = (code | sign * 8).astype(np.uint8).reshape(w.shape)
    return [code[:, ::2] | code[:, 1::2] << 4, s.astype(np.uint8)]


parent, small = load("nest-tiny"), load("nest-tiny/children/small")
for name, make, largest, which in ("fp8", fp8, 448, "quantised/nest-tiny-fp8"), ("nvfp4", nvfp4, 2688, "quantised/nest-tiny-nvfp4"):
    differ = 0
    for key in load(which):
        if not key.endswith(".weight") or key[:-6] + "weight_scale" not in load(which):
            continue
        whole, part = widen(parent[key]), widen(small[key])
        scales = [np.float32(np.abs(x).max() / largest) for x in (whole, part)]
        # small keeps the leading rows and columns of every quantised matrix but in_proj (all rows)
        a = make(whole, scales[0])
        b = make(part, scales[1])
        rows, columns = part.shape
        for x, y in zip(a, b):
            differ += int((x[:rows, :y.shape[1]] != y).sum())
        differ += sum(p != q for p, q in zip(scales[0].tobytes(), scales[1].tobytes()))
    print(name, differ)
