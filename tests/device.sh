#!/usr/bin/env bash
# Everything that needs a card, as two calls of ten minutes at most each on a machine that has nothing but a card, its
# driver and a shell:
#
#   tests/device.sh pack         here, with nvcc: builds build-device and packs programs, the libraries they need and
#                                nothing else into build-device/pack (one archive, some MB)
#   tests/device.sh check        there: doctor, kernel tests against the C reference, golden values, switches in the
#                                middle of a generation, compute-sanitizer on them
#   tests/device.sh bench        there: checkpoints of the real shapes with random weights, made in memory: `bench` as
#                                CSV, the first token of the workbench, a profile where ncu is at hand; then targets
#   tests/device.sh targets      a bench.csv on stdin held against what was aimed at
#
# There both want this checkout (golden values, demo) and build-device/pack. Output: $OUT, else
# docs/measurements/DATE-CARD-COMMIT/: steps.csv, log.txt, and of bench bench.csv, targets.txt, ncu.csv. What does not
# fit the time is left out and said so: LIMIT=570 seconds.
#
# To try it where there is no card: SHIM=1 tests/device.sh pack, then check and bench with PACK=build/pack-shim, on
# checkpoints a sixteenth as wide (DIVISOR=16).
set -u
root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
cd "$root" || exit 1
pack=$root/build-device/pack
[ -z "${SHIM-}" ] || pack=$root/build/pack-shim
pack=$(readlink -m "${PACK:-$pack}")

# programs FOLDER PREFIX...: executables of a build folder whose names in tests/shim begin so
programs() {
	ninja -C "$1" -t targets all | sed -n "s,^\(tests/shim/\($2\)_[a-z_]*\): c[a-z]*_LINKER.*,\1,p"
}

pack() {
	local build=build-device tests program names
	if [ -n "${SHIM-}" ]; then
		build=build
		tests=$(programs build 'test_shim\|shim_golden' | grep -vE 'golden_(budgets|handoff|demo|passes|reading|recorded)$')
		program=tests/shim/elastiscope-shim
	else
		. tests/setup.sh
		configure build-device --buildtype=release -Dcuda=enabled -Dgpu_arch="${ARCH:-90}" || exit 1
		tests=$(programs build-device 'test_device\|device_golden')
		program=elastiscope
	fi
	ninja -j "${JOBS:-2}" -C $build $program tests/device/synthetic $tests | tail -1 || exit 1
	rm -rf "$pack" && mkdir -p "$pack/files/lib" "$pack/files/tests"
	cp $build/$program "$pack/files/elastiscope"
	cp $build/tests/device/synthetic "$pack/files/"
	for names in $tests; do
		cp "$build/$names" "$pack/files/tests/$(basename "$names" | sed 's/shim/device/')"
	done
	strip "$pack/files/elastiscope" "$pack/files/synthetic" "$pack"/files/tests/*
	git rev-parse --short HEAD >"$pack/files/commit" 2>/dev/null
	# what is not the C library's own: its version there may be another
	ldd "$pack/files/elastiscope" "$pack"/files/tests/* | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
		grep -vE '/(ld-linux|libc|libm|libdl|librt|libpthread|libgcc_s)[-.]' | xargs -I{} cp {} "$pack/files/lib/"
	# every program holds the same kernels: a window over all of them makes one of them
	tar -C "$pack/files" -cf - . | xz -T1 -6 --lzma2=dict=64MiB >"$pack/files.tar.xz" || exit 1
	du -sm "$pack/files" | sed 's/\t.*/ MB unpacked/'
	rm -rf "$pack/files"
	du -k "$pack/files.tar.xz" | sed 's/\t.*/ KiB packed/'
}

