# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# The harness of the stories: each NN-name.sh sources it first, starts a daemon of its own, makes claims
# about it with check, and ends with finish. Output is TAP.
#
#     $dir                one short folder for all that is temporary; gone at the end, whatever happens
#     $store, $socket     the daemon's, in $dir: on the file system that targets in $dir are on
#     $daemon_log         what the daemon wrote to standard error
#     ${python[@]}        a Python 3; the helpers *.py beside this file ($here) are run by it
#
# The programs come from PATH, where `make check` puts the build's own first. By hand:
#
#     builddir=/path/to/build tests/e2e/20-materialize-twice.sh
#
# Daemons are ended by their process ids, and only those that a story started. A story that takes too long
# loses its daemons and clients, and says so.

set -u
shopt -s nullglob
export LC_ALL=C.UTF-8

if [ -n "${builddir-}" ]; then
	PATH=$(cd "$builddir" && pwd)
	PATH="$PATH/client:$PATH/daemon:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	export PATH
fi

if ! command -v dircache >/dev/null || ! command -v dircached >/dev/null; then
	echo 'Bail out! dircache and dircached are not in PATH; set builddir'
	exit 99
fi

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck disable=SC2034 # for the stories
top=$(cd "$here/../.." && pwd)
# shellcheck disable=SC2034
python=("${PYTHON3:-/usr/bin/python3}" -B)
dir=$(mktemp -d /tmp/dc.XXXXXX) || exit 99
notes=$dir/notes # the harness's own
mkdir "$notes"
store=$dir/store
socket=$dir/s
daemon_log=$dir/daemon.log
daemon_pid=
daemon_as=() # words in front of `dircached`: setpriv, env
n_checks=0
n_failed=0
at_exit=()

unset DIRCACHE_STORE XDG_CACHE_HOME XDG_RUNTIME_DIR XDG_STATE_HOME XDG_CONFIG_HOME
export DIRCACHE_SOCKET=$socket

exec 3>&1 # TAP goes there, also where standard output is looked at

# ---- the end ----

# Remember a command for the end of the story; the last first. Arguments are kept as they are.
defer() {
	at_exit+=("$(printf '%q ' "$@")")
}

# End every process that this shell started and that still runs.
end_children() {
	local pid
	for pid in $(jobs -pr); do
		kill -KILL "$pid"
	done 2>/dev/null
	wait 2>/dev/null
}

