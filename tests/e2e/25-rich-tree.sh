#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Names, depths and widths: what a file system can hold comes back as it was.
. "$(dirname "$0")/lib.sh"

start_daemon
src=$dir/src
long=$(printf 'x%.0s' {1..255})
mkdir -p "$src/names" "$src/same" "$src/wide" "$src/none/of/these/has" "$src/none/files" "$dir/out"

printf 1 >"$src/names/$long"
mkdir "$src/names/${long/x/d}"
printf 2 >"$src/names/${long/x/d}/$long"
ln -s "$(printf 't%.0s' {1..4000})" "$src/names/long target"
for name in 'äöü ß' '日本語' '🦉' $'not utf-8 \xff\xfe' $'\xc3' $'\x80' $'new\nline' $'tab\there' $'bell\a' \
	'back\slash' 'quote"s' "it's" ' leading' 'trailing ' '-rf' '--' '...' '..a' '.hidden' \
	'*' '?' '$(x)' '%s' '~' $'\x7f' 'a:b'; do
	printf '%s' "$name" >"$src/names/$name"
	mkdir "$src/names/folder $name"
	ln -s -- "$name" "$src/names/link $name"
done
printf 'A' >"$src/names/Case"
printf 'a' >"$src/names/case"
printf '\0\1\2\377' >"$src/names/binary"

deep=$src/deep
for i in {1..100}; do
	deep=$deep/$i
done
mkdir -p "$deep"
echo bottom >"$deep/file"

echo 'the same bytes' >"$src/same/0"
for i in {1..499}; do
	cp "$src/same/0" "$src/same/$i"
done
(cd "$src/wide" && seq 20000 | split -l 1 -a 4 - f)
head -c 20000000 /dev/urandom >"$src/large"
truncate -s 5M "$src/sparse"

count() { # TEST...: of find
	find "$src" "$@" -printf . | wc -c
}

tree=$(dircache put "$src") || die 'put failed'
check 'a rich tree appears' dircache materialize "$tree" "$dir/out/rich"
check 'with every name, byte and x bit' same_tree "$src" "$dir/out/rich"
check 'with modes of a materialized tree' published_modes "$dir/out/rich"
check 'it was a hit' counters_are tree_hits=1 tree_misses=0
check 'each file is a link' \
	counters_are "files_linked=$(count -type f -size +0)" files_created=0 files_copied=0
check 'each folder was made' counters_are "directories_created=$(count -type d)"
check 'each symlink too' counters_are "symlinks_created=$(count -type l)"
check 'the same content 500 times is one inode' links_are 501 "$dir/out/rich/same/0"
check 'which is the one everywhere' same_inode "$dir/out/rich/same/0" "$dir/out/rich/same/499"
check 'put again, nothing is new' prints "$tree" dircache put "$src"
counters_note
check 'a second copy appears' dircache materialize "$tree" "$dir/out/second"
check 'and is the same' same_links "$dir/out/rich" "$dir/out/second"
check 'as a hit' counters_added tree_hits=1 tree_misses=0
check 'nothing is beside them' no_litter "$dir/out"
check 'and nothing failed' counters_are errors=0
finish
