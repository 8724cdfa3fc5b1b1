#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What is known stays known: trees, their order of use, tags and blobs outlive a stop and a start.
. "$(dirname "$0")/lib.sh"

trees() {
	dircache --json trees | tr -d ' \n' | grep -o '"digest":"[^"]*"' | cut -d'"' -f4
}

start_daemon
out=$dir/out
mkdir "$out"
make_folder "$dir/src" 'a: alpha' 'sub/b: beta' 'sub/c*: gamma' 'sub/deep/d: delta'
one=$(dircache put "$dir/src")
sub=$(dircache put "$dir/src/sub")
two=$(make_tree 'two: 2')
three=$(make_tree 'three: 3')
check 'a tag is set' dircache tag keep "$two"
check 'two is used' dircache materialize "$two" "$out/two"
check 'one is used last' dircache materialize "$one" "$out/one"
order=$(printf '%s\n' "$one" "$two" "$three" "$sub")
check 'trees are in order of use' prints "$order" trees
blobs=$(counter blobs)
bytes=$(counter blob_bytes)
rm -r "$out/one" "$out/two"

check 'the daemon stops' stop_daemon
check 'its socket is gone' absent "$socket"
check 'and starts' start_daemon
check 'events count from zero' counters_are tree_hits=0 files_linked=0 put_files=0
check 'levels are as they were' counters_are trees=4 tags=1 "blobs=$blobs" "blob_bytes=$bytes"
check 'so is the order of use' prints "$order" trees
check 'the tag names its tree' says "$two" exits 0 dircache tags
check 'a tree appears' dircache materialize "$one" "$out/one"
check 'as a hit' counters_are tree_hits=1 tree_misses=0 tree_constructions=0
check 'whole' same_tree "$dir/src" "$out/one"
check 'a subtree that was never put by itself appears' \
	dircache materialize "$("${python[@]}" "$here/reapi.py" digest "$dir/src/sub/deep")" "$out/deep"
check 'as a hit' counters_are tree_hits=2 tree_misses=0
check 'a tag appears' dircache materialize keep "$out/two"
check 'as a hit' counters_are tree_hits=3 tree_misses=0
check 'it is there with all that is below it' dircache has --tree "$one" "$two" "$three" "$sub"
counters_note
check 'putting it again' dircache put "$dir/src"
check 'stores nothing' counters_added blobs=0 blob_bytes=0 trees=0

check 'another stop and start' restart
n_trees=$(counter trees)
check 'and the order of use went on' prints "$one" eval 'trees | head -n 1'

# ---- one store, one daemon; one socket, one daemon ----

refused() { # OPTION...
	timeout 20 dircached "$@"
}
check 'a second daemon on the store is refused, by name' \
	says "$store" exits 1 refused --store "$store" --socket "$dir/s2"
check 'and leaves no socket' absent "$dir/s2"
check 'a second daemon on the socket is refused, by name' \
	says "$socket" exits 1 refused --store "$dir/store2" --socket "$socket"
check 'the first one still answers' dircache ping
check 'with what it has' counters_are "trees=$n_trees"

kill_daemon
check 'a killed daemon leaves its socket' test -S "$socket"
check 'nobody is there' exits 4 dircache ping
check 'the next one takes its place' start_daemon
echo keep >"$dir/file"
check_fails 'a file at the socket is not replaced' refused --store "$dir/store2" --socket "$dir/file"
check 'and kept' prints keep cat "$dir/file"
check_fails 'a store that is a file is refused' refused --store "$dir/file" --socket "$dir/s2"

# ---- a tag goes, and stays gone ----

check 'a tag is deleted' dircache tag -d keep
check 'and a restart' restart
check 'does not bring it back' prints '' dircache tags
check 'the tree is still there' dircache has --tree "$two"
finish
