#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What was not used for the longest time goes, when it is told to and when there is no room; what is tagged,
# leased or needed by others stays. The sizes said are those that du finds.
if [ -z "${DIRCACHE_STORY_UNSHARED-}" ] && unshare -m true 2>/dev/null; then
	DIRCACHE_STORY_UNSHARED=1 exec unshare -m --propagation private bash "$0" "$@"
fi
. "$(dirname "$0")/lib.sh"

M=$((1024 * 1024))
out=$dir/out
mkdir "$out"

# A tree NAME of its own file of a megabyte, a shared one, and an executable. Its digest is in ${tree[NAME]}.
declare -A tree
random_file() { # PATH BYTES
	head -c "$2" /dev/urandom >"$1"
}
random_file "$dir/shared" "$M"
put_tree() { # NAME...
	local name
	for name in "$@"; do
		mkdir -p "$dir/src/$name/sub"
		random_file "$dir/src/$name/own" "$M"
		cp "$dir/shared" "$dir/src/$name/sub/shared"
		printf '#!/bin/sh\necho %s\n' "$name" >"$dir/src/$name/sub/run"
		chmod +x "$dir/src/$name/sub/run"
		tree[$name]=$(dircache put "$dir/src/$name") || return
	done
}

use() { # NAME...
	local name
	for name in "$@"; do
		dircache materialize "${tree[$name]}" "$out/used" && same_tree "$dir/src/$name" "$out/used" &&
			dircache remove "$out/used" || return
	done
}

# These trees are cached, the last used first, and no others.
cached_are() { # NAME...
	local name want=
	for name in "$@"; do
		want+=${tree[$name]}$'\n'
	done
	prints "${want%$'\n'}" eval 'dircache trees | tail -n +2 | cut -d" " -f1'
}

gone() { # NAME...
	local name
	for name in "$@"; do
		exits 3 dircache has --tree "${tree[$name]}" && exits 3 dircache materialize "${tree[$name]}" "$out/gone" &&
			absent "$out/gone" || return
	done
}

on_disk() {
	du -s --block-size=1 "$store" | cut -f1
}
sizes_agree() {
	prints "$(on_disk)" counter allocated_bytes
}
as_du_has_it() { # once all is written that is on its way to the index
	eventually 5 sizes_agree
}

# Let what is next go, which has a megabyte of its own: half of that is asked for, as the index may grow meanwhile.
gc_next() {
	dircache gc --to $(($(counter allocated_bytes) - M / 2))
}

# ---- on demand ----

start_daemon
check 'four trees are stored' put_tree one two three four
check 'the first is used again' use one
check 'trees are in order of use' cached_are one four three two
check 'the third is tagged' dircache tag keep "${tree[three]}"
# What is still on its way to the index makes that larger, and a little more than one tree had to go.
check 'a restart writes all that there is to write' restart

want=$(dircache trees | awk -v "t=${tree[two]}" '$1 == t { print $5 }')
check 'what only one tree has is told from what it needs' \
	prints '3 2.0M 1.01M' eval 'dircache trees | awk -v "t=${tree[two]}" "\$1 == t { print \$2, \$3, \$5 }"'
counters_note
dry=$(dircache gc --to $(($(counter allocated_bytes) - M - 10000)) --dry-run)
check 'a dry run names the least recently used tree' matches "$dry" "^${tree[two]} "
check 'and what its end would give back' matches "$dry" "^[^ ]* +$want "
check 'and what would go' matches "$dry" $'\nwould evict 1 trees, 4 blobs, '
check 'and changes nothing' counters_added trees=0 blobs=0 evicted_trees=0 evicted_blobs=0
real=$(dircache gc --to $(($(counter allocated_bytes) - M - 10000)))
dry=${dry/would evict/evicted}
check 'a real run does what it said' prints "${dry% of *}" echo "${real% of *}"
check 'the tree is gone' gone two
check 'the others are not' cached_are one four three
check 'with all that is below them' use three four one
check 'counters agree' counters_added trees=-1 blobs=-4 evicted_trees=1 evicted_blobs=4
check 'sizes are those that du finds' as_du_has_it

