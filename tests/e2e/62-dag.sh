#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Every Directory is an entry of the cache: what is below a cached tree is a hit, and a tree that differs in
# one file is resolved along the path of the change only; after a restart too, and however little memory the
# Directories may take. A tree beyond the limits is refused, however small the DAG that stands for it.
. "$(dirname "$0")/lib.sh"

src=$dir/src
out=$dir/out
mkdir "$out"

make_sources() { # four folders of two folders each: 13 Directories, no two alike
	local i j
	for i in {1..4}; do
		for j in a b; do
			make_folder "$src/$i/$j" "plain: $i$j" "run*: #!/bin/sh $i$j" 'shared: by all' 'link@ plain'
		done
		make_folder "$src/$i" "top: $i"
	done
}

# Store what a tree is made of, but not the tree: files flat, and each Directory as a plain blob.
store_parts() {
	rm -rf "$dir/flat" "$dir/messages"
	"${python[@]}" "$here/reapi.py" flat "$src" "$dir/flat" &&
		"${python[@]}" "$here/reapi.py" messages "$src" "$dir/messages" >"$dir/digest" &&
		dircache put "$dir/flat" && dircache put "$dir/messages"/* && tree=$(cat "$dir/digest")
}

change() { # FILE WORD
	printf %s "$2" >"$src/$1" && store_parts
}

digest_of_tree() { # FOLDER
	"${python[@]}" "$here/reapi.py" digest "$1"
}

# It appears, and is FOLDER.
makes() { # DIGEST FOLDER
	rm -rf "$out/made"
	dircache materialize "$1" "$out/made" && same_tree "$2" "$out/made"
}

# A tree of 13 Directories in which one of the third level changed: three are new, the four beside them known.
changed_path_only=(tree_misses=1 tree_hits=0 tree_constructions=1 directory_misses=3 directory_hits=4)

# ---- a first tree, its parts, and one that differs from it ----

make_sources
start_daemon
check 'the parts of a tree are stored' store_parts
counters_note
check 'it appears' makes "$tree" "$src"
check 'as a miss that reads each Directory once' \
	counters_added tree_misses=1 tree_constructions=1 directory_misses=13 directory_hits=0
counters_note
check 'a folder of it appears' makes "$(digest_of_tree "$src/2")" "$src/2"
check 'and one in that' makes "$(digest_of_tree "$src/2/b")" "$src/2/b"
check 'as hits, for which nothing is read' \
	counters_added tree_hits=2 tree_misses=0 tree_constructions=0 directory_misses=0 directory_hits=0
check 'one file changes' change 2/a/plain changed
counters_note
check 'the changed tree appears' makes "$tree" "$src"
check 'as a miss that resolves the changed path only' counters_added "${changed_path_only[@]}"

# ---- after a restart ----

check 'the daemon starts again' restart
check 'the tree appears' makes "$tree" "$src"
check 'a folder of it too' makes "$(digest_of_tree "$src/4/a")" "$src/4/a"
check 'as hits' counters_are tree_hits=2 tree_misses=0 directory_misses=0 directory_hits=0
check 'another file changes' change 3/b/run 'echo changed'
counters_note
check 'the changed tree appears' makes "$tree" "$src"
check 'as a miss that resolves the changed path only' counters_added "${changed_path_only[@]}"

# ---- with no memory for what is not in use ----

# What eviction goes by: each tree's size and what is unique to it, what would go, and how many hold it.
what_would_go() {
	dircache trees | awk '{ print $1, $2, $3, $4, $5 }' && dircache gc --to 0 --dry-run
}
check 'the daemon starts again' restart
before=$(what_would_go) # which waits until all cached trees are read
nodes=$(counter nodes)
check 'the Directories of cached trees are in memory' test "$(counter node_bytes)" -gt 1000
all_asleep() {
	counters_are node_bytes=0 "nodes=$nodes"
}
none_awake() {
	counters_are node_bytes=0
}
check 'it starts without memory for them' restart --node-memory 0
check 'what would be evicted is the same' prints "$before" what_would_go
check 'all are known, and none stays awake' eventually 5 all_asleep
old=$tree
check 'the tree appears' makes "$tree" "$src"
check 'a folder of it too' makes "$(digest_of_tree "$src/1")" "$src/1"
check 'as hits' counters_are tree_hits=2 tree_misses=0 directory_misses=0 directory_hits=0
check 'and sleeps again' eventually 5 none_awake
check 'another file changes' change 1/a/plain 'changed too'
counters_note
check 'the changed tree appears' makes "$tree" "$src"
check 'as a miss that resolves the changed path only' counters_added "${changed_path_only[@]}"
check 'sixteen at once appear' together 16 dircache materialize "$tree" "$out/{}"
check 'as hits' counters_added tree_hits=16 tree_misses=1
check 'whole' same_tree "$src" "$out/16"
check 'the one before it appears' dircache materialize "$old" "$out/old"
check 'as it was' prints 1a cat "$out/old/1/a/plain"
check 'one who looks sees it' says '1/a/plain' exits 0 dircache ls -R "$tree"
check 'all is let go' dircache gc --to 0
check 'with every blob and every Directory that slept' eventually 5 counters_are trees=0 nodes=0 blobs=0 node_bytes=0
check 'the parts of a tree are stored' store_parts
check 'a tree that was never resolved gets a tag' dircache tag parts "$tree"
check 'all else is let go' dircache gc --to 0
check 'and not what is below it' makes parts "$src"
check 'the tag goes' dircache tag -d parts
check 'the tree is put' prints "$tree" dircache put "$src"
check 'and appears' makes "$tree" "$src"

# ---- a little memory ----

check 'it starts with memory for some' restart --node-memory 8K
bounded() {
	[ "$(counter node_bytes)" -le 8192 ]
}
many_trees() {
	local i
	for i in {1..20}; do
		make_folder "$dir/many/$i" "f$i: $i" "d/g$i: $i"
		rm -rf "$out/many"
		dircache put "$dir/many/$i" >"$dir/many.$i" && dircache materialize "$(cat "$dir/many.$i")" "$out/many" ||
			return
	done
}
check 'twenty trees are stored and used' many_trees
check 'their Directories take no more than that' eventually 5 bounded
counters_note
all_are_hits() {
	local i
	for i in {1..20}; do
		makes "$(cat "$dir/many.$i")" "$dir/many/$i" || return
	done
}
check 'all appear' all_are_hits
check 'as hits' counters_added tree_hits=20 tree_misses=0
check 'within the memory' eventually 5 bounded

# ---- limits ----

refused() { # DIGEST WORDS
	says "$2" exits 1 dircache materialize "$1" "$out/refused" && absent "$out/refused" && no_litter "$out"
}
# Forty Directories, each with the one below it twice.
store_doubling() {
	(cd "$here" && "${python[@]}" -c '
import reapi, sys
digest = reapi.write_directory(sys.argv[1] + "/0", [])
for i in range(40):
    below = reapi.text(digest)
    digest = reapi.write_directory("%s/%d" % (sys.argv[1], i + 1), ["directory", "l", below, "directory", "r", below])
print(reapi.text(digest))' "$1") && dircache put "$1"/* >/dev/null
}
mkdir "$dir/doubling"
doubling=$(store_doubling "$dir/doubling")
check 'a DAG of 40 Directories that stands for 2^40 is refused' refused "$doubling" max-tree-directories
check 'so is the tree that is half of it' refused "$(digest_of "$dir/doubling/39")" max-tree-directories
check 'and neither is cached' eval '! dircache trees | grep -e "$doubling"'
check 'one of ten levels appears' dircache materialize "$(digest_of "$dir/doubling/10")" "$out/ten"
check 'with all its 2047 directories' prints 2047 eval 'find "$out/ten" | wc -l'

make_folder "$dir/limited" 'a: 1' 'b: 2' 'c/d: 345'
limited=$(dircache put "$dir/limited")
of_another_size() { # nothing was changed, and the right digest is as good as before
	says 'or has another size' exits 3 dircache materialize "${limited%/*}/7" "$out/refused" &&
		absent "$out/refused" && [ "$(counter tampered_blobs)" = 0 ] &&
		dircache has --tree "$limited"
}
check 'a digest with a wrong size is not in the store, and is no tampering' of_another_size

limit() { # OPTION VALUE WORDS
	restart "$1" "$2" && refused "$limited" "$3" && fails dircache put "$dir/limited" &&
		restart "$1" $(($2 + 1)) && makes "$limited" "$dir/limited"
}
check 'a tree has so many files' limit --max-tree-files 2 '3 files: the limit is 2 (max-tree-files)'
check 'so many directories' limit --max-tree-directories 1 '2 directories: the limit is 1 (max-tree-directories)'
check 'so many levels' limit --max-tree-depth 1 '2 levels: the limit is 1 (max-tree-depth)'
check 'so many bytes' limit --max-tree-size 4 '5 bytes: the limit is 4 (max-tree-size)'
check 'and a Directory so many entries' limit --max-directory-entries 2 '3 entries: the limit is 2'
finish
