#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Where a tree may appear and where not: never over something, never in part, never with litter beside it.
. "$(dirname "$0")/lib.sh"

start_daemon
out=$dir/out
mkdir "$out"
make_folder "$dir/src" 'file: one' 'run*: two' 'sub/file: three' 'link@ file' 'empty:'
tree=$(dircache put "$dir/src")
other=$(make_tree 'other: four')
blob=$(printf one | sha256sum)
blob=${blob%% *}/3

materialize() {
	dircache materialize "$@"
}

# ---- what is there stays ----

mkdir "$out/full"
echo keep >"$out/full/kept"
check 'a folder with something in it is refused' exits 1 complains materialize "$tree" "$out/full"
check 'by name' says "full" exits 1 materialize "$tree" "$out/full"
check 'and untouched' prints kept ls -A "$out/full"
echo keep >"$out/file"
check 'a file at the target is refused' exits 1 complains materialize "$tree" "$out/file"
check 'and untouched' prints keep cat "$out/file"
mkdir "$out/pointed"
ln -s pointed "$out/symlink"
check 'a symlink to an empty folder is refused' exits 1 complains materialize "$tree" "$out/symlink"
check 'and untouched' prints pointed readlink "$out/symlink"
check 'what it points to is still empty' rmdir "$out/pointed"
check 'a dangling symlink is refused' exits 1 complains materialize "$tree" "$out/symlink"
check 'and leads nowhere still' absent "$out/pointed"
check 'a first tree appears' materialize "$tree" "$out/tree"
check 'another does not replace it' exits 1 complains materialize "$other" "$out/tree"
check 'it is whole still' same_tree "$dir/src" "$out/tree"
mkfifo "$out/fifo"
check 'a FIFO at the target is refused' exits 1 complains timeout 10 dircache materialize "$tree" "$out/fifo"

mkdir -m 700 "$out/void"
check 'an empty folder is replaced' materialize "$tree" "$out/void"
check 'by the whole tree' prints three cat "$out/void/sub/file"
check 'with its mode' mode_is 755 "$out/void"

check_fails 'a missing parent is an error' complains materialize "$tree" "$out/no/parent"
check 'and is not made' absent "$out/no"
check_fails 'a file for a parent is an error' complains materialize "$tree" "$out/file/below"
check 'the store is no place for a target' says 'is in the store' exits 1 materialize "$tree" "$store/tree"
check 'nor is a folder in it' says 'is in the store' exits 1 materialize "$tree" "$store/blobs/tree"
check 'nor for a file' says 'is in the store' exits 1 materialize --file "$blob" "$store/blobs/file"
check 'and nothing is there' absent "$store/tree" "$store/blobs/tree" "$store/blobs/file"
check_fails "'.' is no target" materialize "$tree" "$out/."
check_fails "'..' is no target" materialize "$tree" "$out/full/.."
check_fails "'/' is no target" materialize "$tree" /
check_fails 'no name at all is no target' materialize "$tree" ''
check_fails 'a name over 255 bytes is no target' materialize "$tree" "$out/$(printf '%0256d' 0)"
check 'a name of 255 bytes is one' materialize "$tree" "$out/$(printf '%0255d' 0)"
check 'a relative target is one' \
	eval '(cd "$out" && dircache materialize "$tree" relative) && test -d "$out/relative"'
ln -s "$out" "$dir/way"
check 'a symlink on the way is followed' materialize "$tree" "$dir/way/by"
check 'to where it leads' test -f "$out/by/sub/file"
check 'a name that is not UTF-8 is one' materialize "$tree" "$out/"$'\xff\xfe'
check 'a name with a newline is one' materialize "$tree" "$out/"$'new\nline'

# ---- what is absent ----

missing=$(printf '%064d/77' 1)
missing_too=$(printf '%064d/78' 2)
broken=$("${python[@]}" "$here/reapi.py" directory "$dir/broken" \
	file here "$blob" file gone "$missing" exec gone-too "$missing_too")