check 'all that can go goes' dircache gc --to 0
check 'which is all but what is tagged' cached_are three
check 'that is still whole' use three
check 'and the rest is gone' gone one two four
check 'it can be put again' put_tree one
check 'a lease is taken' dircache materialize --lease 600 "${tree[one]}" "$out/leased"
check 'a leased tree stays' eval 'dircache gc --to 0 && cached_are one three'
check 'and is whole' use one
check 'the tag goes' dircache tag -d keep
check 'and then the tree may' eval 'dircache --json gc --to 0 >"$dir/gc"'
check 'as it says' grep -q "^{\"trees\":\[{\"digest\":\"${tree[three]}\",\"bytes\":[0-9]*,\"last_used\":[0-9]*}\],\"evicted_trees\":1,\"evicted_blobs\":4," "$dir/gc"
check 'the leased one is still there' cached_are one

# ---- without --to, and after a restart ----

check 'a restart ends the lease' restart
check 'a file that is in no tree is stored' eval 'echo alone >"$dir/alone"; dircache put "$dir/alone"'
check 'without a cap, gc takes what no tree needs' says 'evicted 0 trees, 1 blobs' dircache gc
check 'trees are stored' put_tree two three four
check 'and used' use one two
check 'a restart' restart
check 'keeps the order of use' cached_are two one four three
check 'by which they go' gc_next
check 'the oldest first' cached_are two one four
check 'then the next' eval 'gc_next >/dev/null && cached_are two one'
check 'and the others are whole' use one two
check 'sizes are those that du finds' as_du_has_it
check 'a size is a number' says 'is no size' exits 2 dircache gc --to much

# ---- a tag on a part of a tree, and tags alone ----

tagged_part_stays() {
	local part
	dircache gc --to 0 && put_tree whole && part=$(dircache put "$dir/src/whole/sub") &&
		dircache materialize "${tree[whole]}" "$out/whole" || return
	stop_daemon && rm -rf "$store" && start_daemon && dircache put "$dir/src/whole" || return
	prints 1 counter trees && dircache tag part "$part" && dircache gc --to 0 && prints 1 counter trees &&
		gone whole && rm -rf "$out/whole" && dircache materialize part "$out/whole" &&
		same_tree "$dir/src/whole/sub" "$out/whole"
}
check 'a part of a tree that has a tag stays whole' tagged_part_stays
check 'a file too' eval 'dircache tag file "$(dircache put "$dir/shared")" && dircache gc --to 0 && dircache has "$(digest_of "$dir/shared")"'
lost_index() {
	stop_daemon && rm "$store"/index.sqlite* && start_daemon && dircache gc --to 0 &&
		rm -rf "$out/whole" && dircache materialize part "$out/whole" &&
		same_tree "$dir/src/whole/sub" "$out/whole"
}
used_file_stays() {
	local used idle
	random_file "$dir/used" "$M"
	random_file "$dir/idle" "$M"
	dircache gc --to 0 && used=$(dircache put "$dir/used") && idle=$(dircache put "$dir/idle") &&
		dircache materialize --file "$used" "$out/used-file" && gc_next && dircache has "$used" &&
		exits 3 dircache has "$idle"
}
check 'of two files in no tree the one that was materialized last stays' used_file_stays
check 'so does what has a tag when the index is lost' lost_index
check 'the daemon stops' stop_daemon

# ---- a cap ----

