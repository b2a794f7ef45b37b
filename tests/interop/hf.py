#!/usr/bin/env python3
"""Children of the demo in Hugging Face transformers: the same greedy tokens, the same logits.

    tests/interop/hf.py [BUILD_DIR]        needs torch, transformers, safetensors, numpy

FP8 and NVFP4 children (sliced from parents that `elastiscope quantize` wrote) are dequantised here,
by the formulas of NVIDIA ModelOpt and without our code, into a BF16-named copy that transformers loads.
"""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy
import torch
import transformers
from safetensors.torch import load_file, save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build") / "elastiscope"
BUDGETS = ["large", "medium", "small"]
N_PROMPTS, N_TOKENS = 6, 48
E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def run(*arguments):
    return subprocess.run([BINARY, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def ours(child, ids, scratch):
    """Greedy continuation and logits at every position of ids, F32 throughout."""
    listed = ",".join(map(str, ids))
    answer = json.loads(run("complete", "--tokens", listed, "-n", N_TOKENS, "--temp", 0, "--stop-eos",
                            "--math", "exact", "--json", "-q", "-m", child))
    file = scratch / "logits.safetensors"
    run("logits", "--tokens", listed, "--out", file, "-q", "-m", child)
    return answer["tokens"], load_file(file)["logits"]


def prompts(tokenizer):
    lines = (ROOT / "demo" / "tasks.jsonl").read_text().splitlines()
    for line in lines[:: len(lines) // N_PROMPTS][:N_PROMPTS]:
        message = [{"role": "user", "content": json.loads(line)["prompt"]}]
        text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        yield tokenizer(text, add_special_tokens=False).input_ids


def open_model(child):
    """The fallback of transformers 5 clamps dt to time_step_min in prefill only; nobody else clamps."""
    model = transformers.AutoModelForCausalLM.from_pretrained(child, dtype=torch.float32).eval()
    for module in model.modules():
        if hasattr(module, "time_step_limit"):
            module.time_step_limit = (0.0, float("inf"))
    return model


def check(child, name, scratch, tolerance):
    model = open_model(child)
    tokenizer = transformers.AutoTokenizer.from_pretrained(child)
    worst, n_tokens = 0.0, 0
    for ids in prompts(tokenizer):
        tokens, logits = ours(name_of[child], ids, scratch)
        with torch.no_grad():
            theirs = model(torch.tensor([ids])).logits[0]
            out = model.generate(torch.tensor([ids]), max_new_tokens=N_TOKENS, do_sample=False)
        error = ((theirs - logits).abs().max() / theirs.abs().max()).item()
        worst = max(worst, error)
        continued = out[0, len(ids):].tolist()
        if continued[: len(tokens)] != tokens:
            sys.exit(f"{name}: greedy tokens differ\n  transformers {continued}\n  elastiscope  {tokens}")
        n_tokens += len(tokens)
    print(f"{name}: {type(model).__name__}, {N_PROMPTS} prompts, {n_tokens} greedy tokens equal, "
          f"largest logit error {worst:.1e} of the largest logit", flush=True)
    if worst > tolerance:
        sys.exit(f"{name}: {worst:.1e} is above {tolerance:.0e}")


def wide(weights, name):
    """One weight as F32, by ModelOpt's formulas."""
    weight = weights[name]
    scale = weights.get(name + "_scale")
    second = weights.get(name + "_scale_2")
    if scale is None:
        return weight
    if second is None:
        return weight.to(torch.float32) * scale
    codes = torch.stack([weight & 15, weight >> 4], dim=-1).flatten(-2)
    values = E2M1[(codes & 7).long()] * torch.where(codes & 8 != 0, -1.0, 1.0)
    blocks = values.unflatten(-1, (-1, 16)) * scale.to(torch.float32).unsqueeze(-1) * second
    return blocks.flatten(-2)


def dequantise(child, to):
    """A copy of a quantised child whose weights are F32 and whose config says nothing of it."""
    shutil.copytree(child, to)
    (to / "hf_quant_config.json").unlink(missing_ok=True)
    for file in to.glob("*.safetensors"):
        weights = load_file(file)
        scales = ("_scale", "_scale_2", "k_scale", "v_scale", "input_scale")
        kept = [n for n in weights if not n.endswith(scales)]
        save_file({n: wide(weights, n).contiguous() for n in kept}, file, metadata={"format": "pt"})
    config = json.loads((to / "config.json").read_text())
    config.pop("quantization_config", None)
    (to / "config.json").write_text(json.dumps(config, indent=2))


name_of = {}


def main():
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, numpy {numpy.__version__}")
    with tempfile.TemporaryDirectory() as directory:
        scratch = pathlib.Path(directory)
        for precision in ["bf16", "fp8", "nvfp4"]:
            for budget in BUDGETS:
                child = scratch / f"{budget}-{precision}"
                run("slice", "--source-checkpoint", ROOT / "demo", "--target-checkpoint", child, "--size", budget,
                    "--precision", precision, "-q")
                loaded = child
                if precision != "bf16":
                    loaded = scratch / f"{budget}-{precision}-wide"
                    dequantise(child, loaded)
                name_of[loaded] = child
                check(loaded, f"{budget} {precision}", scratch, 1e-4)


main()
