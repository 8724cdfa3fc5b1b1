#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Another mount of the store's file system is no reason for copies: bind mounts, clients in mount namespaces of
# their own; for a daemon of root, which finds folders by their handles, and one of an ordinary user, which
# finds them by their paths.
#
# The whole story runs in a mount namespace of its own, so that no mount can stay behind.
if [ -z "${DIRCACHE_STORY_UNSHARED-}" ] && unshare -m true 2>/dev/null; then
	DIRCACHE_STORY_UNSHARED=1 exec unshare -m --propagation private bash "$0" "$@"
fi
. "$(dirname "$0")/lib.sh"

[ -n "${DIRCACHE_STORY_UNSHARED-}" ] || skip_story 'no mount namespace can be made here'
out=$dir/out
mkdir -p "$out/bound" "$out/ro" "$out/noexec" "$out/real/deep er"
mount --bind "$out/real" "$out/bound" || skip_story 'nothing can be mounted here'
defer umount "$out/bound"
mount -o bind,ro "$out/real" "$out/ro" || die 'no read-only bind mount'
defer umount "$out/ro"
mount -o bind,noexec,nosuid,nodev "$out/real" "$out/noexec" || die 'no bind mount without programs'
defer umount "$out/noexec"
make_folder "$dir/src" 'a: hello' 'run*: hello' 'sub/b: world' 'empty:'

# The client is run in a namespace of its own, in which this was done before.
with_mounts() { # SHELL COMMAND...
	local first=$1
	shift
	unshare -m --propagation private bash -c "$first || exit 99; exec \"\$@\"" - "${as[@]}" "$@"
}

# Materialize, with the word that the answer has for how many files were linked.
linked() { # N COMMAND...
	local n=$1
	shift
	says "\"files_linked\":$n," exits 0 "$@" --require-link
}

# Other mounts of the store's file system, each of which leads to "$out/real".
tell() { # WHO
	local real=$out/real
	tree=$("${as[@]}" dircache put "$dir/src") || die 'put failed'
	counters_note
	check "$1: by a bind mount files are links" \
		linked 3 "${as[@]}" dircache --json materialize "$tree" "$out/bound/1"
	check "$1: the tree is whole" same_tree "$dir/src" "$real/1"
	check "$1: a folder below it, with a blank in its name, is as good" \
		linked 3 "${as[@]}" dircache --json materialize "$tree" "$out/bound/deep er/1"
	check "$1: a single file is a link" \
		linked 1 "${as[@]}" dircache --json materialize --file "$blob_digest" "$out/bound/file"
	check "$1: a client in a mount namespace of its own gets links" \
		linked 3 with_mounts true dircache --json materialize "$tree" "$real/2"
	check "$1: and by a bind mount that both see" \
		linked 3 with_mounts true dircache --json materialize "$tree" "$out/bound/deep er/2"
	check "$1: all of them share their inodes" same_inode "$real"/{1,2,deep\ er/1,deep\ er/2}/a "$real/file"
	check "$1: no file was copied" counters_added files_linked=13 files_copied=0 files_reflinked=0 \
		fallback_copies=0 errors=0

	check "$1: a read-only bind mount is refused" \
		says 'Read-only file system' exits 1 "${as[@]}" dircache materialize "$tree" "$out/ro/3"
	check "$1: for a file too" says 'Read-only file system' exits 1 \
		"${as[@]}" dircache materialize --file "$blob_digest" "$out/ro/3"
	check "$1: and where only the client sees it so" says 'Read-only file system' exits 1 with_mounts \
		"mount -o bind,ro '$real' '$real'" dircache materialize "$tree" "$real/3"
	check "$1: nothing was written through it" absent "$real/3"
	check "$1: by one that runs no programs files are links all the same" \
		linked 3 "${as[@]}" dircache --json materialize "$tree" "$out/noexec/8"
	check "$1: which it does not run" says 'Permission denied' exits 126 "$out/noexec/8/run"
	check "$1: a tree is removed by it" "${as[@]}" dircache remove "$out/noexec/8"
	check "$1: what the client has mounted at the target is refused" says 'is a mount point' exits 1 \
		with_mounts "mkdir '$real/mounted' && mount --bind '$dir/src/sub' '$real/mounted'" \
		dircache materialize "$tree" "$real/mounted"
	check "$1: and is as it was" prints '' ls -A "$real/mounted"
	check "$1: a client's own tmpfs gets copies, and the reason" \
		says 'Invalid cross-device link' exits 0 \
		with_mounts "mount -t tmpfs none '$real' && chmod 1777 '$real'" \
		dircache --json materialize "$tree" "$real/4"
	check "$1: which nobody else sees" absent "$real/4"
	check "$1: nothing is left beside the targets" no_litter "$out"

	check "$1: a tree is removed by a bind mount" "${as[@]}" dircache remove "$out/bound/deep er/1"
	check "$1: it is gone" absent "$real/deep er/1"
	check "$1: what the client has mounted is not removed" says 'is a mount point' exits 1 with_mounts \
		"mount --bind '$dir/src/sub' '$real/2'" dircache remove "$real/2"
	check "$1: and what is below it is as it was" same_tree "$dir/src" "$real/2"
}

blob_digest=$(digest_of "$dir/src/a")
as=()
start_daemon
tell root
tree=$(dircache put "$dir/src")
check 'root: a bind mount that only the client sees is found by its handle' linked 3 \
	with_mounts "mount --bind '$out/real' '$dir/src'" dircache --json materialize "$tree" "$dir/src/5"
check 'root: the tree is where it leads to' test -f "$out/real/5/a"
check 'root: the inside of the store is not removed by such a one' says 'is the store' exits 1 \
	with_mounts "mount --bind '$store/blobs' '$dir/src'" dircache remove "$dir/src/${blob_digest:0:2}"
check 'root: and is still there' test -f "$(blob_path blobs "$blob_digest")"
check 'the daemon of root stops' stop_daemon

# ---- as an ordinary user ----

chmod 711 "$dir"
mkdir "$dir/n"
chown 65534:65534 "$dir/n" "$out" "$out"/real{,/deep\ er}
if nobody_can "$dir/n"; then
	rm -rf "$out/real/"{1,2,5,file,deep\ er/2,mounted}
	as=("${as_nobody[@]}")
	daemon_as=("${as_nobody[@]}")
	store=$dir/n/store
	socket=$dir/n/s
	export DIRCACHE_SOCKET=$socket
	start_daemon
	tell nobody
	check 'nobody: a bind mount that only the client sees gets copies' says '"files_linked":0,' exits 0 \
		with_mounts "mount --bind '$out/real' '$dir/src'" \
		dircache --json materialize "$tree" "$dir/src/5"
	check 'nobody: the tree is whole' test -f "$out/real/5/a"
	check 'nobody: the warning says what kind of place that is' \
		says "another mount of the store's file system" exits 0 \
		with_mounts "mount --bind '$out/real' '$dir/src'" dircache materialize "$tree" "$dir/src/6"
	check 'nobody: --require-link is refused there' \
		says "another mount of the store's file system" exits 1 \
		with_mounts "mount --bind '$out/real' '$dir/src'" \
		dircache materialize --require-link "$tree" "$dir/src/7"
	check 'nobody: with nothing left' absent "$out/real/7"
	check 'nobody: nor beside it' no_litter "$out"
else
	skip 'a daemon of an ordinary user' 'nobody cannot run the programs'
fi

finish