check 'a Directory that names absent blobs is stored as a blob' prints "$broken" dircache put "$dir/broken"
check 'the tree is refused: status 3' exits 3 complains materialize "$broken" "$out/broken"
check 'the first digest is named' says "$missing" exits 3 materialize "$broken" "$out/broken"
check 'the second too' says "$missing_too" exits 3 materialize "$broken" "$out/broken"
check 'nothing appeared' absent "$out/broken"
above=$("${python[@]}" "$here/reapi.py" directory "$dir/above" directory sub "$missing")
check 'a Directory that names an absent Directory is stored' prints "$above" dircache put "$dir/above"
check 'which is named as well' says "$missing" exits 3 materialize "$above" "$out/broken"
mkdir "$out/waiting"
check 'an empty folder at the target stays' exits 3 complains materialize "$broken" "$out/waiting"
check 'empty' rmdir "$out/waiting"
check_fails 'a blob that is no Directory is no tree' complains materialize "$blob" "$out/broken"
wrong=$("${python[@]}" "$here/reapi.py" directory "$dir/wrong" file a/b "$blob")
check 'a Directory with a name that holds a slash is a blob' prints "$wrong" dircache put "$dir/wrong"
check_fails 'but no tree' complains materialize "$wrong" "$out/broken"
up=$("${python[@]}" "$here/reapi.py" directory "$dir/up" directory .. "$other")
check 'one that names .. is a blob' prints "$up" dircache put "$dir/up"
check_fails 'but no tree' complains materialize "$up" "$out/broken"
lie=$("${python[@]}" "$here/reapi.py" directory "$dir/lie" file file "${blob%/*}/4")
check 'one that gives a blob another size is a blob' prints "$lie" dircache put "$dir/lie"
check_fails 'but no tree' complains materialize "$lie" "$out/broken"
check 'nothing appeared' absent "$out/broken"
check 'none of this was taken for tampering' counters_are tampered_blobs=0

# ---- files ----

check 'a file appears' materialize --file "$blob" "$out/one"
check 'as a link' same_inode "$out/one" "$(blob_path blobs "$blob")"
check 'with its mode' mode_is 444 "$out/one"
check 'an executable file appears' materialize --file --executable "$blob" "$out/two"
check 'as a link' same_inode "$out/two" "$(blob_path exec "$blob")"
check 'with its mode' mode_is 555 "$out/two"
check 'of the same bytes' prints one cat "$out/two"
check 'a file over a file is refused' exits 1 complains materialize --file "$blob" "$out/file"
check 'which is untouched' prints keep cat "$out/file"
check 'a file over a symlink is refused' exits 1 complains materialize --file "$blob" "$out/symlink"
check 'which leads nowhere still' absent "$out/pointed"
mkdir "$out/folder"
check 'a file over an empty folder is refused' exits 1 complains materialize --file "$blob" "$out/folder"
check 'which is still there' rmdir "$out/folder"
check 'an absent blob is no file: status 3' says "$missing" exits 3 materialize --file "$missing" "$out/gone"
check 'nothing appeared' absent "$out/gone"
nothing=$(digest_of /dev/null)
check 'the empty blob is known without being stored' materialize --file "$nothing" "$out/nothing"
check 'as an inode of its own' links_are 1 "$out/nothing"

# ---- another file system ----

if elsewhere=$(other_filesystem); then
	defer rm -rf "$elsewhere"
	check '--require-link fails on another file system' \
		exits 1 complains materialize --require-link "$tree" "$elsewhere/tree"
	check 'nothing appeared' prints '' ls -A "$elsewhere"
	check 'and --file as well' \
	exits 1 complains materialize --require-link --file "$blob" "$elsewhere/file"
	check 'nothing appeared' prints '' ls -A "$elsewhere"
	check '--require-link is content where links work' materialize --require-link "$tree" "$out/linked"
	counters_note
	warned=$(dircache materialize "$tree" "$elsewhere/tree" 2>&1 >/dev/null)
	report $? 'without it the tree is copied'
	check 'with a warning' matches "$warned" 'cop(y|ied)'
	check 'that says why' matches "$warned" 'file system|filesystem|cross-device|device'
	check 'and counts' counters_added files_copied=3 fallback_copies=3 files_linked=0 files_created=1
	check 'whole' same_tree "$out/linked" "$elsewhere/tree"
	check 'with the modes of a linked one' published_modes "$elsewhere/tree"
	check 'nothing is beside it' prints tree ls -A "$elsewhere"
	check '--json tells the same' says '"fallback"' exits 0 \
		dircache --json materialize "$tree" "$elsewhere/again"
	check 'a file is copied as well' materialize --file --executable "$blob" "$elsewhere/file"
	check 'with its mode' mode_is 555 "$elsewhere/file"
else
	skip 'a tree on another file system is copied' '/dev/shm is on the same one'
fi

check 'nothing is left beside the targets' no_litter "$out"
check 'nor in the store' eventually 5 no_records
check 'what appeared is as it was' prints three cat "$out/void/sub/file"
finish