clean_up() {
	local status=$? i
	trap - EXIT
	trap '' INT TERM HUP
	for ((i = ${#at_exit[@]} - 1; i >= 0; i--)); do
		eval "${at_exit[i]}"
	done >/dev/null 2>&1
	end_children
	rm -rf "$dir"
	exit "$status"
}

trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# A story that hangs is ended from here: its children (clients, daemons) first, or bash would not look up.
watch_story() { # SECONDS PID
	local pid children
	read -rt "$1" _ <>"$notes/never"
	grep -q "^PPid:.$2\$" "/proc/$BASHPID/status" || return # the story was killed
	echo "Bail out! no end after $1 seconds" >&3
	read -ra children <"/proc/$2/task/$2/children"
	for pid in "${children[@]}"; do
		[ "$pid" = "$BASHPID" ] || kill -KILL "$pid"
	done 2>/dev/null
	kill -TERM "$2"
}

mkfifo "$notes/never"
watch_story "${STORY_SECONDS:-400}" $$ &

# Say why, and end the story as failed: what it needs to go on is not there.
die() {
	show_log
	echo "Bail out! $*" >&3
	exit 99
}

# End a story that cannot be told here, before its first check.
skip_story() {
	echo "1..0 # SKIP $*" >&3
	exit 0
}

# One claim that cannot be tried here.
skip() { # CLAIM REASON
	n_checks=$((n_checks + 1))
	echo "ok $n_checks - $1 # SKIP $2" >&3
}

show_log() {
	if [ -s "$daemon_log" ]; then
		echo "# the daemon's log ends:"
		tail -n 15 "$daemon_log" | sed 's/^/# /'
	fi >&3
}

# Stop the daemon, which is a claim too (and where a sanitizer speaks), and end the story.
finish() {
	if [ -n "$daemon_pid" ]; then
		check 'the daemon stops cleanly in the end' stop_daemon
	fi
	if [ "$n_failed" -gt 0 ]; then
		show_log
	fi
	echo "1..$n_checks" >&3
	exit $((n_failed > 0))
}

# ---- claims ----

# Count a claim as true or false; a false one shows the output that led there.
report() { # STATUS CLAIM
	n_checks=$((n_checks + 1))
	if [ "$1" = 0 ]; then
		echo "ok $n_checks - $2" >&3
		return
	fi
	n_failed=$((n_failed + 1))
	echo "not ok $n_checks - $2" >&3
	echo "# line ${BASH_LINENO[1]}, status $1" >&3
	head -c 3000 "$notes/out" | tr -c '[:print:]\n' '?' | head -n 30 | sed 's/^/# /' >&3
}

# check CLAIM COMMAND...: the command, perhaps a function, succeeds. (Words for eval see the variables of the
# functions here too: claim, status, want, got.)
check() {
	local claim=$1 status
	shift
	"$@" >"$notes/out" 2>&1
	status=$?
	[ "$status" = 0 ] || echo "$*" >>"$notes/out"
	report "$status" "$claim"
}

# check_fails CLAIM COMMAND...: the command fails, of itself and not by a signal.
check_fails() {
	local claim=$1
	shift
	check "$claim" fails "$@"
}

# ---- what a command does: for use behind check, and inside each other ----

exits() { # STATUS COMMAND...
	local want=$1 status
	shift
	"$@"
	status=$?
	[ "$status" = "$want" ] || { echo "exit status $status, not $want"; return 1; }
}

fails() { # COMMAND...
	local status
	"$@"
	status=$?
	((status > 0 && status < 124)) || { echo "exit status $status"; return 1; }
}

# Standard output is exactly this, and the command succeeds.
prints() { # TEXT COMMAND...
	local want=$1 got
	shift
	got=$("$@") || return
	[ "$got" = "$want" ] || { printf 'printed: %s\nnot:     %s\n' "$got" "$want"; return 1; }
}

# Standard output or error holds this text, whatever the exit status (so: `says TEXT exits 3 dircache ...`
# has it both ways).
says() { # TEXT COMMAND...
	local want=$1 got status
	shift
	got=$("$@" 2>&1)
	status=$?
	case $1 in
	exits | fails) [ "$status" = 0 ] || { echo "$got"; return 1; } ;;
	esac
	case $got in
	*"$want"*) ;;
	*) printf 'said: %s\nnot:  %s\n' "$got" "$want"; return 1 ;;
	esac
}

matches() { # TEXT REGEX
	[[ $1 =~ $2 ]] || { printf "'%s' is not %s\n" "$1" "$2"; return 1; }
}

# Nothing goes to standard output, and something to standard error.
complains() { # COMMAND...
	local got
	"$@" >"$notes/stdout" 2>"$notes/stderr"
	got=$?
	cat "$notes/stdout" "$notes/stderr"
	[ ! -s "$notes/stdout" ] && [ -s "$notes/stderr" ] || return 1
	return "$got"
}

# Try until it succeeds, at most so many seconds of a machine that has nothing else to do; a busy one, or
# one with a sanitizer, has six times as long.
eventually() { # SECONDS COMMAND...
	local end=$((SECONDS + 6 * $1))
	shift
	until "$@" >"$notes/eventually" 2>&1; do
		if ((SECONDS > end)); then
			cat "$notes/eventually"
			return 1
		fi
		sleep 0.05
	done
}

# Run a command N times at once, {} in its words replaced by 1 to N; succeed when all do. What the i-th
# printed is in $dir/together/i, its standard error in i.err.
together() { # N COMMAND...
	local n=$1 i pids=() failed=0
	shift
	rm -rf "$dir/together"
	mkdir "$dir/together"
	for ((i = 1; i <= n; i++)); do
		"${@//\{\}/$i}" >"$dir/together/$i" 2>"$dir/together/$i.err" &
		pids+=($!)
	done
	for ((i = 1; i <= n; i++)); do
		wait "${pids[i - 1]}" || { failed=1; echo "the ${i}th failed:"; cat "$dir/together/$i.err"; }
	done
	return "$failed"
}

