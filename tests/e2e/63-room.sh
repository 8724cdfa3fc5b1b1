#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What does not fit is refused, by name and with numbers, and harms nothing that is there; what fits once
# others are gone has them evicted; what a put has stored stays until it ends, however it ends.
. "$(dirname "$0")/lib.sh"

out=$dir/out
mkdir "$out"
cap=$((32 * 1024 * 1024))

random_file() { # PATH MEGABYTES
	mkdir -p "$(dirname "$1")"
	head -c "$(($2 * 1024 * 1024))" /dev/urandom >"$1"
}

# Three trees of 2 MB each, of which all else must leave two in peace.
declare -A tree
put_trees() {
	local name
	for name in one two three; do
		random_file "$dir/$name/own" 2
		make_folder "$dir/$name" 'below/run*: #!/bin/sh' "name: $name"
		tree[$name]=$(dircache put "$dir/$name") || return
	done
}

# They are there, whole, and nobody had to look for them.
are_hits() { # NAME...
	local name
	for name in "$@"; do
		counters_note && dircache materialize "${tree[$name]}" "$out/hit" && counters_added tree_hits=1 &&
			same_tree "$dir/$name" "$out/hit" && dircache remove "$out/hit" || return
	done
}

are_gone() { # NAME...
	local name
	for name in "$@"; do
		exits 3 dircache has --tree "${tree[$name]}" || return
	done
}

nothing_was_evicted() {
	counters_are evicted_trees=0 evicted_blobs=0
}

some_blobs_were_evicted() {
	(($(counter evicted_blobs) > 0)) || { dircache stats; return 1; }
}

within_the_cap() {
	(($(counter allocated_bytes) <= cap)) || { dircache stats; return 1; }
}

start_daemon --max-size 32M
check 'three trees are stored' put_trees

# ---- what cannot fit ----

random_file "$dir/large" 33
check 'a file larger than the cap is refused, with both sizes' \
	says 'of the 32.0M that the cache may have (--max-size)' exits 1 dircache put "$dir/large"
check 'and is named' says "'$dir/large': storing the file, of 33.0M in all: " exits 1 dircache put "$dir/large"
check 'the trees are hits all the same' are_hits one two three
check 'and nothing went for it' nothing_was_evicted

for i in {1..33}; do
	random_file "$dir/wide/folder$i/file" 1
done
check 'a tree larger than the cap is refused, with the path of a file in it' \
	says "/file', of 33.0M in all: 1.0M more do not fit: of the 32.0M that the cache may have" \
	exits 1 dircache put "$dir/wide"
check 'the trees are hits all the same' are_hits one two three
check 'and no tree went for it' counters_are evicted_trees=0
check 'the cap was kept' within_the_cap

# ---- what fits when others go ----
#
# The three trees take 6 MB, and what is no blob 4 MB (the reserve) and up to 1.8 MB more. Above 30.4 MB it is
# evicted in the background, down to 28.8 MB.

put_tree() { # NAME
	tree[$1]=$(dircache put "$dir/$1")
}

for i in 1 2 3; do
	random_file "$dir/fits/$i" 5
done
check 'one that fits is put' put_tree fits
check 'what was stored of refused puts made room for it' some_blobs_were_evicted
check 'and no tree went' counters_are evicted_trees=0
check 'the cap was kept' within_the_cap
check 'a tree is used that was put before it' are_hits two
check 'it is materialized, too' dircache materialize "${tree[fits]}" "$out/fits"

# 31 MB and more: what goes is more than one tree of 2 MB, and no more than two.
random_file "$dir/next/file" 6
check 'the next is put' put_tree next
check 'and the two trees that were not used for the longest time go' \
	eventually 10 counters_are evicted_trees=2
check 'which are these' are_gone one three
check 'and the others are hits' are_hits two fits next
check 'the cap was kept' within_the_cap

# 43 MB: 2 MB are too little, and then there are the first 15 MB of what is left, but not the last 6.
random_file "$dir/more/file" 16
check 'a large one is put' put_tree more
check 'for which as many trees go as have to' counters_are evicted_trees=4
check 'the oldest' are_gone two fits
check 'and the others are hits' are_hits next more
check 'the cap was kept' within_the_cap
check 'a materialized tree is whole without the cache' same_tree "$dir/fits" "$out/fits"

# ---- what a put holds ----

random_file "$dir/held" 16
random_file "$dir/large-enough" 16
cat >"$dir/hold.py" <<'END'
"""Put a file, say so, and wait to be killed; or to be told to commit."""
import os, sys
sys.path.insert(0, sys.argv[1])
import rpc
client = rpc.Client(sys.argv[2])
put = client.call("put", {"step": "begin"})["put"]
fd = os.open(sys.argv[3], os.O_RDONLY)
client.call("put", {"step": "entries", "put": put, "entries": [{"type": "file", "fd": 0}]}, [fd])
print("held", flush=True)
sys.stdin.read()
END
mkfifo "$dir/never"
hold() {
	"${python[@]}" "$dir/hold.py" "$here" "$socket" "$dir/held" <>"$dir/never" >"$dir/holder" 3>&- &
	holder=$!
	eventually 10 grep -q held "$dir/holder"
}
check 'a client has stored a file and does not say more' hold
check 'what it stored is not evicted for another' says 'do not fit' exits 1 dircache put "$dir/large-enough"
kill -KILL "$holder"
wait "$holder" 2>/dev/null
check 'when it is dead, it is' eventually 10 dircache put "$dir/large-enough"
check 'the cap was kept' within_the_cap

# ---- after a restart ----

check 'a daemon with a smaller cap comes down to it' restart --max-size 16M
comes_down() {
	cap=$((16 * 1024 * 1024)) within_the_cap
}
check 'in the background' eventually 10 comes_down
stop_daemon

# ---- a great many small files ----

store=$dir/store2
start_daemon --max-size 16M
check 'three trees are stored' put_trees
mkdir "$dir/crumbs"
for i in {1..4500}; do
	echo "$i" >"$dir/crumbs/$i"
done
check 'many small files take more than their bytes, and are refused for that' \
	says 'do not fit' exits 1 dircache put "$dir/crumbs"
check 'the trees are hits all the same' are_hits one two three
check 'and none of them went' counters_are evicted_trees=0
stop_daemon

# ---- a kind of a blob that is made when it is asked for ----

store=$dir/store3
start_daemon --max-size 24M
random_file "$dir/tool" 7
random_file "$dir/other" 8
store_both() {
	tool=$(dircache put --tag tool "$dir/tool") && other=$(dircache put --tag other "$dir/other")
}
make_executable() {
	dircache materialize --file --executable "$tool" "$out/tool" && cmp "$dir/tool" "$out/tool" && rm -f "$out/tool"
}
check 'of a blob there is one kind, and another blob' store_both
check 'its other kind needs room of its own, and while all is tagged there is none' says 'do not fit' exits 1 make_executable
check 'which leaves nothing at the target' absent "$out/tool"
check 'when something is needed no more' dircache tag -d other
check 'it gets its room' make_executable
check 'that of what was not needed' exits 3 dircache has "$other"
finish