# unpack: into memory, because a checkout may be read-only
unpack() {
	[ -e "$pack/files.tar.xz" ] || { echo "tests/device.sh: no pack: run tests/device.sh pack first"; exit 2; }
	here=$(mktemp -d)
	trap 'rm -rf "$here"' EXIT
	tar -C "$here" -xJf "$pack/files.tar.xz" 2>/dev/null ||
		python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$pack/files.tar.xz" "$here" || exit 1
	run=$here/elastiscope
	export LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
	export ELASTISCOPE_TESTS=$root/tests ELASTISCOPE_SHARE=$root TERM=${TERM:-dumb} LC_ALL=C.UTF-8
	export HOME=$here XDG_DATA_HOME=$here/data XDG_CACHE_HOME=$here/cache
	# libraries of CUDA that come with Python packages, where the system has none
	if ! ldconfig -p | grep -q libcublasLt; then
		local found
		found=$(find /usr/local /opt -name 'libcublasLt.so.1[23]' 2>/dev/null | head -1)
		[ -z "$found" ] || export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:$(dirname "$found")
	fi
	commit=$(cat "$here/commit" 2>/dev/null)
	card=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1 | tr ' ' '-')
	out=${OUT:-$root/docs/measurements/$(date -u +%Y-%m-%d)-${card:-none}-$commit}
	mkdir -p "$out" || exit 1
	echo "step,status,seconds" >"$out/steps.csv"
	: >"$out/log.txt"
}

limit=${LIMIT:-570}
failed=0

# step NAME SECONDS COMMAND...: a row of steps.csv, its output in log.txt; the last lines of what failed on the screen.
# At most what is left of LIMIT; less than 5 s: left out.
step() {
	local name=$1 most=$2 began=$SECONDS left=$((limit - SECONDS)) status what
	shift 2
	[ $most -le $left ] || most=$left
	if [ $most -lt 5 ]; then
		status=- what='left out, no time'
	else
		timeout -k 5 $most "$@" >"$here/step.txt" 2>&1
		status=$?
		case $status in 0) what=ok ;; 77) what=skipped ;; 124) what="FAILED after $most s" ;; *) what="FAILED $status" ;; esac
	fi
	printf '%-26s %-18s %4d s\n' "$name" "$what" $((SECONDS - began))
	echo "$name,$what,$((SECONDS - began))" >>"$out/steps.csv"
	[ "$status" != - ] || return 1
	{
		printf '\n==== %s: %s\n' "$name" "$what"
		head -c 1000000 "$here/step.txt"
	} >>"$out/log.txt"
	[ "$status" = 0 ] || [ "$status" = 77 ] && return 0
	failed=1
	tail -n "${TAIL:-8}" "$here/step.txt" | cut -c 1-300
	return 1
}

# A budget is changed in the middle; the second time on the CPU: greedy ids must agree.
switches() {
	local device
	for device in cuda cpu; do
		"$run" logits -m demo --device $device --math exact --text 'Sort 84, 13, 55.' --switch 4:small:carry --switch 7:large:reprefill \
			--out "$here/switch-$device.safetensors" || return
		"$run" complete -m demo --device $device --math exact --temp 0 -n 48 --text 'Sort 84, 13, 55.' 2>/dev/null \
			>"$here/ids-$device" || return
	done
	cat "$here/ids-cuda"
	cmp "$here/ids-cuda" "$here/ids-cpu"
}

# sanitize TOOL SECONDS PROGRAM...
sanitize() {
	local tool=$1 most=$2 program
	shift 2
	for program; do
		[ -x "$here/tests/$program" ] || continue
		step "$tool $program" "$most" compute-sanitizer --tool "$tool" --error-exitcode 9 "$here/tests/$program"
	done
}

check() {
	local t
	step doctor 60 "$run" doctor
	for t in "$here"/tests/test_* "$here"/tests/device_golden_*; do
		step "$(basename "$t")" 90 "$t"
	done
	step switches 60 bash -c switches
	if command -v compute-sanitizer >/dev/null; then
		sanitize memcheck 60 device_golden_prompt test_device_prefill test_device_linear test_device_state \
			test_device_mixers test_device_pick device_golden_recorded
		sanitize racecheck 60 device_golden_prompt test_device_prefill test_device_mixers
		sanitize synccheck 30 device_golden_prompt test_device_prefill
		sanitize initcheck 30 device_golden_prompt
	fi
}

export -f switches

