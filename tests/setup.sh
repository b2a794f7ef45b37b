# Sourced by ./run and ./check: packages, a configured build folder, messages. Everything goes to stderr,
# because stdout belongs to the program. Needs $root, the checkout.

say() {
	printf '%s\n' "$*" >&2
}

# have_library NAME...: all of them, in one call, because every ./run pays for it
have_library() {
	command -v pkg-config >/dev/null && pkg-config --exists "$@"
}

# Prints the Debian packages that are missing for a build (or, with "check", for the tests too). Looks for
# what the build needs and not for packages: it is quicker, and what was installed by hand counts.
missing_packages() {
	local package library tool
	for tool in meson:meson ninja:ninja-build gcc:gcc pkg-config:pkg-config; do
		command -v "${tool%%:*}" >/dev/null || echo "${tool#*:}"
	done
	[ -e /usr/include/stdio.h ] || echo libc6-dev # gcc only recommends it
	if ! have_library ncursesw readline libcjson libpcre2-8 libmd; then
		for library in ncursesw:libncurses-dev readline:libreadline-dev libcjson:libcjson-dev \
			libpcre2-8:libpcre2-dev libmd:libmd-dev; do
			have_library "${library%%:*}" || echo "${library#*:}"
		done
	fi
	[ "${1-}" = check ] || return 0
	have_library cmocka || echo libcmocka-dev
	have_library vterm || echo libvterm-dev
	command -v clang >/dev/null || echo clang
	command -v clang-format >/dev/null || echo clang-format
	command -v llvm-symbolizer >/dev/null || echo llvm # names in the sanitizers' reports
	# the sanitizers' runtime is a package of its own
	package=$(clang --print-resource-dir 2>/dev/null)
	compgen -G "${package:-/nowhere}/lib/linux/libclang_rt.tsan*" >/dev/null || echo libclang-rt-dev
}

# install_missing [check]: installs what is missing, or says what to type and returns 1.
install_missing() {
	local missing log sudo=() can=1
	mapfile -t missing < <(missing_packages "$@")
	[ ${#missing[@]} -gt 0 ] || return 0
	say "elastiscope: installing ${missing[*]}"
	if [ "$(id -u)" -ne 0 ]; then
		sudo=(sudo)
		{ : </dev/tty; } 2>/dev/null || sudo=(sudo -n) # nobody is there to type a password
		command -v sudo >/dev/null || can=
	fi
	command -v apt-get >/dev/null || can=
	log=$(mktemp)
	if [ -n "$can" ]; then
		# an index that can't be fetched need not be the one that matters
		"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q update >"$log" 2>&1 </dev/null || true
		"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
			apt-get -q -y install --no-install-recommends "${missing[@]}" >>"$log" 2>&1 </dev/null || true
		mapfile -t missing < <(missing_packages "$@")
	fi
	if [ ${#missing[@]} -gt 0 ]; then
		tail -n 5 "$log" >&2
		say "elastiscope: these packages are missing and could not be installed. Please type (as root, or with sudo):"
		say "    apt-get update && apt-get install ${missing[*]}"
	fi
	rm -f "$log"
	[ ${#missing[@]} -eq 0 ]
}

# quietly COMMAND...: its output only if it fails.
quietly() {
	local log status=0
	log=$(mktemp)
	"$@" >"$log" 2>&1 </dev/null || status=$?
	[ $status -eq 0 ] || cat "$log" >&2
	rm -f "$log"
	return $status
}

# configure FOLDER OPTION...: `meson setup` where it was not done yet, was done with other options, or before
# the checkout moved. A folder that somebody configured by hand is left as it is.
configure() {
	local folder=$1 made_for
	made_for="$root ${CC-cc} ${*:2}"
	if [ -f "$folder/build.ninja" ]; then
		[ -f "$folder/.made_for" ] || return 0
		[ "$(cat "$folder/.made_for")" != "$made_for" ] || return 0
	fi
	rm -rf "$folder"
	quietly meson setup "$folder" "$root" "${@:2}" || return 1
	printf '%s\n' "$made_for" >"$folder/.made_for"
}
