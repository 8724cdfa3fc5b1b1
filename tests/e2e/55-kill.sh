#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# kill -9 at any moment: what was answered is there, what was half done is gone, and no litter stays.
# ROUNDS=N for a longer run.
. "$(dirname "$0")/lib.sh"

rounds=${ROUNDS:-25}
out=$dir/out
work=$dir/work
mkdir "$out" "$work"

trees() {
	dircache --json trees | tr -d ' \n' | grep -o '"digest":"[^"]*"' | cut -d'"' -f4
}

# Put new trees until the daemon is gone; note each that was answered.
putter() { # NAME
	local i=0 folder digest
	while :; do
		i=$((i + 1))
		folder=$work/$1-$i
		mkdir -p "$folder/sub/deep"
		for name in a b sub/c sub/d sub/deep/e; do
			echo "$1 $i $name $RANDOM" >"$folder/$name"
		done
		echo '#!/bin/sh' >"$folder/sub/run"
		chmod 755 "$folder/sub/run"
		cp -r "$dir/base/1" "$folder/base"
		digest=$(dircache put "$folder") || return
		echo "$digest $folder" >>"$work/$1.put"
	done
} 2>/dev/null

# Materialize known trees until the daemon is gone; note each that was answered.
materializer() { # NAME
	local i=0
	while :; do
		i=$((i + 1))
		dircache materialize "$base" "$out/$1-$i" || return
		echo "$out/$1-$i" >>"$work/$1.made"
		[ $((i % 3)) != 0 ] || dircache remove "$out/$1-$i" || return
	done
} 2>/dev/null

start_daemon
for i in {1..20}; do
	mkdir -p "$dir/base/$i"
	for j in {1..20}; do
		echo "base $i $j" >"$dir/base/$i/$j"
	done
done
base=$(dircache put "$dir/base") || die 'put failed'

empty() { # FOLDER
	prints '' ls -A "$1"
}
clean() {
	no_litter "$out" && empty "$store/tmp" && no_records
}
something_answered() {
	[ -n "$(cat "$work"/*.put)" ]
}
answered_is_there() {
	local digest folder n=0
	while read -r digest folder; do
		dircache has --tree "$digest" || return
		dircache materialize "$digest" "$out/check" && same_tree "$folder" "$out/check" || return
		rm -r "$out/check"
		n=$((n + 1))
	done < <(cat "$work"/*.put 2>/dev/null)
	n_put=$((n_put + n))
	counters_are tree_misses=0 "tree_hits=$n"
}
# Targets that are there are whole, answered or not; those answered and not removed are there.
targets_are_whole() {
	local target
	for target in "$out"/*; do
		diff -r "$dir/base" "$target" || return
		n_made=$((n_made + 1))
	done
}

n_put=0
n_made=0
for ((round = 1; round <= rounds; round++)); do
	workers=()
	for i in 1 2 3; do
		putter "p$round-$i" &
		workers+=($!)
	done
	for i in 1 2; do
		materializer "m$round-$i" &
		workers+=($!)
	done
	# Every other time not before a put was answered, however slow all is.
	[ $((round % 2)) = 0 ] || eventually 20 something_answered
	sleep "0.$(printf %03d $((RANDOM % 300 + 20)))"
	kill_daemon
	wait "${workers[@]}"
	start_daemon
	if ! eventually 5 clean >"$dir/litter" ||
		! answered_is_there >"$dir/answered" 2>&1 || ! targets_are_whole >"$dir/whole" 2>&1; then
		break
	fi
	rm -rf "$work" "$out"
	mkdir "$work" "$out"
done
if [ "$round" -le "$rounds" ]; then
	check "round $round: litter is gone within 5 seconds" eval 'cat "$dir/litter"; [ ! -s "$dir/litter" ]'
	check "round $round: what was answered is there" eval 'cat "$dir/answered"; [ ! -s "$dir/answered" ]'
	check "round $round: what appeared is whole" eval 'cat "$dir/whole"; [ ! -s "$dir/whole" ]'
fi
check "$rounds kills: nothing answered was lost, nothing was in part, no litter stayed" \
	[ "$round" -gt "$rounds" ]
echo "# $n_put puts and $n_made targets looked at"
check 'there was something to lose' eval '[ "$n_put" -ge $((rounds / 2)) ] && [ "$n_made" -gt 0 ]'

# ---- half done ----

big() { # FOLDER
	local i
	for i in {1..20}; do
		mkdir -p "$1/$i"
		(cd "$1/$i" && seq "$i" $((i + 150)) | split -l 1 -a 3 - f)
	done
}
big "$dir/big"
big=$(dircache put "$dir/big") || die 'put failed'
dircache materialize "$big" "$out/big" || die 'materialize failed'
check 'a removal is answered' dircache remove "$out/big"
kill_daemon
check 'and the name is free' absent "$out/big"
start_daemon
check 'after a kill the rest of it is removed' eventually 5 clean

removing() {
	dircache remove "$out/big"
}
materializing() {
	dircache materialize "$big" "$out/new"
}
for delay in 0.005 0.02 0.04; do
	dircache materialize "$big" "$out/big" || die 'materialize failed'
	removing 2>/dev/null &
	first=$!
	materializing 2>/dev/null &
	sleep "$delay"
	kill_daemon
	wait "$first" $! 2>/dev/null
	start_daemon
	check "killed $delay s into a removal and a materialize: no litter stays" eventually 5 clean
	[ ! -e "$out/new" ] || check 'what appeared is whole' same_tree "$dir/big" "$out/new"
	[ ! -e "$out/big" ] || check 'what was not removed is whole' same_tree "$dir/big" "$out/big"
	rm -rf "$out/new" "$out/big"
done

# ---- order of use ----

digests=()
for i in {1..8}; do
	digests+=("$(make_tree "file: order $i")")
done
for i in 3 1 7 5; do
	dircache materialize "${digests[i]}" "$out/use-$i"
done
order=$(trees)
check 'the tree used last comes first' [ "${order%%$'\n'*}" = "${digests[5]}" ]
# The last use that the index knows of; read from a copy, since the daemon has it for itself.
use_in_index() {
	rm -rf "$dir/index"
	mkdir "$dir/index"
	cp "$store"/index.sqlite* "$dir/index"
	"${python[@]}" -c 'import sqlite3, sys
print(*sqlite3.connect(sys.argv[1]).execute("SELECT max(used) FROM trees").fetchone())' "$dir/index/index.sqlite"
}
last_use() {
	dircache --json trees | tr -d ' \n' | grep -o '"last_used":[0-9]*' | head -n 1 | cut -d: -f2
}
check 'and the index hears of it' eventually 5 eval 'prints "$(last_use)" use_in_index'
kill_daemon
start_daemon
check 'a kill leaves the order of use as it was a moment before' prints "$order" trees
check 'and the trees' dircache has --tree "${digests[@]}" "$big" "$base"
finish