# scratch GB: a folder in memory with as much room, else on the disk; nothing where there is neither
scratch() {
	local place
	for place in ${SCRATCH:-/dev/shm /tmp}; do
		[ -d "$place" ] || continue
		[ "$place" != /dev/shm ] || mount -o remount,size=96% /dev/shm 2>/dev/null
		[ "$(df -k --output=avail "$place" | tail -1)" -gt $(($1 * 1000000)) ] || continue
		echo "$place/elastiscope-$$"
		return
	done
	return 1
}

bench() {
	local precision folder gb
	nvidia-smi >>"$out/log.txt" 2>&1
	for precision in ${PRECISIONS:-nvfp4:19 fp8:34 bf16:66}; do
		gb=${precision#*:} precision=${precision%:*}
		[ "${DIVISOR:-1}" = 1 ] || gb=1
		folder=$(scratch "$gb") || { echo "$precision: no $gb GB of memory or disk are free"; failed=1; continue; }
		step "make $precision" 90 "$here/synthetic" "$folder" "$precision" "${DIVISOR:-1}" &&
			cp tests/golden/tokenizer-small/tokenizer.json "$folder" &&
			step "bench $precision" 170 "$run" bench -m "$folder" --device cuda --csv ${CTX:+--ctx $CTX}
		# rows of a run that was stopped count too
		sed -n "s/^row,/precision,&/p; /^[a-z].*,.*,.*,.*,/{/^row,/!s/^/$precision,/p}" "$here/step.txt" |
			if [ -s "$out/bench.csv" ]; then grep -v ^precision,; else cat; fi >>"$out/bench.csv"
		[ $precision = nvfp4 ] || [ "${DIVISOR:-1}" != 1 ] ||
			step "batch $precision" 60 "$run" bench -m "$folder" --device cuda --batch fit --ctx 4096
		if [ $precision = nvfp4 ] && command -v ncu >/dev/null; then
			step "profile $precision" 90 ncu --clock-control none --launch-skip 600 --launch-count 80 --section SpeedOfLight \
				--csv --log-file "$out/ncu.csv" "$run" complete -m "$folder#30b" --device cuda --tokens 1,2,3,4 -n 4 --temp 0
		fi
		rm -rf "$folder"
	done
	targets <"$out/bench.csv" | tee "$out/targets.txt"
}

# What was aimed at, and what bench.csv has of it.
targets() {
	awk -F, '
	function row(what, value, aim, ok) { printf "%-6s %-34s %-26s aim %-22s %s\n", precision, what, value, aim, ok ? "reached" : "MISSED" }
	{ precision = $1 }
	$2 == "read" { printf "%-6s memory reads at %.0f GB/s\n", precision, $6 }
	$2 == "product" { printf "%-6s dense BF16 products at %.0f TFLOP/s\n", precision, $6 }
	$2 == "load" && $3 == "upload" { printf "%-6s upload %.1f s, %.1f GB/s\n", precision, $6 / 1000, $8 }
	$2 == "decode" { tps[precision, $3] = $6; first = first ? first : $3
		row("decode " $3, sprintf("%.0f tok/s, %.1f %% of read", $6, $9), ">= 75 % of read (30b)", $9 >= 75) }
	$2 == "prefill" { row("prefill " $3, sprintf("%.0f tok/s, %.0f TF, %.1f %%", $6, $10, $11), ">= 40 % of product", $11 >= 40) }
	$2 == "switch carry" { split($3, name, ">"); token = 1e6 / (tps[precision, name[2]] > 0 ? tps[precision, name[2]] : 1)
		row("carry " $3, sprintf("%.1f us, a token %.0f us", $6, token), "< one token", $6 < token) }
	$2 == "screen" && $3 ~ /^first token/ { row($3, sprintf("%.1f ms after Enter", $6), "< 50 ms", $6 > 0 && $6 < 50) }
	$2 == "pass" { printf "%-6s pass %-29s %.0f us by events, %d launches\n", precision, $3, $6, $12 }
	'
}

case ${1-} in
pack) pack ;;
targets) targets ;;
check | bench)
	unpack
	export run here
	"$1"
	echo "output in $out"
	exit $failed
	;;
*)
	echo "usage: tests/device.sh pack|check|bench|targets"
	exit 2
	;;
esac
