#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A real tree: ten thousand files of this machine's own.
. "$(dirname "$0")/lib.sh"

wanted=10000
most_kb=$((200 * 1024))
src=$dir/src
mkdir "$src" "$dir/out"

# Copy folders of /usr, one by one, until there are enough files; none that is huge.
collect() {
	local part files=0 kb=0 n size
	for part in /usr/bin /usr/include/* /usr/lib/python3*/* /usr/share/*/* /usr/share/*; do
		[ -d "$part" ] && [ ! -L "$part" ] || continue
		n=$(find "$part" -type f 2>/dev/null | head -n 4001 | wc -l)
		[ "$n" -gt 20 ] && [ "$n" -le 4000 ] || continue
		size=$(du -sk "$part" 2>/dev/null | cut -f1)
		[ "$size" -le 61440 ] && [ $((kb + size)) -le "$most_kb" ] || continue
		[ ! -e "$src$part" ] || continue
		mkdir -p "$src${part%/*}"
		cp -a --no-preserve=ownership "$part" "$src${part%/*}/" 2>/dev/null
		files=$((files + n))
		kb=$((kb + size))
		[ "$files" -lt "$wanted" ] || return 0
	done
}

collect
find "$src" ! -type f ! -type d ! -type l -delete
find "$src" -type f ! -readable -delete
files=$(find "$src" -type f | wc -l)
[ "$files" -ge "$wanted" ] || skip_story "only $files files in /usr"

start_daemon
echo "# $files files, $(du -sk "$src" | cut -f1) KiB"
tree=$(dircache put "$src") || die 'put failed'
check 'put read every file' counters_are "put_files=$files" trees=1
check 'a real tree appears' dircache materialize "$tree" "$dir/out/one"
check 'with every byte and x bit' same_tree "$src" "$dir/out/one"
check 'with modes of a materialized tree' published_modes "$dir/out/one"
check 'it was a hit' counters_are tree_hits=1 tree_misses=0 tree_constructions=0
check 'every file but empty ones is a link' counters_are \
	"files_linked=$(find "$src" -type f -size +0 | wc -l)" \
	"files_created=$(find "$src" -type f -size 0 | wc -l)"
counters_note
disk=$(find "$store/blobs" "$store/exec" -type f | wc -l)
check 'put again, it has the same digest' prints "$tree" dircache put "$src"
check 'and nothing new in the store' counters_added blobs=0 blob_bytes=0 trees=0
check 'nor on the disk' prints "$disk" eval 'find "$store/blobs" "$store/exec" -type f | wc -l'
check 'a second copy appears' dircache materialize "$tree" "$dir/out/two"
check 'the same' same_links "$dir/out/one" "$dir/out/two"

echo changed >>"$src/usr/one more file"
counters_note
changed=$(dircache put "$src") || die 'put failed'
check 'one more file makes another tree' [ "$changed" != "$tree" ]
check 'of few new blobs: the file, the folder and the root' counters_added blobs=3 trees=1
check 'it appears' dircache materialize "$changed" "$dir/out/three"
check 'whole' same_tree "$src" "$dir/out/three"
check 'nothing is beside them' no_litter "$dir/out"
check 'and nothing failed' counters_are errors=0
finish
