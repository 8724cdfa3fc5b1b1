#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The documentation: what README.md shows is what happens, and programs, help and pages name the same things.
. "$(dirname "$0")/lib.sh"

readme=$top/README.md
protocol=$top/docs/PROTOCOL.md

# Two lists of words hold the same, in whatever order.
same_words() { # WORDS WORDS
	# shellcheck disable=SC2086 # words
	diff <(printf '%s\n' $1 | sort) <(printf '%s\n' $2 | sort)
}

# The first words of a table's rows.
rows() { # FILE MACRO
	sed -n "s/^$2(\"\\{0,1\\}\\([a-z_-]*\\).*/\\1/p" "$top/$1"
}

# The keys of a flat JSON object, the elements of a JSON array of plain words.
json_keys() {
	grep -o '"[a-z_]*":' | tr -d '":'
}
json_words() { # KEY
	sed "s/.*\"$1\":\\[\\([^]]*\\)\\].*/\\1/" | tr -d '"' | tr , '\n'
}

# ---- the session ----

session() {
	awk '/^```console$/ { on = 1; next } /^```$/ { on = 0 } on' "$readme"
}

end_session() {
	local pid
	pid=$(cat "$dir/session/store/lock") || return 0
	[ "$(readlink "/proc/$pid/cwd")" = "$dir/session" ] && kill -KILL "$pid"
}
defer end_session

# Do what the session says, in one shell in an empty folder; the transcript is what a terminal would show.
act() {
	session | grep '^\$ ' >"$notes/lines"
	mkdir "$dir/session"
	# shellcheck disable=SC2016 # for the inner shell
	(cd "$dir/session" && env -u DIRCACHE_SOCKET timeout 90 bash -c '
		mapfile -t lines <"$1"
		for line in "${lines[@]}"; do
			printf "%s\n" "$line"
			eval "${line#\$ }"
		done' session "$notes/lines") >"$notes/transcript" 2>&1 3>&- </dev/null
}

check 'README.md shows a session' test "$(session | grep -c '^\$ ')" -gt 15
check 'the session runs to its end' act
check 'and every line of it is as README.md says' diff <(session) "$notes/transcript"
check 'the daemon that it started is gone' absent "$dir/session/socket"
check 'what it says of inodes holds' \
	same_inode "$dir/session/one/bin/hello" "$dir/session/three/bin/hello"
check 'and of modes' mode_is 444 "$dir/session/one/src/hello.c"

# ---- what README.md names ----

check 'README.md has the command that runs the tests once' \
	test "$(grep -o 'contrib/check' "$readme" | wc -l)" = 1
check 'and it is there' test -x "$top/contrib/check"
check 'quickstart is there' test -x "$top/contrib/quickstart"

listed_packages() {
	sed -n '/^- to build:/,/^$/p' "$readme" | sed 's/^- [a-z ]*://'
}
needed_packages() {
	sed -n '/^build=(/,/)/p; /^test=(/,/)/p' "$top/contrib/install-deps" | sed 's/^[a-z]*=(//; s/)$//'
}
check 'it lists the packages that install-deps installs' same_words "$(listed_packages)" "$(needed_packages)"

for command in fetch push; do
	check "$command is not there yet, and refused" exits 2 complains dircache "$command"
done

# ---- commands ----

commands=$(rows client/commands.def COMMAND)
check 'dircache --help names the commands that there are' same_words "$commands" \
	"$(dircache --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p')"
check 'dircache.1 describes each' same_words "$commands" \
	"$(sed -n 's/^\.It Ic \([a-z]*\).*/\1/p' "$top/client/dircache.1" | sort -u)"

options_are_described() { # COMMAND
	local option missing=0
	for option in $(dircache "$1" --help | grep -o '^  \(-., \|    \)--[a-z-]*' | grep -o -- '--[a-z-]*'); do
		grep -q "^\.\(It\|Op\|Oo\).*\(Fl\|,\) ${option#-}\>" "$top/client/dircache.1" && continue
		echo "$option is not there"
		missing=1
	done
	return "$missing"
}
for command in $commands; do
	check "dircache.1 describes the options of $command" options_are_described "$command"
done

# ---- options of the daemon ----

options="$(rows daemon/options.def OPTION) config help version"
check 'dircached --help names the options that there are' same_words "$options" \
	"$(dircached --help | sed -n 's/^  --\([a-z-]*\).*/\1/p')"
check 'dircached.8 describes each' same_words "$options" \
	"$(sed -n 's/^\.It Fl -\([a-z-]*\).*/\1/p' "$top/daemon/dircached.8")"

if command -v mandoc >/dev/null; then
	for page in client/dircache.1 daemon/dircached.8; do
		check "mandoc finds nothing wrong in $page" prints '' mandoc -T lint -W warning "$top/$page"
	done
else
	skip 'mandoc finds nothing wrong in the man pages' 'there is no mandoc'
fi

# ---- the protocol ----

start_daemon
check 'ping names the methods that PROTOCOL.md describes' same_words \
	"$(dircache --json ping | json_words features)" \
	"$(sed -n '/^## Methods/,/^## Notifications/s/^### //p' "$protocol" | tr -d ,)"
check 'stats names the counters that PROTOCOL.md describes' same_words \
	"$(dircache --json stats | json_keys)" \
	"$(sed -n '/^### stats/,/^### trees/s/^| `\([a-z_]*\)` .*/\1/p' "$protocol")"
check 'those are the ones of counters.def' same_words \
	"$(dircache --json stats | json_keys)" "$(rows daemon/counters.def COUNTER)"
check 'every code of errors is in PROTOCOL.md' same_words \
	"$(sed -n 's/^\tX(ERR_[A-Z_]*, "\([a-z_]*\)").*/\1/p' "$top/common/err.h")" \
	"$(sed -n '/^### Errors/,/^### Limits/s/^| `\([a-z_]*\)` | [^|]* |$/\1/p' "$protocol")"

example() {
	sed -n '/^## An example/,$s/^    //p' "$protocol" |
		sed "s,/run/dircache/socket,$socket,; s,\"/tmp\",\"$dir\","
}
if "${python[@]}" -c 'import msgpack' 2>/dev/null; then
	make_folder "$dir/tools" 'bin/cc*: #!' 'doc: text'
	dircache put --tag toolchain "$dir/tools" >/dev/null || die 'put failed'
	check 'the example of PROTOCOL.md works' "${python[@]}" -c "$(example)"
	check 'and makes the tree' same_tree "$dir/tools" "$dir/out"
else
	skip 'the example of PROTOCOL.md works' 'Python has no msgpack'
fi

finish
