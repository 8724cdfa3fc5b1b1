#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A tree is put once and materialized twice: hard links, modes, private empty files, and the counters.
. "$(dirname "$0")/lib.sh"

umask 077
start_daemon

src=$dir/src
make_folder "$src" 'plain: hello' 'again: hello' 'run*: hello' 'sub/plain: hello' 'sub/run*: hello' \
	'sub/deep/other: bye' 'empty:' 'sub/empty:' 'empty-run*:' 'nothing/' \
	'dangling@ nowhere/at all' 'absolute@ /etc/passwd' 'sub/up@ ../plain' 'self@ .' 'sub/folder@ deep'
chmod 600 "$src/plain"
chmod 700 "$src/run"
chmod 4755 "$src/sub/run" 2>/dev/null

put=$(dircache put "$src")
check 'put prints one digest' matches "$put" '^[0-9a-f]{64}/[0-9]+$'
check 'put is no request for a tree' \
	counters_are tree_hits=0 tree_misses=0 tree_constructions=0 tree_joins=0 trees=1
check 'put counts files and their bytes' counters_are put_files=9 put_bytes=28
check 'put made no file' counters_are files_linked=0 files_created=0 directories_created=0 symlinks_created=0

mkdir "$dir/out"
check 'a tree appears whole' dircache materialize "$put" "$dir/out/one"
check 'it is what was put' same_tree "$src" "$dir/out/one"
check 'which was a hit' counters_are tree_hits=1 tree_misses=0 tree_joins=0 tree_constructions=0
check 'files are links, empty ones are made' \
	counters_are files_linked=6 files_created=3 files_copied=0 files_reflinked=0 fallback_copies=0
check 'folders and symlinks are counted' counters_are directories_created=4 symlinks_created=5
check 'a second one appears' dircache materialize "$put" "$dir/out/two"
check 'it is the same' same_tree "$src" "$dir/out/two"
check 'which was a hit too' counters_are tree_hits=2 tree_misses=0 tree_joins=0 tree_constructions=0
check 'counters went on' \
	counters_are files_linked=12 files_created=6 directories_created=8 symlinks_created=10

plain=$(printf hello | sha256sum)
plain=${plain%% *}/5
in_blobs=$(blob_path blobs "$plain")
in_exec=$(blob_path exec "$plain")
one=$dir/out/one
two=$dir/out/two
check 'one digest, one inode: in a tree, in all trees, in the store' \
	same_inode "$one/plain" "$one/again" "$one/sub/plain" "$two/plain" "$two/sub/plain" "$in_blobs"
check 'its executable twin is one inode everywhere too' \
	same_inode "$one/run" "$one/sub/run" "$two/run" "$two/sub/run" "$in_exec"
check 'but another' own_inodes "$one/plain" "$one/run"
check 'links are all there is: the plain inode' links_are 7 "$in_blobs"
check 'and the executable one' links_are 5 "$in_exec"
check 'empty files have inodes of their own' \
	own_inodes "$one/empty" "$one/sub/empty" "$one/empty-run" \
	"$two/empty" "$two/sub/empty" "$two/empty-run"
check 'shared with nobody' links_are 1 "$one/empty"
check 'what was put keeps its own inode' own_inodes "$src/plain" "$one/plain"

check 'plain files are 0444 whatever the umask' \
	mode_is 444 "$one/plain" "$one/sub/deep/other" "$one/empty" "$one/sub/empty"
check 'executables are 0555, without the set-user-id bit' \
	mode_is 555 "$one/run" "$one/sub/run" "$one/empty-run"
check 'folders are 0755 whatever the umask' mode_is 755 "$one" "$one/sub" "$one/sub/deep" "$one/nothing"
check 'the source keeps its modes' mode_is 600 "$src/plain"

check 'a dangling symlink is verbatim' prints 'nowhere/at all' readlink "$one/dangling"
check 'an absolute one is' prints /etc/passwd readlink "$one/absolute"
check 'one to the parent is' prints ../plain readlink "$two/sub/up"
check 'one to a folder is not followed' prints deep readlink "$two/sub/folder"

mtimes=$(find "$one" "$two" -type f -printf '%T@\n' | sort -u)
check 'all files have one modification time' prints 1 wc -l <<<"$mtimes"
check 'with odd nanoseconds' matches "$mtimes" '\.[0-9]{8}[13579]0$'

check 'putting it again gives the same digest' prints "$put" dircache put "$src"
check 'and changes no level' counters_are trees=1
check 'putting what was materialized gives the same digest' prints "$put" dircache put "$one"
check 'neither counts as a request for a tree' counters_are tree_hits=2 tree_misses=0 tree_constructions=0
counters_note
check 'a subtree is cached by its own digest' \
	dircache materialize "$(dircache put "$src/sub")" "$dir/out/three"
check 'and is a hit' counters_added tree_hits=1 tree_misses=0 files_linked=3 files_created=1
check 'it is the subtree' same_tree "$src/sub" "$dir/out/three"

counters_note
empty=$(make_tree './')
check 'the empty tree can be put and materialized' dircache materialize "$empty" "$dir/out/empty"
check 'and is a folder' prints '755 directory' stat -c '%a %F' "$dir/out/empty"
check 'with nothing in it' rmdir "$dir/out/empty"
check 'made of one folder' counters_added directories_created=1 files_created=0 files_linked=0

check 'deleting a materialized tree leaves the store alone' rm -r "$two"
check 'the store serves on' dircache materialize "$put" "$two"
check 'the same' same_tree "$src" "$two"
check 'nothing else is beside the targets' no_litter "$dir/out"
check 'and nothing failed' counters_are errors=0
finish