# ---- daemons ----

# Start dircached with these options and wait until it is ready. Its log is added to $daemon_log.
start_daemon() {
	launch_daemon "$@"
	dircache ping --wait 20 >"$notes/ping" 2>&1 && kill -0 "$daemon_pid" 2>/dev/null && return
	cat "$notes/ping"
	die "the daemon did not start"
}

launch_daemon() {
	"${daemon_as[@]}" dircached --store "$store" --socket "$socket" "$@" 2>>"$daemon_log" >&2 3>&- &
	daemon_pid=$!
}

# Stop it by SIGTERM (or another signal). Status: the daemon's own.
stop_daemon() { # [SIGNAL]
	local pid=$daemon_pid status
	daemon_pid=
	kill "-${1:-TERM}" "$pid" 2>/dev/null
	wait "$pid"
	status=$?
	[ "$status" = 0 ] || echo "the daemon ended with status $status"
	return "$status"
}

kill_daemon() {
	kill -KILL "$daemon_pid"
	wait "$daemon_pid" 2>/dev/null
	daemon_pid=
}

restart() { # [OPTION...]
	stop_daemon TERM && start_daemon "$@"
}

# ---- counters ----

counter() { # NAME
	dircache --json stats | tr -d ' \n' | grep -o "\"$1\":[0-9]*" | cut -d: -f2
}

# Every NAME=VALUE is what `stats` says.
counters_are() {
	compare_counters "" "$@"
}

# Remember all counters now; counters_added NAME=VALUE compares what came to them since.
counters_note() {
	dircache --json stats | tr -d ' \n' >"$notes/noted"
}

counters_added() {
	compare_counters "$notes/noted" "$@"
}

# What counters_note remembered of one.
noted() { # NAME
	grep -o "\"$1\":[0-9]*" "$notes/noted" | cut -d: -f2
}

compare_counters() { # FILE|"" NAME=VALUE...
	local noted=$1 pair name now before=0 wrong=0
	shift
	dircache --json stats | tr -d ' \n' >"$notes/stats" || return
	for pair in "$@"; do
		name=${pair%%=*}
		now=$(grep -o "\"$name\":[0-9]*" "$notes/stats" | cut -d: -f2)
		[ -z "$noted" ] || before=$(grep -o "\"$name\":[0-9]*" "$noted" | cut -d: -f2)
		[ -n "$now" ] && [ "$((now - before))" = "${pair#*=}" ] && continue
		echo "$name is ${now:-not there}${noted:+, was $before}; not $pair"
		wrong=1
	done
	return "$wrong"
}

# ---- trees ----

# Make a folder with these entries:
#     'a/b: text'   a file with that text (no newline added); 'a:' an empty one
#     'a/b*: text'  an executable one
#     'a/b@ text'   a symlink to that
#     'a/b/'        a folder; folders on the way are made anyhow
make_folder() { # FOLDER ENTRY...
	local folder=$1 entry name text
	shift
	mkdir -p "$folder"
	for entry in "$@"; do
		name=${entry%%[:@]*}
		text=${entry#"$name"?}
		text=${text# }
		case $entry in
		*/) mkdir -p "$folder/$entry"; continue ;;
		esac
		mkdir -p "$(dirname "$folder/$name")"
		case $entry in
		"$name"@*) ln -s "$text" "$folder/$name" ;;
		*'*:'*) printf %s "$text" >"$folder/${name%\*}"; chmod 755 "$folder/${name%\*}" ;;
		*) printf %s "$text" >"$folder/$name"; chmod 644 "$folder/$name" ;;
		esac
	done
}

