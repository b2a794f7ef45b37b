#!/usr/bin/env bash
# Everything that needs a card, in two parts of ten minutes at most each:
#   tests/device.sh pack    on a machine with nvcc and the libraries: builds build-device and collects programs, the
#                           shared libraries they need and golden values in build-device/pack (a few MB)
#   tests/device.sh check   doctor, kernel tests against the C reference, golden values, compute-sanitizer on them,
#                           switches in the middle of a generation
#   tests/device.sh bench   checkpoints of the real shapes with random weights, made there: rows of `bench` as CSV, and
#                           a profile where ncu is at hand
# check and bench need nothing but the pack, a shell and the card. Output: $OUT, or docs/measurements/DATE-CARD-COMMIT/.
set -u
root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
pack=$root/build-device/pack
cd "$root" || exit 1

pack() {
	. tests/setup.sh
	configure build-device --buildtype=release -Dcuda=enabled -Dgpu_arch="${ARCH:-90}" || exit 1
	ninja -C build-device || exit 1
	rm -rf "$pack" && mkdir -p "$pack/lib" "$pack/tests"
	cp build-device/elastiscope build-device/tests/device/synthetic "$pack/"
	cp build-device/tests/shim/test_device_* build-device/tests/shim/device_golden_* "$pack/tests/"
	git rev-parse --short HEAD >"$pack/commit" 2>/dev/null
	# what is not the C library's own: its version there may be another
	ldd "$pack/elastiscope" "$pack"/tests/* | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
		grep -vE '/(ld-linux|libc|libm|libdl|librt|libpthread)[-.]' | xargs -I{} cp {} "$pack/lib/"
	du -sh "$pack"
}

commit=$(cat "$pack/commit" 2>/dev/null)
card=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1 | tr ' ' '-')
out=${OUT:-$root/docs/measurements/$(date -u +%Y-%m-%d)-${card:-none}-$commit}
export LD_LIBRARY_PATH=$pack/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} ELASTISCOPE_TESTS=$root/tests
run="$pack/elastiscope"
failed=0

# step NAME SECONDS COMMAND...: into its own file; the last lines of what failed
step() {
	local name=$1 limit=$2 began=$SECONDS
	shift 2
	timeout "$limit" "$@" >"$out/$name.txt" 2>&1
	local status=$?
	printf '%-24s %-8s %4d s\n' "$name" "$([ $status = 0 ] && echo ok || echo "FAILED $status")" $((SECONDS - began))
	[ $status = 0 ] || { failed=1; tail -n 12 "$out/$name.txt"; }
}

# A budget is changed in the middle; the second time on the CPU: greedy ids must agree.
switches() {
	local ids
	for device in cuda cpu; do
		"$run" logits -m demo --device $device --math exact --text 'Sort 84, 13, 55.' --switch 4:small:carry --switch 7:large:reprefill \
			--out "$out/switch-$device.safetensors" --force || return
	done
	ids=$("$run" complete -m demo --device cuda --math exact --temp 0 -n 48 --text 'Sort 84, 13, 55.' 2>/dev/null)
	echo "cuda: $ids"
	[ "$ids" = "$("$run" complete -m demo --device cpu --math exact --temp 0 -n 48 --text 'Sort 84, 13, 55.' 2>/dev/null)" ]
}

check() {
	step doctor 30 "$run" doctor
	for t in "$pack"/tests/*; do
		step "$(basename "$t")" 90 "$t"
	done
	step switches 60 bash -c switches
	if command -v compute-sanitizer >/dev/null; then
		step memcheck 150 compute-sanitizer --tool memcheck --error-exitcode 9 "$pack/tests/device_golden_prompt"
		step racecheck 120 compute-sanitizer --tool racecheck --error-exitcode 9 "$pack/tests/device_golden_prompt"
	fi
}

export -f switches
export run out

bench() {
	local place=${SCRATCH:-/dev/shm}
	nvidia-smi >"$out/nvidia-smi.txt" 2>&1
	for precision in nvfp4 fp8 bf16; do
		local folder=$place/elastiscope-$precision
		step "make-$precision" 90 "$pack/synthetic" "$folder" "$precision"
		step "bench-$precision" 150 "$run" bench -m "$folder" --device cuda --csv
		if [ $precision = nvfp4 ] && command -v ncu >/dev/null; then
			step profile 90 ncu --clock-control none --launch-skip 400 --launch-count 60 --section SpeedOfLight --csv \
				"$run" complete -m "$folder#30b" --device cuda --tokens 1,2,3,4 -n 4 --temp 0
		fi
		rm -rf "$folder"
	done
	grep -hE '^(copy|decode|prefill|switch)' "$out"/bench-*.txt
}

case ${1-} in
pack) pack ;;
check | bench)
	[ -x "$run" ] || { echo "tests/device.sh: no pack: run tests/device.sh pack first"; exit 2; }
	mkdir -p "$out"
	"$1"
	echo "output in $out"
	exit $failed
	;;
*)
	echo "usage: tests/device.sh pack|check|bench"
	exit 2
	;;
esac
