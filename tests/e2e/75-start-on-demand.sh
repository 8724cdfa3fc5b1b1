#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A client that finds no daemon where its user's would be starts one: one only, that keeps nothing of its
# parent's, and whose failure is heard.
. "$(dirname "$0")/lib.sh"

unset DIRCACHE_SOCKET
home=$dir/home
mkdir -p "$home/run" "$home/cache" "$home/state"
chmod 700 "$home/run"
as=()
if is_root; then
	chmod 711 "$dir"
	chown -R 65534:65534 "$home"
	nobody_can "$home" || skip_story 'nobody cannot run the programs'
	as=("${as_nobody[@]}")
fi
DIRCACHE_DAEMON=${DIRCACHE_DAEMON:-$(command -v dircached)}
export DIRCACHE_DAEMON

# A program that runs its words as that user, without a setting of ours.
user=$dir/user
cat >"$user" <<END
#!/bin/sh
cd /
exec ${as[*]} env HOME="$home" XDG_RUNTIME_DIR="$home/run" XDG_CACHE_HOME="$home/cache" \\
	XDG_STATE_HOME="$home/state" "\$@"
END
chmod 755 "$user"
user() { # COMMAND...
	"$user" "$@"
}

# The process ids of all daemons started here: those with our folder in their environment.
daemons() {
	local process
	for process in /proc/[0-9]*; do
		[ "$(cat "$process/comm" 2>/dev/null)" = dircached ] || continue
		grep -zqF "$home" "$process/environ" 2>/dev/null && basename "$process"
	done
	:
}
end_daemons() {
	local pid
	for pid in $(daemons); do
		kill -KILL "$pid"
	done
}
defer end_daemons
n_daemons() {
	daemons | wc -l
}
pid_of_ping() {
	tr -d ' \n' | grep -o '"pid":[0-9]*' | cut -d: -f2
}

check '--no-start starts none: status 4' exits 4 user dircache --no-start ping
check 'really' prints 0 n_daemons
check 'DIRCACHE_SOCKET starts none either' exits 4 user env DIRCACHE_SOCKET="$home/run/other" dircache ping
check '--socket neither' exits 4 user dircache --socket "$home/run/other" ping
check 'really' prints 0 n_daemons

check 'sixteen clients at once are all answered' together 16 user dircache --json ping
pids() {
	local i
	for i in {1..16}; do
		pid_of_ping <"$dir/together/$i"
	done | sort -u
}
check 'by one daemon' matches "$(pids)" '^[0-9]+$'
check 'and no other stays' eventually 5 prints 1 n_daemons
check 'it is the one that was started' prints "$(daemons)" pids
pid=$(daemons)
check 'its socket is in XDG_RUNTIME_DIR' test -S "$home/run/dircache/socket"
check 'its store in XDG_CACHE_HOME' test -d "$home/cache/dircache/blobs"
check 'its log in XDG_STATE_HOME' test -f "$home/state/dircache/log"
strange_descriptors() { # PID: what it has open that is ours, or nobody's business
	readlink "/proc/$1/fd"/* | grep -vE "^($home/|/dev/null|anon_inode:|socket:|pipe:)"
	comm -12 <(readlink "/proc/$1/fd"/* | grep pipe: | sort -u) <(readlink "/proc/$$/fd"/* | sort -u)
}
check 'it holds none of our descriptors' prints '' eval 'strange_descriptors "$pid" ||:'
check 'its working folder is no obstacle' prints / readlink "/proc/$pid/cwd"
session_of() {
	cut -d' ' -f6 "/proc/$1/stat"
}
check 'it is in a session of its own' [ "$(session_of "$pid")" != "$(session_of $$)" ]

echo hello >"$dir/file"
digest=$(digest_of "$dir/file")
check 'it serves: put' prints "$digest" user dircache put "$dir/file"
check 'and cat' prints hello user dircache cat "$digest"
check 'stop ends it' user dircache stop
check 'in time' eventually 5 prints 0 n_daemons
check 'and its socket is gone' absent "$home/run/dircache/socket"

check 'a pipeline behind the client that starts it ends' timeout 20 bash -c '"$0" dircache ping | cat' "$user"
check 'one runs now' prints 1 n_daemons
check 'stop ends it' user dircache stop
check 'in time' eventually 5 prints 0 n_daemons
check 'a pipeline with standard error ends too' timeout 20 bash -c '"$0" dircache ping 2>&1 | cat' "$user"
check 'what was stored is still there' prints hello user dircache cat "$digest"

pid=$(daemons)
kill -KILL "$pid"
check 'after a kill the next client starts another' eventually 10 user dircache ping
check 'one' prints 1 n_daemons
check 'with what was stored' prints hello user dircache cat "$digest"
check 'stop ends it' user dircache stop
check 'in time' eventually 5 prints 0 n_daemons

# ---- one that cannot start ----

mv "$home/cache/dircache" "$home/cache/kept"
echo 'in the way' >"$home/cache/dircache"
check_fails 'a daemon that cannot start makes the client fail' complains timeout 20 "$user" dircache ping
check 'with its own words' says "$home/cache/dircache" fails user dircache ping
all_hear() {
	local i
	together 8 user dircache ping && return 1
	for i in {1..8}; do
		[ -s "$dir/together/$i.err" ] || { echo "$i said nothing"; return 1; }
	done
}
check 'eight clients all fail, and each says something' all_hear
check 'none stays behind' eventually 5 prints 0 n_daemons
rm "$home/cache/dircache"
mv "$home/cache/kept" "$home/cache/dircache"
check 'the next client finds a cause removed' prints hello user dircache cat "$digest"
check 'stop ends it' user dircache stop
check 'in time' eventually 5 prints 0 n_daemons
check_fails 'a daemon program that is not there is an error' \
	complains user env DIRCACHE_DAEMON=/nowhere/dircached dircache ping
finish