# Make a folder, put it, and print the tree's digest.
make_tree() { # ENTRY...
	local folder
	mkdir -p "$dir/made"
	folder=$(mktemp -d "$dir/made/XXXXXX")
	make_folder "$folder" "$@"
	dircache put "$folder"
}

# What a tree holds: type, the owner's x bit, size or target, name; in a fixed order.
tree_list() { # FOLDER
	(cd "$1" && find . \( -type f -perm -u=x -printf 'x %s %P\0' \) -o \( -type f -printf 'f %s %P\0' \) \
		-o \( -type l -printf 'l %l %P\0' \) -o -printf '%y %P\0') | LC_ALL=C sort -z
}

# Two folders hold the same: names, types, bytes, targets and x bits.
same_tree() { # FOLDER FOLDER
	diff -r --no-dereference "$1" "$2" && cmp <(tree_list "$1") <(tree_list "$2")
}

# Two materialized trees are the same without a look at the bytes: names, types, targets, and one inode for
# each two files (but empty ones).
same_links() { # FOLDER FOLDER
	cmp <(link_list "$1") <(link_list "$2")
}

link_list() { # FOLDER
	(cd "$1" && find . \( -type f ! -empty -printf 'f %i %P\0' \) -o -printf '%y %l %P\0') | LC_ALL=C sort -z
}

# Everything there has the mode of a materialized tree.
published_modes() { # FOLDER
	local odd
	odd=$(find "$1" \( -type f ! -perm 0444 ! -perm 0555 -o -type d ! -perm 0755 \) -printf '%m %P\n')
	[ -z "$odd" ] || { echo "$odd" | head; return 1; }
}

same_inode() { # PATH PATH...
	inodes_are 1 "$@"
}

# All of them are inodes of their own.
own_inodes() { # PATH PATH...
	inodes_are $# "$@"
}

inodes_are() { # N PATH...
	local n
	n=$(stat -c %d:%i "${@:2}" | sort -u | wc -l)
	[ "$n" = "$1" ] || { stat -c '%d:%i %n' "${@:2}"; return 1; }
}

links_are() { # N PATH
	prints "$1" stat -c %h "$2"
}

mode_is() { # MODE PATH...
	local modes
	modes=$(stat -c %a "${@:2}" | sort -u)
	[ "$modes" = "$1" ] || { stat -c '%a %n' "${@:2}"; return 1; }
}

absent() { # PATH...
	local path
	for path in "$@"; do
		if [ -e "$path" ] || [ -L "$path" ]; then
			ls -ld "$path"
			return 1
		fi
	done
}

# No half-made thing of ours is beside the targets.
no_litter() { # FOLDER...
	local found
	found=$(find "$@" -name '.dircache-*' -prune -print)
	[ -z "$found" ] || { echo "$found" | head; return 1; }
}

# No record in the store tells of one either (daemon/staging.h: what is cleared lacks the first byte).
no_records() {
	! grep -qsa dircache-staging "$store"/staging/*
}

# Where the store keeps a blob.
blob_path() { # blobs|exec DIGEST
	echo "$store/$1/${2:0:2}/${2%/*}"
}

# The digest of a file, computed here.
digest_of() { # FILE
	local hash
	hash=$(sha256sum <"$1")
	echo "${hash%% *}/$(stat -Lc %s "$1")"
}

# ---- what this machine allows ----

# An ordinary user, to run programs as: words for the front of a command. As root: nobody.
is_root() {
	[ "$(id -u)" = 0 ]
}
as_nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups)

# Can nobody run the programs under test, and reach $1?
nobody_can() { # FOLDER
	is_root && "${as_nobody[@]}" dircached --version && "${as_nobody[@]}" dircache --version &&
		"${as_nobody[@]}" test -w "$1" -a -x "$1"
} >/dev/null 2>&1

# Print the name of a new folder on another file system than $dir; it is deleted in the end.
other_filesystem() {
	local other
	other=$(mktemp -d /dev/shm/dc.XXXXXX 2>/dev/null) || return
	if [ "$(stat -c %d "$other")" = "$(stat -c %d "$dir")" ]; then
		rmdir "$other"
		return 1
	fi
	echo "$other"
}
