#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Links, reflinks, copies and writable trees, with the store on one file system and the target on another, for
# each two of ext4, XFS, btrfs and tmpfs: what is asked for is what is made, or the answer says why not.
#
# The whole story runs in a mount namespace of its own, so that no mount can stay behind; the images have lost
# their names by then.
if [ -z "${DIRCACHE_STORY_UNSHARED-}" ] && unshare -m true 2>/dev/null; then
	DIRCACHE_STORY_UNSHARED=1 exec unshare -m --propagation private bash "$0" "$@"
fi
STORY_SECONDS=400
. "$(dirname "$0")/lib.sh"

[ -n "${DIRCACHE_STORY_UNSHARED-}" ] || skip_story 'no mount namespace can be made here'

# A new file system of this type at $dir/TYPE.
make_filesystem() { # TYPE
	local memory=/dev/shm image
	[ -d /dev/shm ] || memory=$dir
	mkdir "$dir/$1"
	if [ "$1" = tmpfs ]; then
		mount -t tmpfs none "$dir/$1" && defer umount "$dir/$1"
		return
	fi
	image=$(mktemp "$memory/dc.XXXXXX")
	truncate -s 320M "$image"
	case $1 in
	xfs) mkfs.xfs -q -m reflink=1 "$image" ;;
	ext4) mkfs.ext4 -q "$image" ;;
	btrfs) mkfs.btrfs -q "$image" ;;
	esac >/dev/null 2>&1 && mount -t "$1" -o loop "$image" "$dir/$1" 2>/dev/null && defer umount "$dir/$1"
	set -- $?
	rm -f "$image"
	return "$1"
}

# Materialize, with these counts in the answer; with a REASON (a pattern) it fell back, else it did not.
makes() { # "LINKED REFLINKED COPIED" REASON|'' OPTION...
	local counts=$1 reason=$2 answer linked reflinked copied
	shift 2
	read -r linked reflinked copied <<<"$counts"
	answer=$(dircache --json materialize "$@" 2>"$notes/warning") || { cat "$notes/warning"; return 1; }
	echo "$answer"
	cat "$notes/warning"
	[[ $answer == *"\"files_linked\":$linked,\"files_copied\":$copied,\"files_reflinked\":$reflinked,"* ]] ||
		return
	if [ -n "$reason" ]; then
		matches "$answer" "\"fallback\":\"$reason\",\"fallback_copies\":$((reflinked + copied))" &&
			matches "$(<"$notes/warning")" "$((reflinked + copied)) files were .* rather than .*: $reason"
	else
		[[ $answer != *fallback* ]] && [ ! -s "$notes/warning" ]
	fi
}

# No file there shares its inode, but its bytes are those of $dir/src.
private_tree() { # FOLDER
	local shared
	shared=$(find "$1" -type f -links +1)
	[ -z "$shared" ] || { echo "$shared"; return 1; }
	same_tree "$dir/src" "$1"
}

one_time() { # FOLDER
	prints 1000000000 stat -c %Y "$1/a" &&
		prints 1 eval "find '$1' -type f -printf '%T@\n' | sort -u | wc -l"
}

shares_extents() { # FILE
	filefrag -v "$1" | grep -q shared
}

private_modes() { # FOLDER PLAIN EXECUTABLE
	mode_is "$2" "$1/a" "$1/sub/b" "$1/empty" && mode_is "$3" "$1/run" && mode_is 755 "$1" "$1/sub"
}

