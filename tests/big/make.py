#!/usr/bin/env python3
"""Writes a checkpoint with the names, shapes and dtypes of the released Nemotron 3 Nano, from nothing (numpy only).

    tests/big/make.py DIR [--size 30b|23b|12b] [--precision bf16|fp8|nvfp4] [--fill sparse|random] [--shards N]

sparse: matrices are holes in the file (zeros that take no disk), vectors and scalars are numbers that a forward pass bears.
random: matrices repeat a block of random codes of plausible size, so that speed and memory are those of the real thing.
Not part of ./check: 30b is 63 GB in BF16 and 19 GB in NVFP4. See README.md.
"""
import argparse, json, os, struct
import numpy as np

PATTERN = "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME"
SIZES = {"30b": (2688, 1856), "23b": (2304, 1600), "12b": (1920, 960)}
VOCAB, EXPERTS, SHARED, INNER, CONV, HEADS = 131072, 128, 3712, 4096, 6144, 64
BYTES = {"F32": 4, "BF16": 2, "U8": 1, "F8_E4M3": 1}
BLOCK = 16 << 20


def feeds_attention(layer):
    rest = PATTERN[layer + 1:]
    return "*" in rest and ("M" not in rest or rest.index("*") < rest.index("M"))


class Maker:
    def __init__(self, precision, hidden, ffn):
        self.precision, self.hidden, self.ffn = precision, hidden, ffn
        self.tensors, self.excluded = [], []

    def add(self, name, dtype, *shape):
        self.tensors.append((name, dtype, shape))

    def matrix(self, name, rows, columns, quantised):
        if quantised and self.precision == "nvfp4":
            self.add(name + ".weight", "U8", rows, columns // 2)
            self.add(name + ".weight_scale", "F8_E4M3", rows, columns // 16)
            self.add(name + ".weight_scale_2", "F32")
            self.add(name + ".input_scale", "F32")
        elif quantised and self.precision == "fp8":
            self.add(name + ".weight", "F8_E4M3", rows, columns)
            self.add(name + ".weight_scale", "F32")
            self.add(name + ".input_scale", "F32")
        else:
            self.add(name + ".weight", "BF16", rows, columns)
            self.excluded.append(name)

    def layer(self, i, kind):
        at = f"backbone.layers.{i}."
        self.add(at + "norm.weight", "BF16", self.hidden)
        at += "mixer."
        if kind == "M":
            quantised = not feeds_attention(i)
            self.matrix(at + "in_proj", INNER + CONV + HEADS, self.hidden, quantised)
            self.add(at + "conv1d.weight", "BF16", CONV, 1, 4)
            self.add(at + "conv1d.bias", "BF16", CONV)
            for name in "A_log", "D", "dt_bias":
                self.add(at + name, "BF16", HEADS)
            self.add(at + "norm.weight", "BF16", INNER)
            self.matrix(at + "out_proj", self.hidden, INNER, quantised)
        elif kind == "*":
            self.matrix(at + "q_proj", 4096, self.hidden, False)
            self.matrix(at + "k_proj", 256, self.hidden, False)
            self.matrix(at + "v_proj", 256, self.hidden, False)
            self.matrix(at + "o_proj", self.hidden, 4096, False)
        else:
            self.add(at + "gate.weight", "F32", EXPERTS, self.hidden)
            self.add(at + "gate.e_score_correction_bias", "F32", EXPERTS)
            for e in range(EXPERTS):
                self.matrix(f"{at}experts.{e}.up_proj", self.ffn, self.hidden, True)
                self.matrix(f"{at}experts.{e}.down_proj", self.hidden, self.ffn, True)
            self.matrix(at + "shared_experts.up_proj", SHARED, self.hidden, True)
            self.matrix(at + "shared_experts.down_proj", self.hidden, SHARED, True)

    def model(self):
        self.add("backbone.embeddings.weight", "BF16", VOCAB, self.hidden)
        for i, kind in enumerate(PATTERN):
            self.layer(i, kind)
        self.add("backbone.norm_f.weight", "BF16", self.hidden)
        self.matrix("lm_head", VOCAB, self.hidden, False)


def bf16(values):
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def blocks(seed=1):
    """A block of random elements of each matrix dtype."""
    rng = np.random.default_rng(seed)
    return {
        "BF16": bf16(rng.standard_normal(BLOCK // 2) * 0.02).tobytes(),
        "F32": (rng.standard_normal(BLOCK // 4) * 0.02).astype(np.float32).tobytes(),
        "U8": rng.integers(0, 256, BLOCK, np.uint8).tobytes(),
        # E4M3: 2^-3 to 2^1 as scales and, with a sign, as weights
        "F8_E4M3": rng.integers(0x20, 0x40, BLOCK, np.uint8).tobytes(),
        "sign": (rng.integers(0x20, 0x40, BLOCK, np.uint8) | rng.integers(0, 2, BLOCK, np.uint8) << 7).tobytes(),
    }


def vector(name, dtype, shape):
    """What is small is always written, so that the numbers stay finite."""
    n = int(np.prod(shape, dtype=np.int64))
    value = 1.0 if name.endswith("norm.weight") or name.endswith("norm_f.weight") or name.endswith(".D") else 0.0
    if name.endswith("scale_2") or name.endswith("input_scale") or name.endswith("weight_scale"):
        value = 0.01
    if name.endswith("conv1d.weight"):
        value = 0.25
    values = np.full(n, value, np.float32)
    return values.tobytes() if dtype == "F32" else bf16(values).tobytes()


def write_shard(path, tensors, fill, block):
    header, at = {}, 0
    for name, dtype, shape in tensors:
        size = int(np.prod(shape, dtype=np.int64)) * BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, dtype, shape in tensors:
            size = header[name]["data_offsets"][1] - header[name]["data_offsets"][0]
            is_matrix = len(shape) == 2
            if not is_matrix:
                file.write(vector(name, dtype, shape))
            elif fill == "sparse":
                file.seek(size, os.SEEK_CUR)
            else:
                source = block["sign" if dtype == "F8_E4M3" and not name.endswith("scale") else dtype]
                for done in range(0, size, BLOCK):
                    file.write(source[:min(BLOCK, size - done)])
        file.truncate(8 + len(text) + at)
    return at


def write_json(directory, name, value):
    with open(os.path.join(directory, name), "w") as file:
        json.dump(value, file, indent=1)
        file.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("--size", choices=SIZES, default="30b")
    parser.add_argument("--precision", choices=["bf16", "fp8", "nvfp4"], default="nvfp4")
    parser.add_argument("--fill", choices=["sparse", "random"], default="sparse")
    parser.add_argument("--shards", type=int, default=5)
    args = parser.parse_args()
    hidden, ffn = SIZES[args.size]
    maker = Maker(args.precision, hidden, ffn)
    maker.model()
    os.makedirs(args.directory)
    write_json(args.directory, "config.json", {
        "architectures": ["NemotronHForCausalLM"], "model_type": "nemotron_h", "hybrid_override_pattern": PATTERN,
        "num_hidden_layers": 52, "hidden_size": hidden, "vocab_size": VOCAB, "max_position_embeddings": 262144,
        "layer_norm_epsilon": 1e-05, "mamba_num_heads": HEADS, "mamba_head_dim": 64, "ssm_state_size": 128, "n_groups": 8,
        "conv_kernel": 4, "num_attention_heads": 32, "num_key_value_heads": 2, "head_dim": 128,
        "n_routed_experts": EXPERTS, "num_experts_per_tok": 6, "n_shared_experts": 1, "moe_intermediate_size": ffn,
        "moe_shared_expert_intermediate_size": SHARED, "intermediate_size": ffn, "routed_scaling_factor": 2.5,
        "norm_topk_prob": True, "n_group": 1, "topk_group": 1, "use_conv_bias": True, "tie_word_embeddings": False,
        "mlp_hidden_act": "relu2", "mamba_hidden_act": "silu", "torch_dtype": "bfloat16", "eos_token_id": 2})
    if args.precision != "bf16":
        write_json(args.directory, "hf_quant_config.json", {
            "producer": {"name": "modelopt", "version": "0.29.0"},
            "quantization": {"quant_algo": args.precision.upper(), "kv_cache_quant_algo": "FP8", "group_size": 16,
                             "exclude_modules": maker.excluded}})
    each = -(-sum(int(np.prod(s, dtype=np.int64)) * BYTES[d] for _, d, s in maker.tensors) // args.shards)
    block = blocks() if args.fill == "random" else None
    shards, filled = [[]], 0
    for tensor in maker.tensors:
        if filled >= each and len(shards) < args.shards:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += int(np.prod(tensor[2], dtype=np.int64)) * BYTES[tensor[1]]
    names, total = {}, 0
    for i, tensors in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        total += write_shard(os.path.join(args.directory, file), tensors, args.fill, block)
        names.update((name, file) for name, _, _ in tensors)
    write_json(args.directory, "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": names})
    print(f"{args.directory}: {len(maker.tensors)} tensors, {total} bytes in {len(shards)} shards")


if __name__ == "__main__":
    main()
