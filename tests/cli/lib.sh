# Sourced by the tests of this folder. Each is a table of calls; a case that fails prints one line (and what
# the program said), and the test goes on. Needs ELASTISCOPE (the program), JSON (tests/cli/json.c) and
# ELASTISCOPE_TESTS (this tree's tests/); SANITIZE names the build's sanitizers or is none.
#
#   run ARGUMENT...            runs the program: its exit code in $code, its words in out and err of the folder $dir;
#                              standard input is the file $stdin
#   code N | out TEXT | out_has REGEX | err_has REGEX | same FILE FILE | is NAME FOUND EXPECTED    cases
#   fails REGEX ARGUMENT...    exit 1, nothing on stdout, one line on stderr: `elastiscope: ` and the extended REGEX
#   wrong REGEX ARGUMENT...    the same with exit 2: wrong usage
#   json [-l|-e|-r|-n] FILE PATH...   prints values
#   json_is PATH VALUE         a case on out;  json_has PATH...   several
set -u
shopt -s extglob
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
tests=$ELASTISCOPE_TESTS
golden=$tests/golden
demo=$tests/../demo
nest=$golden/nest-tiny
cases=0 failures=0 code=0 stdin=/dev/null command=
out=$dir/out err=$dir/err

# nothing of the user's own must matter
export HOME=$dir/home XDG_DATA_HOME=$dir/home/data XDG_CONFIG_HOME=$dir/home/config XDG_STATE_HOME=$dir/home/state
export TERM=dumb LC_ALL=C.UTF-8
unset ELASTISCOPE_MODEL NO_COLOR ACCESSIBLE
mkdir -p "$HOME"
for program in "$ELASTISCOPE" "$JSON"; do
	[ -x "$program" ] || { echo "no program $program"; exit 1; }
done

run() {
	command="elastiscope $*"
	"$ELASTISCOPE" "$@" <"$stdin" >"$out" 2>"$err"
	code=$?
	# a signal's death or a sanitizer's report is a failure in any case
	{ [ $code -lt 128 ] || [ $code -eq 130 ]; } && ! grep -qE 'Sanitizer|runtime error:' "$err" || bad "exit $code"
}

good() {
	cases=$((cases + 1))
}

bad() {
	cases=$((cases + 1)) failures=$((failures + 1))
	[ $failures -le 20 ] || return
	printf 'FAIL %s: %s\n' "${command:0:200}" "$1"
	head -c 2000 "$err" | sed -n 's/^/    /; 1,12p'
}

is() { # NAME FOUND EXPECTED
	if [ "$2" = "$3" ]; then good; else bad "$1: '${2:0:300}', expected '${3:0:300}'"; fi
}

code() {
	is "exit" "$code" "$1"
}

out() {
	is stdout "$(cat "$out" && echo .)" "$1"$'\n.'
}

out_has() {
	if grep -qE -- "$1" "$out"; then good; else bad "stdout has no /$1/"; fi
}

err_has() {
	if grep -qE -- "$1" "$err"; then good; else bad "stderr has no /$1/"; fi
}

same() {
	if cmp -s "$1" "$2"; then good; else bad "$1 and $2 differ: $(cmp "$1" "$2" 2>&1)"; fi
}

refuses() { # CODE REGEX ARGUMENT...
	run "${@:3}"
	if [ $code -ne "$1" ]; then
		bad "exit $code, expected $1 (and /$2/)"
	elif [ -s "$out" ]; then
		bad "stdout is not empty: $(head -c 200 "$out")"
	elif [ "$(wc -l <"$err")" -ne 1 ] || ! grep -qE -- "^elastiscope: .*($2)" "$err"; then
		bad "expected one line 'elastiscope: ' with /$2/"
	else
		good
	fi
}

fails() {
	refuses 1 "$@"
}

wrong() {
	refuses 2 "$@"
}

json() {
	"$JSON" "$@" 2>>"$err"
}

json_is() { # PATH VALUE
	is "$1" "$(json "$out" "$1")" "$2"
}

json_has() {
	if json "$out" "$@" >/dev/null; then good; else bad "keys are missing in stdout"; fi
}

# copy NAME: a copy of nest-tiny (the weights' files are links until changed) as $dir/NAME, to be broken
copy() {
	rm -rf "${dir:?}/$1"
	mkdir "$dir/$1"
	cp "$nest"/*.json "$dir/$1"
	ln -s "$nest"/*.safetensors "$dir/$1"
}

# own FILE: makes a linked file a real one
own() {
	cp --remove-destination "$(readlink -f "$1")" "$1"
	chmod u+w "$1"
}

# little BYTES NUMBER: an integer in little-endian bytes
little() {
	local i n=$2
	for ((i = 0; i < $1; i++)); do
		printf "\\x$(printf %02x $((n & 255)))"
		n=$((n >> 8))
	done
}

# tensors FILE HEADER [BYTES]: a safetensors file with this header and BYTES zeros
tensors() {
	{
		little 8 ${#2}
		printf %s "$2"
		head -c "${3:-0}" /dev/zero
	} >"$1"
}

finish() {
	echo "$cases cases, $failures failed"
	[ $failures -eq 0 ] && [ $cases -gt 0 ]
	exit
}
