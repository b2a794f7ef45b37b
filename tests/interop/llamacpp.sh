#!/bin/bash
# Children of the demo through llama.cpp: converted to GGUF, run greedily, held against ours; the NVFP4
# child through the converter.
#
#   tests/interop/llamacpp.sh LLAMA_CPP COMPLETION [PYTHON]
#
# LLAMA_CPP   its sources (the PyPI source package of llama-cpp-python has them in vendor/llama.cpp)
# COMPLETION  the built llama-completion
# PYTHON      one with torch, transformers and numpy
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
llama=$1 completion=$2 python=${3:-python3}
elastiscope=${ELASTISCOPE:-$root/build/elastiscope}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The converter knows tokenizers by a hash of what they make of a text and refuses others: the demo's
# splits text as Qwen2's does.
convert() { # CHILD FILE TYPE
	"$python" - "$llama" "$1" --outfile "$2" --outtype "$3" >"$work/convert.log" 2>&1 <<'PYTHON' ||
import pathlib, runpy, sys
root = pathlib.Path(sys.argv.pop(1))
sys.path[:0] = [str(root / "gguf-py"), str(root)]
import conversion.base
conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
runpy.run_path(str(root / "convert_hf_to_gguf.py"), run_name="__main__")
PYTHON
		{ tail -5 "$work/convert.log"; exit 1; }
}

child() { # BUDGET PRECISION
	"$elastiscope" slice --source-checkpoint "$root/demo" --target-checkpoint "$work/$1-$2" --size "$1" --precision "$2" -q
}

n=0
for budget in ${BUDGETS-large medium small}; do
	child $budget bf16
	convert "$work/$budget-bf16" "$work/$budget.gguf" f32
	while IFS= read -r words; do
		printf '<|im_start|>system\n<|im_end|>\n<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n<think>\n' "$words" >"$work/prompt"
		ids=$("$python" -c 'import json, sys; print(json.dumps(open(sys.argv[1]).read()))' "$work/prompt" |
			"$elastiscope" tokenize --special --json -q -m "$root/demo" | tr -d '[] ')
		"$elastiscope" complete --tokens "$ids" -n 48 --temp 0 --math exact --stop-eos -q -m "$work/$budget-bf16" >"$work/ours"
		echo >>"$work/prompt" # llama.cpp drops the last newline of a file
		"$completion" -m "$work/$budget.gguf" -f "$work/prompt" -n 48 --temp 0 -no-cnv --no-display-prompt -sp \
			--no-warmup -t 2 >"$work/theirs" 2>"$work/run.log" || { tail -3 "$work/run.log"; exit 1; }
		ours=$(tr -d '\n ' <"$work/ours" | sed 's/<|im_end|>.*//')
		theirs=$(tr -d '\n ' <"$work/theirs" | sed 's/<|im_end|>.*//; s/\[endoftext\]//')
		if [ "$ours" != "$theirs" ]; then
			printf '%s, "%s":\n  llama.cpp   %s\n  elastiscope %s\n' $budget "$words" "$theirs" "$ours"
			exit 1
		fi
		n=$((n + 1))
	done < <("$python" -c '
import json, sys
lines = open(sys.argv[1]).read().splitlines()
print("\n".join(json.loads(line)["prompt"] for line in lines[:: len(lines) // 6][:6]))' "$root/demo/tasks.jsonl")
	echo "$budget bf16: $n prompts so far, the same greedy text"
done
# ggml packs four blocks of 16 into one, so every input width must be a multiple of 64, as in the 30B,
# 23B and 12B; the demo's budgets are not, these widths are.
child moe_intermediate_size=64 nvfp4
convert "$work/moe_intermediate_size=64-nvfp4" "$work/nvfp4.gguf" auto
"$completion" -m "$work/nvfp4.gguf" -p 'What is 3 + 4?' -n 8 --temp 0 -no-cnv --no-warmup -t 2 >"$work/theirs" 2>"$work/run.log" ||
	{ tail -3 "$work/run.log"; exit 1; }
echo "moe_intermediate_size=64 nvfp4: $(stat -c %s "$work/nvfp4.gguf") bytes of GGUF, runs"
