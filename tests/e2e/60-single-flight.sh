#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Many callers, one piece of work: a tree whose Directories were never read is resolved once, however many
# ask at once; a changed one only along the path of the change.
. "$(dirname "$0")/lib.sh"

"${python[@]}" -c 'import msgpack' 2>/dev/null || skip_story 'no msgpack for Python (Debian: python3-msgpack)'
src=$dir/src
make_sources() { # N WORD: 60 N files in 60 folders of two levels
	local i j
	rm -rf "$src"
	for i in {1..20}; do
		for j in a b c; do
			mkdir -p "$src/$i/$j"
			(cd "$src/$i/$j" && seq -f "$2 $i $j %g" "$1" | split -l 1 -a 2 - f)
		done
	done
}

# Store what a tree is made of, but not the tree: files flat, and each Directory as a plain blob.
store_parts() {
	rm -rf "$dir/flat" "$dir/messages"
	"${python[@]}" "$here/reapi.py" flat "$src" "$dir/flat" &&
		"${python[@]}" "$here/reapi.py" messages "$src" "$dir/messages" >"$dir/digest" &&
		dircache put "$dir/flat" && dircache put "$dir/messages"/*
}

burst() { # N
	rm -rf "$dir/out"
	mkdir "$dir/out"
	"${python[@]}" "$here/rpc.py" burst "$socket" "$daemon_pid" "$1" "$tree" "$dir/out"
}

all_whole() { # N
	local i
	same_tree "$src" "$dir/out/1" || return
	for ((i = 2; i <= $1; i++)); do
		same_links "$dir/out/1" "$dir/out/$i" || return
	done
}

start_daemon
for n in 16 64; do
	each=$((n == 16 ? 50 : 5))
	make_sources "$each" "for $n"
	check "the parts of a tree are stored, for $n callers" store_parts
	tree=$(cat "$dir/digest")
	check 'its Directories are known as blobs only' dircache has "$tree"
	counters_note
	check "$n callers at once: one constructs, the others join" \
		prints "join $((n - 1))"$'\nmiss 1' burst "$n"
	check 'so say the counters' \
		counters_added tree_misses=1 "tree_joins=$((n - 1))" tree_constructions=1 tree_hits=0 trees=1
	check 'each of 81 Directories was read once' counters_added directory_misses=81
	check 'each target is whole' all_whole "$n"
	check 'and of links only' counters_added "files_linked=$((n * each * 60))" files_copied=0
	check 'nothing is beside them' no_litter "$dir/out"
	counters_note
	check "$n callers again: all are hits" prints "hit $n" burst "$n"
	check 'so say the counters' \
		counters_added "tree_hits=$n" tree_misses=0 tree_joins=0 tree_constructions=0
	check 'nothing was read for them' counters_added directory_misses=0
done

echo changed >"$src/7/b/fac"
check 'the parts of a tree with one changed file are stored' store_parts
tree=$(cat "$dir/digest")
counters_note
check 'sixteen callers at once' prints $'join 15\nmiss 1' burst 16
check 'only the changed path was read: the root and two folders' \
	counters_added tree_misses=1 tree_constructions=1 directory_misses=3
check 'each target is whole' all_whole 16

make_sources 20 "for the command line"
check 'the parts of another tree are stored' store_parts
tree=$(cat "$dir/digest")
counters_note
rm -rf "$dir/out"
mkdir "$dir/out"
check 'sixteen commands at once' together 16 dircache materialize "$tree" "$dir/out/{}"
check 'one construction' counters_added tree_misses=1 tree_constructions=1
joins=$(counter tree_joins)
hits=$(counter tree_hits)
check 'all others joined or hit' counters_added "tree_joins=$((joins - $(noted tree_joins)))" \
	"tree_hits=$((15 - joins + $(noted tree_joins)))"
echo "# $((joins - $(noted tree_joins))) joined, $((hits - $(noted tree_hits))) hit"
check 'each target is whole' all_whole 16

# ---- a failure is shared, and not kept ----

missing=$dir/late
echo 'comes late' >"$missing"
blob=$(digest_of "$missing")
tree=$("${python[@]}" "$here/reapi.py" directory "$dir/broken" file late "$blob" file late-too "$blob")
dircache put "$dir/broken" >/dev/null
rm -rf "$dir/out"
mkdir "$dir/out"
all_absent() {
	local i
	together 16 dircache materialize "$tree" "$dir/out/{}" && return 1
	for i in {1..16}; do
		grep -q "$blob" "$dir/together/$i.err" || { echo "$i does not name it"; return 1; }
	done
}
check 'sixteen commands for a tree that lacks a blob: each is told which' all_absent
check 'nothing appeared' prints '' ls -A "$dir/out"
dircache put "$missing" >/dev/null
check 'once the blob is there, the same tree appears' dircache materialize "$tree" "$dir/out/late"
check 'whole' prints 'comes late' cat "$dir/out/late/late"
finish
