#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What can be asked: ls, cat, has, tags, trees and stats, as text and as JSON.
. "$(dirname "$0")/lib.sh"

start_daemon
src=$dir/src
make_folder "$src" 'plain: hello' 'run*: hello!' 'link@ some where' 'sub/deep/file: deep' \
	'sub/b: bb' 'sub/a: a' 'empty:'
tree=$(dircache put "$src") || die 'put failed'
sub=$("${python[@]}" "$here/reapi.py" digest "$src/sub")
deep=$("${python[@]}" "$here/reapi.py" digest "$src/sub/deep")
hello=$(digest_of "$src/plain")
absent_one=$(printf '%064d/1' 1)
absent_two=$(printf '%064d/2' 2)

# Columns with one space between them.
squeezed() {
	"$@" | sed 's/  */ /g'
}

# ---- ls ----

nothing=$(digest_of /dev/null)
check 'ls lists files, directories, symlinks: mode, size, digest, name' prints "\
-r--r--r-- 0 $nothing empty
-r--r--r-- 5 $hello plain
-r-xr-xr-x 6 $(digest_of "$src/run") run
drwxr-xr-x ${sub#*/} $sub sub
lrwxrwxrwx 10 - link -> some where" squeezed dircache ls "$tree"
check 'ls of a path lists what is there' prints "\
-r--r--r-- 1 $(digest_of "$src/sub/a") a
-r--r--r-- 2 $(digest_of "$src/sub/b") b
drwxr-xr-x ${deep#*/} $deep deep" squeezed dircache ls "$tree" sub
check 'as does ls of its digest' prints "$(dircache ls "$tree" sub)" dircache ls "$sub"
check 'ls of a file is that entry' prints "-r--r--r-- 4 $(digest_of "$src/sub/deep/file") file" \
	squeezed dircache ls "$tree" sub/deep/file
check 'as is ls of a symlink' prints 'lrwxrwxrwx 10 - link -> some where' squeezed dircache ls "$tree" link
check 'slashes around names do not matter' prints "$(dircache ls "$tree" sub/deep)" dircache ls "$tree" //sub///deep/
check 'ls -R lists everything, by path' \
	prints $'empty\nlink\nplain\nrun\nsub\nsub/a\nsub/b\nsub/deep\nsub/deep/file' \
	eval 'squeezed dircache ls -R "$tree" | sed "s/ ->.*//" | cut -d" " -f4- | LC_ALL=C sort'
check 'ls -R below a path too' prints $'sub/deep\nsub/deep/file' \
	eval 'squeezed dircache ls -R "$tree" sub | cut -d" " -f4- | grep deep'
check 'ls of a path that is not there: status 3, by name' says sub/none exits 3 dircache ls "$tree" sub/none
check 'ls of a path below a file: status 3' exits 3 complains dircache ls "$tree" plain/none
check 'a symlink on the way is not followed' exits 3 complains dircache ls "$tree" link/none

printf x >"$src/new"$'\n'"line"
printf x >"$src/"$'\xff\xfe'
printf x >"$src/quo\"te\\"
odd=$(dircache put "$src") || die 'put failed'
listed_z() {
	dircache ls -z "$odd" | LC_ALL=C sed -z 's/^[^ ]* *[0-9]* [^ ]* //' | LC_ALL=C sort -z | tr '\0' '|'
}
there_z() {
	(cd "$src" && find . -mindepth 1 -maxdepth 1 -printf '%P\0' | LC_ALL=C sort -z | tr '\0' '|')
}
check 'ls -z prints names raw, with NUL behind each: every name can be read back' prints "$(there_z)" listed_z
json_names() {
	dircache --json ls "$odd" | "${python[@]}" -c '
import json, os, sys
listing = json.loads(sys.stdin.buffer.read().decode("utf-8"))
names = {entry["name"].encode("utf-8", "surrogateescape") for entry in listing["entries"]}
sys.exit(names != set(os.listdir(os.fsencode(sys.argv[1]))))' "$src"
}
check 'from JSON too' json_names
is_json() {
	"$@" >"$dir/json" && "${python[@]}" -c 'import json, sys; json.load(open(sys.argv[1]))' "$dir/json"
}
check 'ls -R --json is JSON' is_json dircache --json ls -R "$odd"
mkdir "$dir/wide"
(cd "$dir/wide" && seq 5000 | split -l 1 -a 4 - f)
wide=$(dircache put "$dir/wide") || die 'put failed'
check 'ls of 5,000 entries lists them all' prints 5000 eval 'dircache ls "$wide" | sort -u | wc -l'
check 'as JSON too' prints 5000 eval 'dircache --json ls "$wide" | grep -o "\"name\":" | wc -l'

# ---- cat, has ----

check 'cat prints a blob' prints hello dircache cat "$hello"
head -c 3000000 /dev/urandom >"$dir/large"
check 'byte by byte' eval 'dircache cat "$(dircache put "$dir/large")" | cmp - "$dir/large"'
check 'the empty blob too' prints '' dircache cat "$nothing"
check 'a Directory is a blob' \
	prints "$tree" eval 'dircache cat "$tree" >"$dir/message"; digest_of "$dir/message"'
check 'has is silent where all is there' prints '' dircache has "$hello" "$tree" "$nothing"
check 'has prints what is missing: status 3' \
	prints "$absent_one"$'\n'"$absent_two" \
	eval 'exits 3 dircache has "$absent_one" "$hello" "$absent_two"'
check 'has --json is JSON' eval 'dircache --json has "$hello" "$absent_one" >"$dir/json"; [ $? = 3 ] &&
	prints "{\"missing\":[\"$absent_one\"]}" cat "$dir/json"'
check 'has --tree is content with a whole tree' prints '' dircache has --tree "$tree" "$sub"
broken=$("${python[@]}" "$here/reapi.py" directory "$dir/broken" file gone "$absent_one" file here "$hello")
dircache put "$dir/broken" >/dev/null
check 'a Directory whose file is missing is there as a blob' dircache has "$broken"
check 'but not as a tree' prints "$absent_one" eval 'exits 3 dircache has --tree "$broken"'

# ---- tags ----

check 'no tags, no lines' prints '' dircache tags
check 'a tag is set' dircache tag v1.0/release "$tree"
check 'a blob can have one' dircache tag a-file "$hello"
check 'tags are listed by name' prints "a-file $hello"$'\n'"v1.0/release $tree" squeezed dircache tags
check 'as JSON too' is_json dircache --json tags
check 'a tag stands for its tree in ls' prints "$(dircache ls "$tree")" dircache ls v1.0/release
check 'a tag moves' dircache tag v1.0/release "$sub"
check 'to another tree' prints "$(dircache ls "$sub")" dircache ls v1.0/release
check 'a tag for what is not here: status 3, by name' says "$absent_one" exits 3 dircache tag t "$absent_one"
check_fails 'a digest is no name for a tag' dircache tag "$tree" "$tree"
check 'a tag is deleted' dircache tag -d a-file
check 'and gone' exits 3 complains dircache ls a-file
check 'deleting it again: status 3' exits 3 complains dircache tag -d a-file

# ---- trees ----

listed_trees() {
	dircache trees | tail -n +2 | cut -d' ' -f1
}
check 'trees are in order of their last use, put or tag' \
	prints "$sub"$'\n'"$wide"$'\n'"$odd"$'\n'"$tree" listed_trees
check 'a tree is used' dircache materialize "$tree" "$dir/out"
check 'and comes first' prints "$tree"$'\n'"$sub"$'\n'"$wide"$'\n'"$odd" listed_trees
check 'putting one again is a use' dircache put "$dir/wide"
check 'too' prints "$wide"$'\n'"$tree"$'\n'"$sub"$'\n'"$odd" listed_trees
check 'trees --json is JSON' is_json dircache --json trees
check 'with totals and hits' \
	says '"files":6,"directories":3,"symlinks":1,"bytes":18,"hits":1' exits 0 dircache --json trees

# ---- stats ----

names=(tree_hits tree_misses tree_constructions tree_joins directory_hits directory_misses blobs blob_bytes
	allocated_bytes trees tags files_linked files_copied files_reflinked files_created directories_created
	symlinks_created fallback_copies inode_rotations tampered_blobs healed_blobs evicted_trees
	evicted_blobs evicted_bytes blob_fetches blob_fetch_joins fetched_bytes put_files put_bytes
	requests requests_active connections errors uptime_seconds)
flat_numbers() {
	dircache --json stats | "${python[@]}" -c '
import json, sys
stats = json.load(sys.stdin)
missing = [name for name in sys.argv[1:] if name not in stats]
odd = [name for name, value in stats.items() if type(value) is not int or value < 0]
print("missing", missing, "odd", odd)
sys.exit(bool(missing or odd))' "${names[@]}"
}
check 'stats --json is one flat object of numbers, with every counter' flat_numbers
table_has_all() {
	local name
	dircache stats >"$dir/table"
	for name in "${names[@]}"; do
		grep -Eq "^$name +[0-9]+$" "$dir/table" || { echo "no $name"; return 1; }
	done
}
check 'so does the table' table_has_all
check 'blobs take space on the disk' eval '[ "$(counter allocated_bytes)" -ge "$(counter blob_bytes)" ]'
stored_names() {
	find "$store/blobs" "$store/exec" -type f -printf '%f\n' | sort -u
}
check 'and are as many as files there' counters_are "blobs=$(stored_names | wc -l)"
counters_note
check_fails 'a request fails' dircache cat "$absent_one"
check 'which counts as a request and an error' counters_added errors=1 requests=2
finish
