#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Signals: the daemon stops cleanly in the middle of work, and outlives the death of its clients.
. "$(dirname "$0")/lib.sh"

out=$dir/out
src=$dir/src
mkdir "$out"
for i in {1..30}; do
	mkdir -p "$src/$i"
	(cd "$src/$i" && seq "$i" $((i + 49)) | split -l 1 -a 2 - f)
done
make_folder "$dir/small" 'a: hello' 'sub/b: bye'

start_daemon
tree=$(dircache put "$src") || die 'put failed'
small=$(dircache put "$dir/small") || die 'put failed'

targets_are_whole() {
	local target
	for target in "$out"/*; do
		cmp <(tree_list "$src") <(tree_list "$target") || return
	done
}

empty_out() {
	rm -rf "$out"
	mkdir "$out"
}

# Keep the daemon busy until it is gone.
materializing() { # NAME
	local i=0
	while dircache materialize "$tree" "$out/$1-$i"; do
		i=$((i + 1))
	done
}
putting() { # NAME
	local i=0
	while dircache put "$dir/put-$1"; do
		echo "$1 $i" >"$dir/put-$1/$((i % 30 + 1))/fab"
		i=$((i + 1))
	done
}

stops_in_time() { # SIGNAL
	local before=$SECONDS
	stop_daemon "$1" && [ $((SECONDS - before)) -le 30 ] # 5 where there is nothing else to do
}

for signal in TERM INT; do
	workers=()
	for i in 1 2 3; do
		materializing "$i" >"$dir/worker-$i" 2>&1 &
		workers+=($!)
	done
	cp -r "$src" "$dir/put-1"
	putting 1 >"$dir/worker-put" 2>&1 &
	workers+=($!)
	sleep 0.15
	check "SIG$signal with work running: the daemon ends soon, status 0" \
		stops_in_time "$signal"
	check 'its socket is gone' absent "$socket"
	check 'no litter is left, neither beside the targets nor in the store' eval \
		'no_litter "$out" && prints "" ls -A "$store/staging" && prints "" ls -A "$store/tmp"'
	wait "${workers[@]}"
	check 'all targets are whole' targets_are_whole
	rm -rf "$dir/put-1"
	empty_out
	start_daemon
	check 'it starts again, with the trees' dircache has --tree "$tree" "$small"
done

# ---- clients that die ----

for delay in 0.002 0.006 0.012 0.02; do
	dircache materialize "$tree" "$out/killed-$delay" 2>/dev/null &
	victim=$!
	dircache materialize "$small" "$out/other-$delay" &
	other=$!
	sleep "$delay"
	kill -KILL "$victim" 2>/dev/null
	wait "$victim" 2>/dev/null
	check "a client is killed after $delay s: the others do not notice" wait "$other"
done
check 'no litter stays' eventually 5 no_litter "$out"
check 'those targets are whole or absent' eval 'rm -r "$out"/other-*; targets_are_whole'
check 'no request is left open' eventually 5 eval '[ "$(counter requests_active)" -le 1 ]'
check 'no connection either' eventually 5 eval '[ "$(counter connections)" -le 1 ]'
empty_out

interrupted() { # SIGNAL
	dircache materialize "$tree" "$out/interrupted" &
	local victim=$!
	sleep 0.01
	kill "-$1" "$victim" 2>/dev/null
	wait "$victim"
	:
}
check 'a client ended by SIGTERM leaves nothing in part' eval \
	'interrupted TERM; eventually 5 no_litter "$out" && targets_are_whole'
empty_out
check 'the same tree can be materialized at once' dircache materialize "$tree" "$out/interrupted"
check 'whole' targets_are_whole

dircache put "$src" >/dev/null 2>&1 &
victim=$!
sleep 0.02
kill -KILL "$victim"
wait "$victim" 2>/dev/null
check 'a client killed in the middle of a put harms nobody' prints "$tree" dircache put "$src"

kill -PIPE "$daemon_pid"
sleep 0.1
check 'SIGPIPE does not end the daemon' eval 'dircache ping || { start_daemon; false; }'
finish