# Everything from a store on one file system, with the target on another or the same.
tell() { # STORE'S TARGET'S
	local from=$1 to=$2 name="$1 to $2" out=$dir/$2/out-$1 cross='' shares='0 0 3' no_reflinks=''
	[ "$from" = "$to" ] || cross='Invalid cross-device link'
	case $from,$to in
	xfs,xfs | btrfs,btrfs) shares='0 3 0' ;;
	*) no_reflinks="(Operation not supported${cross:+|$cross})" ;;
	esac
	mkdir "$out"
	counters_note
	if [ -n "$cross" ]; then
		check "$name: linking falls back to copies" makes "$shares" "$cross" "$tree" "$out/link"
		check "$name: which are private" private_tree "$out/link"
		check "$name: --require-link fails" says 'copies were not wanted' exits 1 \
			dircache materialize --require-link "$tree" "$out/not"
		check "$name: a file too" says 'copies were not wanted' exits 1 \
			dircache materialize --require-link --file "$blob" "$out/not"
		check "$name: with nothing left" prints link ls -A "$out"
		check "$name: and a file falls back" makes '0 0 1' "$cross" --file "$blob" "$out/file"
		check "$name: the counters agree" counters_added files_linked=0 files_copied=4 \
			files_reflinked=0 fallback_copies=4 errors=2
	else
		check "$name: links" makes '3 0 0' '' --require-link "$tree" "$out/link"
		check "$name: to the store's inodes" same_inode "$out/link/a" "$(blob_path blobs "$blob")"
		check "$name: of each kind" same_inode "$out/link/run" "$(blob_path exec "$blob")"
		check "$name: a file is a link" makes '1 0 0' '' --file "$blob" "$out/file"
		check "$name: the counters agree" counters_added files_linked=4 files_copied=0 \
			files_reflinked=0 fallback_copies=0 errors=0
	fi
	check "$name: its files have the usual modes" private_modes "$out/link" 444 555
	check "$name: and time" one_time "$out/link"

	counters_note
	check "$name: reflinks" makes "$shares" "$no_reflinks" --mode reflink "$tree" "$out/reflink"
	check "$name: are private" private_tree "$out/reflink"
	check "$name: with the usual modes" private_modes "$out/reflink" 444 555
	check "$name: and time" one_time "$out/reflink"
	if [ -z "$no_reflinks" ]; then
		check "$name: and share the bytes" shares_extents "$out/reflink/run"
		check "$name: a file is a reflink" makes '0 1 0' '' --mode reflink --file "$blob" "$out/file-2"
		check "$name: which is counted" counters_added files_reflinked=4 fallback_copies=0
	else
		check "$name: copies in their place are counted" counters_added files_copied=3 fallback_copies=3
	fi

	counters_note
	check "$name: copies" makes '0 0 3' '' --mode copy "$tree" "$out/copy"
	check "$name: are private" private_tree "$out/copy"
	check_fails "$name: with bytes of their own" shares_extents "$out/copy/run"
	check "$name: and the usual modes" private_modes "$out/copy" 444 555
	check "$name: and time" one_time "$out/copy"
	check "$name: a file is a copy" makes '0 0 1' '' --mode copy --file --executable "$blob" "$out/file-3"
	check "$name: with its mode" mode_is 555 "$out/file-3"
	check "$name: copies on request are no fallback" counters_added files_copied=4 fallback_copies=0

	check "$name: a writable tree" makes "$shares" '' --writable "$tree" "$out/writable"
	check "$name: is private" private_tree "$out/writable"
	check "$name: and may be written" private_modes "$out/writable" 644 755
	check "$name: a writable tree of copies" makes '0 0 3' '' --mode copy --writable "$tree" "$out/writable-2"
	check "$name: is so too" private_modes "$out/writable-2" 644 755
	check "$name: of reflinks too" makes "$shares" "$no_reflinks" \
		--mode reflink --writable "$tree" "$out/writable-3"
	printf changed >"$out/writable/a"
	check "$name: what is written there stays there" prints 5 eval "grep -alx hello '$out'/*/a | wc -l"
	check "$name: a writable file" dircache materialize --writable --file "$blob" "$out/file-4"
	check "$name: has its mode" mode_is 644 "$out/file-4"
	check "$name: nothing is left beside the targets" no_litter "$out"
	rm -rf "$out"
}

# More than a file system would keep in an inode.
make_folder "$dir/src" 'sub/' 'empty:'
(echo hello && head -c 100000 /dev/urandom) >"$dir/src/a"
cp "$dir/src/a" "$dir/src/run"
chmod 755 "$dir/src/run"
seq 30000 >"$dir/src/sub/b"
blob=$(digest_of "$dir/src/a")

present=()
for type in tmpfs ext4 xfs btrfs; do
	if make_filesystem "$type"; then
		present+=("$type")
	else
		skip "trees on $type" 'it cannot be made or mounted here'
	fi
done

for from in "${present[@]}"; do
	store=$dir/$from/store
	start_daemon
	tree=$(dircache put "$dir/src") || die 'put failed'
	for to in "${present[@]}"; do
		tell "$from" "$to"
	done
	check "$from: the daemon stops cleanly" stop_daemon
done

# Subvolumes of btrfs are file systems to link(2), and one to reflinks.
claim='btrfs: what cannot be linked into another subvolume is reflinked, and counted'
if [ -d "$dir/btrfs/store" ] && btrfs -q subvolume create "$dir/btrfs/sub" 2>/dev/null; then
	store=$dir/btrfs/store
	start_daemon
	counters_note
	check "$claim" makes '0 3 0' 'Invalid cross-device link' "$tree" "$dir/btrfs/sub/1"
	check 'btrfs: in the counters too' counters_added files_reflinked=3 files_copied=0 fallback_copies=3
	check 'btrfs: the tree is whole' private_tree "$dir/btrfs/sub/1"
else
	skip "$claim" 'no subvolume can be made here'
	start_daemon
fi

check 'a mode that is none is refused' exits 2 complains dircache materialize --mode hard "$tree" "$dir/not"
check '--require-link goes with links only' \
	exits 2 complains dircache materialize --mode copy --require-link "$tree" "$dir/not"
check 'and not with writable files' \
	exits 2 complains dircache materialize --writable --require-link "$tree" "$dir/not"
check 'nothing came of that' absent "$dir/not"
finish