rm -rf "$store" "$dir/src"
start_daemon --max-size 12M
names=()
keeps_the_cap() {
	local i
	for i in {1..25}; do
		names+=("t$i")
		put_tree "t$i" || return
		[ "$i" -lt 2 ] || use t1 || return
		[ "$(on_disk)" -le $((12 * M)) ] || { on_disk; return 1; }
	done
}
check 'trees of twice the cap are stored, and it is kept' keeps_the_cap
check 'the last one is there' use t25
check 'so is the one in constant use' use t1
check 'old ones are not' gone t2 t3 t4 t5
check 'the log says what went' grep -Eq 'evicted [0-9]+ trees and [0-9]+ blobs, ' "$daemon_log"
check 'sizes are those that du finds' as_du_has_it
n_trees=$(counter trees)
random_file "$dir/huge" $((13 * M))
check 'what cannot fit is refused' says 'do not fit' exits 1 dircache put "$dir/huge"
check 'and nothing went for it' counters_are "trees=$n_trees"
check 'without --to, gc goes down to the low mark' dircache gc
check 'that is 90 % of the cap' test "$(counter allocated_bytes)" -le $((12 * M * 9 / 10))
check 'the daemon stops' stop_daemon

# ---- on an ext4 of its own ----

make_ext4() { # SIZE
	local image
	umount "$dir/ext4" 2>/dev/null
	mkdir -p "$dir/ext4"
	[ -n "${DIRCACHE_STORY_UNSHARED-}" ] || return
	image=$(mktemp "$dir/image.XXXXXX")
	truncate -s "$1" "$image"
	mkfs.ext4 -q -m 0 "$image" >/dev/null 2>&1 && mount -o loop "$image" "$dir/ext4" 2>/dev/null &&
		defer umount "$dir/ext4"
	set -- $?
	rm -f "$image"
	return "$1"
}

many_sizes() {
	local size i
	mkdir -p "$dir/src/sizes"
	for size in 0 1 1000 4096 4097 70000 $M $((40 * M + 1)); do
		random_file "$dir/src/sizes/$size" "$size"
		cp "$dir/src/sizes/$size" "$dir/src/sizes/$size.x"
		chmod +x "$dir/src/sizes/$size.x"
	done
	for i in {1..3000}; do
		echo "$i" >"$dir/src/sizes/i$i"
	done
	tree[sizes]=$(dircache put "$dir/src/sizes")
}
exact_sizes() {
	sync -f "$store"
	as_du_has_it
}
if make_ext4 400M; then
	store=$dir/ext4/store
	start_daemon
	check 'files of all sizes are stored on an ext4' many_sizes
	check 'sizes are those that du finds, to the block' exact_sizes
	check 'some trees more' put_tree one two three
	check 'and one goes' dircache gc --to $((125 * M))
	check 'to the block' exact_sizes
	check 'all goes' dircache gc --to 0
	check 'to the block' exact_sizes
	check 'after a restart too' eval 'restart && exact_sizes'
	check 'the daemon stops' stop_daemon
else
	skip 'sizes are those that du finds, to the block' 'no ext4 can be mounted here'
fi

# ---- a floor of free disk ----

fill() { # N
	local i
	for ((i = 1; i <= $1; i++)); do
		put_tree "f$i" || return
		[ -z "${link-}" ] || dircache materialize "${tree[f$i]}" "$dir/ext4/out/f$i" || return
	done
}
if make_ext4 64M; then
	store=$dir/ext4/store
	mkdir -p "$dir/ext4/out"
	start_daemon --min-free 24M
	check 'trees that fill the disk are stored, and old ones go' fill 60
	check 'the floor is kept' test "$(df --output=avail -B1 "$dir/ext4" | tail -n 1)" -ge $((24 * M))
	check 'the last one is there' use f60
	check 'old ones are not' gone f1
	check 'all goes' dircache gc --to 0
	link=y
	check_fails 'what is linked elsewhere frees nothing, so there is no room' fill 60
	link=
	n_trees=$(counter trees)
	check_fails 'still none' put_tree more
	check 'and nothing goes for nothing' counters_are "trees=$n_trees"
	check 'with the links gone' rm -rf "$dir/ext4/out"
	check 'there is room' put_tree more
	check 'for another one, too' put_tree other
	check 'for old trees went' gone f1
	check 'the daemon stops' stop_daemon
else
	skip 'a floor of free disk is kept' 'no ext4 can be mounted here'
fi
finish
